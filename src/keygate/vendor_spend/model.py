"""What vendors bill, as it is imported: rows, windows of time, and whose a row is. Frozen values, pure."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from keygate.kit.clock import NANOSECONDS, rfc3339
from keygate.vendors.admin import Rejected, SpendFacts, SpendRow, Unavailable

DAY_NS = 86_400 * NANOSECONDS
HISTORY_DAYS = 31  # how far before its entry an account's bills are read
RECENT_DAYS = 3  # read again with each import, where the vendor restates longer than that; all that it may restate, once a day
FASTEST_SECONDS = 900  # between two imports of an account
SLOWEST_SECONDS = 14_400
_TOO_MUCH = frozenset({Unavailable.code, Rejected.code})
MOST_TEXT = 500  # of a name or a line of the vendor's


class Attribution(StrEnum):
    """How it was told whose spend a row is."""

    KEY = "key"  # the bill names a key that KeyGate issued
    CONTAINER = "container"  # it names a place that was made for an issued key, with no key, or one that KeyGate did not make
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Window:
    """`[from_ns, until_ns)` of a vendor's bill; begins at a UTC midnight."""

    from_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class ImportState:
    """How far the bill of an account has been read. `window` with its `cursor` is what is being read now: pages that have come wait apart
    until the last one is there, and then replace what the window held."""

    account_id: str
    organization_id: str
    vendor: str
    read_until_ns: int | None = None  # all before it has been read at least once
    as_of_ns: int | None = None  # when the newest complete reading began
    window: Window | None = None
    window_began_ns: int = 0
    cursor: str | None = None
    pages: int = 0
    deep_at_ns: int = 0  # when all that the vendor may restate was last read again
    deep_began_ns: int | None = None  # the same of the reading that goes on; None: it is of the last days only
    next_at_ns: int = 0
    attempts: int = 0  # that failed in a row
    error_code: str | None = None
    error: str | None = None
    by_key_since_ns: int = 0  # days that begin before can't be told by key …
    not_by_key: str | None = None  # … and none can, for this reason, with what to do for it

    def trouble(self, since_ns: int | None = None) -> str | None:
        """Why its numbers can't be relied on: of issued keys, from then on."""
        told = [each for each in (self.error, self.not_by_key) if each]
        if not self.not_by_key and since_ns is not None and since_ns < self.by_key_since_ns:
            told.append(f"what was spent before {rfc3339(self.by_key_since_ns)} can't be told by key, and is not in this number")
        return "; ".join(told) or None

    def tells_by_key(self, day_ns: int) -> bool:
        return self.not_by_key is None and day_ns >= self.by_key_since_ns


def day_of(moment_ns: int) -> int:
    return moment_ns // DAY_NS * DAY_NS


def first_window(state: ImportState, facts: SpendFacts, *, created_ns: int, now_ns: int, since_ns: int | None = None) -> Window:
    """Where the next reading begins: the days that the vendor may still restate are read again, each time. Days that it tells no more are
    not asked for: what is known of them would be taken for taken back."""
    if since_ns is not None:
        start = since_ns
    elif state.read_until_ns is None:
        start = created_ns - HISTORY_DAYS * DAY_NS
    else:
        days = facts.restated_days if is_deep(state, now_ns) else min(RECENT_DAYS, facts.restated_days)
        start = min(state.read_until_ns, now_ns) - max(1, days) * DAY_NS
    return _window(max(day_of(max(0, start)), earliest(facts, now_ns)), now_ns, state, facts)


def earliest(facts: SpendFacts, now_ns: int) -> int:
    """The first day that the vendor still tells; the beginning of time where that is not known."""
    return 0 if facts.reach_days is None else day_of(now_ns) - facts.reach_days * DAY_NS


def is_deep(state: ImportState, now_ns: int) -> bool:
    """True also where the last time lies ahead: the clock was set back."""
    return not 0 <= now_ns - state.deep_at_ns < DAY_NS


def next_window(window: Window, now_ns: int, state: ImportState, facts: SpendFacts) -> Window | None:
    """None: up to date."""
    return _window(day_of(window.until_ns), now_ns, state, facts) if window.until_ns < now_ns else None


def _window(start: int, now_ns: int, state: ImportState, facts: SpendFacts) -> Window:
    most = start + _days(state, facts) * DAY_NS
    return Window(start, most if most <= now_ns else max(now_ns, start + 1))


def _days(state: ImportState, facts: SpendFacts) -> int:
    """How many are asked for at a time: fewer after a failure, which may mean that they are more than a vendor tells, or than we read, in
    one answer. A vendor that limits calls is not asked more often for that."""
    if state.attempts and state.error_code in _TOO_MUCH:
        return max(1, facts.window_days // (7, 49, 343)[min(state.attempts, 3) - 1])
    return facts.window_days


def pause_ns(facts: SpendFacts) -> int:
    """Between two imports: as long as new numbers take to come, within bounds, or as the vendor's costs of asking want it."""
    seconds = facts.every_seconds or max(FASTEST_SECONDS, min(SLOWEST_SECONDS, facts.delay_seconds or FASTEST_SECONDS))
    return seconds * NANOSECONDS


def place_text(place: Mapping[str, str]) -> str:
    """A place as it stands in a row: canonical, so that the same place is the same text."""
    return json.dumps(dict(place), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def place_of(text: str) -> dict[str, str]:
    found = json.loads(text)
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def plain(row: SpendRow) -> SpendRow:
    """With what any database holds: texts bounded, without what is no character; counts that are none are not told."""
    return replace(
        row,
        place={_text(name, 40): _text(value, MOST_TEXT) for name, value in list(row.place.items())[:10]},
        key=None if row.key is None else _text(row.key, MOST_TEXT),
        item=_text(row.item, MOST_TEXT),
        requests=_count(row.requests),
        input_tokens=_count(row.input_tokens),
        output_tokens=_count(row.output_tokens),
    )


def _count(number: int | None) -> int | None:
    return number if type(number) is int and abs(number) < 2**62 else None


def _text(text: str, most: int) -> str:
    return text.replace("\0", "").encode(errors="replace").decode()[:most]


def row_id(row: SpendRow) -> str:
    """The same place, key, bucket and item told again is the same row: it replaces the former one."""
    parts = json.dumps([place_text(row.place), row.key, row.start_ns, row.item], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(parts.encode()).hexdigest()[:40]


def model_of(item: str) -> str:
    """The model in a line of a bill: `gpt-4o, input_tokens` → `gpt-4o`. Vendors that bill by model name nothing else."""
    return item.partition(", ")[0]


class Places:
    """What an account's bills may name, and whose it is."""

    def __init__(self, known: Iterable[tuple[str, str, str]]) -> None:
        self._keys: dict[str, str] = {}
        self._parts: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for name, value, key_id in known:
            if name == "key":
                self._keys[value] = key_id
            else:
                self._parts[name, value].add(key_id)

    def owner(self, place: Mapping[str, str], vendor_key: str | None) -> tuple[str | None, Attribution]:
        """The issued key whose spend this is. A place that several keys share tells nobody's."""
        if vendor_key is not None and vendor_key in self._keys:
            return self._keys[vendor_key], Attribution.KEY
        holders = [self._parts[part] for part in place.items() if part in self._parts]
        common = set.intersection(*holders) if holders else set()
        if len(common) == 1:
            return common.pop(), Attribution.CONTAINER
        return None, Attribution.UNKNOWN
