"""The worker's half of the journal: settled requests become ledger entries, exactly once.

Entries, spend per budget, events and the checkpoint are written in one transaction, so a crash at any point leaves either all
of a batch or none of it. A request that stands in the ledger already (a journal restored beside a newer database) is skipped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from keygate.kit.clock import NANOSECONDS, Clock
from keygate.ledger.journal import START, JournalReader, Position, Settle
from keygate.ledger.journal.segments import segment_path
from keygate.ledger.meters.budget import Crossed
from keygate.ledger.posting import LAST_SEQ, ROLLED_SEQ, AlreadyPosted, Postings

if TYPE_CHECKING:
    from keygate.kit.database import Database, UnitOfWork
    from keygate.ledger.repository import LedgerRepository

CHUNK = 100  # settled requests handled without giving the event loop a turn: about a quarter of a millisecond
TRANSACTION = 4_000  # at most so many in one transaction: other writers wait for its end
INTERVAL = 5.0  # seconds between folds; the journal is what is durable, and a report folds before it answers
ROLL_UP_ENTRIES = 100_000  # the roll-ups follow in bulk: the more entries at once, the fewer rows are touched per entry
ROLL_UP_NS = 900 * NANOSECONDS
ROLL_UP_STEP = 50_000

_log = logging.getLogger(__name__)


class _OutOfStepError(Exception):
    """The database is not where this fold believed it to be: another one has been at work."""


class Crossings(Protocol):
    """Budget thresholds that were crossed, waiting to become events."""

    def has_crossed(self) -> bool:
        """True where `drain` has something."""

    def drain(self) -> Sequence[Crossed]:
        """Takes all that wait, oldest first."""

    async def announce(self, work: UnitOfWork, crossings: Sequence[Crossed]) -> Sequence[Crossed]:
        """Puts them into the outbox, in this transaction; returns those that can't be told yet and shall come again."""


@dataclass(frozen=True, slots=True)
class Lag:
    """What the journal holds that the database does not."""

    bytes: int
    seconds: float
    entries_not_rolled_up: int


