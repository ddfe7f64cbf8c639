"""Opaque bearer tokens of the control plane: made from 256 random bits, kept as digests. Pure."""

from __future__ import annotations

import hashlib
import secrets

from keygate.kit.ids import base62
from keygate.kit.secret import Secret

ACCESS = "kga_"  # from a log-in
API = "kgt_"  # made by a user, with scopes
_WIDTH = 43
_LONGEST = 100


def mint(prefix: str) -> Secret:
    """`kga_` or `kgt_` and 43 base62 digits."""
    return Secret(prefix + base62(secrets.randbits(256), _WIDTH))


def digest(token: str) -> str:
    """SHA-256, hex: enough for 256 random bits, nothing to guess."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def kind_of(token: str) -> str | None:
    """The prefix of a token that could be ours; None for anything else, before anything is looked up."""
    prefix = token[:4]
    return prefix if prefix in {ACCESS, API} and len(token) <= _LONGEST else None
