"""Sliding windows and slots: never more than the limit in any stretch of time, at any offset."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger.engine import limit

from keygate.kit.clock import NANOSECONDS
from keygate.ledger.meters.windows import ARRIVAL, DAY, EXACT, LEASE, MINUTE, SlidingWindow, Slots
from keygate.policies import LimitKind

SECOND = NANOSECONDS


@settings(max_examples=300, deadline=None)
@given(
    amount=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 6)), max_size=150),
)
def test_in_no_minute_at_any_offset_more_than_the_limit_passes(amount: int, steps: list[tuple[int, int]]) -> None:
    window = SlidingWindow(limit(LimitKind.TOKENS_PER_MINUTE, amount))
    now, passed = 0, []
    for wait, wanted in steps:
        now += wait
        inside = sum(taken for at, taken in passed if at > now - MINUTE - ARRIVAL)
        assert window.room(now) == amount - inside  # exact, so nobody is refused falsely either
        if wanted <= window.room(now):
            window.take(wanted, now)
            passed.append((now, wanted))
    for at, _ in passed:
        assert sum(taken for other, taken in passed if at <= other < at + MINUTE + ARRIVAL) <= amount


@settings(max_examples=50, deadline=None)
@given(gaps=st.lists(st.integers(0, 40_000_000), min_size=50, max_size=300))
def test_large_limits_keep_memory_bounded_and_never_admit_early(gaps: list[int]) -> None:
    window = SlidingWindow(limit(LimitKind.REQUESTS_PER_MINUTE, 3 * EXACT))
    now, passed = 0, []
    for gap in gaps * (3 * EXACT // len(gaps) + 60):
        now += gap // 8
        if window.room(now) > 0:
            window.take(1, now)
            passed.append(now)
    assert len(window._entries) <= 2 * EXACT + 2
    for index in range(0, len(passed) - 3 * EXACT, 97):
        assert passed[index + 3 * EXACT] - passed[index] >= MINUTE + ARRIVAL


def test_tokens_are_lowered_at_the_time_at_which_they_were_reserved() -> None:
    window = SlidingWindow(limit(LimitKind.TOKENS_PER_MINUTE, 100))
    window.room(0)
    entry = window.take(100, 0)
    assert window.room(30 * SECOND) == 0
    window.correct(entry, -90)
    assert window.room(30 * SECOND) == 90
    assert window.room(60 * SECOND) == 90
    assert window.room(MINUTE + ARRIVAL) == 100


def test_a_correction_after_the_entry_has_left_changes_nothing() -> None:
    window = SlidingWindow(limit(LimitKind.TOKENS_PER_MINUTE, 100))
    entry = window.take(80, 0)
    assert window.room(MINUTE + ARRIVAL) == 100
    window.correct(entry, -70)
    window.correct(entry, 500)
    assert window.room(MINUTE + ARRIVAL) == 100


def test_free_at_says_when_it_fits_and_never_for_what_never_fits() -> None:
    window = SlidingWindow(limit(LimitKind.REQUESTS_PER_MINUTE, 2))
    window.take(1, 0)
    window.take(1, 10 * SECOND)
    assert window.free_at(1, 20 * SECOND) == MINUTE + ARRIVAL
    assert window.free_at(2, 20 * SECOND) == MINUTE + ARRIVAL + 10 * SECOND
    assert window.free_at(3, 20 * SECOND) is None
    assert window.room(MINUTE + ARRIVAL) == 1


@given(uses=st.lists(st.tuples(st.integers(-DAY, 0), st.integers(1, 5)), max_size=30))
def test_restored_use_counts_until_its_time_whatever_the_order(uses: list[tuple[int, int]]) -> None:
    window = SlidingWindow(limit(LimitKind.REQUESTS_PER_DAY, 1000))
    for ended, amount in uses:
        window.restore(ended, amount)
    for now in (0, DAY // 3, DAY + ARRIVAL):
        assert window.room(now) == 1000 - sum(amount for ended, amount in uses if ended > now - DAY - ARRIVAL)


def test_slots_are_free_again_after_settle_and_never_below_zero() -> None:
    slots = Slots(limit(LimitKind.CONCURRENT_REQUESTS, 2))
    slots.take("a", 0)
    slots.take("b", 0)
    assert slots.room(1) == 0
    slots.free("a")
    slots.free("a")
    slots.free("never")
    assert slots.room(1) == 1


def test_a_slot_whose_end_is_never_heard_of_returns_with_its_lease() -> None:
    slots = Slots(limit(LimitKind.CONCURRENT_REQUESTS, 1))
    slots.take("a", 0)
    assert slots.room(LEASE - 1) == 0
    assert slots.room(LEASE) == 1
