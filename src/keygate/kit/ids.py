"""Identifiers: a type prefix and 128 bits in base62, ordered by the time of creation.

`vk_02Nc…`: 48 bits of milliseconds since the epoch, then 80 random bits (the layout of a ULID), written in 22 base62 digits.
"""

from __future__ import annotations

import secrets
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


def new_id(prefix: str) -> str:
    """A fresh id such as `team_02NcBq…`; sorts by creation time within a prefix."""
    milliseconds = time.time_ns() // 1_000_000
    return f"{prefix}_{base62(milliseconds << 80 | secrets.randbits(80), _WIDTH)}"
