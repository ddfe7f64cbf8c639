"""The wire of how things stand: budgets and limits as of the answer, and explanations."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from keygate.kit.clock import rfc3339
from keygate.kit.money import format_usd
from keygate.kit.routes import Schema
from keygate.policies.explanation import Explanation
from keygate.policies.ports import BudgetStanding, LimitStanding
from keygate.policies.schemas.fields import Id, Moment, Text, no_nul
from keygate.policies.state import BudgetMode, Deny, LimitKind, LimitRule, Period, Scope


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
    model: Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(no_nul)]
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
    code: str | None = Field(description="The code in that answer; null where it is forwarded")
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
            code=told.code,
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
