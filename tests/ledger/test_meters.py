"""Budgets in memory: windows that tile time, holds that end where they began, and a model that is never exceeded."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from tests.ledger.engine import budget

from keygate.kit.clock import NANOSECONDS, from_ns, to_ns
from keygate.ledger.meters.budget import BudgetMeter, Window
from keygate.ledger.meters.calendar import calendar_window, zone
from keygate.ledger.meters.selectors import applies
from keygate.ledger.meters.sizing import LEAST, Patience, portion
from keygate.ledger.ports import WindowSpend
from keygate.policies import Period, Scope

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Africa/Cairo",
    "America/Havana",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
)
HOUR = 3600 * NANOSECONDS
DAY = 24 * HOUR
START = to_ns(datetime(2026, 1, 1, tzinfo=UTC))
CALENDAR = (Period.DAY, Period.WEEK, Period.MONTH, Period.QUARTER, Period.YEAR)


@settings(max_examples=500, deadline=None)
@given(period=st.sampled_from(CALENDAR), name=st.sampled_from(ZONES), at=st.integers(0, to_ns(datetime(2060, 1, 1, tzinfo=UTC))))
def test_windows_tile_time_without_gap_or_overlap(period: Period, name: str, at: int) -> None:
    tz = zone(name)
    start, end = calendar_window(period, tz, at)
    assert start <= at < end
    assert calendar_window(period, tz, start) == (start, end)
    assert calendar_window(period, tz, end - 1) == (start, end)
    assert calendar_window(period, tz, end)[0] == end
    assert calendar_window(period, tz, start - 1)[1] == start or start == 0


@pytest.mark.parametrize(
    ("period", "at", "start", "end"),
    [
        (Period.DAY, "2026-03-29T12:00+00:00", "2026-03-28T23:00+00:00", "2026-03-29T22:00+00:00"),  # 23 hours in Berlin
        (Period.DAY, "2026-10-25T12:00+00:00", "2026-10-24T22:00+00:00", "2026-10-25T23:00+00:00"),  # 25 hours
        (Period.WEEK, "2026-11-21T12:00+00:00", "2026-11-15T23:00+00:00", "2026-11-22T23:00+00:00"),  # Monday to Monday
        (Period.QUARTER, "2026-11-21T12:00+00:00", "2026-09-30T22:00+00:00", "2026-12-31T23:00+00:00"),
        (Period.YEAR, "2026-12-31T22:59+00:00", "2025-12-31T23:00+00:00", "2026-12-31T23:00+00:00"),
    ],
)
def test_windows_begin_at_local_midnight_across_clock_changes(period: Period, at: str, start: str, end: str) -> None:
    window = calendar_window(period, ZoneInfo("Europe/Berlin"), to_ns(datetime.fromisoformat(at)))
    assert [from_ns(instant).isoformat(timespec="minutes") for instant in window] == [start, end]


def test_a_start_in_the_middle_of_a_window_cuts_it_in_two() -> None:
    cut = START + 5 * HOUR
    assert calendar_window(Period.DAY, zone("UTC"), START + HOUR, cut) == (START, cut)
    assert calendar_window(Period.DAY, zone("UTC"), START + 6 * HOUR, cut) == (cut, START + DAY)


def test_a_hold_settles_in_the_window_in_which_it_began() -> None:
    meter = BudgetMeter(budget(100, period=Period.DAY), START)
    old = meter.take(60)
    meter.roll(START + DAY)
    assert meter.room() == 100  # the new window knows nothing of it
    meter.settle(old, 60, 50, in_doubt=False, posted_at=old.start)
    assert meter.room() == 100
    assert (old.spent, old.held) == (50, 0)


def test_time_that_goes_backwards_does_not_bring_an_old_window_back() -> None:
    meter = BudgetMeter(budget(100, period=Period.DAY), START + DAY)
    meter.settle(meter.take(90), 90, 90, in_doubt=False, posted_at=0)
    meter.roll(START)
    assert meter.room() == 10


def test_a_rolling_budget_frees_money_when_it_is_a_whole_period_old() -> None:
    meter = BudgetMeter(budget(100, period=Period.DAY, rolling=True), START)
    window = meter.take(80)
    meter.settle(window, 80, 80, in_doubt=False, posted_at=window.posting[1])
    meter.roll(START + DAY - 1)
    assert meter.room() == 20
    meter.roll(START + DAY + DAY // 96)
    assert meter.room() == 100


def test_thresholds_are_reported_once_per_window() -> None:
    meter = BudgetMeter(budget(100, period=Period.DAY, thresholds=(50, 80, 100)), START)

    def spend(nano: int) -> tuple[int, ...]:
        crossed = meter.settle(meter.take(nano), nano, nano, in_doubt=False, posted_at=meter.window.start)
        return crossed.percents if crossed else ()

    assert [spend(40), spend(10), spend(10), spend(35), spend(5), spend(5)] == [(), (50,), (), (80,), (100,), ()]
    meter.roll(START + DAY)
    assert spend(55) == (50,)
    assert spend(70) == (80, 100)  # one call may pass several: each is told


def test_thresholds_that_were_passed_before_a_restart_are_not_reported_again() -> None:
    meter = BudgetMeter(budget(100, period=Period.DAY, thresholds=(50, 80)), START)
    meter.load([WindowSpend(START, 60, 10)], START)
    assert meter.settle(meter.take(5), 5, 5, in_doubt=False, posted_at=START) is None
    crossed = meter.settle(meter.take(20), 20, 20, in_doubt=False, posted_at=START)
    assert crossed is not None
    assert crossed.percents == (80,)


def test_selectors_of_vendor_model_and_tag_rules() -> None:
    def fits(scope: Scope, selector: str | None, tags: tuple[str, ...] = ()) -> bool:
        return applies(budget(1, scope=scope, selector=selector), "anthropic", "claude-opus-4-5", tags)

    assert fits(Scope.VENDOR, "anthropic")
    assert not fits(Scope.VENDOR, "openai")
    assert fits(Scope.MODEL, "anthropic/claude-opus-*")
    assert fits(Scope.MODEL, "claude-opus-4-5")
    assert not fits(Scope.MODEL, "anthropic/claude-sonnet-*")
    assert not fits(Scope.MODEL, "anthropic/claude-opus-[45]*")
    assert fits(Scope.TAG, "project=x", ("team=a", "project=x"))
    assert fits(Scope.TAG, "project", ("project=x",))
    assert not fits(Scope.TAG, "project=x", ("project=xy",))
    assert fits(Scope.TEAM, None)


@given(available=st.integers(-100, 10**6), desired=st.integers(1, 130_000), lone=st.booleans(), patience=st.sampled_from(Patience))
def test_a_portion_fits_and_the_last_attempt_takes_what_there_is(available: int, desired: int, lone: bool, patience: Patience) -> None:
    share = portion(available, desired, lone=lone, patience=patience)
    if share is not None:
        assert min(LEAST, desired) <= share <= min(available, desired)
    elif lone or patience is Patience.LAST:
        assert available < min(LEAST, desired)


class Budgets(RuleBasedStateMachine):
    """Random holds, settles, time and changed amounts against an oracle that only adds up."""

    holds = Bundle("holds")

    @initialize(amount=st.integers(0, 1000), period=st.sampled_from((Period.DAY, Period.LIFETIME)), rolling=st.booleans())
    def begin(self, amount: int, period: Period, rolling: bool) -> None:
        self.now = START
        self.rule = budget(amount, period=period, rolling=rolling, thresholds=(50, 100))
        self.meter = BudgetMeter(self.rule, self.now)
        self.flying: list[tuple[Window, int, int, int]] = []
        self.spent: list[tuple[int, int]] = []  # (when it began, cost)
        self.lowered = False

    @rule(target=holds, wish=st.integers(0, 300))
    def hold(self, wish: int) -> tuple[Window, int, int, int] | None:
        self.meter.roll(self.now)
        if wish > self.meter.room():
            if not self.rolling:
                assert wish + self.committed() > self.rule.amount_nano  # no false refusal
            return None
        assert self.committed() + wish <= self.rule.amount_nano  # never exceeded
        window = self.meter.take(wish)
        taken = (window, wish, window.posting[1], self.now)
        self.flying.append(taken)
        return taken

    @rule(hold=consumes(holds), part=st.integers(0, 100), in_doubt=st.booleans())
    def settle(self, hold: tuple[Window, int, int, int] | None, part: int, in_doubt: bool) -> None:
        if hold is None:
            return
        self.flying.remove(hold)
        window, held, posted, began = hold
        cost = held if in_doubt else held * part // 100
        self.meter.settle(window, held, cost, in_doubt=in_doubt, posted_at=posted)
        self.spent.append((began, cost))

    @rule(seconds=st.integers(0, 100_000))
    def wait(self, seconds: int) -> None:
        self.now += seconds * NANOSECONDS
        self.meter.roll(self.now)

    @rule(amount=st.integers(0, 1000))
    def change(self, amount: int) -> None:
        self.rule = budget(amount, period=self.rule.period, rolling=self.rule.rolling, thresholds=(50, 100))
        self.meter.apply(self.rule, amount)

    @property
    def rolling(self) -> bool:
        return self.meter.rolling

    def committed(self) -> int:
        """What counts now: held and spent in the current window, told from the dates alone."""
        if self.rule.period is Period.LIFETIME:
            return sum(held for _, held, _, _ in self.flying) + sum(cost for _, cost in self.spent)
        if self.rolling:
            edge = self.now - DAY
            return sum(held for _, held, _, _ in self.flying) + sum(cost for began, cost in self.spent if began > edge)
        day = self.now - self.now % DAY
        return sum(held for _, held, _, began in self.flying if began >= day) + sum(cost for began, cost in self.spent if began >= day)

    @invariant()
    @precondition(lambda self: hasattr(self, "meter"))
    def counts_what_the_oracle_counts(self) -> None:
        self.meter.roll(self.now)
        window = self.meter.window
        if self.rolling:
            assert window.spent + window.held >= self.committed()
        else:
            assert window.spent + window.held == self.committed()
        assert self.meter.flying == len(self.flying)

    def teardown(self) -> None:
        if not hasattr(self, "meter"):
            return
        for window, held, posted, _ in self.flying:
            self.meter.settle(window, held, 0, in_doubt=False, posted_at=posted)
        assert self.meter.window.held == 0
        assert self.meter.flying == 0


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_no_hold_is_left_after_everything_settled() -> None:
    meter = BudgetMeter(budget(1000, period=Period.DAY), START)
    holds = [(meter.take(10), 10) for _ in range(50)]
    meter.roll(START + DAY)
    holds += [(meter.take(7), 7) for _ in range(50)]
    for window, nano in holds:
        meter.settle(window, nano, nano // 2, in_doubt=False, posted_at=0)
    assert meter.window.held == 0
    assert all(window.held == 0 for window, _ in holds)
    assert meter.flying == 0
