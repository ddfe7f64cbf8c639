"""Budget windows: calendar windows in a time zone, or a stretch of time that moves along. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from keygate.kit.clock import NANOSECONDS, from_ns, to_ns
from keygate.policies import Period

FOREVER = 2**63 - 1
_DAY = 86_400 * NANOSECONDS

# How long a rolling period is, and how finely its spend is kept (a bucket leaves the window when all of it is out).
ROLLING: dict[Period, tuple[int, int]] = {
    Period.DAY: (_DAY, _DAY // 96),
    Period.WEEK: (7 * _DAY, _DAY // 24),
    Period.MONTH: (30 * _DAY, _DAY // 4),
    Period.QUARTER: (91 * _DAY, _DAY),
    Period.YEAR: (365 * _DAY, _DAY),
}


def zone(name: str) -> ZoneInfo:
    """The IANA zone; UTC where the system knows no such zone (policies refuse such names before they get here)."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def calendar_window(period: Period, tz: ZoneInfo, at_ns: int, starts_at_ns: int = 0) -> tuple[int, int]:
    """[start, end) of the window that `at_ns` is in. Windows of a period tile time without gap or overlap, across clock changes too.
    `starts_at_ns` cuts the window that it is in: what was spent before it is another window."""
    if period is Period.LIFETIME:
        start, end = 0, FOREVER
    else:
        local = from_ns(at_ns).astimezone(tz)
        first = _first_day(period, local)
        start, end = _instant(first, tz), _instant(_next(period, first), tz)
        if at_ns < start:  # local midnight came twice, and this is before the first of them
            first = _first_day(period, first - timedelta(days=1))
            start, end = _instant(first, tz), start
        elif at_ns >= end:
            start, end = end, _instant(_next(period, _next(period, first)), tz)
    if start < starts_at_ns < end:
        return (starts_at_ns, end) if at_ns >= starts_at_ns else (start, starts_at_ns)
    return start, end


def _first_day(period: Period, local: datetime) -> datetime:
    day = datetime(local.year, local.month, local.day)  # noqa: DTZ001  (a wall date; it gets its zone in `_instant`)
    if period is Period.DAY:
        return day
    if period is Period.WEEK:
        return day - timedelta(days=day.weekday())
    if period is Period.MONTH:
        return day.replace(day=1)
    if period is Period.QUARTER:
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    return day.replace(month=1, day=1)


def _next(period: Period, first: datetime) -> datetime:
    if period is Period.DAY:
        return first + timedelta(days=1)
    if period is Period.WEEK:
        return first + timedelta(days=7)
    months = {Period.MONTH: 1, Period.QUARTER: 3, Period.YEAR: 12}[period]
    years, month = divmod(first.month - 1 + months, 12)
    return first.replace(year=first.year + years, month=month + 1)


def _instant(day: datetime, tz: ZoneInfo) -> int:
    return to_ns(day.replace(tzinfo=tz).astimezone(UTC))
