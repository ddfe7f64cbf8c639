"""How much to hold for one request: pure arithmetic over what is left.

A caller's own maximum is held in full or not at all. Where the caller set none, the gateway sets one that the hold affords, and the
rest of the budget stays free for others: a lone caller gets up to a quarter of what is left, one among others an eighth, and
shares below 1,024 tokens are only accepted after waiting for others to settle. Whoever has waited takes less: nobody is refused for a
maximum that nobody asked for while `LEAST` tokens fit.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from keygate.ledger.prices.model import Ceiling

FLOOR = 1024
PATIENT = 256
WEARY = 64
LEAST = 16


class Patience(IntEnum):
    """How long a caller has waited already."""

    FRESH = 0
    WAITED = 1  # a fifth of the wait
    TIRED = 2  # three fifths
    LAST = 3  # the end of the wait: anything is better than a refusal


class Size(NamedTuple):
    """What a request is to hold. `output_set`: the maximum that the gateway writes into it, per answer."""

    nano: int
    tokens: int
    output_set: int | None = None


class Demand(NamedTuple):
    """One request's wish, per answer where it says so."""

    input_bound: int
    output_max: int | None  # per answer; None: the caller set none
    answers: int
    extra_output: int
    desired: int  # per answer, where the caller set none: the model's own maximum
    extra_nano: int = 0  # a ceiling of server-side tools


def fixed(demand: Demand, ceiling: Ceiling, output_max: int) -> Size:
    """The hold for a known maximum per answer."""
    output = output_max * demand.answers + demand.extra_output
    return Size(ceiling.nano(demand.input_bound, output) + demand.extra_nano, demand.input_bound + output)


def affordable(demand: Demand, ceiling: Ceiling, nano: int) -> int | None:
    """The largest maximum per answer whose hold is at most `nano`; negative: none is; None: any is."""
    output = ceiling.affordable_output(nano - demand.extra_nano, demand.input_bound)
    return None if output is None else (output - demand.extra_output) // demand.answers


def portion(available: int | None, desired: int, *, lone: bool, patience: Patience) -> int | None:
    """How many output tokens to take of `available` (None: no bound), wanting `desired`; None: better to wait."""
    if available is None:
        return desired
    floor = min(FLOOR, desired)
    share = available // (4 if lone else 8)
    if share >= floor:
        return min(share, desired)
    if lone:
        return min(floor, available) if available >= min(LEAST, desired) else None
    if available >= 4 * floor:
        return floor
    if patience is Patience.FRESH:
        return None
    share = available // 6
    if share >= min(PATIENT, desired):
        return min(share, floor)
    if patience >= Patience.TIRED and share >= min(WEARY, desired):
        return share
    if patience is Patience.LAST and available >= min(LEAST, desired):
        return max(min(available // 8, floor), min(LEAST, desired))
    return None
