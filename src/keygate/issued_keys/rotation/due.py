"""What is due: when a key is rotated by itself, why, and what stands in the way. Pure.

Time counts from when the newest key was made at the vendor, not from when the last rotation was due: whatever was missed while KeyGate was
down is made up for once. A key made in the future (a clock was set back) counts as made now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from keygate.issued_keys.life import LIVE, State
from keygate.issued_keys.model import Cause, Delivery, IssuedKey
from keygate.issued_keys.rotation.model import DAY_NS, NEAR_END_SECONDS, RotationPolicy, default_overlap
from keygate.kit.clock import NANOSECONDS

_WEEK_NS = 7 * DAY_NS


@dataclass(frozen=True, slots=True)
class Case:
    """A key, and what bears on when it is rotated."""

    key: IssuedKey
    policies: tuple[RotationPolicy, ...]  # that cover it
    able: bool  # the vendor can hold its next key beside it
    disabled: bool = False  # for its budget, by KeyGate


class Hindrance(StrEnum):
    """Why a key is not rotated by itself although its time may have come."""

    BY_PERSON = "by_person"  # made by hand, or at a vendor that can't: only a person can replace it
    OPEN = "rotation_open"  # the last rotation is not over
    BUDGET = "disabled_for_budget"  # by KeyGate: until the budget's next period, or until somebody lets it go on
    UNFETCHED = "secret_not_fetched"  # nobody has the secret of the newest key yet
    ENDS_FIRST = "ends_first"  # it ends before a new key would be of use
    FAILED = "failed"  # the last try came to nothing; it is tried again


@dataclass(frozen=True, slots=True)
class Outlook:
    """What lies ahead of a key. `next_at_ns` in the past: it is about to begin, unless `hindrance` says why not."""

    cause: Cause | None = None
    policy: RotationPolicy | None = None  # the rotation is due by; for `BY_PERSON` the strictest
    next_at_ns: int | None = None
    overlap_seconds: int = 0
    too_old_at_ns: int | None = None  # by the strictest policy, of the oldest of its keys that works
    hindrance: Hindrance | None = None

    def overdue(self, now_ns: int) -> bool:
        """Older than a policy allows."""
        return self.too_old_at_ns is not None and now_ns >= self.too_old_at_ns


@dataclass(frozen=True, slots=True)
class Rotate:
    """The key's next one is to be made now."""

    cause: Cause
    overlap_seconds: int
    policy: RotationPolicy | None


@dataclass(frozen=True, slots=True)
class Remind:
    """Somebody is to be told that a key needs a person; the next time at `again_at_ns`."""

    policy: RotationPolicy
    too_old_at_ns: int
    again_at_ns: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing is to be done."""


Decision = Rotate | Remind | Leave


def outlook(case: Case, now_ns: int) -> Outlook:
    key = case.key
    if key.state not in LIVE:
        return Outlook()
    made = made_ns(key, now_ns)
    strictest = strictest_of(case.policies)
    too_old = None if strictest is None else oldest_ns(key, now_ns) + strictest.max_age_ns
    if key.adopted or not case.able:
        if strictest is None:
            return Outlook()
        return Outlook(Cause.POLICY, strictest, too_old_at_ns=too_old, hindrance=Hindrance.BY_PERSON)
    first = _first(case, made)
    if first is None:
        return Outlook()
    at = first.at_ns
    hindrance = _hindrance(case, at, first.overlap_seconds, now_ns)
    if hindrance is Hindrance.FAILED:
        at = max(at, key.rotate_after_ns or 0)
    next_at = None if hindrance is Hindrance.ENDS_FIRST else at
    return Outlook(first.cause, first.policy, next_at, first.overlap_seconds, too_old, hindrance)


def decide(case: Case, now_ns: int) -> Decision:
    """What is to be done about a key now. What is not known to be due is left."""
    ahead = outlook(case, now_ns)
    if ahead.hindrance is Hindrance.BY_PERSON and ahead.policy is not None and ahead.too_old_at_ns is not None:
        return _remind(case.key, ahead.policy, ahead.too_old_at_ns, now_ns)
    due = ahead.next_at_ns is not None and ahead.next_at_ns <= now_ns
    if not due or ahead.hindrance is not None or ahead.cause is None:
        return Leave()
    return Rotate(ahead.cause, ahead.overlap_seconds, ahead.policy)


def made_ns(key: IssuedKey, now_ns: int) -> int:
    """When the newest key was made."""
    return min(now_ns, key.made_at_ns or key.activated_at_ns or key.created_at_ns)


def oldest_ns(key: IssuedKey, now_ns: int) -> int:
    """When the oldest of its keys that works was made: during a rotation the former one."""
    made = made_ns(key, now_ns)
    return made if key.former is None or key.former.made_at_ns is None else min(made, key.former.made_at_ns)


def strictest_of(policies: Iterable[RotationPolicy]) -> RotationPolicy | None:
    return min(policies, key=lambda policy: (policy.max_age_days, policy.id), default=None)


@dataclass(frozen=True, slots=True)
class _Turn:
    at_ns: int
    cause: Cause
    overlap_seconds: int
    policy: RotationPolicy | None = None


def _first(case: Case, made: int) -> _Turn | None:
    """The turn that comes first: the key's own, or a policy's."""
    turns = [
        _Turn(made + policy.begin_age_ns, Cause.POLICY, policy.overlap, policy)
        for policy in sorted(case.policies, key=lambda each: each.id)
    ]
    every, overlap = case.key.rotate_every_days, case.key.rotate_overlap_seconds
    if every is not None:
        turns.insert(0, _Turn(made + every * DAY_NS, Cause.SCHEDULE, default_overlap(every) if overlap is None else overlap))
    return min(turns, key=lambda turn: turn.at_ns, default=None)


def _hindrance(case: Case, at_ns: int, overlap_seconds: int, now_ns: int) -> Hindrance | None:
    key = case.key
    if key.state is State.ROTATING:
        return Hindrance.OPEN
    worth_ns = max(overlap_seconds, NEAR_END_SECONDS) * NANOSECONDS
    if key.expires_at_ns is not None and key.expires_at_ns <= max(at_ns, now_ns) + worth_ns:
        return Hindrance.ENDS_FIRST
    if case.disabled:
        return Hindrance.BUDGET
    if key.delivery(now_ns) is Delivery.WAITING:
        return Hindrance.UNFETCHED
    if key.rotate_after_ns is not None and now_ns < key.rotate_after_ns:
        return Hindrance.FAILED
    return None


def _remind(key: IssuedKey, policy: RotationPolicy, too_old_ns: int, now_ns: int) -> Decision:
    ends_first = key.expires_at_ns is not None and key.expires_at_ns <= too_old_ns  # its end has reminders of its own
    first_ns = too_old_ns - policy.max_age_ns + policy.remind_age_ns
    if ends_first or now_ns < first_ns or now_ns < (key.rotate_after_ns or 0):
        return Leave()
    again = now_ns + _WEEK_NS
    return Remind(policy, too_old_ns, min(again, too_old_ns) if now_ns < too_old_ns else again)
