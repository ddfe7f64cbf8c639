"""The state machine of issued keys: what no order of events may lead to."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.errors import Conflict
from keygate.issued_keys.life import ENDED, LIVE, Event, State, may, step

EVENTS = st.lists(st.sampled_from(Event), max_size=60)


def lived(events: list[Event]) -> list[tuple[State, Event, State]]:
    """The steps that these events make, refused ones left out."""
    state, steps = State.REQUESTED, []
    for event in events:
        if may(state, event):
            after = step(state, event)
            steps.append((state, event, after))
            state = after
        else:
            with pytest.raises(Conflict):
                step(state, event)
    return steps


@given(EVENTS)
def test_only_making_it_leads_to_active_and_only_the_vendors_word_to_revoked(events: list[Event]) -> None:
    made = False
    for before, event, after in lived(events):
        made = made or event is Event.MADE
        assert after not in LIVE or made
        if after in {State.REVOKED, State.EXPIRED}:
            assert event in {Event.CONFIRMED, Event.LAPSED}
            assert before in {State.REVOKING, State.IRREVOCABLE}


@given(EVENTS)
def test_nothing_leads_out_of_an_end(events: list[Event]) -> None:
    steps = lived(events)
    assert all(before not in ENDED for before, _, _ in steps)


@given(EVENTS)
def test_whatever_was_told_to_end_is_never_live_again(events: list[Event]) -> None:
    told = False
    for _, event, after in lived(events):
        told = told or event is Event.REVOKE
        assert not (told and after in LIVE)


@pytest.mark.parametrize("state", [state for state in State if state not in ENDED])
def test_whatever_is_not_ended_can_be_told_to_end_or_is_ending(state: State) -> None:
    assert may(state, Event.REVOKE) or state in {State.REVOKING, State.IRREVOCABLE}


@pytest.mark.parametrize("state", list(State))
def test_an_end_can_be_reached_from_everywhere(state: State) -> None:
    seen, waiting = {state}, deque([state])
    while waiting:
        at = waiting.popleft()
        for event in Event:
            if may(at, event) and step(at, event) not in seen:
                seen.add(step(at, event))
                waiting.append(step(at, event))
    assert seen & ENDED
