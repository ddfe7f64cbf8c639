"""Reading the journal while it is being written: the fold's side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from keygate.ledger.journal.records import SETTLE, TYPES, Position, Record, Settle
from keygate.ledger.journal.segments import MAGIC, REMEDY, JournalCorrupt, bodies, check_magic, segment_numbers, segment_path

READ_BYTES = 4 << 20  # longer than any record
USUAL_BYTES = 1024  # of a settle with its begin: reading little more than `limit` of them costs least

_DECODERS: dict[int, msgspec.msgpack.Decoder[Record]] = {kind: msgspec.msgpack.Decoder(type_) for kind, type_ in TYPES.items()}
_SETTLE = msgspec.msgpack.Decoder(Settle)


@dataclass(frozen=True, slots=True)
class Batch:
    """Settles in the order in which they were written. Store `position` in the transaction that stores their effect."""

    settles: tuple[Settle, ...]
    position: Position
    more: bool  # False: nothing whole stood behind `position` when it was read


def read_from(directory: Path, position: Position, *, limit: int = 2000) -> Batch:
    """The next settles behind `position`, at most `limit`. Begins and boots are passed over.

    A torn last record is not read (it may be on its way). Raises `JournalCorrupt` for damage anywhere else, and when segments
    that should follow `position` are missing.
    """
    settles: list[Settle] = []
    numbers = [number for number in segment_numbers(directory) if number >= position.segment]
    if position.segment and (not numbers or numbers[0] != position.segment) and position.offset:
        raise JournalCorrupt(f"{segment_path(directory, position.segment)} is missing. {REMEDY}")
    for index, number in enumerate(numbers):
        _check_sequence(directory, numbers, index)
        path = segment_path(directory, number)
        span = min(READ_BYTES, max(1, limit) * USUAL_BYTES)
        offset = position.offset if number == position.segment else 0
        offset = max(offset, len(MAGIC))
        position = Position(number, offset)
        while True:
            with path.open("rb") as file:
                if offset <= len(MAGIC):
                    check_magic(file.read(len(MAGIC)), path)
                file.seek(offset)
                data = file.read(span)
            before = offset
            for body, behind in bodies(data, 0, path, base=offset):
                offset = behind
                if body[0] == SETTLE:
                    settles.append(decode_settle(body, path, behind))
                    if len(settles) >= limit:
                        return Batch(tuple(settles), Position(number, offset), more=True)
            position = Position(number, offset)
            if len(data) < span:
                break
            if offset == before:  # a record longer than the span
                if span == READ_BYTES:
                    break
                span = READ_BYTES
    return Batch(tuple(settles), position, more=False)


def _check_sequence(directory: Path, numbers: list[int], index: int) -> None:
    if index and numbers[index] != numbers[index - 1] + 1:
        raise JournalCorrupt(f"{segment_path(directory, numbers[index - 1] + 1)} is missing. {REMEDY}")


def decode_settle(body: memoryview, path: Path, behind: int) -> Settle:
    """As `decode`, for a body whose kind is known."""
    try:
        return _SETTLE.decode(body[1:])
    except msgspec.DecodeError as error:
        raise _unreadable(path, behind, error) from error


def decode(body: memoryview, path: Path, behind: int) -> Record:
    """The record in a checked body. Raises `JournalCorrupt` where its checksum holds but its content makes no sense."""
    try:
        return _DECODERS[body[0]].decode(body[1:])
    except (KeyError, msgspec.DecodeError) as error:
        raise _unreadable(path, behind, error) from error


def _unreadable(path: Path, behind: int, error: Exception) -> JournalCorrupt:
    return JournalCorrupt(f"{path}: the record that ends at byte {behind} can't be read ({error}). {REMEDY}")
