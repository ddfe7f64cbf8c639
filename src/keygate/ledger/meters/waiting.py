"""Callers that wait for a hold to settle, in the order in which they came.

Whoever frees money serves the queue at once, oldest first, before anything else can take it. So at any moment no waiter's need fits the
room that is left, and a newcomer can only pass a waiter by needing less than every waiter before it would take.
"""

from __future__ import annotations

from asyncio import Future
from typing import TYPE_CHECKING

from keygate.ledger.meters.sizing import Patience

if TYPE_CHECKING:
    from keygate.ledger.meters.budget import BudgetMeter
    from keygate.ledger.model import Ask, Hold, Refusal
    from keygate.policies import KeyState


class Waiter:
    __slots__ = ("ask", "future", "model", "patience", "queue", "state", "vendor")

    def __init__(self, state: KeyState, vendor: str, model: str, ask: Ask, future: Future[Hold | Refusal]) -> None:
        self.state = state
        self.vendor = vendor
        self.model = model
        self.ask = ask
        self.future = future
        self.patience = Patience.FRESH
        self.queue: BudgetMeter | None = None

    def stand_at(self, meter: BudgetMeter | None) -> None:
        """Queues at the meter that stands in the way; keeps its place where it already stands there."""
        if meter is self.queue:
            return
        self.leave()
        if meter is not None:
            meter.waiters.append(self)
            self.queue = meter

    def leave(self) -> None:
        if self.queue is not None:
            self.queue.waiters.remove(self)
            self.queue = None
