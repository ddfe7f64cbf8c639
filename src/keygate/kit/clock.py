"""Time as a dependency: wall time for records and windows, monotonic time for durations."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

NANOSECONDS = 1_000_000_000


class Clock(Protocol):
    def now_ns(self) -> int:
        """Wall time in nanoseconds since the epoch, UTC."""

    def monotonic_ns(self) -> int:
        """Time that only goes forward, for durations and time-outs."""


class SystemClock:
    now_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


class ManualClock:
    """A clock that stands still until told to move; for tests and for replaying journals."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = to_ns(start or datetime(2026, 1, 1, tzinfo=UTC))
        self._monotonic = 0

    def now_ns(self) -> int:
        return self._now

    def monotonic_ns(self) -> int:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        step = round(seconds * NANOSECONDS)
        self._now += step
        self._monotonic += step


def to_ns(moment: datetime) -> int:
    """Exact to the microsecond; refuses naive datetimes."""
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * NANOSECONDS + delta.microseconds * 1_000


def from_ns(instant: int) -> datetime:
    seconds, rest = divmod(instant, NANOSECONDS)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1_000)


def rfc3339(instant: int | None) -> str | None:
    """`2026-11-21T09:10:00.123456Z`, as every time on our wire."""
    if instant is None:
        return None
    return from_ns(instant).isoformat(timespec="microseconds").replace("+00:00", "Z")
