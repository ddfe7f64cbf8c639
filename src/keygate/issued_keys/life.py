"""The life of an issued key as a state machine. Pure; its properties are tested in `tests/issued_keys/test_life.py`.

    requested ─begin─► creating ─made─► active ─rotate─► rotating ─rotated─► active
        │                 │                │                 │
        └──── give up ────┴─► failed       └───── revoke ────┴─► revoking ─confirmed─► revoked
                                                                 │      ╲──lapsed────► expired
                                                              refused      ▲ ▲
                                                                 ▼         │ │
                                                            irrevocable ───┴─┘   (tried again until the vendor confirms)

Only `made` leads to active, and only a vendor's own word (`confirmed`, `lapsed`) to revoked or expired. Whatever is not ended can be
revoked."""

from __future__ import annotations

from enum import StrEnum

from keygate.errors import Conflict


class State(StrEnum):
    REQUESTED = "requested"  # recorded; nothing is at the vendor
    CREATING = "creating"  # something may be at the vendor
    ACTIVE = "active"  # made, and its terms read back
    ROTATING = "rotating"  # the next key is being made, or both work during the overlap
    REVOKING = "revoking"  # to be ended; the vendor has not confirmed yet
    REVOKED = "revoked"  # the vendor shows it gone
    FAILED = "failed"  # never came to be; what was made is undone, or owed
    IRREVOCABLE = "irrevocable"  # the vendor does not end it; tried again and again
    EXPIRED = "expired"  # its time was over, and the vendor shows it gone


class Event(StrEnum):
    BEGIN = "begin"
    MADE = "made"
    GIVE_UP = "give_up"
    ROTATE = "rotate"
    ROTATED = "rotated"
    REVOKE = "revoke"
    CONFIRMED = "confirmed"
    LAPSED = "lapsed"
    REFUSED = "refused"


ENDED = frozenset({State.REVOKED, State.FAILED, State.EXPIRED})
"""Nothing leads out of these."""

LIVE = frozenset({State.ACTIVE, State.ROTATING})

_STEPS: dict[tuple[State, Event], State] = {
    (State.REQUESTED, Event.BEGIN): State.CREATING,
    (State.REQUESTED, Event.GIVE_UP): State.FAILED,
    (State.REQUESTED, Event.REVOKE): State.REVOKING,
    (State.CREATING, Event.MADE): State.ACTIVE,
    (State.CREATING, Event.GIVE_UP): State.FAILED,
    (State.CREATING, Event.REVOKE): State.REVOKING,
    (State.ACTIVE, Event.ROTATE): State.ROTATING,
    (State.ACTIVE, Event.REVOKE): State.REVOKING,
    (State.ROTATING, Event.ROTATED): State.ACTIVE,
    (State.ROTATING, Event.REVOKE): State.REVOKING,
    (State.REVOKING, Event.CONFIRMED): State.REVOKED,
    (State.REVOKING, Event.LAPSED): State.EXPIRED,
    (State.REVOKING, Event.REFUSED): State.IRREVOCABLE,
    (State.IRREVOCABLE, Event.CONFIRMED): State.REVOKED,
    (State.IRREVOCABLE, Event.LAPSED): State.EXPIRED,
    (State.IRREVOCABLE, Event.REFUSED): State.IRREVOCABLE,
}


def step(state: State, event: Event) -> State:
    """The state after `event`. Raises `Conflict` where this state does not have it."""
    after = _STEPS.get((state, event))
    if after is None:
        raise Conflict(f"The key is {state}; it can't be told to {event} now")
    return after


def may(state: State, event: Event) -> bool:
    return (state, event) in _STEPS
