"""The token that callers carry. Pure: a fixed format with frozen vectors (docs/adr/0005-token-format.md).

    sk-kg-  7hZk2QmX0aBc  <33 digits>  <6 digits>
    prefix  public id     secret       checksum        all base62, one run of 51 characters behind the prefix

- The **public id** (71 bits) finds the key. It is no secret: it stands in lists, logs and the hint.
- The **secret** (196 bits) makes the token unguessable.
- The **checksum** is the CRC-32 of everything before it, in base62. It refuses what was mistyped, cut off or made up before
  anything is looked up. It is no protection against somebody who computes it: the keyed digest is.

For secret scanners: `\\bsk-kg-[0-9A-Za-z]{51}\\b` (virtual keys), `\\bokap_[0-9A-Za-z]{51}\\b` (grants); the checksum tells a real
token from text that looks like one.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from keygate.kit.ids import ALPHABET, base62
from keygate.kit.secret import Secret

VIRTUAL_KEY = "sk-kg-"
GRANT = "okap_"
PREFIXES = (VIRTUAL_KEY, GRANT)

_ID, _SECRET, _CHECKSUM = 12, 33, 6
_BODY = _ID + _SECRET + _CHECKSUM
_PREFIX_BYTES = {prefix: prefix.encode() for prefix in PREFIXES}
_PAIRS = tuple((high + low).encode() for high in ALPHABET for low in ALPHABET)  # two base62 digits at a time

SCANNER_PATTERN = re.compile(rf"\b(?:{'|'.join(PREFIXES)})[0-9A-Za-z]{{{_BODY}}}\b")
"""Finds every token in a text; confirm a find with `parse`."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token just minted. Only its digest is kept."""

    prefix: str
    public_id: str
    text: Secret

    @property
    def hint(self) -> str:
        """For people to tell keys apart: the prefix and the public id, nothing of the secret."""
        return f"{self.prefix}{self.public_id}…"


def _checksum(head: bytes) -> bytes:
    rest, low = divmod(crc32(head), 3844)
    high, middle = divmod(rest, 3844)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def mint(prefix: str = VIRTUAL_KEY, *, public_id: str | None = None, below: Callable[[int], int] = secrets.randbelow) -> Token:
    """A fresh token; a rotation passes the key's `public_id`, which stays. `below(n)` draws a number from 0 to n-1; only tests give
    their own."""
    public_id = public_id or base62(below(62**_ID), _ID)
    head = f"{prefix}{public_id}{base62(below(62**_SECRET), _SECRET)}"
    return Token(prefix=prefix, public_id=public_id, text=Secret(head + _checksum(head.encode()).decode()))


def parse(text: str | bytes, prefixes: tuple[str, ...] = (VIRTUAL_KEY,)) -> str | None:
    """The public id of a well-formed token with one of these `PREFIXES`, or None.

    Says nothing about whether the token is real: compare its digest.

    Every change of a single character, and every swap of two neighbours, is noticed.
    """
    if isinstance(text, str):
        if not text.isascii():
            return None
        text = text.encode("ascii")
    for prefix in prefixes:
        width = len(prefix)
        if len(text) == width + _BODY and text.startswith(_PREFIX_BYTES[prefix]):
            if not text[width:].isalnum() or text[-_CHECKSUM:] != _checksum(text[:-_CHECKSUM]):
                return None
            return text[width : width + _ID].decode()
    return None


def digest(pepper: bytes, text: str | bytes) -> bytes:
    """HMAC-SHA-256 of the whole token: the only form in which a token is stored. Compare with `hmac.compare_digest`."""
    return hmac.digest(pepper, text.encode() if isinstance(text, str) else text, "sha256")
