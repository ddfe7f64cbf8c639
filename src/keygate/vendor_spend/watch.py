"""When a watched budget warns, lowers limits, and ends the key's use. Pure. A watched budget is never hard: the vendor tells late what was
spent, and goes on serving until KeyGate has seen it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from keygate.kit.clock import from_ns, to_ns
from keygate.vendors.admin import Period

DEFAULT_WARN_AT = (50, 80)
_MOST_PERCENT = 1_000_000  # that is announced


class Stage(StrEnum):
    """What is done to a key at the vendor, from the mildest to the last."""

    NONE = "none"
    LOWERED = "lowered"  # its limits are a part of its own
    DISABLED = "disabled"  # refused until the next period, or until somebody raises the budget
    REVOKED = "revoked"  # for good


class AtEnd(StrEnum):
    """What happens when the budget is spent."""

    DEFAULT = "default"  # disabled where the vendor can take that back, else announced
    WARN = "warn"
    DISABLE = "disable"
    REVOKE = "revoke"


@dataclass(frozen=True, slots=True)
class WatchRule:
    """Percents are of the budget; `lower_to` is of the key's own limits."""

    warn_at: tuple[int, ...] = DEFAULT_WARN_AT
    lower_at: int | None = None
    lower_to: int = 25
    at_end: AtEnd = AtEnd.DEFAULT


@dataclass(frozen=True, slots=True)
class Watch:
    """How a key's budget is watched, and how far things have come. `wanted` was recorded before the vendor was told; `stage` is what the
    vendor has confirmed."""

    key_id: str
    organization_id: str
    rule: WatchRule = WatchRule()
    window_start_ns: int = 0
    warned: int = 0
    waived_ns: int | None = None  # the period in which somebody let the key go on past its budget …
    waived_nano: int | None = None  # … by so much; None: by whatever comes
    wanted: Stage = Stage.NONE
    stage: Stage = Stage.NONE
    stage_key: str | None = None  # of which key at the vendor: a rotation brings another
    confirmed_at_ns: int | None = None
    attempts: int = 0
    next_at_ns: int = 0
    error_code: str | None = None
    error: str | None = None

    @property
    def holds_back(self) -> bool:
        """Whether the key is lowered or switched off at the vendor, or is just being."""
        return bool({self.stage, self.wanted} & {Stage.LOWERED, Stage.DISABLED})


@dataclass(frozen=True, slots=True)
class Resumption:
    """What lets a key go on that its budget ended; one of these. The next thresholds act as the first ones did."""

    budget_nano: int | None = None  # another budget from now on
    extra_nano: int | None = None  # so much more in this period
    ignore: bool = False  # whatever comes, until this period ends: announced, and nothing is done


def waive(watch: Watch, how: Resumption, begin_ns: int) -> Watch:
    """`begin_ns`: of the period. What was allowed more in it before is added to."""
    if how.ignore:
        return replace(watch, waived_ns=begin_ns, waived_nano=None)
    if how.extra_nano is None:
        return replace(watch, waived_ns=None, waived_nano=None)
    before = watch.waived_nano or 0 if watch.waived_ns == begin_ns else 0
    return replace(watch, waived_ns=begin_ns, waived_nano=before + how.extra_nano)


def allowed(budget_nano: int, watch: Watch, begin_ns: int) -> int | None:
    """What the key may spend in the period that began then; None: whatever comes."""
    if watch.waived_ns != begin_ns:
        return budget_nano
    return None if watch.waived_nano is None else budget_nano + watch.waived_nano


def percent_of(spent_nano: int, budget_nano: int) -> int:
    """Whole percents, rounded down: 100 only once all is spent. A budget of nothing is spent from the start."""
    return 100 if budget_nano <= 0 else max(0, spent_nano * 100 // budget_nano)


def announced_at(rule: WatchRule, percent: int) -> int:
    """The highest threshold reached; 100 is always one, and 200, 300, … are: the same amount spent once more. 0: none."""
    if percent >= 100:
        return min(percent // 100 * 100, _MOST_PERCENT)
    return max((each for each in rule.warn_at if percent >= each), default=0)


def passed(rule: WatchRule, before: int, reached: int) -> list[int]:
    """What is to be told once `reached` has been announced as the highest, and `before` was until then: each threshold between them, for
    somebody may wait for just one. Of whole amounts spent once more, the newest stands for those before it."""
    return sorted({each for each in (*rule.warn_at, 100) if before < each < reached} | {reached})


def wanted_stage(rule: WatchRule, percent: int, *, can_disable: bool, waived: bool = False) -> Stage:
    """What is to be done at this percent of the budget. `waived`: the end of it does not count in this period."""
    if percent >= 100 and not waived:
        if rule.at_end is AtEnd.REVOKE:
            return Stage.REVOKED
        if rule.at_end is AtEnd.DISABLE or (rule.at_end is AtEnd.DEFAULT and can_disable):
            return Stage.DISABLED
    if rule.lower_at is not None and percent >= rule.lower_at:
        return Stage.LOWERED
    return Stage.NONE


def window_of(period: Period, now_ns: int) -> tuple[int, int | None]:
    """Begin and end of the budget's period, in UTC as vendors bill; weeks begin on Monday. No end: lifetime."""
    midnight = from_ns(now_ns).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case Period.DAY:
            begin, end = midnight, midnight + timedelta(days=1)
        case Period.WEEK:
            begin = midnight - timedelta(days=midnight.weekday())
            end = begin + timedelta(days=7)
        case Period.MONTH:
            begin = midnight.replace(day=1)
            end = (begin + timedelta(days=32)).replace(day=1)
        case Period.LIFETIME:
            return 0, None
    return to_ns(begin), to_ns(end)
