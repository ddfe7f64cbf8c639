"""What is due: the decision alone, without database, vendor or clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.issued_keys.life import LIVE, State
from keygate.issued_keys.model import ADOPTED, Cause, Former, IssuedKey
from keygate.issued_keys.rotation.due import Case, Hindrance, Leave, Remind, Rotate, decide, outlook
from keygate.issued_keys.rotation.model import (
    DAY_NS,
    DAY_SECONDS,
    RotationPolicy,
    default_overlap,
    pause_before_reminder_ns,
    retry_pause_ns,
)
from keygate.issued_keys.rotation.outlooks import team_of
from keygate.policies import Holder, Scope
from keygate.vendors.admin import Footprint, Terms

MADE = 1_700_000_000 * 1_000_000_000
HOUR_NS = DAY_NS // 24


def key_of(**changes: object) -> IssuedKey:
    key = IssuedKey(
        id="ik_1",
        organization_id="org_1",
        vendor="openai",
        account_id="va_1",
        name="priya",
        owner=None,
        state=State.ACTIVE,
        generation=1,
        terms=Terms(),
        options={},
        created_at_ns=MADE,
        created_by="usr_1",
        footprint=Footprint({"project": "proj_1"}, "key_1"),
        made_at_ns=MADE,
        delivered_at_ns=MADE,
    )
    return replace(key, **changes)


def policy_of(days: int, **changes: object) -> RotationPolicy:
    return replace(RotationPolicy("rp_1", "org_1", days, MADE, "usr_1", MADE), **changes)


def case_of(*policies: RotationPolicy, able: bool = True, **changes: object) -> Case:
    return Case(key_of(**changes), policies, able)


def former(**changes: object) -> Former:
    return replace(Former(Footprint({}, "key_0"), 1, 60, 60, made_at_ns=MADE - 90 * DAY_NS, cut_at_ns=MADE), **changes)


# Schedules


def test_scheduled_key_is_rotated_so_many_days_after_it_was_made_and_no_moment_earlier() -> None:
    case = case_of(rotate_every_days=30)
    assert decide(case, MADE + 30 * DAY_NS - 1) == Leave()
    assert decide(case, MADE + 30 * DAY_NS) == Rotate(Cause.SCHEDULE, 7 * DAY_SECONDS, None)
    assert outlook(case, MADE).next_at_ns == MADE + 30 * DAY_NS


def test_key_without_schedule_and_policy_is_left_for_ever() -> None:
    assert decide(case_of(), MADE + 10_000 * DAY_NS) == Leave()
    assert outlook(case_of(), MADE).next_at_ns is None


@given(missed=st.integers(min_value=1, max_value=3_000))
def test_whatever_was_missed_is_made_up_for_once(missed: int) -> None:
    """The next turn counts from the key that is made now, not from the turns that passed."""
    now = MADE + missed * DAY_NS
    assert isinstance(decide(case_of(rotate_every_days=1), now), Rotate)
    assert decide(case_of(rotate_every_days=1, made_at_ns=now), now + HOUR_NS) == Leave()


def test_rotation_by_hand_starts_the_count_anew() -> None:
    turned = case_of(rotate_every_days=30, made_at_ns=MADE + 20 * DAY_NS)
    assert decide(turned, MADE + 30 * DAY_NS) == Leave()
    assert outlook(turned, MADE + 30 * DAY_NS).next_at_ns == MADE + 50 * DAY_NS


def test_clock_that_was_set_back_makes_no_key_young_for_ever() -> None:
    """Made in the future by a clock that was wrong: counts as made now, so the turn is never further away than one interval."""
    case = case_of(rotate_every_days=30, made_at_ns=MADE + 5_000 * DAY_NS)
    assert outlook(case, MADE).next_at_ns == MADE + 30 * DAY_NS


# What stands in the way


def test_two_rotations_are_never_open_at_once() -> None:
    case = case_of(policy_of(1), rotate_every_days=1, state=State.ROTATING, former=former())
    assert decide(case, MADE + 400 * DAY_NS) == Leave()
    assert outlook(case, MADE).hindrance is Hindrance.OPEN


@pytest.mark.parametrize("state", [state for state in State if state not in LIVE])
def test_only_keys_that_live_are_rotated(state: State) -> None:
    assert decide(case_of(policy_of(1), rotate_every_days=1, state=state), MADE + 400 * DAY_NS) == Leave()


def test_key_that_is_disabled_for_its_budget_waits_and_is_not_forgotten() -> None:
    case = case_of(policy_of(30), rotate_every_days=30)
    assert decide(replace(case, disabled=True), MADE + 40 * DAY_NS) == Leave()
    ahead = outlook(replace(case, disabled=True), MADE + 40 * DAY_NS)
    assert (ahead.hindrance, ahead.overdue(MADE + 40 * DAY_NS)) == (Hindrance.BUDGET, True)
    assert isinstance(decide(case, MADE + 40 * DAY_NS), Rotate), "once it may go on"


def test_key_whose_secret_nobody_has_fetched_yet_is_left() -> None:
    case = case_of(rotate_every_days=1, delivered_at_ns=None, secret=b"sealed", secret_until_ns=MADE + 7 * DAY_NS)
    assert decide(case, MADE + 3 * DAY_NS) == Leave()
    assert outlook(case, MADE + 3 * DAY_NS).hindrance is Hindrance.UNFETCHED
    assert isinstance(decide(case, MADE + 8 * DAY_NS), Rotate), "nobody can fetch it any more: a new one is of use"


@pytest.mark.parametrize(("days_left", "rotated"), [(1, False), (2, False), (7, False), (8, True)])
def test_key_that_ends_before_a_new_one_is_of_use_is_left(days_left: int, rotated: bool) -> None:
    now = MADE + 30 * DAY_NS
    case = case_of(rotate_every_days=30, terms=Terms(expires_at_ns=now + days_left * DAY_NS))
    assert isinstance(decide(case, now), Rotate) is rotated
    assert (outlook(case, now).hindrance is Hindrance.ENDS_FIRST) is not rotated


def test_short_overlap_still_leaves_a_key_alone_two_days_before_its_end() -> None:
    now = MADE + 30 * DAY_NS
    for days_left, rotated in ((2, False), (3, True)):
        case = case_of(rotate_every_days=30, rotate_overlap_seconds=60, terms=Terms(expires_at_ns=now + days_left * DAY_NS))
        assert isinstance(decide(case, now), Rotate) is rotated


def test_rotation_that_came_to_nothing_is_tried_again_after_a_pause() -> None:
    now = MADE + 30 * DAY_NS
    case = case_of(rotate_every_days=30, rotate_tries=1, rotate_after_ns=now + HOUR_NS)
    assert decide(case, now) == Leave()
    assert outlook(case, now).hindrance is Hindrance.FAILED
    assert outlook(case, now).next_at_ns == now + HOUR_NS
    assert isinstance(decide(case, now + HOUR_NS), Rotate)


@given(st.integers(min_value=0, max_value=10_000))
def test_pauses_grow_and_have_a_bound(count: int) -> None:
    assert HOUR_NS <= retry_pause_ns(count) <= retry_pause_ns(count + 1) <= DAY_NS
    assert DAY_NS <= pause_before_reminder_ns(count) <= pause_before_reminder_ns(count + 1) <= 7 * DAY_NS


# Policies


def test_policy_begins_the_overlap_before_a_key_is_too_old() -> None:
    case = case_of(policy_of(90))
    begins = MADE + 83 * DAY_NS
    assert decide(case, begins - 1) == Leave()
    assert decide(case, begins) == Rotate(Cause.POLICY, 7 * DAY_SECONDS, policy_of(90))
    assert not outlook(case, MADE + 90 * DAY_NS - 1).overdue(MADE + 90 * DAY_NS - 1)
    assert outlook(case, MADE + 90 * DAY_NS).overdue(MADE + 90 * DAY_NS)


def test_strictest_policy_holds_and_the_schedule_where_it_comes_first() -> None:
    wide, narrow = policy_of(90), policy_of(30, id="rp_2", vendor="openai", overlap_seconds=0)
    ahead = outlook(case_of(wide, narrow), MADE)
    assert (ahead.policy, ahead.next_at_ns, ahead.too_old_at_ns) == (narrow, MADE + 30 * DAY_NS, MADE + 30 * DAY_NS)
    ahead = outlook(case_of(wide, narrow, rotate_every_days=7), MADE)
    assert (ahead.cause, ahead.next_at_ns, ahead.too_old_at_ns) == (Cause.SCHEDULE, MADE + 7 * DAY_NS, MADE + 30 * DAY_NS)


def test_key_that_ends_before_it_is_too_old_is_not_rotated_for_its_age() -> None:
    case = case_of(policy_of(90), terms=Terms(expires_at_ns=MADE + 90 * DAY_NS))
    assert outlook(case, MADE).hindrance is Hindrance.ENDS_FIRST
    assert decide(case, MADE + 85 * DAY_NS) == Leave()


def test_former_key_that_still_works_counts_for_the_age() -> None:
    """A rotation that nobody finishes does not make a key young."""
    case = case_of(policy_of(90), state=State.ROTATING, former=former())
    assert outlook(case, MADE).too_old_at_ns == MADE
    assert outlook(case, MADE).overdue(MADE)


@pytest.mark.parametrize(("options", "able"), [({ADOPTED: "yes"}, True), ({}, False)])
def test_key_that_only_a_person_can_replace_is_reminded_of_and_never_rotated(options: dict[str, str], able: bool) -> None:
    policy = policy_of(90)
    case = case_of(policy, able=able, options=options)
    first = MADE + 76 * DAY_NS
    assert decide(case, first - 1) == Leave()
    assert decide(case, first) == Remind(policy, MADE + 90 * DAY_NS, first + 7 * DAY_NS)
    assert outlook(case, first).hindrance is Hindrance.BY_PERSON
    told = replace(case, key=replace(case.key, rotate_after_ns=first + 7 * DAY_NS))
    assert decide(told, first + 7 * DAY_NS - 1) == Leave()
    assert decide(told, MADE + 89 * DAY_NS) == Remind(policy, MADE + 90 * DAY_NS, MADE + 90 * DAY_NS), "and on the day itself"
    late = MADE + 500 * DAY_NS
    assert decide(told, late) == Remind(policy, MADE + 90 * DAY_NS, late + 7 * DAY_NS), "once, however many were missed"


def test_hand_made_key_that_ends_in_time_has_the_reminders_of_its_end_alone() -> None:
    case = case_of(policy_of(90), options={ADOPTED: "yes"}, terms=Terms(expires_at_ns=MADE + 80 * DAY_NS))
    assert decide(case, MADE + 79 * DAY_NS) == Leave()


@given(
    days=st.integers(min_value=1, max_value=3_650),
    age=st.integers(min_value=0, max_value=4_000),
    state=st.sampled_from(State),
    adopted=st.booleans(),
    able=st.booleans(),
    open_=st.booleans(),
    scheduled=st.booleans(),
)
def test_nothing_but_an_active_key_of_our_own_making_that_is_old_enough_is_ever_rotated(
    days: int, age: int, state: State, adopted: bool, able: bool, open_: bool, scheduled: bool
) -> None:
    case = case_of(
        *(() if scheduled else (policy_of(days),)),
        able=able,
        state=state,
        options={ADOPTED: "yes"} if adopted else {},
        former=former() if open_ else None,
        rotate_every_days=days if scheduled else None,
    )
    decision = decide(case, MADE + age * DAY_NS)
    if isinstance(decision, Rotate):
        assert state is State.ACTIVE
        assert able
        assert not adopted
        assert age * DAY_SECONDS + (0 if scheduled else decision.overlap_seconds) >= days * DAY_SECONDS
    if isinstance(decision, Remind):
        assert state in LIVE
        assert adopted or not able


# What a policy covers


@pytest.mark.parametrize("days", [1, 2, 3, 7, 28, 3_650])
def test_default_overlap_is_shorter_than_the_time_between_two_rotations(days: int) -> None:
    assert 0 < default_overlap(days) <= days * DAY_SECONDS // 4


@pytest.mark.parametrize(
    ("policy", "covered"),
    [
        (policy_of(1), True),
        (policy_of(1, vendor="openai"), True),
        (policy_of(1, vendor="google"), False),
        (policy_of(1, team_id="team_a"), True),
        (policy_of(1, team_id="team_b"), False),
        (policy_of(1, team_id="team_a", vendor="google"), False),
    ],
)
def test_policy_covers_by_team_and_vendor(policy: RotationPolicy, covered: bool) -> None:
    assert policy.covers(vendor="openai", team_id="team_a") is covered


def test_teams_keys_are_its_own_and_those_of_its_developers_and_apps() -> None:
    holders = {
        holder.id: holder
        for holder in (
            Holder("team_a", Scope.TEAM, "A", True),
            Holder("dev_a", Scope.DEVELOPER, "a", True, team_id="team_a"),
            Holder("dev_b", Scope.DEVELOPER, "b", True),
            Holder("app_a", Scope.APP, "of the team", True, team_id="team_a"),
            Holder("app_d", Scope.APP, "of a developer", True, developer_id="dev_a"),
        )
    }
    assert {owner: team_of(owner, holders) for owner in (*holders, "dev_none")} == {
        "team_a": "team_a",
        "dev_a": "team_a",
        "dev_b": None,
        "app_a": "team_a",
        "app_d": "team_a",
        "dev_none": None,
    }
