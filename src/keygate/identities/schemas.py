"""Identities on the wire."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from keygate.identities.model import Role, Status
from keygate.kit.clock import rfc3339
from keygate.kit.routes import Id, Instant, Name, Schema

_EMAIL = r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$"


def _address(value: str) -> str:
    if not re.match(_EMAIL.replace("$", r"\Z"), value):
        raise ValueError("this is no e-mail address")
    return value


Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=254),
    AfterValidator(_address),
    Field(json_schema_extra={"minLength": 3, "pattern": _EMAIL}),
]
NewPassword = Annotated[SecretStr, Field(min_length=12, max_length=200, description="12 to 200 characters")]
AnyPassword = Annotated[SecretStr, Field(min_length=1, max_length=200)]
Scope = Annotated[str, StringConstraints(min_length=3, max_length=60, pattern=r"^[a-z_]+\.[a-z_]+$")]


def stamp(instant: int) -> str:
    return rfc3339(instant) or ""


class LoginBody(Schema):
    email: Annotated[str, Field(max_length=254)]
    password: AnyPassword


class AccessToken(Schema):
    access_token: str
    token_type: str = "bearer"  # noqa: S105  (the type, RFC 6750)
    expires_in: int = Field(description="Seconds")


class Me(Schema):
    id: str
    kind: str
    organization_id: str
    role: Role
    email: str | None
    name: str | None
    developer_id: str | None
    permissions: list[str]


class PasswordChange(Schema):
    current_password: AnyPassword
    password: NewPassword


class OrganizationView(Schema):
    id: str
    name: str
    time_zone: str
    policy_id: str | None
    created_at: str


class OrganizationChange(Schema):
    name: Name | None = None
    time_zone: Annotated[str | None, Field(max_length=64)] = None
    policy_id: Id | None = None


class TeamBody(Schema):
    name: Name
    policy_id: Id | None = None


class TeamChange(Schema):
    name: Name | None = None
    policy_id: Id | None = None


class TeamView(Schema):
    id: str
    name: str
    policy_id: str | None
    created_at: str
    archived_at: str | None


class DeveloperBody(Schema):
    name: Name
    email: Email
    team_id: Id | None = None
    policy_id: Id | None = None


class DeveloperChange(Schema):
    name: Name | None = None
    email: Email | None = None
    team_id: Id | None = None
    policy_id: Id | None = None


class DeveloperView(Schema):
    id: str
    name: str
    email: str
    team_id: str | None
    policy_id: str | None
    status: Status
    created_at: str
    deactivated_at: str | None


class AppBody(Schema):
    name: Name
    team_id: Id | None = None
    developer_id: Id | None = None
    policy_id: Id | None = None


class AppChange(Schema):
    name: Name | None = None
    team_id: Id | None = None
    developer_id: Id | None = None
    policy_id: Id | None = None


class AppView(Schema):
    id: str
    name: str
    team_id: str | None
    developer_id: str | None
    policy_id: str | None
    status: Status
    created_at: str
    deactivated_at: str | None


class UserBody(Schema):
    email: Email
    name: Name
    role: Role
    password: NewPassword
    developer_id: Id | None = None


class UserChange(Schema):
    name: Name | None = None
    role: Role | None = None
    developer_id: Id | None = None
    status: Status | None = None


class PasswordBody(Schema):
    password: NewPassword


class UserView(Schema):
    id: str
    email: str
    name: str
    role: Role
    developer_id: str | None
    status: Status
    created_at: str
    last_login_at: str | None


class ApiTokenBody(Schema):
    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=100)]
    expires_at: Instant | None = None


class ApiTokenView(Schema):
    id: str
    user_id: str
    name: str
    hint: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class NewApiToken(ApiTokenView):
    token: str = Field(description="The token itself, this once")
