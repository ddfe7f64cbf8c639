"""A key as the gateway sees it: everything that decides about a request, compiled into frozen values.

The control plane compiles a `KeyState` from a key, its owner chain and their policies, limits and budgets; the gateway only
reads it. Pure: standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """Where a rule, limit or budget sits. The first five nest; the last three stand beside them."""

    ORGANIZATION = "organization"
    TEAM = "team"
    DEVELOPER = "developer"
    APP = "app"
    KEY = "key"
    VENDOR = "vendor"
    MODEL = "model"
    TAG = "tag"


class KeyStatus(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"
    OWNER_INACTIVE = "owner_inactive"  # its developer, app or team is deactivated or archived


class Period(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    LIFETIME = "lifetime"


class BudgetMode(StrEnum):
    HARD = "hard"
    SOFT = "soft"


class LimitKind(StrEnum):
    """Names as on the wire (`limits{…}` of a virtual key)."""

    REQUESTS_PER_MINUTE = "requests_per_minute"
    REQUESTS_PER_DAY = "requests_per_day"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    TOKENS_PER_DAY = "tokens_per_day"
    CONCURRENT_REQUESTS = "concurrent_requests"


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """One budget that applies to a key. `selector` narrows vendor, model and tag budgets: `openai`, `anthropic/claude-opus-*`,
    `project=x`; a budget of a nesting scope has none. Windows are calendar windows in `time_zone` (IANA), or, with `rolling`, that
    long back from now."""

    id: str
    scope: Scope
    scope_id: str  # org_…, team_…, dev_…, app_…, vk_…; for vendor, model and tag budgets the organisation's id
    selector: str | None
    period: Period
    mode: BudgetMode
    amount_nano: int
    time_zone: str = "UTC"
    rolling: bool = False
    starts_at_ns: int = 0  # spend before this instant does not count
    thresholds: tuple[int, ...] = ()  # per cent of the amount; crossing one raises an event once per window


@dataclass(frozen=True, slots=True)
class LimitRule:
    id: str
    scope: Scope
    scope_id: str
    selector: str | None
    kind: LimitKind
    amount: int


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What one layer (organisation, team, developer, app, policy, key) allows. All layers must allow; a deny anywhere wins.

    `models_allow` and `models_deny` hold patterns on `vendor/model` with `*` (`openai/gpt-4.1*`, `anthropic/*`); None means no
    restriction by this layer, an empty tuple allows nothing.
    """

    scope: Scope
    scope_id: str
    name: str  # for the refusal: the policy's or owner's name
    models_allow: tuple[str, ...] | None = None
    models_deny: tuple[str, ...] = ()
    vendors: frozenset[str] | None = None
    endpoints: frozenset[str] | None = None  # values of vendors.EndpointGroup
    server_tool_ceiling_nano: int | None = None  # what server-side tools of one request may cost at most; None: refused under a hard budget
    record_content: bool = False
    content_readers: tuple[str, ...] = ()  # roles or user ids that may read recorded content


@dataclass(frozen=True, slots=True)
class KeyDigest:
    """HMAC-SHA-256 of a whole token under the pepper. `expires_at_ns` is set on the former token during a rotation's overlap."""

    digest: bytes
    expires_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class KeyState:
    id: str  # vk_…
    public_id: str  # the part of the token that is no secret
    name: str
    organization_id: str
    team_id: str | None
    developer_id: str | None
    app_id: str | None
    status: KeyStatus
    digests: tuple[KeyDigest, ...]
    expires_at_ns: int | None
    rules: tuple[RuleSet, ...]
    limits: tuple[LimitRule, ...]
    budgets: tuple[BudgetRule, ...]
    tags: tuple[str, ...] = ()  # `name=value` or `name`
    aliases: tuple[tuple[str, str], ...] = ()  # (alias, `vendor/model`), organisation-wide
    version: int = 0  # rises with every load from the database: of two states of a key the higher is the newer


@dataclass(frozen=True, slots=True)
class Allow:
    pass


@dataclass(frozen=True, slots=True)
class Deny:
    """`rule` is a stable code: `model_not_allowed`, `vendor_not_allowed`, `endpoint_not_allowed`, `key_revoked`, `key_expired`,
    `owner_inactive`."""

    rule: str
    scope: Scope
    scope_id: str
    detail: str  # one sentence for the caller, naming rule and scope


Decision = Allow | Deny
