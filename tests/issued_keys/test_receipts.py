"""Receipts verify without a server, and only as they were given out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from keygate.audit import Signer
from keygate.issued_keys import IssuedKey, State, verify
from keygate.issued_keys.receipts import Receipt, document
from keygate.vendors.admin import Footprint, Terms

SIGNER = Signer(b"s" * 32)
RECEIPT = Receipt("rcp_1", "org_1", "developer.deactivate", "dev_1", "Priya", ["ik_1"], [{"id": "vk_1", "hint": "sk-kg-abc"}], 1, "usr_1")
KEY = IssuedKey(
    id="ik_1",
    organization_id="org_1",
    vendor="openai",
    account_id="va_1",
    name="Priya",
    owner=None,
    state=State.REVOKED,
    generation=1,
    terms=Terms(),
    options={},
    created_at_ns=1,
    created_by="usr_1",
    footprint=Footprint({"project": "proj_1"}, "key_1"),
    evidence=({"key": "key_1", "vendor_says": "gone"},),
    ended_at_ns=5,
)


def text(*keys: IssuedKey) -> bytes:
    return json.dumps(document(RECEIPT, keys, at_ns=10, signer=SIGNER), indent=2).encode()


def test_a_receipt_verifies_and_says_that_it_is_complete() -> None:
    found = verify(text(KEY), trusted=SIGNER.checker)
    assert (found.ok, found.trusted, found.complete, found.remaining) == (True, True, True, 0)


def test_a_receipt_whose_signer_is_not_known_is_none_however_whole_it_is() -> None:
    """Anybody can sign one with a key of their own."""
    found = verify(text(KEY))
    assert (found.ok, found.consistent, found.trusted, found.complete) == (False, True, False, True)
    assert "--public-key" in found.detail


def test_what_a_vendor_has_not_confirmed_remains() -> None:
    stuck = replace(KEY, state=State.IRREVOCABLE, error="403", due_at_ns=60)
    found = verify(text(stuck), trusted=SIGNER.checker)
    assert (found.ok, found.complete, found.remaining) == (True, False, 1)
    entry = json.loads(text(stuck))["issued_keys"][0]
    assert (entry["ended"], entry["why_not"], entry["confirmed_at"]) == (False, "403", None)
    assert entry["next_try_at"] is not None


def test_a_former_key_remains_until_the_vendor_has_shown_it_gone_whatever_the_key_is() -> None:
    receipt = replace(RECEIPT, issued_keys=["ik_1#key_0"], virtual_keys=[])
    going_on = replace(KEY, state=State.ROTATING, evidence=(), ended_at_ns=None)
    cut = replace(
        KEY, state=State.ACTIVE, evidence=({"key": "key_0", "vendor_says": "gone", "read_at_ns": "7000000000"},), ended_at_ns=None
    )
    waiting, done = (document(receipt, [key], at_ns=10, signer=SIGNER) for key in (going_on, cut))
    assert (waiting["complete"], waiting["issued_keys"][0]["confirmed_at"]) == (False, None)
    assert (done["complete"], done["issued_keys"][0]["confirmed_at"]) == (True, "1970-01-01T00:00:07.000000Z")
    other = replace(KEY, state=State.ACTIVE, evidence=({"key": "key_7", "vendor_says": "gone"},))
    assert document(receipt, [other], at_ns=10, signer=SIGNER)["complete"] is False


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body | {"complete": True},
        lambda body: body | {"issued_keys": []},
        lambda body: body | {"as_of": "2030-01-01T00:00:00Z"},
        lambda body: body | {"signature": "00" * 64},
        lambda body: {name: value for name, value in body.items() if name != "signature"},
        lambda body: body | {"public_key": Signer(b"x" * 32).checker.text()},
        lambda body: body | {"more": 1},
    ],
)
def test_any_change_is_found(change) -> None:
    body = json.loads(text(replace(KEY, state=State.IRREVOCABLE, error="403")))
    changed = json.dumps(change(body)).encode()
    assert verify(changed).consistent is False
    assert verify(changed, trusted=SIGNER.checker).ok is False


def test_one_that_was_signed_by_somebody_else_is_refused() -> None:
    assert verify(text(KEY), trusted=Signer(b"o" * 32).checker).ok is False


@pytest.mark.parametrize("junk", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format":"keygate-receipt-1"}'])
def test_junk_is_refused(junk: bytes) -> None:
    assert verify(junk).consistent is False
