"""The chain's arithmetic: canonical bytes, digests, links. Pure; the bytes are frozen by vectors in `tests/audit`.

An entry's body is a JSON array in fixed order, ASCII only, no spaces, that begins with the format's name. Its SHA-256 is signed.
The entry's `hash` is the SHA-256 of that digest and the signature together, and stands in the body of the next entry: a valid signature on
the last entry therefore vouches for every byte of every entry before it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from keygate.audit.model import AuditEntry, Draft, SignedHead
from keygate.audit.signing import Signer
from keygate.kit.secret import Secret

ENTRY_FORMAT = "keygate-audit-entry-1"
HEAD_FORMAT = "keygate-audit-head-1"
EXPORT_FORMAT = "keygate-audit-export-1"
MAX_VALUES = 65_536  # bytes of one `before` or `after`
MAX_TEXT = 2_000  # characters of a detail


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces, ASCII only, no NaN. The same value always gives the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_secret(secret: Secret, key: bytes) -> str:
    """`sha256:…`: tells whether two secrets are the same, tells nobody what they are."""
    return "sha256:" + hmac.new(key, secret.open().encode(), hashlib.sha256).hexdigest()


def canonical_values(values: Mapping[str, Any] | None, key: bytes) -> str | None:
    """`before` or `after` as text, secrets as digests; very long values become a digest. Raises TypeError for what is no JSON."""
    if values is None:
        return None
    text = canonical(_plain(values, key))
    if len(text) <= MAX_VALUES:
        return text
    return canonical({"omitted": "sha256:" + hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)})


def clean(text: str | None, *, limit: int = MAX_TEXT) -> str | None:
    """Text that every database stores as it is: no NUL, no lone surrogates, of bounded length."""
    if text is None:
        return None
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:limit]


def body_digest(entry: AuditEntry) -> bytes:
    return _entry_digest(entry.organization_id, entry.sequence, entry.at_ns, entry.previous_hash, entry)


def link(digest: bytes, signature: bytes) -> str:
    return hashlib.sha256(digest + signature).hexdigest()


def append(draft: Draft, *, organization_id: str, head: SignedHead | None, at_ns: int, previous_hash: str, signer: Signer) -> AuditEntry:
    """The entry that follows `head`. Its time is `at_ns`, or the head's where the clock has gone back."""
    sequence = head.sequence + 1 if head else 1
    at_ns = max(at_ns, head.at_ns) if head else at_ns
    digest = _entry_digest(organization_id, sequence, at_ns, previous_hash, draft)
    signature = signer.sign(digest)
    return AuditEntry(
        organization_id=organization_id,
        sequence=sequence,
        id=draft.id,
        at_ns=at_ns,
        actor_kind=draft.actor_kind,
        actor_id=draft.actor_id,
        address=draft.address,
        request_id=draft.request_id,
        action=draft.action,
        outcome=draft.outcome,
        target=draft.target,
        before=draft.before,
        after=draft.after,
        detail=draft.detail,
        previous_hash=previous_hash,
        signature=signature.hex(),
        hash=link(digest, signature),
    )


def sign_head(entry: AuditEntry, signer: Signer) -> SignedHead:
    unsigned = SignedHead(entry.organization_id, entry.sequence, entry.hash, entry.at_ns, signer.key_id, "")
    return SignedHead(*_head_fields(unsigned), signature=signer.sign(head_bytes(unsigned)).hex())


def head_bytes(head: SignedHead) -> bytes:
    return canonical([HEAD_FORMAT, *_head_fields(head)]).encode()


def export_bytes(*, organization_id: str, first: int, last: int, anchor: str, last_hash: str, at_ns: int, key_id: str) -> bytes:
    """What the last line of an export signs: which entries it holds, from where to where."""
    return canonical([EXPORT_FORMAT, organization_id, first, last, anchor, last_hash, at_ns, key_id]).encode()


def _head_fields(head: SignedHead) -> tuple[str, int, str, int, str]:
    return (head.organization_id, head.sequence, head.hash, head.at_ns, head.key_id)


def _entry_digest(organization_id: str, sequence: int, at_ns: int, previous_hash: str, said: AuditEntry | Draft) -> bytes:
    body = [
        ENTRY_FORMAT,
        organization_id,
        sequence,
        said.id,
        at_ns,
        said.actor_kind,
        said.actor_id,
        said.address,
        said.request_id,
        said.action,
        str(said.outcome),
        said.target,
        said.before,
        said.after,
        said.detail,
        previous_hash,
    ]
    return hashlib.sha256(canonical(body).encode()).digest()


def _plain(value: Any, key: bytes) -> Any:
    match value:
        case Secret():
            return digest_secret(value, key)
        case Enum():
            return _plain(value.value, key)
        case None | bool() | int() | float():
            return value
        case str():
            return clean(value, limit=MAX_VALUES)
        case Mapping():
            return {str(name): _plain(item, key) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item, key) for item in value]
        case set() | frozenset():
            return sorted(_plain(item, key) for item in value)
    raise TypeError(f"an audit entry holds JSON and secrets, not {type(value).__name__}")
