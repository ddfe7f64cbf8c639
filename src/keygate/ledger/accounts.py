"""The engine of exact money and limits: holds, settles, waits. In memory, on one event loop; the journal is what survives.

Life of a request here: `begin` finds the key's plan (its meters and the price), sizes the hold, writes the begin to the journal and only
then takes money, tokens and slots; `settle` gives them back, books the cost and writes the settle. Nothing in between awaits, so no
other request ever sees half of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import final

from keygate.errors import Unavailable
from keygate.kit.clock import Clock
from keygate.ledger.admission import FREE_ENDPOINTS, Admitted, Blocked, admit
from keygate.ledger.binding import Bindings
from keygate.ledger.journal import Begin, Journal, JournalUnwritable, Position, Settle
from keygate.ledger.journal.recovery import Recovered
from keygate.ledger.meters.budget import BudgetMeter, Crossed, Window
from keygate.ledger.meters.sizing import Patience
from keygate.ledger.meters.waiting import Waiter
from keygate.ledger.meters.windows import LEASE, Entry, SlidingWindow, Slots
from keygate.ledger.model import Ask, Hold, Outcome, Refusal, Settlement, TokenUsage
from keygate.ledger.ports import SliceSource, SpendSource
from keygate.ledger.prices import Price, PriceBook
from keygate.ledger.refusals import lowered
from keygate.policies import BudgetRule, KeyState, LimitRule

_GRANT_NS = 500_000_000
_SERVED_AT_ONCE = 32  # waiters tried for each settle
_NOTHING_BILLED = frozenset({Outcome.NOT_SENT, Outcome.UPSTREAM_ERROR})
_NEVER = (2**62, 0)


@final
class _InFlight:
    """What a hold has taken, and from where."""

    __slots__ = ("began", "begin", "budgets", "cost", "meters", "price", "settled", "slots", "tools_nano", "windows")

    def __init__(
        self, begin: Begin, began: int, price: Price | None, tools_nano: int, meters: tuple[BudgetMeter, ...], slots: tuple[Slots, ...]
    ) -> None:
        self.begin = begin
        self.began = began  # monotonic
        self.price = price
        self.tools_nano = tools_nano  # charged for server-side tools whose cost can't be read
        self.meters = meters
        self.budgets: list[Window] = [meter.window for meter in meters]
        self.windows: list[tuple[SlidingWindow, Entry, int]] = []
        self.slots = slots
        self.settled = False
        self.cost: int | None = 0


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    rule: BudgetRule
    window_start_ns: int
    spent_nano: int  # in-doubt charges included
    held_nano: int
    in_doubt_nano: int
    resets_at_ns: int | None


@dataclass(frozen=True, slots=True)
class LimitStanding:
    rule: LimitRule
    used: int
    remaining: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How everything that limits a key stands at this moment."""

    budgets: tuple[BudgetStanding, ...]
    limits: tuple[LimitStanding, ...]


@dataclass(frozen=True, slots=True)
class Health:
    journal_failing: str | None
    settles_waiting: int  # in memory because the journal can't be written
    holds: int
    held_nano: int
    waiting: int
    keys: int
    meters: int


