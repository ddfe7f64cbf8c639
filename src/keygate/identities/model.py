"""Who acts, and what a role may do. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    OWNER = "owner"  # everything, owners and the master key included
    ADMIN = "admin"  # everything but owners
    DEVELOPER = "developer"  # their own keys and usage only
    VIEWER = "viewer"  # reads everything, changes nothing


class ActorKind(StrEnum):
    USER = "user"  # signed in with a password
    API_TOKEN = "api_token"
    SYSTEM = "system"  # the worker, the first start
    OPERATOR = "operator"  # a command on the data directory itself


@dataclass(frozen=True, slots=True)
class Actor:
    """On whose behalf something is done. Every use case takes one, and the audit log records it."""

    kind: ActorKind
    id: str  # usr_…, tok_…, `system`, `operator`
    organization_id: str
    role: Role
    scopes: frozenset[str] | None = None  # permissions of an API token; None: all that the role has
    developer_id: str | None = None  # whose keys are "their own"
    address: str | None = None  # network address of the caller
    request_id: str | None = None