class Fold:
    """Folds one journal. `tick` does what is due; `flush` brings the database up to date within a bound; both may be called at any time.

    `directory` holds the journal's segments and `journal_id` names it, the same for the life of the data directory.
    `release` is told what has been folded, after the commit: segments before it are needed no more for the ledger.
    `written` is where the next record will stand, for the lag. `posted` sees what was posted, after the commit; it must be quick.
    """

    def __init__(
        self,
        *,
        database: Database,
        repository: LedgerRepository,
        directory: Path,
        journal_id: str,
        clock: Clock,
        crossings: Crossings | None = None,
        release: Callable[[Position], None] | None = None,
        written: Callable[[], Position] | None = None,
        posted: Callable[[Sequence[Settle]], None] | None = None,
    ) -> None:
        self._database = database
        self._repository = repository
        self._directory = directory
        self._reader = JournalReader(directory)
        self._journal_id = journal_id
        self._clock = clock
        self._crossings = crossings
        self._release = release
        self._written = written
        self._posted = posted
        self._waiting: list[Crossed] = []  # drained, not yet committed
        self._lock = asyncio.Lock()
        self._position: Position | None = None  # None: ask the database
        self._last_seq = 0
        self._rolled_seq = 0
        self._rolled_at_ns = clock.now_ns()
        self._level_at_ns = clock.now_ns()  # when nothing was left to fold
        self.folded = 0  # entries since the start of the process, for the metrics

    async def tick(self) -> int:
        """Folds everything that is pending and rolls up where that is due; returns how many entries were added."""
        async with self._lock:
            added = await self._fold_pending()
            await self._roll_up(force=False)
            return added

    async def announce(self) -> int:
        """`tick`, where somebody waits to hear of a threshold: an alarm doesn't wait for the next fold."""
        return await self.tick() if self._crossings is not None and self._crossings.has_crossed() else 0

    async def flush(self, timeout: float = 2.0) -> bool:
        """Folds what is pending now. False where the time did not suffice; what was folded by then stays folded."""
        try:
            async with asyncio.timeout(timeout):
                async with self._lock:
                    await self._fold_pending()
        except TimeoutError:
            return False
        return True

    async def roll_up(self) -> None:
        """Brings the roll-ups up to date at once; for tests and for commands."""
        async with self._lock:
            await self._load()
            await self._roll_up(force=True)

    def lag(self) -> Lag:
        return Lag(
            bytes=self._bytes_behind(),
            seconds=max(0, self._clock.now_ns() - self._level_at_ns) / NANOSECONDS,
            entries_not_rolled_up=self._last_seq - self._rolled_seq,
        )

    def _bytes_behind(self) -> int:
        if self._written is None:
            return 0
        head, position = self._written(), self._position or START
        behind = head.offset - position.offset
        for number in range(max(position.segment, 1), head.segment):
            path = segment_path(self._directory, number)
            behind += path.stat().st_size if path.exists() else 0
        return max(0, behind)

    async def _load(self) -> Position:
        async with self._database.read() as connection:
            self._position = await self._repository.checkpoint(connection, self._journal_id)
            self._last_seq = await self._repository.counter(connection, LAST_SEQ)
            self._rolled_seq = await self._repository.counter(connection, ROLLED_SEQ)
        return self._position

    async def _fold_pending(self) -> int:
        added = 0
        while True:
            if self._crossings is not None:
                self._waiting.extend(self._crossings.drain())
            settles, start, end, more = await self._collect()
            if end != start or self._waiting:
                try:
                    added += await self._commit(settles, start, end)
                except _OutOfStepError:
                    _log.warning("another fold has been at work on this journal; starting again from its checkpoint")
                    self._position = None
                    continue
                if self._release is not None:
                    self._release(end)
            if not more:
                self._level_at_ns = self._clock.now_ns()
                return added

    async def _collect(self) -> tuple[list[Settle], Position, Position, bool]:
        start = position = self._position or await self._load()
        settles: list[Settle] = []
        more = True
        while more and len(settles) < TRANSACTION:
            batch = self._reader.read(position, limit=min(CHUNK, TRANSACTION - len(settles)))
            settles += batch.settles
            position, more = batch.position, batch.more
            await asyncio.sleep(0)
        return settles, start, position, more

    async def _commit(self, settles: list[Settle], start: Position, end: Position) -> int:
        try:
            return await self._write(settles, start, end)
        except AlreadyPosted:
            first = {settle.request_id: settle for settle in reversed(settles)}
            async with self._database.read() as connection:
                known = await self._repository.known_requests(connection, list(first))
            fresh = [settle for settle in settles if settle.request_id not in known and first[settle.request_id] is settle]
            _log.warning("%d settled requests stand in the ledger already and are not posted again", len(settles) - len(fresh))
            return await self._write(fresh, start, end)

    async def _write(self, settles: list[Settle], start: Position, end: Position) -> int:
        postings = Postings()
        following = self._last_seq + 1
        for first in range(0, len(settles), CHUNK):
            following = postings.add(settles[first : first + CHUNK], following)
            await asyncio.sleep(0)
        repository = self._repository
        async with self._database.unit() as work:
            connection = work.connection
            await repository.lock_fold(connection)
            standing = (await repository.checkpoint(connection, self._journal_id), await repository.counter(connection, LAST_SEQ))
            if standing != (start, self._last_seq):
                raise _OutOfStepError
            await repository.post(connection, postings)
            waiting: Sequence[Crossed] = ()
            if self._waiting and self._crossings is not None:
                waiting = await self._crossings.announce(work, self._waiting)
            await repository.set_counter(connection, LAST_SEQ, following - 1)
            await repository.move_checkpoint(connection, self._journal_id, end, now_ns=self._clock.now_ns())
        self._waiting[:] = waiting
        self._position = end
        self._last_seq = following - 1
        self.folded += len(settles)
        if self._posted is not None:
            self._posted(settles)
        return len(settles)

    async def _roll_up(self, *, force: bool) -> None:
        waiting = self._last_seq - self._rolled_seq
        now = self._clock.now_ns()
        if not waiting or not (force or waiting >= ROLL_UP_ENTRIES or now - self._rolled_at_ns >= ROLL_UP_NS):
            return
        while self._rolled_seq < self._last_seq:
            until = min(self._rolled_seq + ROLL_UP_STEP, self._last_seq)
            async with self._database.unit() as work:
                await self._repository.lock_fold(work.connection)
                after = await self._repository.counter(work.connection, ROLLED_SEQ)
                if after < until:
                    await self._repository.roll_up(work.connection, after=after, until=until)
                    await self._repository.set_counter(work.connection, ROLLED_SEQ, until)
            self._rolled_seq = max(after, until)
        self._rolled_at_ns = now
