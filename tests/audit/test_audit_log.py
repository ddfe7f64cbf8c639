"""The audit log on a real database: written with its effect, and any change to it is found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import sqlalchemy as sa

from keygate.audit import AuditService, EntryFilter, FaultKind, HeadsFile, Signer
from keygate.audit.chain import append, canonical, sign_head
from keygate.audit.model import GENESIS, AuditOutcome, Draft
from keygate.audit.repository import AuditRepository
from keygate.audit.tables import audit_entries, audit_heads
from keygate.identities import Actor, ActorKind, Role
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database, open_database
from keygate.kit.secret import Secret

ORG = "org_1"
ACTOR = Actor(kind=ActorKind.USER, id="usr_1", organization_id=ORG, role=Role.OWNER, address="192.0.2.7", request_id="req_9")


@pytest.fixture
def audit(database: Database, clock: ManualClock, tmp_path: Path) -> AuditService:
    return AuditService(
        database, AuditRepository(), signer=Signer(bytes(range(32))), digest_key=b"k" * 32, heads=HeadsFile(tmp_path), clock=clock
    )


async def write(database: Database, audit: AuditService, count: int, *, organization_id: str = ORG) -> None:
    actor = Actor(kind=ActorKind.USER, id="usr_1", organization_id=organization_id, role=Role.OWNER)
    for number in range(count):
        async with database.unit(actor.organization_id) as work:
            await audit.record(work, actor, "team.create", f"team_{number}", after={"name": f"Team {number}"})


async def change(database: Database, statement: sa.Executable) -> None:
    async with database.unit() as work:
        await work.connection.execute(statement)


async def test_an_entry_holds_who_what_and_from_where(database: Database, audit: AuditService, clock: ManualClock) -> None:
    async with database.unit(ORG) as work:
        await audit.record(
            work, ACTOR, "credential.create", "cred_1", before=None, after={"secret": Secret("canary-secret"), "name": "a"}, detail="why"
        )
    (entry,) = await audit.find(ORG, EntryFilter(), before=None, limit=10)
    assert (entry.sequence, entry.actor_kind, entry.actor_id, entry.address, entry.request_id) == (1, "user", "usr_1", "192.0.2.7", "req_9")
    assert (entry.action, entry.target, entry.outcome, entry.detail, entry.at_ns) == (
        "credential.create",
        "cred_1",
        "done",
        "why",
        clock.now_ns(),
    )
    assert "canary" not in repr(entry)
    assert "sha256:" in (entry.after or "")


async def test_an_effect_that_fails_leaves_no_entry_and_an_entry_that_fails_no_effect(database: Database, audit: AuditService) -> None:
    with pytest.raises(LookupError):
        async with database.unit(ORG) as work:
            await audit.record(work, ACTOR, "team.create", "team_1")
            raise LookupError
    with pytest.raises(TypeError):
        async with database.unit(ORG) as work:
            await work.connection.execute(
                audit_heads.insert().values(organization_id="org_x", sequence=1, hash="", at_ns=0, key_id="", signature="")
            )
            await audit.record(work, ACTOR, "team.create", "team_1", after={"x": object()})
    async with database.read() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(audit_entries))).scalar() == 0
        assert (await connection.execute(sa.select(sa.func.count()).select_from(audit_heads))).scalar() == 0
    assert (await audit.verify(ORG)).ok


async def test_refusals_are_entries_too(audit: AuditService) -> None:
    await audit.refused(ACTOR, "team.delete", "team_1\0", reason="a viewer may not change teams")
    (entry,) = await audit.find(ORG, EntryFilter(outcome="refused"), before=None, limit=10)
    assert (entry.outcome, entry.detail, entry.target) == ("refused", "a viewer may not change teams", "team_1\ufffd")


async def test_entries_of_one_unit_follow_each_other(database: Database, audit: AuditService) -> None:
    async with database.unit(ORG) as work:
        for number in range(3):
            await audit.record(work, ACTOR, "team.create", f"team_{number}")
    result = await audit.verify(ORG)
    assert (result.ok, result.entries) == (True, 3)


async def test_what_is_recorded_stands_in_a_unit_of_its_organisation(database: Database, audit: AuditService) -> None:
    for unit in (database.unit(), database.unit("org_other")):
        with pytest.raises(RuntimeError, match="unit of its organisation"):
            async with unit as work:
                await audit.record(work, ACTOR, "team.create", "team_1")
    assert await audit.find(ORG, EntryFilter(), before=None, limit=10) == []


async def test_concurrent_writers_make_one_chain_without_gaps(database: Database, audit: AuditService) -> None:
    async def one(number: int) -> None:
        async with database.unit(ORG) as work:
            await audit.record(work, ACTOR, "team.create", f"team_{number}")

    await asyncio.gather(*(one(number) for number in range(40)))
    result = await audit.verify(ORG)
    assert (result.ok, result.entries) == (True, 40)


async def test_organisations_have_chains_of_their_own(database: Database, audit: AuditService) -> None:
    await write(database, audit, 3)
    await write(database, audit, 2, organization_id="org_2")
    await change(database, sa.update(audit_entries).where(audit_entries.c.organization_id == "org_2").values(detail="x"))
    results = {result.organization_id: result for result in await audit.verify_all()}
    assert results[ORG].ok
    assert not results["org_2"].ok
    assert [entry.organization_id for entry in await audit.find("org_2", EntryFilter(), before=None, limit=10)] == ["org_2"] * 2


COLUMNS = {
    "id": "aud_x",
    "at_ns": 5,
    "actor_kind": "system",
    "actor_id": "usr_2",
    "address": "10.0.0.1",
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


async def test_editing_any_column_is_found_and_named(database: Database, audit: AuditService) -> None:
    await write(database, audit, 9)
    entries = {entry.sequence: entry for entry in await audit.find(ORG, EntryFilter(), before=None, limit=10)}
    assert set(COLUMNS) | {"organization_id", "sequence"} == {column.name for column in audit_entries.columns}
    for number, (column, value) in enumerate(COLUMNS.items()):
        victim = entries[number % 9 + 1]
        at = (audit_entries.c.organization_id == ORG) & (audit_entries.c.sequence == victim.sequence)
        await change(database, sa.update(audit_entries).where(at).values({column: value}))
        fault = (await audit.verify(ORG)).fault
        assert fault is not None, column
        assert fault.sequence == victim.sequence, column
        assert fault.entry_id == (value if column == "id" else victim.id)
        await change(database, sa.update(audit_entries).where(at).values({column: getattr(victim, column)}))
        assert (await audit.verify(ORG)).ok


Tamper = Callable[[Database], Awaitable[None]]


async def _delete_middle(database: Database) -> None:
    await change(database, sa.delete(audit_entries).where(audit_entries.c.sequence == 4))


async def _delete_first(database: Database) -> None:
    await change(database, sa.delete(audit_entries).where(audit_entries.c.sequence == 1))


async def _swap(database: Database) -> None:
    for old, new in ((4, 100), (5, 4), (100, 5)):
        await change(database, sa.update(audit_entries).where(audit_entries.c.sequence == old).values(sequence=new))


async def _move_organisation(database: Database) -> None:
    await change(database, sa.update(audit_entries).where(audit_entries.c.sequence == 9).values(organization_id="org_2"))


async def _insert(database: Database) -> None:
    async with database.unit() as work:
        row = (await work.connection.execute(sa.select(audit_entries).where(audit_entries.c.sequence == 9))).mappings().one()
        await work.connection.execute(audit_entries.insert().values({**row, "sequence": 10, "id": "aud_x"}))


async def _truncate_one(database: Database) -> None:
    await change(database, sa.delete(audit_entries).where(audit_entries.c.sequence == 9))


async def _truncate_with_head(database: Database) -> None:
    await change(database, sa.delete(audit_entries).where(audit_entries.c.sequence >= 7))
    await change(database, sa.delete(audit_heads))


async def _wipe(database: Database) -> None:
    await change(database, sa.delete(audit_entries))
    await change(database, sa.delete(audit_heads))


async def _lose_head(database: Database) -> None:
    await change(database, sa.delete(audit_heads))


async def _edit_head(database: Database) -> None:
    await change(database, sa.update(audit_heads).values(sequence=8))


TAMPERS: list[tuple[Tamper, int]] = [
    (_delete_middle, 4),
    (_delete_first, 1),
    (_swap, 4),
    (_move_organisation, 9),
    (_insert, 10),
    (_truncate_one, 9),
    (_truncate_with_head, 7),
    (_wipe, 1),
    (_lose_head, 9),
    (_edit_head, 8),
]


@pytest.mark.parametrize(("tamper", "sequence"), TAMPERS, ids=[tamper.__name__.strip("_") for tamper, _ in TAMPERS])
async def test_every_kind_of_tampering_is_found_and_named(database: Database, audit: AuditService, tamper: Tamper, sequence: int) -> None:
    await write(database, audit, 9)
    await tamper(database)
    results = {result.organization_id: result for result in await audit.verify_all()}
    fault = results[ORG].fault
    assert fault is not None
    assert fault.sequence == sequence


async def write_and_cut_off(database: Database, audit: AuditService, *, kept: int, lost: int) -> None:
    """The newest entries are deleted, and the signed head from before them is put back."""
    await write(database, audit, kept)
    async with database.read() as connection:
        old = await AuditRepository().head(connection, ORG)
    assert old is not None
    await write(database, audit, lost)
    await change(database, sa.delete(audit_entries).where(audit_entries.c.sequence > kept))
    await change(database, sa.update(audit_heads).values(sequence=kept, hash=old.hash, at_ns=old.at_ns, signature=old.signature))


async def test_an_older_head_put_back_over_a_truncated_chain_is_found_by_the_file(database: Database, audit: AuditService) -> None:
    await write_and_cut_off(database, audit, kept=5, lost=3)
    fault = (await audit.verify(ORG)).fault
    assert fault is not None
    assert (fault.kind, fault.sequence) == (FaultKind.TRUNCATED, 6)
    assert [fault.sequence for fault in await audit.reconcile()] == [6]
    await write(database, audit, 6)  # the chain goes on over the cut
    fault = (await audit.verify(ORG)).fault
    assert fault is not None
    assert (fault.kind, fault.sequence) == (FaultKind.FORGED, 6)


async def test_a_crash_between_commit_and_file_is_no_tampering_and_is_mended_at_the_next_start(
    database: Database, audit: AuditService, tmp_path: Path
) -> None:
    await write(database, audit, 4)
    path = HeadsFile(tmp_path).path
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:50])  # torn in the middle of a line
    assert (await audit.verify(ORG)).ok
    assert await audit.reconcile() == []
    assert len(list(HeadsFile(tmp_path).read(until=HeadsFile(tmp_path).size()))) == 4
    await write(database, audit, 1)
    assert (await audit.verify(ORG)).ok
    assert path.stat().st_mode & 0o777 == 0o600
    await change(database, sa.delete(audit_entries).where(audit_entries.c.sequence >= 4))
    await change(database, sa.delete(audit_heads))
    assert not (await audit.verify(ORG)).ok


async def test_a_heads_file_that_was_lost_or_cut_short_is_a_fault_that_no_start_forgets(
    database: Database, audit: AuditService, tmp_path: Path
) -> None:
    await write(database, audit, 12)
    file = HeadsFile(tmp_path)
    whole = file.path.read_bytes()
    for kept in (3, 0):
        file.path.write_bytes(b"".join(whole.splitlines(keepends=True)[:kept]))
        fault = (await audit.verify(ORG)).fault
        assert fault is not None
        assert (fault.kind, fault.sequence) == (FaultKind.HEADS_LOST, kept + 1)
    file.path.unlink()
    assert not (await audit.verify(ORG)).ok
    assert [(fault.kind, fault.sequence) for fault in await audit.reconcile()] == [(FaultKind.HEADS_LOST, 1)]
    (told,) = await audit.find(ORG, EntryFilter(action="audit.heads_lost"), before=None, limit=9)
    assert (told.sequence, told.actor_kind, "1 to 12" in (told.detail or "")) == (13, "system", True)
    assert await audit.reconcile() == []  # told once
    await write(database, audit, 2)
    found = await audit.verify(ORG)
    assert (found.ok, found.witnessed_from, found.witnessed) == (False, 12, 15)
    assert (await audit.verify(ORG, heads_from=12)).ok
    assert (await audit.verify(ORG, heads_from=9)).ok  # as after a crash
    file.path.write_bytes(file.path.read_bytes() + whole)  # from a copy
    assert (await audit.verify(ORG)).ok


async def test_newest_entries_that_were_cut_off_with_the_heads_file_are_missed_after_a_start_too(
    database: Database, audit: AuditService, tmp_path: Path
) -> None:
    await write_and_cut_off(database, audit, kept=8, lost=2)
    HeadsFile(tmp_path).path.unlink()
    assert not (await audit.verify(ORG)).ok
    await audit.reconcile()
    assert not (await audit.verify(ORG)).ok
    assert await audit.find(ORG, EntryFilter(action="audit.heads_lost"), before=None, limit=9)


async def test_a_crash_in_a_unit_of_many_entries_or_in_the_first_one_is_no_loss(
    database: Database, audit: AuditService, tmp_path: Path
) -> None:
    path = HeadsFile(tmp_path).path
    await write(database, audit, 2)
    path.unlink()
    assert (await audit.verify(ORG)).ok
    assert await audit.reconcile() == []
    before = path.read_bytes()
    async with database.unit(ORG) as work:
        for number in range(30):  # as where a developer who holds many keys is deactivated
            await audit.record(work, ACTOR, "virtual_key.revoke", f"vk_{number}")
    path.write_bytes(before)
    assert (await audit.verify(ORG)).ok
    assert await audit.reconcile() == []
    await write(database, audit, 6)
    assert (await audit.verify(ORG)).ok


async def test_lists_are_filtered_and_paged_newest_first(database: Database, audit: AuditService, clock: ManualClock) -> None:
    for number in range(6):
        clock.advance(10)
        async with database.unit(ORG) as work:
            await audit.record(work, ACTOR, "team.create" if number % 2 else "team.update", f"team_{number}")
    first = await audit.find(ORG, EntryFilter(), before=None, limit=4)
    assert [entry.sequence for entry in first] == [6, 5, 4, 3]
    assert [entry.sequence for entry in await audit.find(ORG, EntryFilter(), before=3, limit=4)] == [2, 1]
    assert [entry.sequence for entry in await audit.find(ORG, EntryFilter(action="team.create"), before=None, limit=9)] == [6, 4, 2]
    assert [entry.sequence for entry in await audit.find(ORG, EntryFilter(target="team_3"), before=None, limit=9)] == [4]
    start = first[-1].at_ns
    assert [e.sequence for e in await audit.find(ORG, EntryFilter(from_ns=start, to_ns=first[0].at_ns), before=None, limit=9)] == [5, 4, 3]


async def test_verifying_while_others_write_finds_nothing_wrong(database: Database, audit: AuditService) -> None:
    writing = asyncio.create_task(write(database, audit, 60))
    while not writing.done():
        assert (await audit.verify(ORG)).ok
        await asyncio.sleep(0)
    await writing


async def test_twenty_thousand_entries_verify_in_a_few_seconds(sqlite_template: bytes, tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "keygate.db").write_bytes(sqlite_template)
    database = open_database(data_dir=tmp_path)
    signer = Signer(bytes(range(32)))
    audit = AuditService(database, AuditRepository(), signer=signer, digest_key=b"k", heads=HeadsFile(tmp_path), clock=clock)
    head = None
    rows, heads = [], []
    async with database.unit() as work:
        for number in range(20_000):
            draft = Draft(f"aud_{number}", "user", "usr_1", None, None, "team.create", AuditOutcome.DONE, "team_1", None, '{"name":"x"}')
            previous = head.hash if head else GENESIS
            entry = append(draft, organization_id=ORG, head=head, at_ns=number, previous_hash=previous, signer=signer)
            head = sign_head(entry, signer)
            rows.append(asdict(entry))
            heads.append(canonical(asdict(head)))
        await work.connection.execute(audit_entries.insert(), rows)
        await work.connection.execute(audit_heads.insert().values(asdict(head)))
    HeadsFile(tmp_path).path.write_text("\n".join(heads) + "\n")
    began = time.process_time()
    result = await audit.verify(ORG)
    assert (result.ok, result.entries) == (True, 20_000)
    assert time.process_time() - began < 5
    await database.close()
