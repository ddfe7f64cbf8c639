"""Sliding windows and slots: limits on requests, tokens and concurrency. Pure; time is monotonic nanoseconds, so that a corrected
wall clock neither forgives nor blocks anything.

In no stretch of the window's length, at any offset, is more than the limit admitted. Up to `EXACT` entries a window is exact; above
that neighbours in time are kept together under the later one's time, so that a request may be let in late by `length / EXACT`
(15 ms for a minute, 21 s for a day) but never early.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import final

from keygate.kit.clock import NANOSECONDS
from keygate.policies import LimitKind, LimitRule

MINUTE = 60 * NANOSECONDS
# A request reaches the vendor a little after it was let in, the first of a burst later than others: what counts is when it arrives there.
ARRIVAL = NANOSECONDS // 2
DAY = 86_400 * NANOSECONDS
DAY_BUCKET = 300 * NANOSECONDS  # how finely the database keeps use per day
EXACT = 4096
LEASE = 6 * 3600 * NANOSECONDS

LENGTH = {
    LimitKind.REQUESTS_PER_MINUTE: MINUTE + ARRIVAL,
    LimitKind.TOKENS_PER_MINUTE: MINUTE + ARRIVAL,
    LimitKind.REQUESTS_PER_DAY: DAY + ARRIVAL,
    LimitKind.TOKENS_PER_DAY: DAY + ARRIVAL,
}
TOKENS = frozenset({LimitKind.TOKENS_PER_MINUTE, LimitKind.TOKENS_PER_DAY})

Entry = list[int]  # [time, amount, time of its first part, 1 while it is in the window]


@final
class SlidingWindow:
    __slots__ = ("_entries", "_grain", "flying", "last_settle", "length", "limit", "per_day", "rule", "tokens", "total", "users")

    def __init__(self, rule: LimitRule) -> None:
        self.users = 0
        self.last_settle = (0, 0)  # journal position behind the last settle that was counted here
        self.tokens = rule.kind in TOKENS
        self.per_day = LENGTH[rule.kind] > DAY
        self.flying = 0  # requests in flight that have taken from this window
        self.total = 0
        self.length = LENGTH[rule.kind]
        self._grain = self.length // EXACT
        self._entries: deque[Entry] = deque()
        self.apply(rule)

    def apply(self, rule: LimitRule) -> None:
        self.rule = rule
        self.limit = rule.amount

    def room(self, now: int) -> int:
        """What may be taken at `now`; also forgets what has left the window."""
        entries = self._entries
        edge = now - self.length
        while entries and entries[0][0] <= edge:
            gone = entries.popleft()
            gone[3] = 0
            self.total -= gone[1]
        return self.limit - self.total

    def take(self, amount: int, now: int) -> Entry:
        """Books `amount` of a request in flight at `now`. The caller has asked for room at the same `now`."""
        entries = self._entries
        self.flying += 1
        self.total += amount
        if len(entries) >= EXACT and now - entries[-1][2] < self._grain:
            last = entries[-1]
            last[0] = max(now, last[0])
            last[1] += amount
            return last
        entry = [max(now, entries[-1][0]) if entries else now, amount, now, 1]
        entries.append(entry)
        return entry

    def correct(self, entry: Entry, change: int) -> None:
        """Changes what was booked, at the time at which it was booked."""
        if change and entry[3]:
            entry[1] += change
            self.total += change

    def restore(self, ended: int, amount: int) -> None:
        """Books what was used before this process began; `ended` is the latest instant at which it can have been."""
        entries = self._entries
        index = len(entries)
        while index and entries[index - 1][0] > ended:
            index -= 1
        entries.insert(index, [ended, amount, ended, 1])
        self.total += amount

    def free_at(self, amount: int, now: int) -> int | None:
        """The earliest time at which `amount` fits if nothing else is taken; None: never, it is more than the limit."""
        missing = amount - self.room(now)
        if amount > self.limit:
            return None
        for entry in self._entries:
            if missing <= 0:
                break
            missing -= entry[1]
            now = entry[0] + self.length
        return now

    def idle(self, now: int) -> bool:
        self.room(now)
        return not self._entries and not self.flying


@final
class Slots:
    """Concurrency. A slot is a lease: freed by its request's end, and by time if that end is never heard of."""

    __slots__ = ("_leases", "last_settle", "limit", "rule", "users")

    def __init__(self, rule: LimitRule) -> None:
        self.users = 0
        self.last_settle = (0, 0)
        self._leases: OrderedDict[str, int] = OrderedDict()
        self.apply(rule)

    def apply(self, rule: LimitRule) -> None:
        self.rule = rule
        self.limit = rule.amount

    def room(self, now: int) -> int:
        leases = self._leases
        while leases:
            hold_id, until = next(iter(leases.items()))
            if until > now:
                break
            del leases[hold_id]
        return self.limit - len(leases)

    def take(self, hold_id: str, now: int) -> None:
        self._leases[hold_id] = now + LEASE

    def free(self, hold_id: str) -> None:
        self._leases.pop(hold_id, None)

    @property
    def used(self) -> int:
        return len(self._leases)
