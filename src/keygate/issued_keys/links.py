"""One-time links: a token that fetches an issued key's secret once, and ends. Only its digest is kept. Pure."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

from keygate.kit.ids import ALPHABET
from keygate.kit.secret import Secret

PREFIX = "kgl_"  # `kit.redaction` blacks out what begins so
_DIGITS = 43  # of base62: 256 bits


@dataclass(frozen=True, slots=True)
class KeyLink:
    id: str  # kln_…
    organization_id: str
    key_id: str
    digest: bytes = field(repr=False)
    created_at_ns: int
    created_by: str
    expires_at_ns: int
    opened_at_ns: int | None = None


def mint() -> Secret:
    return Secret(PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(_DIGITS)))


def digest(token: Secret) -> bytes:
    """Plain SHA-256: 256 bits of chance need no key."""
    return hashlib.sha256(token.open().encode()).digest()


def well_formed(text: str) -> bool:
    return text.startswith(PREFIX) and len(text) == len(PREFIX) + _DIGITS and all(each in ALPHABET for each in text[len(PREFIX) :])
