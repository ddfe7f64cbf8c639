"""Receipts: what an ending ended, vendor by vendor, and what remains; signed, and verified without a server. Pure.

The signed bytes are the receipt's canonical JSON without its `signature`, with the format's name inside. The key is the one that signs the
audit log's heads, so `keygate receipts key` is what a receipt is trusted by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keygate.audit import Checker, Signer, canonical
from keygate.errors import InvalidInput
from keygate.issued_keys.life import ENDED
from keygate.issued_keys.model import IssuedKey
from keygate.kit.clock import rfc3339

FORMAT = "keygate-receipt-1"
MAX_BYTES = 16 * 1024 * 1024
WHOSE = (
    "whose key that is can't be told here: give --public-key with what `keygate receipts key` shows at the KeyGate that it should be from"
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was told to end together, and why."""

    id: str  # rcp_…
    organization_id: str
    cause: str  # `developer.deactivate`
    subject: str  # dev_…
    subject_name: str
    issued_keys: Sequence[
        str
    ]  # ids; `ik_…#key` where only this one of its keys at the vendor was told to end: the former one of a rotation
    virtual_keys: Sequence[Mapping[str, str]]
    created_at_ns: int
    created_by: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found. `consistent`: as it was signed; `trusted`: there was a known key to compare with. Only both together prove
    a receipt: anybody can sign one with a key of their own."""

    consistent: bool
    trusted: bool
    detail: str
    receipt: str | None = None
    complete: bool = False
    remaining: int = 0

    @property
    def ok(self) -> bool:
        return self.consistent and self.trusted


def document(receipt: Receipt, keys: Sequence[IssuedKey], *, at_ns: int, signer: Signer) -> dict[str, Any]:
    """The receipt as of `at_ns`, signed. It is complete once every key in it is ended and nothing is owed at a vendor."""
    former = {id_: at_vendor for id_, _, at_vendor in (each.partition("#") for each in receipt.issued_keys) if at_vendor}
    entries = [_former_entry(key, former[key.id]) if key.id in former else _entry(key) for key in keys]
    remaining = [entry for entry in entries if not entry["ended"]]
    body: dict[str, Any] = {
        "format": FORMAT,
        "id": receipt.id,
        "organization_id": receipt.organization_id,
        "cause": receipt.cause,
        "subject": {"id": receipt.subject, "name": receipt.subject_name},
        "asked_at": rfc3339(receipt.created_at_ns),
        "asked_by": receipt.created_by,
        "as_of": rfc3339(at_ns),
        "complete": not remaining,
        "remaining": len(remaining),
        "issued_keys": entries,
        "virtual_keys": [{**key, "revoked_at": rfc3339(receipt.created_at_ns)} for key in receipt.virtual_keys],
        "key_id": signer.key_id,
        "public_key": signer.checker.text(),
    }
    return {**body, "signature": signer.sign(canonical(body).encode()).hex()}


def _entry(key: IssuedKey) -> dict[str, Any]:
    ended = key.state in ENDED and not key.owed
    return {
        "id": key.id,
        "vendor": key.vendor,
        "name": key.name,
        "owner_id": None if key.owner is None else key.owner.scope_id,
        "hint": key.hint,
        "state": str(key.state),
        "ended": ended,
        "confirmed_at": rfc3339(key.ended_at_ns) if ended else None,
        "confirmed_by_vendor": [dict(each) for each in key.confirmed],
        "at_vendor": None if key.footprint is None else {"place": dict(key.footprint.place), "key": key.footprint.key},
        "why_not": None if ended else (key.error or "the vendor has not been asked yet"),
        "next_try_at": None if ended else rfc3339(key.due_at_ns),
    }


def _former_entry(key: IssuedKey, at_vendor: str) -> dict[str, Any]:
    """Of a key that goes on, while one that a rotation replaced was told to end."""
    evidence = [dict(each) for each in key.confirmed if each.get("key") == at_vendor]
    read = [int(each["read_at_ns"]) for each in evidence if each.get("read_at_ns", "").isdecimal()]
    place = {} if key.footprint is None else dict(key.footprint.place)
    entry = {**_entry(key), "confirmed_by_vendor": evidence, "at_vendor": {"place": place, "key": at_vendor}}
    if not evidence:
        return {**entry, "ended": False, "confirmed_at": None, "why_not": key.error or "the vendor has not been asked yet"}
    confirmed = rfc3339(max(read, default=None))
    return {**entry, "state": "revoked", "ended": True, "confirmed_at": confirmed, "why_not": None, "next_try_at": None}


def verify(text: bytes, *, trusted: Checker | None = None) -> Verdict:
    """Verifies a receipt as it was given out. `trusted`: the key that this KeyGate is known to sign with; without it no receipt is `ok`."""
    if len(text) > MAX_BYTES:
        return Verdict(False, False, f"not a receipt: more than {MAX_BYTES} bytes")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return Verdict(False, False, "not a receipt of KeyGate's")
    signature, public_key = found.pop("signature", None), found.get("public_key")
    if not isinstance(signature, str) or not isinstance(public_key, str):
        return Verdict(False, False, "the receipt is not signed")
    try:
        checker = trusted or Checker.from_text(public_key)
    except InvalidInput:
        return Verdict(False, False, "the receipt names no usable key")
    if checker.text() != public_key or found.get("key_id") != checker.key_id:
        return Verdict(False, trusted is not None, "the receipt is signed by another key than this KeyGate's")
    if not checker.valid(signature, canonical(found).encode()):
        return Verdict(False, trusted is not None, "the receipt was changed after it was signed")
    remaining = found.get("remaining")
    return Verdict(
        consistent=True,
        trusted=trusted is not None,
        detail="signed by this KeyGate" if trusted else f"unchanged since {checker.key_id} signed it, but {WHOSE}",
        receipt=str(found.get("id")),
        complete=found.get("complete") is True,
        remaining=remaining if isinstance(remaining, int) else 0,
    )
