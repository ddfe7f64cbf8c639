"""Identifiers: a type prefix and 128 bits in base62, ordered by the time of creation.

`vk_02Nc…`: 48 bits of milliseconds since the epoch, then 80 bits of chance (the layout of a ULID), written in 22 base62 digits.
"""

from __future__ import annotations

import secrets
import threading
import time

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WIDTH = 22


def base62(number: int, width: int) -> str:
    """`number` in base62, most significant digit first, padded with `0` to `width`."""
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    if number:
        raise ValueError("the number does not fit the width")
    return "".join(reversed(digits))


_last = (0, 0)  # milliseconds and chance of the id before
_turn = threading.Lock()


def new_id(prefix: str) -> str:
    """A fresh id such as `team_02NcBq…`. Within a prefix and a process ids sort by creation: those of one millisecond count on."""
    global _last  # noqa: PLW0603  (what makes ids of one process monotonic)
    milliseconds = time.time_ns() // 1_000_000
    with _turn:
        if milliseconds <= _last[0]:
            milliseconds, chance = _last[0], _last[1] + 1
        else:
            chance = secrets.randbits(79)  # a bit is left for counting on
        _last = (milliseconds, chance)
    return f"{prefix}_{base62(milliseconds << 80 | chance, _WIDTH)}"
