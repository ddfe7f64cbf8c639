"""Whether a request fits everything that applies to it, and what it is to hold. Looks, and takes nothing."""

from __future__ import annotations

from typing import final

from keygate.ledger.meters.budget import BudgetMeter
from keygate.ledger.meters.plan import UNNAMED_TIERS, Plan
from keygate.ledger.meters.sizing import LEAST, Demand, Patience, Size, affordable, fixed, portion
from keygate.ledger.meters.windows import SlidingWindow
from keygate.ledger.model import Ask, Refusal, RefusalKind
from keygate.ledger.prices.model import MILLION, Ceiling, Price
from keygate.ledger.refusals import held, over_limit, spent, unbounded, unpriced
from keygate.policies import KeyState

# Not billed by their vendors. OpenAI, "Moderation": "The moderation endpoint is free to use"; Anthropic, "Token counting": "Token
# counting is free to use" (both as public copies of 2026 quote the vendors' pages, read 2026-11-21). OpenAI's input_tokens: its guide
# says nothing of a price and offers it for estimates before a call; that it is free says its developer forum (topic 1380071), not
# OpenAI.
FREE_ENDPOINTS = frozenset({"moderations", "models", "count_tokens"})
# Server-side tools whose real cost stands in the usage; of others the policy's ceiling is charged.
_MEASURED = "web_search"
_MONEY = frozenset({RefusalKind.BUDGET_HELD, RefusalKind.BUDGET_SPENT})
_SOON_NS = 2_000_000_000


@final
class Blocked:
    __slots__ = (
        "meter",
        "refusal",
    )

    def __init__(
        self,
        refusal: Refusal,
        meter: BudgetMeter | None = None,
    ) -> None:
        self.refusal = refusal
        self.meter = meter  # whose holds stand in the way: worth waiting for


@final
class Admitted:
    __slots__ = (
        "nano",
        "output_set",
        "tier_set",
        "tokens",
        "tools_nano",
    )

    def __init__(
        self,
        nano: int,
        tokens: int,
        output_set: int | None = None,
        tier_set: str | None = None,
        tools_nano: int = 0,
    ) -> None:
        self.nano = nano
        self.tokens = tokens
        self.output_set = output_set  # the maximum per answer that the gateway must set
        self.tier_set = tier_set  # the service tier that it must set
        self.tools_nano = tools_nano  # to be charged for server-side tools whose cost nobody can read


_NOTHING = Admitted(0, 0)


def admit(plan: Plan, state: KeyState, vendor: str, model: str, ask: Ask, *, patience: Patience, mono: int) -> Admitted | Blocked:
    """All of the plan's rules on this request. Its meters stand at the request's time already."""
    if ask.endpoint in FREE_ENDPOINTS:
        admitted: Admitted | Blocked = _NOTHING
    elif ask.unbounded or plan.price is None:
        admitted = _unusual(plan, state, vendor, model, ask, patience, mono)
    else:
        admitted = _sized(plan, ask, 0, patience, mono)
    if type(admitted) is Blocked:
        return admitted
    for window in plan.requests:
        if window.room(mono) < 1:
            free_at = window.free_at(1, mono)
            return Blocked(over_limit(window.rule, window.total, 1, None if free_at is None else free_at - mono))
    for slots in plan.slots:
        if slots.room(mono) < 1:
            return Blocked(over_limit(slots.rule, slots.used, 1, 0))
    return admitted


def _unusual(plan: Plan, state: KeyState, vendor: str, model: str, ask: Ask, patience: Patience, mono: int) -> Admitted | Blocked:
    """A price or a cost that is not known in advance: hard budgets refuse it, unless a policy names a ceiling for the cost."""
    price = plan.price
    if not plan.hard:
        return _sized(plan, ask, 0, patience, mono)
    if price is None:
        return Blocked(unpriced(plan.hard[0], vendor, model))
    features = _unbounded(ask, price)
    if not features:
        return _sized(plan, ask, 0, patience, mono)
    ceilings = [layer.server_tool_ceiling_nano for layer in state.rules if layer.server_tool_ceiling_nano is not None]
    if not ceilings:
        return Blocked(unbounded(plan.hard[0], features))
    extra = min(ceilings)
    admitted = _sized(plan, ask, extra, patience, mono)
    measured = price.standard.measures_searches and all(feature.startswith(_MEASURED) for feature in features)
    if isinstance(admitted, Blocked) or measured:
        return admitted
    return Admitted(admitted.nano, admitted.tokens, admitted.output_set, admitted.tier_set, extra)


def _unbounded(ask: Ask, price: Price) -> tuple[str, ...]:
    """Features that no price bounds; a service tier with a price of its own is not one of them."""
    tier = ask.service_tier
    priced = f"service_tier_{tier}" if tier is not None and tier in price.tiers else None
    return tuple([feature for feature in ask.unbounded if feature != priced])


