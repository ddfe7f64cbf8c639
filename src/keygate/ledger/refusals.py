"""What a refusal of the engine says: which rule of which scope, and for money what is spent, held and allowed. Pure."""

from __future__ import annotations

from keygate.kit.clock import from_ns
from keygate.kit.money import format_usd
from keygate.ledger.meters.budget import BudgetMeter
from keygate.ledger.model import Refusal, RefusalKind
from keygate.policies import BudgetRule, LimitKind, LimitRule, Period, Scope

RETRY_HELD_MS = 1500

_PER = {
    LimitKind.REQUESTS_PER_MINUTE: "requests per minute",
    LimitKind.REQUESTS_PER_DAY: "requests per day",
    LimitKind.TOKENS_PER_MINUTE: "tokens per minute",
    LimitKind.TOKENS_PER_DAY: "tokens per day",
    LimitKind.CONCURRENT_REQUESTS: "requests at a time",
}


def _whose(rule: BudgetRule | LimitRule) -> str:
    if rule.scope in {Scope.VENDOR, Scope.MODEL, Scope.TAG}:
        return f"{rule.scope} {rule.selector or '*'}"
    return f"{rule.scope} {rule.scope_id}"


def _money(meter: BudgetMeter) -> str:
    window = meter.window
    period = "in all" if meter.rule.period is Period.LIFETIME else f"per {meter.rule.period}"
    return (
        f"{format_usd(window.spent)} USD spent, {format_usd(window.held)} held by requests in flight, "
        f"limit {format_usd(meter.rule.amount_nano)} {period}"
    )


def spent(meter: BudgetMeter, needed: int, largest: int | None) -> Refusal:
    """No room even if nothing were in flight."""
    rule = meter.rule
    hint = f" A maximum of {largest} output tokens would fit now." if largest is not None and largest > 0 else ""
    ends = meter.resets_at()
    reset = f" It starts anew at {from_ns(ends):%Y-%m-%dT%H:%M:%SZ}." if ends is not None else ""
    detail = (
        f"The budget {rule.id} of {_whose(rule)} has no room for this request, which may cost up to {format_usd(needed)} USD: "
        f"{_money(meter)}.{hint}{reset}"
    )
    return Refusal(RefusalKind.BUDGET_SPENT, rule.scope, rule.scope_id, rule.id, detail)


def held(meter: BudgetMeter, needed: int) -> Refusal:
    rule = meter.rule
    detail = (
        f"Requests in flight hold what is left of the budget {rule.id} of {_whose(rule)}: {_money(meter)}; this request may cost up to "
        f"{format_usd(needed)} USD. Try again in a moment."
    )
    return Refusal(RefusalKind.BUDGET_HELD, rule.scope, rule.scope_id, rule.id, detail, RETRY_HELD_MS)


def lowered(meter: BudgetMeter) -> Refusal:
    rule = meter.rule
    detail = f"The budget {rule.id} of {_whose(rule)} was lowered below what is spent and held: {_money(meter)}."
    return Refusal(RefusalKind.BUDGET_SPENT, rule.scope, rule.scope_id, rule.id, detail)


def over_limit(rule: LimitRule, used: int, needed: int, wait_ns: int | None) -> Refusal:
    """`wait_ns` until the request would fit; None: it never does, and there is no time after which to try again."""
    what = f"The limit {rule.id} of {_whose(rule)} is {rule.amount} {_PER[rule.kind]}"
    if rule.kind is LimitKind.CONCURRENT_REQUESTS:
        detail = f"{what}, and {used} are in flight."
        return Refusal(RefusalKind.CONCURRENCY, rule.scope, rule.scope_id, rule.id, detail, 1000)
    if wait_ns is None:
        detail = f"{what}; this request may use {needed}, which is more than that. Send less input or a smaller maximum."
        retry = None
    else:
        detail = f"{what}; {used} are used" + (f" and this request may use {needed}." if needed > 1 else ".")
        retry = max(-(-wait_ns // 1_000_000), 1)
    return Refusal(RefusalKind.RATE_LIMIT, rule.scope, rule.scope_id, rule.id, detail, retry)


def unpriced(meter: BudgetMeter, vendor: str, model: str) -> Refusal:
    rule = meter.rule
    detail = (
        f"No price is known for {vendor}/{model[:80]}, and the hard budget {rule.id} of {_whose(rule)} allows nothing whose cost is "
        "unknown. An administrator can add a price for it."
    )
    return Refusal(RefusalKind.UNPRICED, rule.scope, rule.scope_id, rule.id, detail)


def unbounded(meter: BudgetMeter, features: tuple[str, ...]) -> Refusal:
    rule = meter.rule
    detail = (
        f"This request uses {', '.join(features)}, whose cost has no upper bound, and the hard budget {rule.id} of {_whose(rule)} allows "
        "only what it can bound. A policy can name a ceiling for such costs (server_tool_ceiling_usd)."
    )
    return Refusal(RefusalKind.UNBOUNDED, rule.scope, rule.scope_id, rule.id, detail)
