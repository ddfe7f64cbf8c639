"""An export is checked without a database, and any change to it is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keygate.audit import AuditService, Checker, FaultKind, HeadsFile, Signer, Verification, read_end, verify_export, verify_export_file
from keygate.audit.chain import append, canonical_values, sign_head
from keygate.audit.export import end_line, entry_line
from keygate.audit.model import GENESIS, AuditOutcome, Draft
from keygate.audit.repository import AuditRepository
from keygate.identities import Actor, ActorKind, Role
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database

SIGNER = Signer(bytes(range(32)))
ORG = "org_1"
ACTOR = Actor(kind=ActorKind.USER, id="usr_1", organization_id=ORG, role=Role.OWNER)


def made(length: int, signer: Signer = SIGNER) -> list[bytes]:
    entries = []
    for number in range(1, length + 1):
        head = sign_head(entries[-1], signer) if entries else None
        draft = Draft(
            f"aud_{number}", "user", "usr_1", None, None, "a.b", AuditOutcome.DONE, "t", None, canonical_values({"n": 1.5}, b"k"), "ü"
        )
        entries.append(
            append(draft, organization_id=ORG, head=head, at_ns=number * 10**9, previous_hash=head.hash if head else GENESIS, signer=signer)
        )
    end = end_line(
        organization_id=ORG,
        first=1,
        last=length,
        anchor=GENESIS,
        last_hash=entries[-1].hash if entries else GENESIS,
        at_ns=10**18,
        signer=signer,
    )
    return [*map(entry_line, entries), end]


def check(lines: list[bytes], trusted: Checker | None = SIGNER.checker) -> Verification:
    return verify_export(lines, read_end(lines[-1]) if lines else None, trusted=trusted)


def test_an_untouched_export_verifies() -> None:
    for length in (0, 1, 30):
        found = check(made(length))
        assert (found.fault, found.entries, found.key_known) == (None, length, True)
    assert check(made(3), trusted=None).key_known is False


def test_a_line_is_one_flat_json_object_that_a_siem_takes() -> None:
    line = json.loads(made(1)[0])
    assert line["time"] == "1970-01-01T00:00:01.000000Z"
    assert line["actor"] == {"kind": "user", "id": "usr_1"}
    assert line["after"] == {"n": 1.5}
    assert {"action", "outcome", "target", "address", "request_id", "hash"} <= set(line)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_changed_byte_of_an_export_is_found(data: st.DataObject) -> None:
    lines = made(6)
    index = data.draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[index])
    position = data.draw(st.integers(0, len(line) - 2))
    replaced = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[position]))
    line[position] = replaced
    changed = b"".join([*lines[:index], bytes(line), *lines[index + 1 :]]).splitlines(keepends=True)
    found = check(changed)
    assert found.fault is not None
    if replaced not in b"\n\r\v\f\x1c\x1d\x1e" and index < 6:
        assert found.fault.sequence in {index + 1, json.loads(bytes(line)).get("sequence", index + 1) if _is_json(line) else index + 1}


def _is_json(line: bytes | bytearray) -> bool:
    try:
        return isinstance(json.loads(bytes(line)), dict)
    except ValueError:
        return False


@pytest.mark.parametrize("index", range(7))
def test_any_deleted_line_is_found(index: int) -> None:
    lines = made(6)
    del lines[index]
    fault = check(lines).fault
    assert fault is not None
    assert fault.sequence == index + 1


@pytest.mark.parametrize("kept", range(7))
def test_an_export_cut_short_is_found(kept: int) -> None:
    fault = check(made(6)[:kept]).fault
    assert fault is not None
    assert (fault.kind, fault.sequence) == (FaultKind.TRUNCATED, kept + 1)


def test_reordered_repeated_and_added_lines_are_found() -> None:
    lines = made(6)
    for changed in (
        [lines[1], lines[0], *lines[2:]],
        [*lines[:3], lines[2], *lines[3:]],
        [*lines, lines[2]],
        [*lines[:-1], lines[-1], lines[-1]],
        [*lines[:3], b"{}\n", *lines[3:]],
        [*lines[:3], b"\n", *lines[3:]],
        [*lines[:3], b" " + lines[3], *lines[4:]],
    ):
        assert check(changed).fault is not None


def test_the_end_of_a_shorter_export_does_not_hide_a_cut_at_the_front() -> None:
    lines = made(6)
    assert check([*lines[2:6], lines[6]]).fault is not None
    assert check([*lines[:4], made(4)[-1]]).fault is None  # a whole export of what was there then


def test_an_export_signed_by_somebody_else_is_found_by_who_knows_the_key() -> None:
    forged = made(6, Signer(b"s" * 32))
    assert check(forged, trusted=None).fault is None  # consistent: this is why the key must be known
    fault = check(forged).fault
    assert fault is not None
    assert fault.kind is FaultKind.HEAD
    mixed = [*forged[:6], made(6)[6]]
    fault = check(mixed).fault
    assert fault is not None
    assert (fault.kind, fault.sequence) == (FaultKind.FORGED, 1)


async def test_a_database_exports_wholly_or_by_time(database: Database, clock: ManualClock, tmp_path: Path) -> None:
    audit = AuditService(database, AuditRepository(), signer=SIGNER, digest_key=b"k", heads=HeadsFile(tmp_path), clock=clock)
    times = []
    async with database.unit(ACTOR.organization_id) as work:
        for number in range(1_203):
            clock.advance(1)
            times.append(clock.now_ns())
            await audit.record(work, ACTOR, "team.create", f"team_{number}", after={"n": number, "list": [1, "ü"]})
    whole = b"".join([part async for part in audit.export(ORG)]).splitlines(keepends=True)
    assert len(whole) == 1_204
    found = check(whole)
    assert (found.fault, found.entries) == (None, 1_203)
    part = b"".join([part async for part in audit.export(ORG, from_ns=times[600], to_ns=times[610])]).splitlines(keepends=True)
    found = check(part)
    assert (found.fault, found.entries) == (None, 10)
    assert check(part[1:]).fault is not None
    empty = b"".join([part async for part in audit.export("org_none")]).splitlines(keepends=True)
    assert (len(empty), check(empty).fault) == (1, None)


def test_a_file_is_verified_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    lines = made(700)
    path.write_bytes(b"".join(lines))
    found = verify_export_file(path, trusted=SIGNER.checker)
    assert (found.fault, found.entries) == (None, 700)
    for changed, sequence in (
        (lines[:-1], 701),
        ([*lines[:400], *lines[401:]], 401),
        ([*lines[:10], lines[10].replace(b"usr_1", b"usr_2"), *lines[11:]], 11),
        ([], 1),
        ([b"x" * 3_000_000], 1),
        ([b"\n"], 1),
        ([*lines[:699], lines[699][:-20]], 700),
        ([*lines, b"\n"], 702),
    ):
        path.write_bytes(b"".join(changed))
        fault = verify_export_file(path, trusted=SIGNER.checker).fault
        assert fault is not None
        assert fault.sequence == sequence


def test_every_letter_of_the_key_in_an_export_counts_also_where_another_is_trusted() -> None:
    *lines, end = made(1)
    key = SIGNER.checker.text().encode()
    for other in (b":" + key[1:], key + b" ", key[:-2] + bytes([key[-2] + 1]) + b"=", b""):
        assert check([*lines, end.replace(key, other)]).fault is not None, other
