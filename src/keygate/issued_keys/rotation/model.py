"""Rotation policies, and how schedules and policies are followed. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass

DAY_SECONDS = 86_400
DAY_NS = DAY_SECONDS * 1_000_000_000

MAX_ROTATION_DAYS = 3_650
QUIET_SECONDS = DAY_SECONDS  # the former key is cut once the vendor shows it unused for so long: a nightly job has run since
IDLE_SECONDS = 30 * DAY_SECONDS  # … and for so long where nobody has fetched the new secret: a monthly job has run since
NEAR_END_SECONDS = 2 * DAY_SECONDS  # a new key that would live no longer is not worth the change
_LONGEST_OVERLAP_SECONDS = 7 * DAY_SECONDS


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """No issued key older than `max_age_days`: of the organisation, or of a team, at a vendor, or both. Where several bear on a key, the
    strictest holds."""

    id: str  # rp_…
    organization_id: str
    max_age_days: int
    created_at_ns: int
    created_by: str
    updated_at_ns: int
    overlap_seconds: int | None = None  # None: as `default_overlap` says
    team_id: str | None = None  # keys of the team, its developers and apps; None: everybody's
    vendor: str | None = None  # None: everywhere

    @property
    def max_age_ns(self) -> int:
        return self.max_age_days * DAY_NS

    @property
    def overlap(self) -> int:
        return default_overlap(self.max_age_days) if self.overlap_seconds is None else self.overlap_seconds

    @property
    def begin_age_ns(self) -> int:
        """At this age a key's rotation begins, so that it is over in time if the new secret is fetched at once."""
        return self.max_age_ns - self.overlap * 1_000_000_000

    @property
    def remind_age_ns(self) -> int:
        """At this age somebody is told of a key that only a person can replace."""
        return self.max_age_ns - min(14 * DAY_NS, self.max_age_ns // 4)

    def covers(self, *, vendor: str, team_id: str | None) -> bool:
        return self.vendor in {None, vendor} and (self.team_id is None or self.team_id == team_id)


def default_overlap(days: int) -> int:
    """Seconds that both keys work: a quarter of the time between two rotations, at most a week."""
    return min(_LONGEST_OVERLAP_SECONDS, days * DAY_SECONDS // 4)


def pause_before_reminder_ns(reminders: int) -> int:
    """After so many of them: a day, two, four, then a week each time."""
    return min(7, 1 << min(reminders, 3)) * DAY_NS


def retry_pause_ns(tries: int) -> int:
    """Before a rotation that came to nothing is begun again: an hour, twice as long each time, at most a day."""
    return min(DAY_NS, 3_600_000_000_000 << min(tries, 10))
