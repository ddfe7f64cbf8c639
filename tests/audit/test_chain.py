"""The chain's bytes are frozen, and each kind of change is found where it begins."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.audit.chain import append, body_digest, canonical, canonical_values, clean, link, sign_head
from keygate.audit.model import GENESIS, AuditEntry, AuditOutcome, Draft, FaultKind
from keygate.audit.signing import Checker, Signer
from keygate.audit.verification import ChainVerifier, check_head
from keygate.kit.secret import Secret

SIGNER = Signer(bytes(range(32)))
KEY = b"k" * 32


def chain(length: int, signer: Signer = SIGNER, start: list[AuditEntry] | None = None) -> list[AuditEntry]:
    entries = list(start or [])
    while len(entries) < length:
        number = len(entries) + 1
        draft = Draft(
            id=f"aud_{number}",
            actor_kind="user",
            actor_id="usr_1",
            address="192.0.2.1",
            request_id=f"req_{number}",
            action="team.create",
            outcome=AuditOutcome.DONE,
            target=f"team_{number}",
            after=canonical_values({"name": f"Team {number} ☃"}, KEY),
            detail=None,
        )
        head = sign_head(entries[-1], signer) if entries else None
        entries.append(
            append(
                draft, organization_id="org_1", head=head, at_ns=1_000 + number, previous_hash=head.hash if head else GENESIS, signer=signer
            )
        )
    return entries


@lru_cache(1)
def long_chain() -> tuple[AuditEntry, ...]:
    return tuple(chain(777))


def verify(entries: list[AuditEntry], checker: Checker = SIGNER.checker) -> ChainVerifier:
    walk = ChainVerifier("org_1", checker)
    for entry in entries:
        if walk.feed(entry):
            break
    walk.finish()
    return walk


def test_format_is_frozen() -> None:
    first, second = chain(2)
    assert SIGNER.key_id == "56475aa75463474c"
    assert first.hash == FROZEN_FIRST
    assert second.hash == FROZEN_SECOND
    assert second.previous_hash == first.hash
    assert sign_head(second, SIGNER).signature == FROZEN_HEAD


FROZEN_FIRST = "db107f8165c06aab794856c9f7e34eb5600f64cafdf695f4dea385348117d3c5"
FROZEN_SECOND = "65eeccf14f161579ba8212005ddaaba18584f48633bfc3c5ad231bee0fda647d"
FROZEN_HEAD = (
    "274790e1bed5115e8039eb5f69da5ccea1aad4b524bd93fb5172b8108c03b89974e6a8850a95ebe40ca9d72e695d9b154c7e1cddf78481460ec7b4dd7bf30005"
)


def test_an_untouched_chain_verifies_whatever_its_length() -> None:
    for length in (0, 1, 499, 500, 501, 1001):
        walk = verify(chain(length))
        assert walk.fault is None
        assert walk.entries == length


EDITS = {
    "organization_id": "org_2",
    "sequence": 999_999,
    "id": "aud_x",
    "at_ns": 5_000_000,
    "actor_kind": "system",
    "actor_id": "usr_2",
    "address": None,
    "request_id": "req_x",
    "action": "team.delete",
    "outcome": "refused",
    "target": "team_x",
    "before": "{}",
    "after": None,
    "detail": "x",
    "previous_hash": "1" * 64,
    "signature": "00" * 64,
    "hash": "2" * 64,
}


def test_every_field_of_an_entry_has_an_edit_in_this_test() -> None:
    assert set(EDITS) == set(AuditEntry.__slots__)


@pytest.mark.parametrize("field", EDITS)
@pytest.mark.parametrize("position", [1, 7, 499, 500, 501, 777])
def test_editing_any_field_is_found_at_that_entry(field: str, position: int) -> None:
    entries = list(long_chain())
    entries[position - 1] = replace(entries[position - 1], **{field: EDITS[field]})
    fault = verify(entries).fault
    assert fault is not None
    assert fault.sequence in {position, EDITS["sequence"]}
    if field != "sequence":  # the number is gone; the gap names the place
        assert fault.entry_id == entries[position - 1].id


@pytest.mark.parametrize("position", [1, 250, 499, 500, 501, 600])
def test_a_chain_hashed_again_from_an_edited_entry_on_is_found_at_that_entry(position: int) -> None:
    good = chain(600)
    stranger = Signer(b"s" * 32)
    forged = chain(600, stranger, good[: position - 1])
    fault = verify(forged).fault
    assert fault is not None
    assert (fault.kind, fault.sequence) == (FaultKind.FORGED, position)


def test_a_chain_hashed_again_with_the_old_signatures_is_found_at_the_edited_entry() -> None:
    entries = chain(600)
    entries[299] = replace(entries[299], target="team_x")
    for index in range(299, 600):
        entry = replace(entries[index], previous_hash=entries[index - 1].hash)
        entries[index] = replace(entry, hash=link(body_digest(entry), bytes.fromhex(entry.signature)))
    fault = verify(entries).fault
    assert fault is not None
    assert (fault.kind, fault.sequence, fault.entry_id) == (FaultKind.FORGED, 300, "aud_300")


@pytest.mark.parametrize("position", [1, 2, 500, 600])
def test_a_deleted_entry_is_named(position: int) -> None:
    entries = chain(601)
    del entries[position - 1]
    fault = verify(entries).fault
    assert fault is not None
    assert (fault.kind, fault.sequence) == (FaultKind.MISSING, position)


def test_a_deleted_entry_whose_gap_was_closed_is_found() -> None:
    entries = chain(20)
    del entries[9]
    entries[9:] = [replace(entry, sequence=entry.sequence - 1) for entry in entries[9:]]
    fault = verify(entries).fault
    assert fault is not None
    assert (fault.sequence, fault.entry_id) == (10, "aud_11")


def test_two_entries_that_changed_places_are_found() -> None:
    entries = chain(20)
    entries[4], entries[5] = replace(entries[5], sequence=5), replace(entries[4], sequence=6)
    fault = verify(entries).fault
    assert fault is not None
    assert fault.sequence == 5
    entries = chain(20)
    entries[4], entries[5] = entries[5], entries[4]
    fault = verify(entries).fault
    assert fault is not None
    assert fault.sequence == 5


def test_an_inserted_copy_is_found() -> None:
    entries = chain(20)
    entries.insert(10, entries[9])
    fault = verify(entries).fault
    assert fault is not None
    assert (fault.kind, fault.sequence) == (FaultKind.MISPLACED, 10)


def test_a_truncated_chain_does_not_fit_its_head() -> None:
    entries = chain(20)
    head = sign_head(entries[-1], SIGNER)
    assert check_head(head, entries[-1], SIGNER.checker) is None
    fault = check_head(head, entries[14], SIGNER.checker)
    assert fault is not None
    assert (fault.kind, fault.sequence) == (FaultKind.TRUNCATED, 16)
    for wrong in (None, replace(head, sequence=15), replace(head, signature="00"), sign_head(entries[-1], Signer(b"x" * 32))):
        assert check_head(wrong, entries[14], SIGNER.checker) is not None
    old = check_head(sign_head(entries[14], SIGNER), entries[-1], SIGNER.checker)
    assert old is not None
    assert old.kind is FaultKind.HEAD


def test_time_never_goes_back_along_a_chain() -> None:
    first = chain(1)[0]
    draft = Draft("aud_2", "system", "system", None, None, "a.b", AuditOutcome.DONE, "t")
    later = append(draft, organization_id="org_1", head=sign_head(first, SIGNER), at_ns=5, previous_hash=first.hash, signer=SIGNER)
    assert later.at_ns == first.at_ns


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_canonical_text_survives_reading_and_writing(value: object) -> None:
    text = canonical(value)
    assert canonical(json.loads(text)) == text
    assert text.isascii()


def test_secrets_become_keyed_digests() -> None:
    text = canonical_values({"secret": Secret("canary-value"), "list": [Secret("canary-value")], "kept": frozenset({"b", "a"})}, KEY)
    assert text is not None
    assert "canary" not in text
    assert text.count("sha256:") == 2
    assert canonical_values({"secret": Secret("canary-value")}, b"other") not in text
    assert '"kept":["a","b"]' in text


def test_what_is_no_json_is_refused_so_that_the_effect_does_not_happen() -> None:
    with pytest.raises(TypeError):
        canonical_values({"x": object()}, KEY)
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_values({"x": float("nan")}, KEY)


def test_very_long_values_become_a_digest() -> None:
    text = canonical_values({"x": ["a" * 60_000, "b" * 60_000]}, KEY)
    assert text is not None
    assert len(text) < 200


def test_text_is_made_storable() -> None:
    assert clean("a\0b\ud800") == "a\ufffdb?"
    assert clean(None) is None
    assert len(clean("x" * 9_000) or "") == 2_000
