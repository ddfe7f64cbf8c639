"""Reading the journal while it is being written: the fold's side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from keygate.ledger.journal import former
from keygate.ledger.journal.records import BEGIN, BOOT, CONTEXT, SETTLE, START, Boot, ContextsOfSegment, Position, Record, Settle
from keygate.ledger.journal.segments import MAGIC, REMEDY, JournalCorrupt, bodies, check_magic, segment_numbers, segment_path

READ_BYTES = 4 << 20  # longer than any record
USUAL_BYTES = 400  # of a settle with its begin: reading little more than `limit` of them costs least


@dataclass(frozen=True, slots=True)
class Batch:
    """Settles in the order in which they were written. Store `position` in the transaction that stores their effect."""

    settles: tuple[Settle, ...]
    position: Position
    more: bool  # False: nothing whole stood behind `position` when it was read


class JournalReader:
    """Reads on from wherever it is told. It remembers the contexts of the segment that it reads, so reading in order costs least."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._at = START
        self._contexts = ContextsOfSegment()

    def read(self, position: Position, *, limit: int = 2000) -> Batch:
        """The next settles behind `position`, at most `limit`. Begins and boots are passed over.

        A torn last record is not read (it may be on its way). Raises `JournalCorrupt` for damage anywhere else, and when segments
        that should follow `position` are missing.
        """
        settles: list[Settle] = []
        numbers = [number for number in segment_numbers(self._directory) if number >= position.segment]
        if position.segment and (not numbers or numbers[0] != position.segment) and position.offset:
            raise JournalCorrupt(f"{segment_path(self._directory, position.segment)} is missing. {REMEDY}")
        for index, number in enumerate(numbers):
            check_sequence(self._directory, numbers, index)
            start = Position(number, max(position.offset if number == position.segment else 0, len(MAGIC)))
            position = self._read_segment(start, settles, limit)
            if len(settles) >= limit:
                return Batch(tuple(settles), position, more=True)
        return Batch(tuple(settles), position, more=False)

    def _read_segment(self, position: Position, settles: list[Settle], limit: int) -> Position:
        """Until the segment ends or the limit is reached."""
        path = segment_path(self._directory, position.segment)
        if position != self._at:
            self._begin_at(position, path)
        contexts = self._contexts
        decode, append = contexts.settle, settles.append
        missing = limit - len(settles)
        span = min(READ_BYTES, max(1, limit) * USUAL_BYTES)
        offset = position.offset
        try:
            while missing > 0:
                before = offset
                data = _bytes(path, offset, span)
                for body, behind in bodies(data, 0, path, base=offset):
                    offset = behind
                    kind = body[0]
                    if kind == SETTLE:
                        append(decode(body[1:]))
                    elif kind == CONTEXT:
                        contexts.learn(body[1:])
                        continue
                    elif kind == former.SETTLE_1:
                        append(former.settle(body[1:]))
                    else:
                        continue
                    missing -= 1
                    if not missing:
                        break
                if len(data) < span and missing:
                    break
                if offset == before:  # a record longer than the span
                    if span == READ_BYTES:
                        break
                    span = READ_BYTES
        except (KeyError, msgspec.DecodeError) as error:
            self._at = START
            raise unreadable(path, offset, error) from error
        self._at = Position(position.segment, offset)
        return self._at

    def _begin_at(self, position: Position, path: Path) -> None:
        """Makes the contexts known that stand before `position` in its segment."""
        self._at = START
        self._contexts = ContextsOfSegment()
        check_magic(_bytes(path, 0, len(MAGIC)), path)
        offset, span = len(MAGIC), min(READ_BYTES, position.offset - len(MAGIC))
        while offset < position.offset:
            before = offset
            for body, behind in bodies(_bytes(path, offset, span), 0, path, base=offset):
                if behind > position.offset:
                    break
                offset = behind
                if body[0] == CONTEXT:
                    learn(self._contexts, body, path, behind)
            if offset == before:
                if span == READ_BYTES:
                    break  # no record ends at `position`: it stands in one that was cut off
                span = READ_BYTES


def read_from(directory: Path, position: Position, *, limit: int = 2000) -> Batch:
    """As `JournalReader.read`, once."""
    return JournalReader(directory).read(position, limit=limit)


def _bytes(path: Path, offset: int, most: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(most)


def check_sequence(directory: Path, numbers: list[int], index: int) -> None:
    """Raises `JournalCorrupt` where the segment before this one is missing."""
    if index and numbers[index] != numbers[index - 1] + 1:
        raise JournalCorrupt(f"{segment_path(directory, numbers[index - 1] + 1)} is missing. {REMEDY}")


def learn(contexts: ContextsOfSegment, body: memoryview, path: Path, behind: int) -> None:
    """Takes in the context in a checked body. Raises `JournalCorrupt` where its content makes no sense."""
    try:
        contexts.learn(body[1:])
    except msgspec.DecodeError as error:
        raise unreadable(path, behind, error) from error


def decode(contexts: ContextsOfSegment, body: memoryview, path: Path, behind: int) -> Record:
    """The record in a checked body. Raises `JournalCorrupt` where its checksum holds but its content makes no sense."""
    kind, data = body[0], body[1:]
    try:
        if kind == BEGIN:
            return contexts.begin(data)
        if kind == SETTLE:
            return contexts.settle(data)
        if kind == former.BEGIN_1:
            return former.begin(data)
        if kind == former.SETTLE_1:
            return former.settle(data)
        if kind == BOOT:
            return _BOOT.decode(data)
    except (KeyError, msgspec.DecodeError) as error:
        raise unreadable(path, behind, error) from error
    raise unreadable(path, behind, ValueError(f"there is no kind {kind}"))


_BOOT = msgspec.msgpack.Decoder(Boot)


def unreadable(path: Path, behind: int, error: Exception) -> JournalCorrupt:
    reason = "its context does not stand before it" if isinstance(error, KeyError) else str(error)
    return JournalCorrupt(f"{path}: the record that ends at byte {behind} can't be read ({reason}). {REMEDY}")
