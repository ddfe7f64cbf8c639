"""What a former process left behind: requests that began and never settled are charged at their hold, exactly once.

The charge is itself a settle in the journal, so a crash during recovery repeats nothing: the next recovery finds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keygate.kit.clock import Clock
from keygate.ledger.journal.reader import READ_BYTES, check_sequence, decode, learn
from keygate.ledger.journal.records import CONTEXT, Begin, Boot, ContextsOfSegment, Position, Settle
from keygate.ledger.journal.segments import MAGIC, REMEDY, SUFFIX, JournalCorrupt, bodies, check_magic, segment_numbers, segment_path
from keygate.ledger.journal.writer import RECENT_NS, SEGMENT_BYTES, Journal, identity_of, lock_directory
from keygate.ledger.model import Outcome


@dataclass(frozen=True, slots=True)
class Use:
    """What a request of a former process counted towards a limit per minute."""

    limit_id: str
    at_ns: int
    amount: int


@dataclass(frozen=True, slots=True)
class Recovered:
    journal: Journal
    in_doubt: tuple[Settle, ...]  # charged at their holds by this recovery
    recent: tuple[Use, ...]  # the last minute, so that a restart forgives no limit
    position: Position  # the fold must pass this before the database is complete


@dataclass(frozen=True, slots=True)
class _Scan:
    orphans: tuple[Begin, ...]
    recent: tuple[Use, ...]
    last_segment: int


def claim(directory: Path) -> tuple[int, str]:
    """Takes the journal for this process; returns its lock and its name (for the checkpoint). Raises `StartRefused`."""
    lock = lock_directory(directory)
    return lock, identity_of(directory)


def recover(
    directory: Path,
    lock: int,
    identity: str,
    checkpoint: Position,
    *,
    clock: Clock,
    boot_id: str,
    version: str,
    segment_bytes: int = SEGMENT_BYTES,
) -> Recovered:
    """Opens the journal for writing and settles what a former process left open. `checkpoint` is how far the fold has come.

    Raises `JournalCorrupt` or `JournalUnwritable`; the process must not start then.
    """
    now = clock.now_ns()
    scan = _scan(directory, checkpoint, now)
    journal = Journal(directory, lock, identity, scan.last_segment + 1, segment_bytes=segment_bytes)
    journal.start(Boot(boot_id, now, version))
    charged = tuple(in_doubt(begin, now) for begin in scan.orphans)
    for settle in charged:
        journal.settle(settle)
    if charged:
        journal.sync()
    return Recovered(journal, charged, scan.recent, journal.position)


def in_doubt(begin: Begin, now_ns: int) -> Settle:
    """The charge for a request whose end nobody saw: all of its hold."""
    priced = begin.context.price_id is not None
    return Settle(
        begin.context,
        begin.request_id,
        at_ns=now_ns,
        began_at_ns=begin.at_ns,
        hold_nano=begin.hold_nano,
        cost_nano=begin.hold_nano if priced else None,
        in_doubt=True,
        usage=None,
        status=0,
        outcome=Outcome.UPSTREAM_LOST.value,
        tokens=begin.hold_tokens,
        service_tier=begin.service_tier,
    )


def _scan(directory: Path, checkpoint: Position, now_ns: int) -> _Scan:
    for unfinished in directory.glob(f"*{SUFFIX}.new"):
        unfinished.unlink()  # a segment that never came to be
    numbers = segment_numbers(directory)
    if checkpoint.segment and checkpoint.segment not in numbers:
        raise JournalCorrupt(f"{segment_path(directory, checkpoint.segment)} is missing. {REMEDY}")
    begun: dict[str, Begin] = {}
    recent: dict[str, tuple[Use, ...]] = {}
    for index, number in enumerate(numbers):
        path = segment_path(directory, number)
        check_sequence(directory, numbers, index)
        contexts = ContextsOfSegment()
        whole = len(MAGIC)
        for body, behind in _records(path):
            whole = behind
            if body[0] == CONTEXT:
                learn(contexts, body, path, behind)
                continue
            record = decode(contexts, body, path, behind)
            if isinstance(record, Boot):
                continue
            began = record.at_ns if isinstance(record, Begin) else record.began_at_ns
            if began > now_ns - RECENT_NS:
                recent[record.request_id] = tuple(Use(limit_id, began, amount) for limit_id, amount in record.minute_limits)
            if number < checkpoint.segment:
                continue  # kept for the sake of limits per minute; what was open at its end is carried in the next
            if isinstance(record, Begin):
                begun[record.request_id] = record
            else:
                begun.pop(record.request_id, None)
        if whole < path.stat().st_size:
            os.truncate(path, whole)  # a torn tail: its writer is gone, nothing will ever finish it
    uses = tuple(use for each in recent.values() for use in each)
    return _Scan(tuple(begun.values()), uses, numbers[-1] if numbers else 0)


def _records(path: Path) -> Iterator[tuple[memoryview, int]]:
    """The bodies of a segment, each with the offset behind it, read in blocks: a whole segment at once would stay in the process's memory.
    Raises `JournalCorrupt`."""
    with path.open("rb") as file:
        check_magic(file.read(len(MAGIC)), path)
        offset, before = len(MAGIC), 0
        while offset > before:
            before = offset
            file.seek(offset)
            for body, behind in bodies(file.read(READ_BYTES), 0, path, base=offset):
                offset = behind
                yield body, behind
        file.seek(offset + READ_BYTES)  # nothing whole stands behind `offset`; what `bodies` has not seen must be empty too
        while rest := file.read(READ_BYTES):
            if rest.strip(b"\0"):
                raise JournalCorrupt(f"{path}: no record begins at byte {offset}. {REMEDY}")
