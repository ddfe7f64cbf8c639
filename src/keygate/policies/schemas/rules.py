"""The wire of policies, budgets, limits and aliases."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from keygate.kit.clock import rfc3339
from keygate.kit.money import format_usd
from keygate.kit.routes import Schema
from keygate.policies.model import THRESHOLDS, Alias, Budget, BudgetSpec, Limit, Policy
from keygate.policies.schemas.fields import (
    Amount,
    Moment,
    Names,
    Pattern,
    Patterns,
    Percent,
    ScopeId,
    Selector,
    Text,
    Usd,
    nano,
    no_nul,
    rule_changes,
)
from keygate.policies.state import BudgetMode, BudgetRule, LimitKind, Period, Scope


class Limits(Schema):
    """Requests, tokens and concurrency; each is sliding: no window of that length ever sees more. On a change, null removes one."""

    requests_per_minute: Amount | None = None
    requests_per_day: Amount | None = None
    tokens_per_minute: Amount | None = None
    tokens_per_day: Amount | None = None
    concurrent_requests: Amount | None = None

    def wanted(self) -> dict[LimitKind, int | None]:
        """What the caller named, null for what shall go."""
        return {LimitKind(name): getattr(self, name) for name in self.model_fields_set}

    def amounts(self) -> dict[LimitKind, int]:
        return {kind: amount for kind, amount in self.wanted().items() if amount is not None}


class BudgetTerms(Schema):
    amount_usd: Usd
    period: Period
    mode: BudgetMode = BudgetMode.HARD
    rolling: bool = Field(False, description="The last day, week… back from now, in place of the calendar's")
    time_zone: Annotated[Text | None, Field(description="IANA name for calendar windows; default: the organisation's")] = None
    thresholds: Annotated[list[Percent], Field(max_length=10, description="Per cent at which events are raised")] = Field(
        default_factory=lambda: list(THRESHOLDS)
    )

    def spec(self) -> BudgetSpec:
        return BudgetSpec(
            amount_nano=nano(self.amount_usd),
            period=self.period,
            mode=self.mode,
            rolling=self.rolling,
            time_zone=self.time_zone or "",
            thresholds=tuple(sorted(set(self.thresholds))),
        )


class BudgetTermsView(Schema):
    id: str
    amount_usd: str
    period: Period
    mode: BudgetMode
    rolling: bool
    time_zone: str
    thresholds: list[int]

    @classmethod
    def of(cls, terms: BudgetSpec | BudgetRule) -> BudgetTermsView:
        return cls(
            id=terms.id,
            amount_usd=format_usd(terms.amount_nano),
            period=terms.period,
            mode=terms.mode,
            rolling=terms.rolling,
            time_zone=terms.time_zone,
            thresholds=list(terms.thresholds),
        )


class PolicyRules(Schema):
    models: Patterns | None = Field(None, description="Allowed models; null: any")
    models_deny: Patterns = Field(default_factory=list, description="Denied models: win over everything that allows")
    vendors: Names | None = None
    endpoints: Names | None = Field(None, description="Endpoint groups: chat, responses, embeddings…; null: any")
    server_tool_ceiling_usd: Usd | None = Field(
        None, description="What server-side tools of one request may cost at most; without it they are refused under a hard budget"
    )
    record_content: bool = Field(False, description="Keep prompts and answers, encrypted, for those in `content_readers`")
    content_readers: Annotated[list[Text], Field(max_length=100, description="Roles (owner, admin …) or ids of users")] = Field(
        default_factory=list
    )


class PolicyCreate(PolicyRules):
    name: Text
    description: Annotated[str, StringConstraints(max_length=2_000), AfterValidator(no_nul)] = ""
    limits: Limits = Field(Limits(), description="For each key that carries the policy")
    budgets: Annotated[list[BudgetTerms], Field(max_length=20, description="For each key that carries the policy")] = Field(
        default_factory=list
    )


class PolicyUpdate(Schema):
    name: Text | None = None
    description: Annotated[str, StringConstraints(max_length=2_000), AfterValidator(no_nul)] | None = None
    models: Patterns | None = None
    models_deny: Patterns | None = None
    vendors: Names | None = None
    endpoints: Names | None = None
    server_tool_ceiling_usd: Usd | None = None
    record_content: bool | None = None
    content_readers: Annotated[list[Text], Field(max_length=100)] | None = None
    limits: Limits | None = None
    budgets: Annotated[list[BudgetTerms], Field(max_length=20)] | None = None

    def changes(self) -> dict[str, Any]:
        """Fields of a policy and of `Rules` that the caller named."""
        named = {name: getattr(self, name) for name in self.model_fields_set}
        changed = rule_changes(named)
        for name in ("name", "description", "record_content"):
            if named.get(name) is not None:
                changed[name] = named[name]
        if "limits" in named:
            changed["limits"] = {} if self.limits is None else self.limits.amounts()
        if "budgets" in named:
            changed["budgets"] = [terms.spec() for terms in self.budgets or []]
        return changed


class PolicyView(Schema):
    id: str
    name: str
    description: str
    models: list[str] | None
    models_deny: list[str]
    vendors: list[str] | None
    endpoints: list[str] | None
    server_tool_ceiling_usd: str | None
    record_content: bool
    content_readers: list[str]
    limits: dict[LimitKind, int]
    budgets: list[BudgetTermsView]
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, policy: Policy) -> PolicyView:
        rules = policy.rules
        return cls(
            id=policy.id,
            name=policy.name,
            description=policy.description,
            models=None if rules.models_allow is None else list(rules.models_allow),
            models_deny=list(rules.models_deny),
            vendors=None if rules.vendors is None else list(rules.vendors),
            endpoints=None if rules.endpoints is None else list(rules.endpoints),
            server_tool_ceiling_usd=None if rules.server_tool_ceiling_nano is None else format_usd(rules.server_tool_ceiling_nano),
            record_content=rules.record_content,
            content_readers=list(rules.content_readers),
            limits=dict(policy.limits),
            budgets=[BudgetTermsView.of(spec) for spec in policy.budgets],
            created_at=rfc3339(policy.created_at_ns),
            updated_at=rfc3339(policy.updated_at_ns),
        )


class BudgetCreate(BudgetTerms):
    scope: Scope
    scope_id: ScopeId = None
    selector: Selector = None


class BudgetUpdate(Schema):
    amount_usd: Usd | None = None
    mode: BudgetMode | None = None
    thresholds: Annotated[list[Percent], Field(max_length=10)] | None = None

    def changes(self) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        if self.amount_usd is not None:
            changed["amount_nano"] = nano(self.amount_usd)
        if self.mode is not None:
            changed["mode"] = self.mode
        if self.thresholds is not None:
            changed["thresholds"] = tuple(sorted(set(self.thresholds)))
        return changed


class BudgetView(BudgetTermsView):
    scope: Scope
    scope_id: str
    selector: str | None
    created_at: Moment

    @classmethod
    def at(cls, budget: Budget) -> BudgetView:
        rule = budget.rule
        return cls(
            **BudgetTermsView.of(rule).model_dump(),
            scope=rule.scope,
            scope_id=rule.scope_id,
            selector=rule.selector,
            created_at=rfc3339(budget.created_at_ns),
        )


class LimitCreate(Schema):
    """Also read as keys write it: `{"scope": …, "requests_per_minute": 60}`."""

    scope: Scope
    scope_id: ScopeId = None
    selector: Selector = None
    kind: LimitKind
    amount: Amount

    @model_validator(mode="before")
    @classmethod
    def _as_on_keys(cls, body: Any) -> Any:
        if not isinstance(body, dict) or "kind" in body or "amount" in body:
            return body
        named = [kind.value for kind in LimitKind if kind.value in body]
        if len(named) != 1:
            return body
        return {**{name: value for name, value in body.items() if name != named[0]}, "kind": named[0], "amount": body[named[0]]}


class LimitUpdate(Schema):
    amount: Amount


class LimitView(Schema):
    id: str
    scope: Scope
    scope_id: str
    selector: str | None
    kind: LimitKind
    amount: int
    created_at: Moment

    @classmethod
    def at(cls, limit: Limit) -> LimitView:
        rule = limit.rule
        return cls(
            id=rule.id,
            scope=rule.scope,
            scope_id=rule.scope_id,
            selector=rule.selector,
            kind=rule.kind,
            amount=rule.amount,
            created_at=rfc3339(limit.created_at_ns),
        )


class AliasCreate(Schema):
    alias: Pattern = Field(description="What callers write: `fast`")
    target: Pattern = Field(description="What it stands for: `openai/gpt-4.1-mini`")


class AliasUpdate(Schema):
    target: Pattern


class AliasView(Schema):
    id: str
    alias: str
    target: str
    created_at: Moment

    @classmethod
    def of(cls, alias: Alias) -> AliasView:
        return cls(id=alias.id, alias=alias.alias, target=alias.target, created_at=rfc3339(alias.created_at_ns))
