"""One budget in memory: what is spent, what is held, what is left. Pure arithmetic on integers; no clock, no database.

A hold belongs to the window in which its request began, and so does what the request costs in the end, even when it ends after the
window. So neither window is ever exceeded: the old one admitted the request within its room, the new one never hears of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from keygate.ledger.meters.calendar import FOREVER, ROLLING, calendar_window, zone
from keygate.ledger.ports import WindowSpend
from keygate.policies import BudgetMode, BudgetRule, Period

if TYPE_CHECKING:
    from keygate.ledger.meters.waiting import Waiter


@dataclass(frozen=True, slots=True)
class Crossed:
    """Spend has passed thresholds of a budget for the first time in this window: one call may pass several."""

    budget_id: str
    scope: str
    scope_id: str
    window_start_ns: int
    percents: tuple[int, ...]  # of the amount, ascending; at least one
    spent_nano: int
    amount_nano: int


@final
class Window:
    """The money of one window. Holds keep a reference, so that they end where they began."""

    __slots__ = ("end", "held", "in_doubt", "posting", "spent", "start", "warn_at", "warned")

    def __init__(self, budget_id: str, start: int, end: int) -> None:
        self.posting = (budget_id, start)  # under which the journal and the database book what is spent here
        self.start = start
        self.end = end
        self.spent = 0
        self.held = 0
        self.in_doubt = 0
        self.warned = 0  # the highest threshold, in per cent, that has been reported
        self.warn_at = 0  # spend below this reaches no further threshold; 0: not worked out


@final
class BudgetMeter:
    """`room()` is what a new hold may take. `limit` is what this node may spend: the amount, or the slice of it that it was granted."""

    __slots__ = (
        "_buckets",
        "_grain",
        "_length",
        "_zone",
        "flying",
        "grant_at",
        "hard",
        "last_settle",
        "limit",
        "roll_at",
        "rolling",
        "rule",
        "turns",
        "users",
        "waiters",
        "window",
    )

    def __init__(self, rule: BudgetRule, now_ns: int) -> None:
        self.users = 0  # bound keys that this budget applies to
        self.flying = 0  # holds that have not settled, of this window and of former ones
        self.last_settle = (0, 0)  # journal position behind the last settle that was posted here
        self.waiters: list[Waiter] = []
        self.grant_at = 0  # monotonic: when to ask again what this node may spend
        self.roll_at = 0  # wall time: before it, `roll` changes nothing
        self.turns = 0  # how often what is spent has begun to belong to another window or bucket
        self._buckets: list[list[int]] = []  # rolling: [start, spent, in doubt], ascending
        self.apply(rule, rule.amount_nano)
        if self.rolling:
            self.window = Window(rule.id, 0, FOREVER)
            self.roll(now_ns)
        else:
            self.window = Window(rule.id, *self._span(now_ns))
            self.roll_at = self.window.end

    def apply(self, rule: BudgetRule, granted: int) -> None:
        """Takes over a changed rule at once: a lowered amount holds for the next request, a raised one too."""
        former: BudgetRule | None = getattr(self, "rule", None)
        self.rule = rule
        self.hard = rule.mode is BudgetMode.HARD
        self.limit = min(granted, rule.amount_nano)
        self.rolling = rule.rolling and rule.period is not Period.LIFETIME
        self._zone = zone(rule.time_zone)
        self._length, self._grain = ROLLING.get(rule.period, (FOREVER, FOREVER))
        if former and former.amount_nano != rule.amount_nano:
            self.window.warned = self._percent_reached()
        if former:
            self.window.warn_at = 0

    def reshaped_by(self, rule: BudgetRule) -> bool:
        """Whether `rule` means other windows than the ones counted here, so that the meter must be loaded anew."""
        mine = self.rule
        return (mine.period, mine.rolling, mine.time_zone, mine.starts_at_ns) != (
            rule.period,
            rule.rolling,
            rule.time_zone,
            rule.starts_at_ns,
        )

    def since(self, now_ns: int) -> int:
        """The oldest window start that still counts."""
        return now_ns - self._length - self._grain if self.rolling else self.window.start

    def load(self, rows: Iterable[WindowSpend], now_ns: int) -> None:
        """What the database has for this budget. Thresholds that it has passed already are not reported again."""
        for row in rows:
            if self.rolling:
                self._post(row.window_start_ns, row.spent_nano, row.in_doubt_nano)
            elif row.window_start_ns >= self.window.start:  # all of it, where the period was shorter before
                self.window.spent += row.spent_nano
                self.window.in_doubt += row.in_doubt_nano
        self.roll(now_ns)
        self.window.warned = self._percent_reached()
        self.window.warn_at = 0

    def roll(self, now_ns: int) -> None:
        """Moves to the window of `now_ns`. Time that goes backwards moves nothing."""
        window = self.window
        if self.rolling:
            while self._buckets and self._buckets[0][0] + self._grain + self._length <= now_ns:
                _, spent, in_doubt = self._buckets.pop(0)
                window.spent -= spent
                window.in_doubt -= in_doubt
            window.warned = min(window.warned, self._percent_reached())
            window.warn_at = 0
            bucket = now_ns - now_ns % self._grain
            window.posting = (self.rule.id, max(bucket, self.rule.starts_at_ns))
            self.turns += 1
            first = self._buckets[0][0] + self._grain + self._length if self._buckets else FOREVER
            self.roll_at = min(bucket + self._grain, first)
        elif now_ns >= window.end:
            self.window = Window(self.rule.id, *self._span(now_ns))
            self.roll_at = self.window.end
            self.turns += 1

    def room(self) -> int:
        window = self.window
        return self.limit - window.spent - window.held

    def take(self, nano: int) -> Window:
        self.flying += 1
        window = self.window
        window.held += nano
        return window

    def settle(self, window: Window, held: int, cost: int, *, in_doubt: bool, posted_at: int) -> Crossed | None:
        """Ends a hold and books what the request cost. Returns the thresholds that this crosses, if any."""
        self.flying -= 1
        window.held -= held
        return self.charge(window, cost, in_doubt=in_doubt, posted_at=posted_at) if cost else None

    def charge(self, window: Window, cost: int, *, in_doubt: bool, posted_at: int) -> Crossed | None:
        """Books a cost: in its window, or for a rolling budget in the bucket of `posted_at`."""
        if self.rolling:
            self._post(posted_at, cost, cost if in_doubt else 0)
        else:
            window.spent += cost
            if in_doubt:
                window.in_doubt += cost
        if window.spent < window.warn_at or window is not self.window:
            return None
        rule = self.rule
        percent, before = self._percent_reached(), window.warned
        crossed = percent > before
        if crossed:
            window.warned = percent
        window.warn_at = min([-(-rule.amount_nano * each // 100) for each in rule.thresholds if each > window.warned], default=FOREVER)
        if not crossed:
            return None
        passed = tuple(sorted({each for each in rule.thresholds if before < each <= percent}))
        return Crossed(rule.id, rule.scope, rule.scope_id, window.start, passed, window.spent, rule.amount_nano)

    def resets_at(self) -> int | None:
        """When the current window ends; None where it never does (lifetime) or money returns bit by bit (rolling)."""
        return None if self.rolling or self.window.end >= FOREVER else self.window.end

    def correct(self, window_start_ns: int, nano: int, in_doubt_nano: int) -> None:
        """Adds a correction that was made in the database (reconciling an in-doubt charge); amounts may be negative."""
        if self.rolling:
            self._post(window_start_ns, nano, in_doubt_nano)
        elif window_start_ns == self.window.start:
            self.window.spent += nano
            self.window.in_doubt += in_doubt_nano

    def _span(self, now_ns: int) -> tuple[int, int]:
        return calendar_window(self.rule.period, self._zone, now_ns, self.rule.starts_at_ns)

    def _post(self, start: int, spent: int, in_doubt: int) -> None:
        if start < self.rule.starts_at_ns:
            return
        if self._buckets and start < self._buckets[0][0]:
            index = 0  # older than all we have: kept, and the first to leave
        else:
            index = len(self._buckets)
            while index and self._buckets[index - 1][0] > start:
                index -= 1
        if index and self._buckets[index - 1][0] == start:
            bucket = self._buckets[index - 1]
            bucket[1] += spent
            bucket[2] += in_doubt
        else:
            self._buckets.insert(index, [start, spent, in_doubt])
        self.window.spent += spent
        self.window.in_doubt += in_doubt

    def _percent_reached(self) -> int:
        """The highest threshold reached, in per cent; 0 for none."""
        spent, amount = self.window.spent, self.rule.amount_nano
        return max((percent for percent in self.rule.thresholds if spent * 100 >= amount * percent and spent), default=0)
