"""What the control plane keeps about rules, limits and budgets. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from keygate.policies.state import BudgetMode, BudgetRule, LimitKind, LimitRule, Period, Scope

NESTING = (Scope.ORGANIZATION, Scope.TEAM, Scope.DEVELOPER, Scope.APP, Scope.KEY)
BESIDE = (Scope.VENDOR, Scope.MODEL, Scope.TAG)  # they take a selector
THRESHOLDS = (80, 100)  # per cent at which a budget raises events, where nobody says otherwise


@dataclass(frozen=True, slots=True)
class Rules:
    """What one layer allows; the meaning of each field is `RuleSet`'s."""

    models_allow: tuple[str, ...] | None = None
    models_deny: tuple[str, ...] = ()
    vendors: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    server_tool_ceiling_nano: int | None = None
    record_content: bool = False
    content_readers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """The terms of a budget, without a place. `id` names it for life: an amount may change, what is spent stays counted."""

    amount_nano: int
    period: Period
    mode: BudgetMode = BudgetMode.HARD
    rolling: bool = False
    time_zone: str = ""  # empty: as it was, or for a new one the organisation's
    thresholds: tuple[int, ...] = THRESHOLDS
    starts_at_ns: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A team, developer or app, by kind and id."""

    scope: Scope
    scope_id: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A reusable named set of rules. Its rules, limits and budgets apply to each key that carries it, on each key's own account:
    ten keys with a policy of $5 a day may spend $5 a day each. What all of them share is a budget of their team or organisation.

    A key carries the policy that it names, and those that its organisation, team, developer and app name.
    """

    id: str
    organization_id: str
    name: str
    description: str
    rules: Rules
    limits: tuple[tuple[LimitKind, int], ...]
    budgets: tuple[BudgetSpec, ...]
    version: int
    created_at_ns: int
    created_by: str
    updated_at_ns: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget at its place: `scope_id` and `selector` as in `BudgetRule`."""

    rule: BudgetRule
    organization_id: str
    created_at_ns: int
    created_by: str


@dataclass(frozen=True, slots=True)
class Limit:
    rule: LimitRule
    organization_id: str
    created_at_ns: int
    created_by: str


@dataclass(frozen=True, slots=True)
class Alias:
    """A name of the organisation's own for a model: callers write `alias`, the vendor is asked for `target` (`vendor/model`)."""

    id: str
    organization_id: str
    alias: str
    target: str
    created_at_ns: int
    created_by: str


@dataclass(frozen=True, slots=True)
class Holder:
    """A team, developer or app, as far as keys depend on it."""

    id: str
    scope: Scope
    name: str
    active: bool
    team_id: str | None = None
    developer_id: str | None = None  # of an app that a developer runs
    policy_id: str | None = None


@dataclass(frozen=True, slots=True)
class Organization:
    id: str
    name: str
    policy_id: str | None = None
    time_zone: str = "UTC"  # of budgets that name none


@dataclass(frozen=True, slots=True)
class Governance:
    """Everything above some keys of one organisation, read in one snapshot: what `compile_key` needs besides the key."""

    organization: Organization
    holders: dict[str, Holder] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    budgets: dict[str, tuple[BudgetRule, ...]] = field(default_factory=dict)  # scope id → budgets there
    limits: dict[str, tuple[LimitRule, ...]] = field(default_factory=dict)
    aliases: tuple[tuple[str, str], ...] = ()