def _sized(plan: Plan, ask: Ask, extra: int, patience: Patience, mono: int) -> Admitted | Blocked:
    """Fits almost always: a caller's maximum, within every room. What is rarer goes through `_size`."""
    input_bound = ask.input_bound
    output_max = 0 if ask.output_free else ask.output_max
    if output_max is not None:
        ceiling = plan.ceiling(input_bound, ask.cache_write_possible, ask.service_tier)
        output = output_max * ask.answers + ask.extra_output
        nano = -(-(input_bound * ceiling.input + output * ceiling.output + ceiling.request) // MILLION) + extra
        for meter in plan.hard:
            window = meter.window
            if nano > meter.limit - window.spent - window.held:
                break
        else:
            tokens = input_bound + output
            for gauge in plan.tokens:
                if tokens > gauge.room(mono):
                    break
            else:
                return Admitted(nano, tokens)
    blocked = _size(plan, ask, extra, patience, mono, ask.service_tier)
    if type(blocked) is Size:
        return Admitted(blocked.nano, blocked.tokens, blocked.output_set)
    # A vendor's project settings may choose a dearer tier for a caller who names none. That is held where it fits, and ruled out
    # in the request itself where it doesn't.
    if plan.tiered and ask.service_tier in UNNAMED_TIERS and isinstance(blocked, Blocked) and blocked.refusal.kind in _MONEY:
        blocked = _size(plan, ask, extra, patience, mono, "default")
        if isinstance(blocked, Size):
            return Admitted(blocked.nano, blocked.tokens, blocked.output_set, "default")
    assert isinstance(blocked, Blocked)  # noqa: S101  (both kinds of Size have returned)
    return blocked


def _size(plan: Plan, ask: Ask, extra: int, patience: Patience, mono: int, tier: str | None) -> Size | Blocked:
    input_bound = ask.input_bound
    ceiling = plan.ceiling(input_bound, ask.cache_write_possible, tier)
    output_max = 0 if ask.output_free else ask.output_max
    demand = Demand(input_bound, output_max, ask.answers, ask.extra_output, plan.desired(input_bound), extra)
    if output_max is not None:
        size = fixed(demand, ceiling, output_max)
        return _fits(plan, demand, ceiling, size, mono) or size
    hard = plan.hard if any(ceiling) or extra else ()  # what costs nothing, no budget refuses
    if not hard and not plan.tokens:
        return fixed(demand, ceiling, plan.most())  # a charge in doubt must not be less than what the vendor may bill
    chosen: int = demand.desired
    for meter in hard:
        available = affordable(demand, ceiling, meter.room())
        share = portion(available, demand.desired, lone=not meter.window.held, patience=patience)
        if share is None:
            least = fixed(demand, ceiling, min(LEAST, demand.desired))
            return _spent_or_held(plan, demand, ceiling, least, meter)
        chosen = min(chosen, share)
    for window in plan.tokens:
        room = (window.room(mono) - input_bound - demand.extra_output) // demand.answers
        share = portion(room, demand.desired, lone=not window.flying, patience=Patience.LAST)
        if share is None:
            return _over(window, input_bound + demand.extra_output + min(LEAST, demand.desired) * demand.answers, mono)
        chosen = min(chosen, share)
    size = fixed(demand, ceiling, chosen)
    return Size(size.nano, size.tokens, chosen)


def _fits(plan: Plan, demand: Demand, ceiling: Ceiling, size: Size, mono: int) -> Blocked | None:
    if size.nano:  # what costs nothing, no budget refuses
        for meter in plan.hard:
            if size.nano > meter.room():
                return _spent_or_held(plan, demand, ceiling, size, meter)
    for window in plan.tokens:
        if size.tokens > window.room(mono):
            return _over(window, size.tokens, mono)
    return None


def _spent_or_held(plan: Plan, demand: Demand, ceiling: Ceiling, size: Size, meter: BudgetMeter) -> Blocked:
    """Names the tightest budget: one that has no room even without holds, else one whose holds are in the way."""
    tightest = min(plan.hard, key=lambda each: each.limit - each.window.spent)
    if size.nano > tightest.limit - tightest.window.spent:
        room = min(each.room() for each in plan.hard)
        return Blocked(spent(tightest, size.nano, affordable(demand, ceiling, room)))
    blocking = min(plan.hard, key=BudgetMeter.room)
    if not blocking.window.held:
        blocking = meter
    return Blocked(held(blocking, size.nano), blocking)


def _over(window: SlidingWindow, needed: int, mono: int) -> Blocked:
    free_at = window.free_at(needed, mono)
    wait = None if free_at is None else free_at - mono
    if wait is not None and window.flying:
        wait = min(wait, _SOON_NS)  # most of what is reserved by requests in flight comes back when they end
    return Blocked(over_limit(window.rule, window.total, needed, wait))
