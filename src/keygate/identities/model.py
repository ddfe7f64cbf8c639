"""Who acts, what a role may do, and who keys belong to. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from keygate.kit.secret import Secret


class Role(StrEnum):
    OWNER = "owner"  # everything, owners included
    ADMIN = "admin"  # everything but owners
    DEVELOPER = "developer"  # their own keys and usage only
    VIEWER = "viewer"  # reads everything, changes nothing


class ActorKind(StrEnum):
    USER = "user"  # signed in with a password
    API_TOKEN = "api_token"  # noqa: S105  (a kind, not a secret)
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
    user_id: str | None = None  # the person behind a session or a token
    session_id: str | None = None  # ses_… of the access token in use

    @property
    def only_own(self) -> bool:
        """True where what others own must look absent to this actor."""
        return self.role is Role.DEVELOPER


def system_actor(organization_id: str) -> Actor:
    """What KeyGate does by itself: the first start, the worker."""
    return Actor(kind=ActorKind.SYSTEM, id="system", organization_id=organization_id, role=Role.OWNER)


def operator_actor(organization_id: str) -> Actor:
    """A command on the data directory itself."""
    return Actor(kind=ActorKind.OPERATOR, id="operator", organization_id=organization_id, role=Role.OWNER)


class Members(StrEnum):
    """What becomes of a team's active developers when it is archived."""

    DEACTIVATE = "deactivate"  # they end with it, and its apps and theirs, with every key of all of them
    DETACH = "detach"  # they stay without a team, with their keys and apps


class Status(StrEnum):
    ACTIVE = "active"
    DEACTIVATED = "deactivated"


@dataclass(frozen=True, slots=True)
class Organization:
    id: str  # org_…
    name: str
    time_zone: str  # IANA; calendar windows of budgets
    policy_id: str | None
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class Team:
    id: str  # team_…
    organization_id: str
    name: str  # unique among the teams that are not archived
    policy_id: str | None
    created_at_ns: int
    archived_at_ns: int | None = None

    @property
    def active(self) -> bool:
        return self.archived_at_ns is None


@dataclass(frozen=True, slots=True)
class Developer:
    id: str  # dev_…
    organization_id: str
    name: str
    email: str  # lower case, unique in the organisation
    team_id: str | None
    policy_id: str | None
    status: Status
    created_at_ns: int
    deactivated_at_ns: int | None = None

    @property
    def active(self) -> bool:
        return self.status is Status.ACTIVE


@dataclass(frozen=True, slots=True)
class App:
    """A service or CI job. It may belong to a team, or to a developer who answers for it."""

    id: str  # app_…
    organization_id: str
    name: str
    team_id: str | None
    developer_id: str | None
    policy_id: str | None
    status: Status
    created_at_ns: int
    deactivated_at_ns: int | None = None

    @property
    def active(self) -> bool:
        return self.status is Status.ACTIVE


@dataclass(frozen=True, slots=True)
class User:
    """A person who may sign in. One of role `developer` is linked to the developer record that keys belong to."""

    id: str  # usr_…
    organization_id: str
    email: str  # lower case, unique in this KeyGate
    name: str
    role: Role
    developer_id: str | None
    status: Status
    created_at_ns: int
    last_login_at_ns: int | None = None

    @property
    def active(self) -> bool:
        return self.status is Status.ACTIVE


@dataclass(frozen=True, slots=True)
class ApiToken:
    """What is shown of an API token; the token itself is known to its holder only."""

    id: str  # tok_…
    organization_id: str
    user_id: str
    name: str
    hint: str
    scopes: frozenset[str]
    created_at_ns: int
    expires_at_ns: int | None
    revoked_at_ns: int | None
    last_used_at_ns: int | None

    def usable(self, now_ns: int) -> bool:
        return self.revoked_at_ns is None and (self.expires_at_ns is None or now_ns < self.expires_at_ns)


def actor_of(
    user: User, token: ApiToken | None = None, *, address: str | None = None, request_id: str | None = None, session_id: str | None = None
) -> Actor:
    """A person with their own rights, or with those that they gave to their API token."""
    return Actor(
        kind=ActorKind.USER if token is None else ActorKind.API_TOKEN,
        id=user.id if token is None else token.id,
        organization_id=user.organization_id,
        role=user.role,
        scopes=None if token is None else token.scopes,
        developer_id=user.developer_id,
        address=address,
        request_id=request_id,
        user_id=user.id,
        session_id=session_id,
    )


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in. `token` is told once, in the answer to the log-in."""

    id: str  # ses_…
    token: Secret
    expires_at_ns: int
    expires_in: int  # seconds
