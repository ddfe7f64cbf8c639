"""Sealed bytes: AES-256-GCM with the format in front and the row's identity bound to them. Pure; frozen by vectors in `tests/vault`.

    format 1 (one byte) │ length of key id (one byte) │ key id, ASCII │ nonce, 12 bytes │ ciphertext and tag (16 bytes)

The associated data is the header up to the nonce and the place (table, row, organisation, column), each part with its length in front: a
value that was copied to another row, column or organisation does not open. Nonces are random; one data key seals far fewer than the
2^32 values at which NIST SP 800-38D (section 8.3) ends the use of random nonces.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keygate.errors import KeyGateError

FORMAT = 1
KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_CONTEXT = b"keygate/envelope/1"


class EnvelopeBroken(KeyGateError):
    """A sealed value does not open: it was changed, moved, cut, or sealed by another key. Says nothing of its content."""

    code = "envelope_broken"
    title = "A stored secret can't be opened"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value is stored. Bound to it as associated data."""

    table: str
    row_id: str
    organization_id: str
    column: str


@dataclass(frozen=True, slots=True)
class DataKey:
    id: str  # dk_… or the id of a key-encryption key
    material: bytes = field(repr=False)


def seal(key: DataKey, plain: bytes, place: Place) -> bytes:
    return seal_with_nonce(key, plain, place, nonce=os.urandom(_NONCE_BYTES))


def seal_with_nonce(key: DataKey, plain: bytes, place: Place, *, nonce: bytes) -> bytes:
    """For vectors. A nonce used twice under one key gives the key away: call `seal`."""
    header = _header(key.id)
    return header + nonce + AESGCM(key.material).encrypt(nonce, plain, _associated(header, place))


def open_sealed(key: DataKey, sealed: bytes, place: Place) -> bytes:
    """Raises `EnvelopeBroken`, with the same words whatever was wrong with the value itself."""
    if key_id_of(sealed) != key.id:
        raise EnvelopeBroken("The value is sealed by another key")
    header, nonce, body = _split(sealed)
    try:
        return AESGCM(key.material).decrypt(nonce, body, _associated(header, place))
    except InvalidTag:
        raise EnvelopeBroken("The value was changed, or moved from where it was stored") from None


def key_id_of(sealed: bytes) -> str:
    """Which key opens it. Raises `EnvelopeBroken` for what is no sealed value."""
    header, _, _ = _split(sealed)
    try:
        return header[2:].decode("ascii")
    except UnicodeDecodeError:
        raise EnvelopeBroken("The value names no key") from None


def _header(key_id: str) -> bytes:
    name = key_id.encode("ascii")
    if not 0 < len(name) < 256:
        raise ValueError("a key id has 1 to 255 ASCII characters")
    return bytes((FORMAT, len(name))) + name


def _split(sealed: bytes) -> tuple[bytes, bytes, bytes]:
    if len(sealed) < 2 or sealed[0] != FORMAT:
        raise EnvelopeBroken("The value is not in a format that this version reads")
    start = 2 + sealed[1]
    if len(sealed) < start + _NONCE_BYTES + _TAG_BYTES:
        raise EnvelopeBroken("The value was cut short")
    return sealed[:start], sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]


def _associated(header: bytes, place: Place) -> bytes:
    parts = (_CONTEXT, header, *(text.encode() for text in (place.table, place.row_id, place.organization_id, place.column)))
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
