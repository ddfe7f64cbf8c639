"""All that applies to one key's requests for one model, gathered once: meters in the order of their scopes, and the price."""

from __future__ import annotations

from typing import final

from keygate.ledger.journal import Context
from keygate.ledger.meters.budget import BudgetMeter
from keygate.ledger.meters.windows import SlidingWindow, Slots
from keygate.ledger.model import Ask
from keygate.ledger.prices.model import Ceiling, Price
from keygate.ledger.prices.outputs import UNKNOWN
from keygate.policies import KeyState

FREE = "free"  # the price id of what no vendor bills
_LONGEST = 131_072  # tokens: longer than any answer that a vendor of ours gives, where the price table knows no maximum
_MODEST = 1024
# A caller who names no tier leaves it to the vendor's project settings.
UNNAMED_TIERS = frozenset({None, "auto"})


@final
class Plan:
    __slots__ = (
        "_ceilings",
        "_contexts",
        "_day_limits",
        "_minute_limits",
        "_starts",
        "_turns",
        "budgets",
        "hard",
        "price",
        "requests",
        "slots",
        "tiered",
        "tokens",
    )

    def __init__(
        self, price: Price | None, budgets: tuple[BudgetMeter, ...], windows: tuple[SlidingWindow, ...], slots: tuple[Slots, ...]
    ) -> None:
        self.price = price
        self.budgets = budgets
        self.hard = tuple(meter for meter in budgets if meter.hard)
        self.requests = tuple(window for window in windows if not window.tokens)
        self.tokens = tuple(window for window in windows if window.tokens)
        self.slots = slots
        self._minute_limits = tuple((window.rule.id, window.tokens) for window in (*self.requests, *self.tokens) if not window.per_day)
        self._day_limits = tuple((window.rule.id, window.tokens) for window in (*self.requests, *self.tokens) if window.per_day)
        self._contexts: dict[tuple[str, str, bool], Context] = {}
        self._turns = -1  # of all budgets together, when the contexts were made
        self.tiered = price is not None and any(name != "batch" for name in price.tiers)
        self._ceilings: dict[tuple[str | None, bool, int], Ceiling] = {}
        self._starts: tuple[int, ...] = ()
        if price is not None:
            tariffs = (price.standard, *price.tiers.values())
            self._starts = tuple(sorted({band.start for tariff in tariffs for band in tariff.bands if band.start >= 0}))

    def context(self, state: KeyState, vendor: str, model: str, ask: Ask, turns: int, *, free: bool) -> Context:
        """What a request has in common with others of this plan, for the journal. `turns` is the sum of all budgets' turns: once one of
        them has turned, what is spent belongs to other windows."""
        if turns != self._turns or len(self._contexts) > 64:  # models are the callers' words
            self._contexts.clear()
            self._turns = turns
        found = self._contexts.get((ask.model_asked, ask.endpoint, ask.streamed))
        if found is None:
            found = self._contexts[ask.model_asked, ask.endpoint, ask.streamed] = Context(
                state.organization_id,
                state.id,
                state.team_id,
                state.developer_id,
                state.app_id,
                ask.tags,
                vendor,
                ask.model_asked,
                model,
                ask.endpoint,
                ask.streamed,
                FREE if free else self.price.id if self.price is not None else None,
                tuple(meter.window.posting for meter in self.budgets),
                self._minute_limits,
                self._day_limits,
            )
        return found

    def ceiling(self, input_bound: int, cache_write_possible: bool, tier: str | None) -> Ceiling:
        band = 0
        if self._starts:
            for start in self._starts:
                band += start < input_bound
        key = (tier, cache_write_possible, band)
        found = self._ceilings.get(key)
        if found is None:
            if self.price is None:
                return Ceiling(0, 0, 0)
            if len(self._ceilings) > 64:  # tiers are the callers' words
                self._ceilings.clear()
            found = self._ceilings[key] = self.price.ceiling(input_bound, cache_write_possible=cache_write_possible, tier=tier)
        return found

    def most(self) -> int:
        """What one answer can be at most where nobody sets a maximum: the model's own, or all that its window holds."""
        price = self.price
        if price is None:
            return UNKNOWN
        return price.max_output or price.context_window or _LONGEST

    def desired(self, input_bound: int) -> int:
        """The maximum per answer that the gateway would set if money were no matter: one that the model accepts."""
        price = self.price
        if price is None:
            return UNKNOWN
        wish = min(price.max_output or UNKNOWN, UNKNOWN)
        if price.context_window is not None:
            wish = min(wish, max(price.context_window - input_bound, min(_MODEST, price.context_window // 2)))
        return wish
