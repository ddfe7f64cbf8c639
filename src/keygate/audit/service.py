"""Writing, reading, verifying and exporting the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from keygate.audit.chain import append, canonical_values, clean, sign_head
from keygate.audit.export import end_line, entry_line
from keygate.audit.heads import HeadsFile
from keygate.audit.model import GENESIS, AuditEntry, AuditOutcome, Draft, Fault, FaultKind, SignedHead, Verification
from keygate.audit.ports import EntryFilter
from keygate.audit.signing import Checker, Signer
from keygate.audit.verification import ChainVerifier, check_head, head_signed
from keygate.audit.witness import Crash, Witness
from keygate.identities import Actor, system_actor
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id
from keygate.kit.redaction import redact

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.audit.repository import AuditRepository
    from keygate.kit.database import Database, UnitOfWork

_BATCH = 500
_LOOKS = 4
_LOOK_SECONDS = 0.1
_FOREVER = 2**63 - 1


class AuditService:
    """The `AuditLog` of this process. `digest_key` keys the digests that stand for secrets."""

    def __init__(
        self, database: Database, repository: AuditRepository, *, signer: Signer, digest_key: bytes, heads: HeadsFile, clock: Clock
    ) -> None:
        self._database = database
        self._repository = repository
        self._signer = signer
        self._digest_key = digest_key
        self._heads = heads
        self._clock = clock

    async def record(
        self,
        work: UnitOfWork,
        actor: Actor,
        action: str,
        target: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        detail: str | None = None,
    ) -> None:
        draft = _draft(
            actor,
            action,
            target,
            AuditOutcome.DONE,
            before=canonical_values(before, self._digest_key),
            after=canonical_values(after, self._digest_key),
            detail=detail,
        )
        await self._append(work, actor.organization_id, draft)

    async def refused(self, actor: Actor, action: str, target: str, *, reason: str) -> None:
        async with self._database.unit(actor.organization_id) as work:
            await self._append(work, actor.organization_id, _draft(actor, action, target, AuditOutcome.REFUSED, detail=reason))

    async def find(self, organization_id: str, wanted: EntryFilter, *, before: int | None, limit: int) -> list[AuditEntry]:
        """Newest first; at most `limit`, older than sequence `before`."""
        async with self._database.read() as connection:
            return await self._repository.find(connection, organization_id, wanted, before=before, limit=limit)

    async def verify(self, organization_id: str, *, heads_from: int = 1) -> Verification:
        """Reads the whole chain of an organisation: every entry, its head, and every head in the file beside the database. `heads_from`
        is the entry from which on the file is known to be whole: what it lacks of those before is no fault."""
        written = self._heads.size()  # before the snapshot: what the file names by now must be in it
        witness = Witness()
        async with self._database.read() as connection:
            walk = await self._walk(connection, organization_id)
            head = await self._repository.head(connection, organization_id)
            below = walk.fault.sequence if walk.fault else _FOREVER
            fault = await self._check_file(connection, organization_id, written, below=below, witness=witness)
            fault = fault or walk.fault or check_head(head, walk.last, self._signer.checker)
            if fault is None and walk.last is not None:
                fault = await self._heads_lost(connection, walk.last, written, witness=witness, start=heads_from)
        return Verification(
            organization_id,
            walk.entries,
            head,
            fault,
            self._signer.key_id,
            witnessed=witness.newest,
            witnessed_from=witness.oldest,
        )

    async def verify_all(self, *, heads_from: int = 1) -> list[Verification]:
        """Every organisation that the database or the heads file knows."""
        written = self._heads.size()
        async with self._database.read() as connection:
            known = set(await self._repository.organizations(connection))
        known.update(head.organization_id for head in self._heads.read(until=written))
        return [await self.verify(organization_id, heads_from=heads_from) for organization_id in sorted(known)]

    async def reconcile(self) -> list[Fault]:
        """At a start: writes heads to the file that a crash kept out of it, and answers what the file names and the database lacks, or the
        file lacks and no crash explains. The latter is recorded too: from now on the file goes on as if nothing were missing."""
        written = self._heads.size()
        newest: dict[str, int] = {}
        for head in self._heads.read(until=written):
            newest[head.organization_id] = max(head.sequence, newest.get(head.organization_id, 0))
        faults = []
        behind: list[tuple[SignedHead, Fault | None]] = []
        async with self._database.read() as connection:
            for organization_id in await self._repository.organizations(connection):
                stored = await self._repository.head(connection, organization_id)
                last = await self._repository.last(connection, organization_id)
                known = newest.get(organization_id, 0)
                if stored and stored.sequence > known and check_head(stored, last, self._signer.checker) is None:
                    behind.append((stored, await self._unexplained(connection, organization_id, known + 1, stored.sequence)))
            for organization_id in sorted(newest):
                fault = await self._check_file(connection, organization_id, written, below=_FOREVER, witness=Witness())
                if fault:
                    faults.append(fault)
        for head, lost in behind:
            if lost:
                actor = system_actor(head.organization_id)
                async with self._database.unit(head.organization_id) as work:
                    await self.record(work, actor, "audit.heads_lost", head.organization_id, detail=lost.detail)
                faults.append(lost)
            self._heads.append(head)
        return faults

    def first_outside(self) -> str | None:
        """The organisation that the heads file began with; None where it names none."""
        return next((head.organization_id for head in self._heads.read(until=self._heads.size())), None)

    def public_key(self) -> str:
        """What an export is verified with, in base64."""
        return self._signer.checker.text()

    def checker(self) -> Checker:
        return self._signer.checker

    async def export(self, organization_id: str, *, from_ns: int | None = None, to_ns: int | None = None) -> AsyncIterator[bytes]:
        """JSON lines, oldest first, the signed end last; entries that are written meanwhile are left out. Reads in bounded batches
        and holds no transaction while the reader takes its time."""
        async with self._database.read() as connection:
            span = await self._repository.span(connection, organization_id, from_ns=from_ns, to_ns=to_ns)
        first, last = span or (1, 0)
        anchor: str | None = None
        last_hash = GENESIS
        after = first - 1
        while after < last:
            async with self._database.read() as connection:
                batch = await self._repository.batch(connection, organization_id, after=after, until=last, limit=_BATCH)
            if not batch:
                break
            anchor = anchor or batch[0].previous_hash
            after, last_hash = batch[-1].sequence, batch[-1].hash
            yield b"".join(map(entry_line, batch))
        anchor = anchor or GENESIS
        yield end_line(
            organization_id=organization_id,
            first=first,
            last=last,
            anchor=anchor,
            last_hash=last_hash,
            at_ns=self._clock.now_ns(),
            signer=self._signer,
        )

    async def _append(self, work: UnitOfWork, organization_id: str, draft: Draft) -> None:
        if work.organization_id != organization_id:
            raise RuntimeError("what is audited stands in a unit of its organisation: `database.unit(organization_id)`")
        head = await self._repository.head(work.connection, organization_id)
        entry = append(
            draft,
            organization_id=organization_id,
            head=head,
            at_ns=self._clock.now_ns(),
            previous_hash=head.hash if head else GENESIS,
            signer=self._signer,
        )
        signed = sign_head(entry, self._signer)
        await self._repository.append(work.connection, entry, signed)

        async def publish() -> None:
            self._heads.append(signed)

        work.after_commit(publish)

    async def _walk(self, connection: AsyncConnection, organization_id: str) -> ChainVerifier:
        walk = ChainVerifier(organization_id, self._signer.checker)
        after = -_FOREVER
        while batch := await self._repository.batch(connection, organization_id, after=after, until=_FOREVER, limit=_BATCH):
            await asyncio.to_thread(_feed, walk, batch)
            after = batch[-1].sequence
            if walk.fault:
                break
        walk.finish()
        return walk

    async def _check_file(
        self, connection: AsyncConnection, organization_id: str, until: int, *, below: int, witness: Witness, start: int = 0
    ) -> Fault | None:
        """The lowest sequence under `below` whose head in the file is not that of the database; `witness` learns of those that are."""
        worst: Fault | None = None
        heads = (head for head in self._heads.read(until=until, start=start) if head.organization_id == organization_id)
        while chunk := list(islice(heads, _BATCH)):
            stored = await self._repository.hashes(connection, organization_id, [head.sequence for head in chunk])
            for head in chunk:
                found = stored.get(head.sequence)
                if found and found[1] == head.hash:
                    witness.add(head.sequence)
                elif head.sequence < (worst.sequence if worst else below):
                    worst = self._compare(head, found) or worst
        return worst

    async def _heads_lost(
        self, connection: AsyncConnection, last: AuditEntry, written: int, *, witness: Witness, start: int
    ) -> Fault | None:
        """The first run of entries from `start` on that the heads file lacks and no crash explains. Heads of what was committed just
        before the snapshot may still be on their way into the file, so it is given a moment."""
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_LOOK_SECONDS)
            size = self._heads.size()
            await self._check_file(connection, last.organization_id, size, below=0, witness=witness, start=written)
            written = size
            fault, until = None, 0
            for first, until in list(witness.gaps(start=start, end=last.sequence)):
                fault = await self._unexplained(connection, last.organization_id, first, until)
                if fault:
                    break
            if fault is None or until < last.sequence:
                break
        return fault

    async def _unexplained(self, connection: AsyncConnection, organization_id: str, first: int, end: int) -> Fault | None:
        crash = Crash(first=first)
        after = first - 1
        while batch := await self._repository.batch(connection, organization_id, after=after, until=end, limit=_BATCH):
            if not all(map(crash.explains, batch)):
                return Fault(
                    FaultKind.HEADS_LOST,
                    first,
                    None,
                    f"the heads file lacks the entries {first} to {end}, more than a crash explains; newest entries that were cut off "
                    "while it did can't be found",
                )
            after = batch[-1].sequence
        return None

    def _compare(self, head: SignedHead, stored: tuple[str, str] | None) -> Fault | None:
        if not head_signed(head, self._signer.checker):
            return Fault(
                FaultKind.HEAD, head.sequence, stored[0] if stored else None, "a line of the heads file is not signed by this KeyGate"
            )
        if stored is None:
            return Fault(FaultKind.TRUNCATED, head.sequence, None, f"the heads file names entry {head.sequence}, which the database lacks")
        return Fault(
            FaultKind.FORGED,
            head.sequence,
            stored[0],
            "another entry with this sequence was written before; the chain was cut and continued",
        )


def _feed(walk: ChainVerifier, batch: list[AuditEntry]) -> None:
    for entry in batch:
        if walk.feed(entry):
            return


def _draft(
    actor: Actor,
    action: str,
    target: str,
    outcome: AuditOutcome,
    *,
    before: str | None = None,
    after: str | None = None,
    detail: str | None = None,
) -> Draft:
    return Draft(
        id=new_id("aud"),
        actor_kind=str(actor.kind),
        actor_id=clean(actor.id, limit=200) or "",
        address=clean(actor.address, limit=100),
        request_id=clean(actor.request_id, limit=200),
        action=clean(action, limit=100) or "",
        outcome=outcome,
        target=clean(redact(target), limit=500) or "",
        before=before,
        after=after,
        detail=clean(None if detail is None else redact(detail)),
    )
