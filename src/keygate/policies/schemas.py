"""The wire of policies, budgets, limits, aliases and explanations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from keygate.errors import InvalidInput
from keygate.kit.clock import rfc3339, to_ns
from keygate.kit.money import MAX_NANO, NANO, format_usd, parse_usd
from keygate.kit.routes import Schema
from keygate.policies.explanation import Explanation
from keygate.policies.model import THRESHOLDS, Alias, Budget, BudgetSpec, Limit, Policy
from keygate.policies.ports import BudgetStanding, LimitStanding
from keygate.policies.state import BudgetMode, BudgetRule, Deny, LimitKind, LimitRule, Period, Scope


def _no_nul(value: str) -> str:
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("characters that can't be stored")
    return value


Text = Annotated[str, StringConstraints(max_length=200), AfterValidator(_no_nul)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_no_nul)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_no_nul)]
Patterns = Annotated[
    list[Pattern], Field(max_length=200, description="Patterns on vendor/model with `*`: `openai/gpt-4.1*`, `anthropic/*`")
]
Names = Annotated[list[Annotated[str, StringConstraints(max_length=60)]], Field(max_length=100)]
Usd = Annotated[
    Annotated[str, StringConstraints(max_length=40)] | Annotated[int, Field(ge=0, le=MAX_NANO // NANO)],
    Field(description="Dollars as a decimal string: `10.00`", examples=["10.00"]),
]
Amount = Annotated[int, Field(ge=1, le=2**53)]
ScopeId = Annotated[
    Pattern | None,
    Field(description="The team, developer, app or key. A vendor, model or tag can be named here, too, in place of `selector`"),
]
Selector = Annotated[
    Pattern | None, Field(description="For the scopes vendor, model and tag: `openai`, `anthropic/claude-opus-*`, `project=x`")
]
Percent = Annotated[int, Field(ge=1, le=1_000)]
Moment = Annotated[str | None, Field(json_schema_extra={"format": "date-time"})]


def nano(value: str | int, field: str = "amount_usd") -> int:
    return parse_usd(value, field=field)


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
    content_readers: Annotated[list[Text], Field(max_length=100, description="Roles or user ids")] = Field(default_factory=list)


class PolicyCreate(PolicyRules):
    name: Text
    description: Annotated[str, StringConstraints(max_length=2_000), AfterValidator(_no_nul)] = ""
    limits: Limits = Field(Limits(), description="For each key that carries the policy")
    budgets: Annotated[list[BudgetTerms], Field(max_length=20, description="For each key that carries the policy")] = Field(
        default_factory=list
    )


class PolicyUpdate(Schema):
    name: Text | None = None
    description: Annotated[str, StringConstraints(max_length=2_000), AfterValidator(_no_nul)] | None = None
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


def rule_changes(named: dict[str, Any]) -> dict[str, Any]:
    """From the names on the wire to those of `Rules`; null lifts what is a list of permissions and empties the others."""
    changed: dict[str, Any] = {}
    if "models" in named:
        changed["models_allow"] = None if named["models"] is None else tuple(named["models"])
    for name in ("vendors", "endpoints"):
        if name in named:
            changed[name] = None if named[name] is None else tuple(named[name])
    for name in ("models_deny", "content_readers"):
        if name in named:
            changed[name] = tuple(named[name] or ())
    if "server_tool_ceiling_usd" in named:
        ceiling = named["server_tool_ceiling_usd"]
        changed["server_tool_ceiling_nano"] = None if ceiling is None else nano(ceiling, "server_tool_ceiling_usd")
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


class BudgetState(Schema):
    """A budget as it stands as of the answer."""

    id: str
    scope: Scope
    scope_id: str
    selector: str | None
    period: Period
    mode: BudgetMode
    rolling: bool
    amount_usd: str
    spent_usd: str = Field(description="Charges in doubt included")
    held_usd: str = Field(description="Reserved by requests in flight")
    resets_at: Moment

    @classmethod
    def fields(cls, one: BudgetStanding) -> dict[str, Any]:
        rule = one.rule
        return {
            "id": rule.id,
            "scope": rule.scope,
            "scope_id": rule.scope_id,
            "selector": rule.selector,
            "period": rule.period,
            "mode": rule.mode,
            "rolling": rule.rolling,
            "amount_usd": format_usd(rule.amount_nano),
            "spent_usd": format_usd(one.spent_nano),
            "held_usd": format_usd(one.held_nano),
            "resets_at": rfc3339(one.resets_at_ns),
        }


class LimitState(Schema):
    id: str
    scope: Scope
    scope_id: str
    selector: str | None
    kind: LimitKind
    amount: int
    used: int
    resets_at: Moment

    @classmethod
    def of(cls, one: LimitStanding) -> LimitState:
        rule: LimitRule = one.rule
        return cls(
            id=rule.id,
            scope=rule.scope,
            scope_id=rule.scope_id,
            selector=rule.selector,
            kind=rule.kind,
            amount=rule.amount,
            used=one.used,
            resets_at=rfc3339(one.resets_at_ns),
        )


class ExplainRequest(Schema):
    key: Annotated[str, StringConstraints(max_length=200)] | None = Field(None, description="The key itself; it is not kept")
    key_id: Id | None = None
    model: Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(_no_nul)]
    endpoint: Text = "chat"
    input_tokens: Annotated[int, Field(ge=0, le=10_000_000)] = 1_000
    max_output_tokens: Annotated[int, Field(ge=0, le=10_000_000)] = 1_000


class Refused(Schema):
    rule: str
    scope: Scope
    scope_id: str
    detail: str

    @classmethod
    def of(cls, deny: Deny) -> Refused:
        return cls(rule=deny.rule, scope=deny.scope, scope_id=deny.scope_id, detail=deny.detail)


class LayerView(Schema):
    scope: Scope
    scope_id: str
    name: str
    allows: bool
    refused: Refused | None


class ExplainedBudget(BudgetState):
    fits: bool | None = Field(description="Whether a hold of this size finds room now; null where its size is not known")


class ExplainKey(Schema):
    id: str
    name: str
    status: str
    team_id: str | None
    developer_id: str | None
    app_id: str | None


class Hold(Schema):
    price_known: bool | None = Field(description="Null where no price table is at hand")
    price_id: str | None
    amount_usd: str | None
    input_tokens: int
    max_output_tokens: int
    fits: bool | None


class ExplainView(Schema):
    allowed: bool
    status: int = Field(description="What the gateway would answer now; 200: forwarded")
    refused_by: Refused | None
    key: ExplainKey
    vendor: str | None
    model: str
    alias: str | None = Field(description="The alias that was resolved")
    endpoint: str
    layers: list[LayerView]
    hold: Hold
    budgets: list[ExplainedBudget]
    limits: list[LimitState]
    server_tool_ceiling_usd: str | None

    @classmethod
    def of(cls, told: Explanation) -> ExplainView:
        state = told.state
        fits = [answer.fits for answer in told.budgets if answer.standing.rule.mode is BudgetMode.HARD]
        return cls(
            allowed=told.refusal is None,
            status=told.status,
            refused_by=None if told.refusal is None else Refused.of(told.refusal),
            key=ExplainKey(
                id=state.id,
                name=state.name,
                status=state.status,
                team_id=state.team_id,
                developer_id=state.developer_id,
                app_id=state.app_id,
            ),
            vendor=told.vendor,
            model=told.model,
            alias=told.alias,
            endpoint=told.endpoint,
            layers=[
                LayerView(
                    scope=layer.rules.scope,
                    scope_id=layer.rules.scope_id,
                    name=layer.rules.name,
                    allows=not isinstance(layer.decision, Deny),
                    refused=Refused.of(layer.decision) if isinstance(layer.decision, Deny) else None,
                )
                for layer in told.layers
            ],
            hold=Hold(
                price_known=told.price is not None if told.price_checked else None,
                price_id=None if told.price is None else told.price.price_id,
                amount_usd=None if told.price is None else format_usd(told.price.nano),
                input_tokens=told.input_tokens,
                max_output_tokens=told.output_tokens,
                fits=None if None in fits else all(fits),
            ),
            budgets=[ExplainedBudget(**BudgetState.fields(answer.standing), fits=answer.fits) for answer in told.budgets],
            limits=[LimitState.of(one) for one in told.limits],
            server_tool_ceiling_usd=None if told.server_tool_ceiling_nano is None else format_usd(told.server_tool_ceiling_nano),
        )


def moment_ns(value: datetime | None, field: str) -> int | None:
    """RFC 3339 in, nanoseconds out; refuses what has no zone or no place in 64 bits."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise InvalidInput(f"{field}: needs a time zone, for example 2027-01-01T00:00:00Z", field=field)
    try:
        instant = to_ns(value)
    except OverflowError:
        instant = 2**63
    if not 0 <= instant < 2**63:
        raise InvalidInput(f"{field}: out of range", field=field)
    return instant
