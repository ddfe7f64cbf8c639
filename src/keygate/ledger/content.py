"""Recorded prompts and answers. Nothing is recorded unless a policy asks for it; what is recorded is sealed by the vault, bounded in
size and age, and read only by those whom the policy named when it was recorded. Every read stands in the audit log.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from keygate.audit import AuditLog
from keygate.errors import NotFound
from keygate.identities import Actor, Role
from keygate.kit.secret import Secret
from keygate.ledger.model import Recording
from keygate.policies import KeyState
from keygate.vault import Place, SealedColumn

if TYPE_CHECKING:
    from keygate.kit.database import Database, UnitOfWork
    from keygate.ledger.content_repository import ContentRepository

MAX_BYTES = 256 * 1024  # of prompt and of answer, each; the rest is cut off and said to be
QUEUE_BYTES = 32 * 2**20  # waiting to be sealed; beyond it records are dropped and counted, because no request waits for them
PORTION = 50
SEALED = SealedColumn("recorded_contents", "request_id", "sealed")  # for the vault's rotation of data keys

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Content:
    request_id: str
    at_ns: int
    key_id: str
    prompt: bytes
    answer: bytes
    truncated: bool


class Seal(Protocol):
    """The vault. A sealed value is bound to its row."""

    async def seal(self, work: UnitOfWork, plain: Secret, place: Place) -> bytes: ...

    async def open(self, sealed: bytes, place: Place) -> Secret: ...


def readers_of(state: KeyState) -> tuple[str, ...] | None:
    """Who may read what is recorded of this key; None: nothing is recorded. With several layers that record, a reader must be named by
    each of them."""
    named = [set(rule.content_readers) for rule in state.rules if rule.record_content]
    return tuple(sorted(set.intersection(*named))) if named else None


class ContentRecorder:
    """Takes recordings from the request path without waiting and stores them later. `tick` is called by the worker."""

    max_bytes = MAX_BYTES

    def __init__(self, *, database: Database, repository: ContentRepository, seal: Seal) -> None:
        self._database = database
        self._repository = repository
        self._seal = seal
        self._queue: list[Recording] = []
        self._bytes = 0
        self._lock = asyncio.Lock()
        self.dropped = 0  # since the start of the process, for the metrics

    def readers(self, state: KeyState) -> tuple[str, ...] | None:
        """`readers_of`, and None too where nobody is named by every layer: what nobody may read is not kept."""
        return readers_of(state) or None

    def offer(self, recording: Recording) -> bool:
        """Never waits. False where the queue is full: the recording is dropped, the request is not."""
        size = min(len(recording.prompt), MAX_BYTES) + min(len(recording.answer), MAX_BYTES)
        if self._bytes + size > QUEUE_BYTES:
            if not self.dropped:
                _log.warning("recorded content comes faster than it can be stored; some is dropped (counted in the metrics)")
            self.dropped += 1
            return False
        self._bytes += size
        truncated = len(recording.prompt) > MAX_BYTES or len(recording.answer) > MAX_BYTES
        if truncated:  # one byte more than is kept, so that storing sees the cut
            recording = recording._replace(prompt=recording.prompt[: MAX_BYTES + 1], answer=recording.answer[: MAX_BYTES + 1])
        self._queue.append(recording)
        return True

    async def tick(self) -> int:
        """Seals and stores what waits; returns how many. What could not be stored stays in the queue."""
        stored = 0
        async with self._lock:
            while portion := self._queue[:PORTION]:
                async with self._database.unit() as work:
                    for recording in portion:
                        await self._store(work, recording)
                del self._queue[: len(portion)]
                self._bytes -= sum(min(len(r.prompt), MAX_BYTES) + min(len(r.answer), MAX_BYTES) for r in portion)
                stored += len(portion)
        return stored

    async def _store(self, work: UnitOfWork, recording: Recording) -> None:
        parts = [base64.b64encode(part[:MAX_BYTES]).decode() for part in (recording.prompt, recording.answer)]
        sealed = await self._seal.seal(work, Secret(json.dumps(parts)), _place(recording.request_id, recording.organization_id))
        await self._repository.add(
            work.connection,
            {
                "request_id": recording.request_id,
                "organization_id": recording.organization_id,
                "key_id": recording.key_id,
                "at_ns": recording.at_ns,
                "readers": json.dumps(recording.readers),
                "sealed": sealed,
                "truncated": int(len(recording.prompt) > MAX_BYTES or len(recording.answer) > MAX_BYTES),
            },
        )


class ContentReader:
    def __init__(self, *, database: Database, repository: ContentRepository, seal: Seal, audit: AuditLog) -> None:
        self._database = database
        self._repository = repository
        self._seal = seal
        self._audit = audit

    async def read(self, actor: Actor, request_id: str) -> Content:
        """Raises `NotFound` where nothing is recorded, and where this actor is not among the readers, or is a developer and the key was
        not theirs. The read is audited before it is answered."""
        async with self._database.read() as connection:
            row = await self._repository.get(connection, actor.organization_id, request_id)
        if row is None:
            raise _absent(request_id)
        foreign = actor.role is Role.DEVELOPER and row.developer_id != actor.developer_id
        if foreign or not {actor.user_id, actor.role.value} & set(json.loads(row.readers)):
            await self._audit.refused(actor, "content.read", request_id, reason="not among the readers that the policy names")
            raise _absent(request_id)
        opened = await self._seal.open(row.sealed, _place(request_id, actor.organization_id))
        async with self._database.unit(actor.organization_id) as work:
            await self._audit.record(work, actor, "content.read", request_id, after={"key_id": row.key_id})
        prompt, answer = (base64.b64decode(part) for part in json.loads(opened.open()))
        return Content(request_id, row.at_ns, row.key_id, prompt, answer, bool(row.truncated))


def _place(request_id: str, organization_id: str) -> Place:
    return Place(SEALED.table, request_id, organization_id, SEALED.column)


def _absent(request_id: str) -> NotFound:
    return NotFound(f"There is no recorded content of a request {request_id} that you may read")