@final
class LedgerAccounts:
    """The `Accounts` of the gateway. One per process that owns the journal."""

    def __init__(
        self, *, recovered: Recovered, book: PriceBook, source: SpendSource, slices: SliceSource, clock: Clock, hold_wait: float = 5.0
    ) -> None:
        self._journal: Journal = recovered.journal
        self._book = book
        self._slices = slices
        self._clock = clock
        self._hold_wait = hold_wait
        self._bindings = Bindings(source, slices, clock, book, recovered)
        self._holds: dict[str, _InFlight] = {}
        self._unwritten: list[Settle] = []
        self._crossed: list[Crossed] = []
        self._waiting = 0

    # binding

    async def bind(self, state: KeyState) -> None:
        waited_for = await self._bindings.bind(state)
        while self._bindings.replaced:
            self._rehome(*self._bindings.replaced.pop())
        for meter in waited_for:
            self._serve(meter)

    async def look(self, state: KeyState) -> Standing:
        """As `standing`, for a key that may not be bound: binds it for the look alone, without touching a binding of the gateway's."""
        if not self._bindings.is_bound(state.id):
            await self._bindings.bind(state, visit=True)
        try:
            return self.standing(state)
        finally:
            self._bindings.leave(state)

    def unbind(self, key_ids: Iterable[str]) -> None:
        """These keys are not in the gateway's memory any more. Their meters go once nothing is in flight and all of it is folded."""
        self._bindings.unbind(key_ids)

    def folded(self, position: Position) -> None:
        """The database holds everything before `position`: meters that nobody needs are forgotten, and old segments deleted."""
        self._bindings.sweep(position)
        self._journal.prune(position, self._clock.now_ns())

    def _rehome(self, old: BudgetMeter, new: BudgetMeter) -> None:
        """A budget got other windows while requests are in flight: what they hold counts in the new one."""
        for flight in self._holds.values():
            if old in flight.meters:
                index = flight.meters.index(old)
                flight.meters = (*flight.meters[:index], new, *flight.meters[index + 1 :])
                flight.budgets[index] = new.take(flight.begin.hold_nano)

    # begin

    def begin(self, state: KeyState, vendor: str, model: str, ask: Ask) -> Hold | Refusal:
        got = self._attempt(state, vendor, model, ask, Patience.FRESH)
        return got if type(got) is Hold else got.refusal

    async def begin_waiting(self, state: KeyState, vendor: str, model: str, ask: Ask) -> Hold | Refusal:
        got = self._attempt(state, vendor, model, ask, Patience.FRESH)
        if isinstance(got, Hold):
            return got
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Hold | Refusal] = loop.create_future()
        waiter = Waiter(state, vendor, model, ask, future)
        started = loop.time()
        self._waiting += 1
        try:
            for part, patience in ((0.2, Patience.WAITED), (0.6, Patience.TIRED), (1.0, Patience.LAST)):
                if got.meter is None:
                    return got.refusal
                waiter.stand_at(got.meter)
                await asyncio.wait([future], timeout=max(started + part * self._hold_wait - loop.time(), 0))
                if future.done():
                    return future.result()
                waiter.patience = patience
                got = self._attempt(state, vendor, model, ask, patience)
                if isinstance(got, Hold):
                    return got
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and isinstance(given := future.result(), Hold):
                self.cancel(given)
            raise
        finally:
            self._waiting -= 1
            waiter.leave()
        return got.refusal

    def _serve(self, meter: BudgetMeter) -> None:
        """Money came free: those who wait for it are served before anyone else, in their order."""
        for waiter in tuple(islice(meter.waiters, _SERVED_AT_ONCE)):
            if waiter.future.done():
                waiter.leave()
                continue
            try:
                got = self._attempt(waiter.state, waiter.vendor, waiter.model, waiter.ask, waiter.patience)
            except Unavailable as error:
                waiter.leave()
                waiter.future.set_exception(error)
                continue
            if isinstance(got, Hold):
                waiter.leave()
                waiter.future.set_result(got)
            elif got.meter is None:
                waiter.leave()
                waiter.future.set_result(got.refusal)
            else:
                waiter.stand_at(got.meter)
                if meter.room() <= 0:
                    return

    def _attempt(self, state: KeyState, vendor: str, model: str, ask: Ask, patience: Patience) -> Hold | Blocked:
        plan = self._bindings.plan(state, vendor, model, ask)
        now = ask.at_ns
        mono = self._clock.monotonic_ns()
        budgets = plan.budgets
        turns = 0
        for meter in budgets:
            if now >= meter.roll_at:
                meter.roll(now)
            turns += meter.turns
            if mono >= meter.grant_at:
                self._ask_for_grant(meter, mono)
        admitted = admit(plan, state, vendor, model, ask, patience=patience, mono=mono)
        if type(admitted) is not Admitted:
            return admitted
        nano, tokens = admitted.nano, admitted.tokens
        request_id, price = ask.request_id, plan.price
        free = ask.endpoint in FREE_ENDPOINTS
        context = plan.context(state, vendor, model, ask, turns, free=free)
        begin = Begin(context, request_id, now, nano, tokens, ask.service_tier)
        if self._unwritten:
            self.retry()
        self._journal.begin(begin)

        flight = _InFlight(begin, mono, None if free else price, admitted.tools_nano, budgets, plan.slots)
        for meter in budgets:
            meter.flying += 1
            meter.window.held += nano
        for gauge in plan.requests:
            flight.windows.append((gauge, gauge.take(1, mono), 1))
        if tokens:
            for gauge in plan.tokens:
                flight.windows.append((gauge, gauge.take(tokens, mono), tokens))
        for slots in plan.slots:
            slots.take(request_id, mono)
        self._holds[request_id] = flight
        return Hold(request_id, nano, tokens, admitted.output_set, admitted.tier_set, flight)

    def _ask_for_grant(self, meter: BudgetMeter, mono: int) -> None:
        """What this node may spend of a budget, asked again twice a second: a lost permission ends well before its lease does."""
        meter.limit = self._slices.granted(meter.rule.id, meter.rule.amount_nano)
        meter.grant_at = mono + _GRANT_NS

    # settle

    def settle(self, hold: Hold, settlement: Settlement) -> int | None:
        flight = hold.state
        assert isinstance(flight, _InFlight)  # noqa: S101  (only this class makes holds)
        if flight.settled:
            return flight.cost
        return self._settle(flight, settlement)

    def cancel(self, hold: Hold) -> None:
        """The request was never sent: nothing is charged, and it counts towards no limit."""
        self.settle(hold, Settlement(Outcome.NOT_SENT, 0, None))

    def _settle(self, flight: _InFlight, settlement: Settlement) -> int | None:
        begin = flight.begin
        context = begin.context
        usage, outcome = settlement.usage, settlement.outcome
        unknown = usage is None and outcome not in _NOTHING_BILLED
        cost: int | None = 0
        priced = context.price_id is not None
        if not priced:
            cost = 0 if usage is None and not unknown else None
        elif unknown:
            cost = begin.hold_nano
        elif usage is not None and flight.price is not None:
            tier = settlement.service_tier or begin.service_tier
            cost = flight.price.cost(usage, tier) + flight.tools_nano
        in_doubt = unknown and (not priced or begin.hold_nano > 0)
        flight.settled = True
        flight.cost = cost
        charged = cost or 0

        requests, tokens = self._count(flight, usage, outcome, unknown=unknown) if flight.windows else (1, 0)
        record = Settle(
            context,
            begin.request_id,
            self._clock.now_ns(),
            begin.at_ns,
            begin.hold_nano,
            cost,
            in_doubt,
            usage,
            settlement.status,
            outcome._value_,  # the property `value` is ten times as slow
            requests,
            tokens,
            settlement.model_served,
            settlement.service_tier or begin.service_tier,
            settlement.credential_id,
            settlement.latency_ns,
            settlement.first_token_ns,
            settlement.upstream_request_id,
        )
        behind: tuple[int, int] = _NEVER
        try:
            behind = self._journal.settle(record)
        except JournalUnwritable:
            self._unwritten.append(record)
        self._holds.pop(begin.request_id, None)
        for slots in flight.slots:
            slots.free(begin.request_id)
        held_nano = begin.hold_nano
        waited_for = False
        for meter, window, posted in zip(flight.meters, flight.budgets, context.budgets, strict=True):
            meter.flying -= 1
            window.held -= held_nano
            meter.last_settle = behind
            if charged and (crossed := meter.charge(window, charged, in_doubt=in_doubt, posted_at=posted[1])) is not None:
                self._crossed.append(crossed)
            if meter.waiters:
                waited_for = True
        for entry in flight.windows:
            entry[0].last_settle = behind
        if waited_for:
            for meter in flight.meters:
                if meter.waiters:
                    self._serve(meter)
        return cost

    def _count(self, flight: _InFlight, usage: TokenUsage | None, outcome: Outcome, *, unknown: bool) -> tuple[int, int]:
        """Lowers what was reserved to what was used, at the time at which it was reserved. Returns what counted in the end: requests
        and tokens."""
        requests = tokens = 0
        for window, entry, taken in flight.windows:
            window.flying -= 1
            used = taken
            if outcome is Outcome.NOT_SENT:
                used = 0
            elif window.tokens and not unknown:
                used = usage.input + usage.output if usage is not None else 0
            window.correct(entry, used - taken)
            if window.tokens:
                tokens = used
            else:
                requests = used
        return requests, tokens

    # queries and care

    def exceeded(self, hold: Hold, state: KeyState) -> Refusal | None:
        flight = hold.state
        assert isinstance(flight, _InFlight)  # noqa: S101  (only this class makes holds)
        context = flight.begin.context
        held_in = {id(meter): window for meter, window in zip(flight.meters, flight.budgets, strict=True)}
        for meter in self._bindings.plan_for(state, context.vendor, context.model, context.tags).hard:
            meter.roll(self._clock.now_ns())
            self._ask_for_grant(meter, self._clock.monotonic_ns())
            window = held_in.get(id(meter))
            if window is not None and window is not meter.window:
                continue  # it belongs to a window that has ended
            if meter.room() < (hold.nano if window is None else 0):
                return lowered(meter)
        return None

    def standing(self, state: KeyState) -> Standing:
        """How the budgets and limits of a bound key stand. Raises `Unavailable` where the key is not bound."""
        now, mono = self._clock.now_ns(), self._clock.monotonic_ns()
        budgets, limits = [], []
        for rule in state.budgets:
            meter = self._bindings.budget(rule.id)
            meter.roll(now)
            window = meter.window
            budgets.append(BudgetStanding(meter.rule, window.start, window.spent, window.held, window.in_doubt, meter.resets_at()))
        for limit in state.limits:
            gauge = self._bindings.limit(limit.id)
            room = gauge.room(mono)
            limits.append(LimitStanding(gauge.rule, gauge.limit - room, max(room, 0)))
        return Standing(tuple(budgets), tuple(limits))

    def held_by_key(self, key_id: str) -> int:
        """Nano-dollars held by this key's requests in flight."""
        return sum(flight.begin.hold_nano for flight in self._holds.values() if flight.begin.context.key_id == key_id)

    def correct(self, budget_id: str, window_start_ns: int, nano: int, in_doubt_nano: int) -> None:
        """A charge in the database was corrected after it was folded (reconciling); brings the meter in line and serves who waits."""
        meter = self._bindings.known_budget(budget_id)
        if meter is not None:
            meter.correct(window_start_ns, nano, in_doubt_nano)
            self._serve(meter)

    def has_crossed(self) -> bool:
        """True where `drain` has something."""
        return bool(self._crossed)

    def drain(self) -> Sequence[Crossed]:
        """Thresholds crossed since the last call, oldest first; each once per window."""
        crossed, self._crossed = self._crossed, []
        return crossed

    def retry(self) -> int:
        """Writes settles that the journal could not take; returns how many still wait. The worker calls it; so does the next request."""
        while self._unwritten:
            try:
                self._journal.settle(self._unwritten[0])
            except JournalUnwritable:
                break
            record = self._unwritten.pop(0)
            self._bindings.written(record, self._journal.position)
        return len(self._unwritten)

    def reap(self) -> int:
        """Charges holds whose end was never reported within the lease, as in doubt. A safety net: it should find nothing."""
        edge = self._clock.monotonic_ns() - LEASE
        lost = [flight for flight in self._holds.values() if flight.began <= edge]
        for flight in lost:
            self._settle(flight, Settlement(Outcome.UPSTREAM_LOST, 0, None))
        return len(lost)

    def sync(self) -> None:
        """Puts the journal onto the disk itself; may run on another thread. Raises `JournalUnwritable`."""
        self._journal.sync()

    @property
    def health(self) -> Health:
        return Health(
            self._journal.failing,
            len(self._unwritten),
            len(self._holds),
            sum(flight.begin.hold_nano for flight in self._holds.values()),
            self._waiting,
            *self._bindings.counts,
        )

    def close(self) -> None:
        self._journal.close()
