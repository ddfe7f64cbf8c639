"""Which meters a key has: made when a key is first used, filled from the database, shared by all keys under the same rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from keygate.errors import Unavailable
from keygate.kit.clock import Clock
from keygate.ledger.journal import JournalReader, Position, Recovered, Settle
from keygate.ledger.meters.budget import BudgetMeter
from keygate.ledger.meters.plan import Plan
from keygate.ledger.meters.selectors import applies
from keygate.ledger.meters.windows import ARRIVAL, DAY, DAY_BUCKET, MINUTE, SlidingWindow, Slots
from keygate.ledger.model import Ask
from keygate.ledger.ports import BudgetQuery, SliceSource, SpendSource, WindowSpend
from keygate.ledger.prices import PriceBook
from keygate.policies import BudgetRule, KeyState, LimitKind, LimitRule

_PLANS_PER_KEY = 256  # models and tags are the callers' words

Gauge = SlidingWindow | Slots


@final
class _Bound:
    __slots__ = ("plans", "revision", "state", "visit")

    def __init__(self, state: KeyState, revision: int, *, visit: bool) -> None:
        self.state = state
        self.visit = visit  # for a look only: nobody may begin under it
        self.revision = revision
        self.plans: dict[tuple[str, str, tuple[str, ...]], Plan] = {}


@final
class Bindings:
    """Meters by rule, plans by key. A meter lives while a bound key, a hold or an unfolded settle needs it."""

    def __init__(self, source: SpendSource, slices: SliceSource, clock: Clock, book: PriceBook, recovered: Recovered) -> None:
        self._source = source
        self._slices = slices
        self._clock = clock
        self._book = book
        self._complete_from = recovered.position
        self._directory = recovered.journal.directory
        self._booted = (clock.now_ns(), clock.monotonic_ns())
        self._bound: dict[str, _Bound] = {}
        self._budgets: dict[str, BudgetMeter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._unused: set[str] = set()
        self._evictions = 0
        self.replaced: list[tuple[BudgetMeter, BudgetMeter]] = []  # meters made anew for a changed rule, until their holds have moved
        self._recent: dict[str, list[tuple[int, int]]] = {}
        for use in recovered.recent:
            self._recent.setdefault(use.limit_id, []).append((use.at_ns, use.amount))

    async def bind(self, state: KeyState, *, visit: bool = False) -> list[BudgetMeter]:
        """Makes the key's meters ready and its rules effective; returns budgets that others wait for and whose rule may have changed.

        An older version than the bound one changes nothing. Raises `Unavailable` where the database can't say what was spent.
        """
        while True:
            former = self._bound.get(state.id)
            if former is not None and (visit or former.state.version > state.version):
                return []
            now, evictions = self._clock.now_ns(), self._evictions
            fresh = {rule.id: BudgetMeter(rule, now) for rule in state.budgets if self._needs_loading(rule)}
            new_limits = [rule for rule in state.limits if self._is_new(rule)]
            daily = [rule.id for rule in new_limits if rule.kind in {LimitKind.REQUESTS_PER_DAY, LimitKind.TOKENS_PER_DAY}]
            if fresh or daily:
                queries = [BudgetQuery(meter.rule.id, meter.since(now)) for meter in fresh.values()]
                loaded = await self._source.load(queries, daily, now - DAY - DAY_BUCKET)
                if loaded.position < self._complete_from:
                    raise Unavailable("what was spent before the last stop is still being read from the journal")
                recent = self._unfolded(loaded.position, fresh)
                for rule_id, meter in fresh.items():
                    meter.load([*loaded.budgets.get(rule_id, ()), *recent.get(rule_id, ())], now)
                if evictions != self._evictions or any(not self._needs_loading(rule) for rule in state.budgets if rule.id in fresh):
                    continue  # another key has brought one of them meanwhile, or one has come and gone: what was loaded is stale
            else:
                loaded = None
            break
        for rule in new_limits:
            if self._is_new(rule):
                uses = [(use.bucket_ns + DAY_BUCKET, use.amount) for use in loaded.limits.get(rule.id, ())] if loaded else []
                self._gauges[rule.id] = self._gauge(rule, uses)
        for rule_id, meter in fresh.items():
            old = self._budgets.get(rule_id)
            if old is not None:
                meter.users = old.users
                self.replaced.append((old, meter))
            self._budgets[rule_id] = meter
            self._stale_plans(rule_id)
        return self._attach(state, visit=visit)

    def plan(self, state: KeyState, vendor: str, model: str, ask: Ask) -> Plan:
        bound = self._bound.get(state.id)
        if bound is None:
            raise Unavailable("the key is not bound")
        if bound.revision != self._book.revision:
            bound.plans.clear()
            bound.revision = self._book.revision
        plan = bound.plans.get((vendor, model, ask.tags))
        if plan is not None and (plan.price is None or plan.price.applies(ask.at_ns)):
            return plan
        return self._compile(bound, vendor, model, ask.tags, ask.at_ns)

    def plan_for(self, state: KeyState, vendor: str, model: str, tags: tuple[str, ...]) -> Plan:
        bound = self._bound.get(state.id)
        if bound is None:
            raise Unavailable("the key is not bound")
        return bound.plans.get((vendor, model, tags)) or self._compile(bound, vendor, model, tags, self._clock.now_ns())

    def budget(self, rule_id: str) -> BudgetMeter:
        meter = self._budgets.get(rule_id)
        if meter is None:
            raise Unavailable("the key is not bound")
        return meter

    def known_budget(self, rule_id: str) -> BudgetMeter | None:
        return self._budgets.get(rule_id)

    def limit(self, rule_id: str) -> Gauge:
        gauge = self._gauges.get(rule_id)
        if gauge is None:
            raise Unavailable("the key is not bound")
        return gauge

    def is_bound(self, key_id: str) -> bool:
        return key_id in self._bound

    def leave(self, state: KeyState) -> None:
        """Ends a visit; a binding that was made or taken over by the gateway stays."""
        bound = self._bound.get(state.id)
        if bound is not None and bound.visit and bound.state is state:
            self.unbind([state.id])

    def unbind(self, key_ids: Iterable[str]) -> None:
        for key_id in key_ids:
            bound = self._bound.pop(key_id, None)
            if bound is not None:
                self._detach(bound.state)

    def sweep(self, folded: Position) -> None:
        """Forgets meters that no key uses, that hold nothing and whose last settle stands in the database."""
        mono = self._clock.monotonic_ns()
        for rule_id in list(self._unused):
            meter = self._budgets.get(rule_id)
            if meter is not None and not meter.users and not meter.flying and not meter.waiters and meter.last_settle <= folded:
                del self._budgets[rule_id]
                self._evictions += 1
                self._unused.discard(rule_id)
            gauge = self._gauges.get(rule_id)
            if gauge is not None and not gauge.users and gauge.last_settle <= folded and _is_idle(gauge, mono):
                del self._gauges[rule_id]
                self._evictions += 1
                self._unused.discard(rule_id)
        if self._recent and mono - self._booted[1] > MINUTE + ARRIVAL:
            self._recent.clear()

    def written(self, record: Settle, behind: Position) -> None:
        """A settle that had to wait is in the journal now."""
        context = record.context
        for rule_id, _ in (*context.budgets, *context.minute_limits, *context.day_limits):
            for meter in (self._budgets.get(rule_id), self._gauges.get(rule_id)):
                if meter is not None:
                    meter.last_settle = behind

    @property
    def counts(self) -> tuple[int, int]:
        """Bound keys, and meters."""
        return len(self._bound), len(self._budgets) + len(self._gauges)

    def _compile(self, bound: _Bound, vendor: str, model: str, tags: tuple[str, ...], at_ns: int) -> Plan:
        state = bound.state
        all_tags = state.tags if tags == state.tags else (*state.tags, *tags)
        budgets = tuple(self._budgets[rule.id] for rule in state.budgets if applies(rule, vendor, model, all_tags))
        gauges = [self._gauges[rule.id] for rule in state.limits if applies(rule, vendor, model, all_tags)]
        plan = Plan(
            self._book.find(vendor, model, at_ns, state.organization_id),
            budgets,
            tuple(gauge for gauge in gauges if isinstance(gauge, SlidingWindow)),
            tuple(gauge for gauge in gauges if isinstance(gauge, Slots)),
        )
        if len(bound.plans) >= _PLANS_PER_KEY:
            bound.plans.clear()
        bound.plans[vendor, model, tags] = plan
        return plan

    def _unfolded(self, position: Position, fresh: Iterable[str]) -> dict[str, list[WindowSpend]]:
        """What live budgets that get other windows have spent since the database was last brought up to date. Others have nothing there:
        a meter is only forgotten when all of it is folded."""
        rows: dict[str, list[WindowSpend]] = {rule_id: [] for rule_id in fresh if rule_id in self._budgets}
        more = bool(rows)
        reader = JournalReader(self._directory)
        while more:
            batch = reader.read(position)
            position, more = batch.position, batch.more
            for settle in batch.settles:
                cost = settle.cost_nano or 0
                for rule_id, start in settle.context.budgets:
                    if cost and rule_id in rows:
                        rows[rule_id].append(WindowSpend(start, cost, cost if settle.in_doubt else 0))
        return rows

    def _stale_plans(self, rule_id: str) -> None:
        """Plans hold meters, so a replaced meter must leave them. Rare: the period or the start of a budget was changed."""
        if not self.replaced or self.replaced[-1][1].rule.id != rule_id:
            return
        for bound in self._bound.values():
            bound.plans.clear()

    def _needs_loading(self, rule: BudgetRule) -> bool:
        meter = self._budgets.get(rule.id)
        return meter is None or meter.reshaped_by(rule)

    def _is_new(self, rule: LimitRule) -> bool:
        gauge = self._gauges.get(rule.id)
        return gauge is None or gauge.rule.kind is not rule.kind

    def _gauge(self, rule: LimitRule, uses: Iterable[tuple[int, int]]) -> Gauge:
        if rule.kind is LimitKind.CONCURRENT_REQUESTS:
            return Slots(rule)
        window = SlidingWindow(rule)
        wall, mono = self._clock.now_ns(), self._clock.monotonic_ns()
        for ended_ns, amount in (*uses, *self._recent.get(rule.id, ())):
            window.restore(mono - max(wall - ended_ns, 0), amount)
        return window

    def _attach(self, state: KeyState, *, visit: bool) -> list[BudgetMeter]:
        former = self._bound.get(state.id)
        if visit and former is not None:
            return []
        changed = []
        for rule in state.budgets:
            meter = self._budgets[rule.id]
            meter.users += 1
            meter.apply(rule, self._slices.granted(rule.id, rule.amount_nano))
            if meter.waiters:
                changed.append(meter)
        for limit in state.limits:
            gauge = self._gauges[limit.id]
            gauge.users += 1
            gauge.apply(limit)
        if former is not None:
            self._detach(former.state)
        self._bound[state.id] = _Bound(state, self._book.revision, visit=visit)
        return changed

    def _detach(self, state: KeyState) -> None:
        ids = [rule.id for rule in state.budgets] + [limit.id for limit in state.limits]
        for rule_id in ids:
            meter = self._budgets.get(rule_id) or self._gauges.get(rule_id)
            if meter is not None:
                meter.users -= 1
                if not meter.users:
                    self._unused.add(rule_id)


def _is_idle(gauge: Gauge, mono: int) -> bool:
    if isinstance(gauge, Slots):
        return not gauge.used
    return not gauge.flying if gauge.per_day else gauge.idle(mono)
