"""The byte format of a segment file, pure.

    file    = magic (8 bytes: `KGJRNL`, then the format version, big endian) record*
    record  = length of body (u32 LE) · CRC-32 of body (u32 LE) · body
    body    = kind (1 byte: 0 boot, 3 context, 4 begin, 5 settle; in version 1: 1 begin, 2 settle) · MessagePack array

A record that the end of the file cuts off, or that was the last one and never reached the disk whole, is *torn*: it ends the
segment. Damage with whole records behind it is *corruption* and is never skipped.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from keygate.errors import StartRefused

VERSION = 2
MAGIC = b"KGJRNL" + VERSION.to_bytes(2, "big")
READABLE = range(1, VERSION + 1)
HEADER = struct.Struct("<II")
MAX_BODY = 1 << 20
SUFFIX = ".kgj"


class JournalCorrupt(StartRefused):
    code = "journal_corrupt"
    title = "The journal is damaged"


def frame(body: bytes) -> bytes:
    return HEADER.pack(len(body), zlib.crc32(body)) + body


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:012d}{SUFFIX}"


def segment_numbers(directory: Path) -> list[int]:
    """The numbers of all segments, ascending. Files with other names are left alone."""
    return sorted(int(path.stem) for path in directory.glob(f"*{SUFFIX}") if path.stem.isdigit())


def check_magic(data: bytes, path: Path) -> None:
    """Raises `JournalCorrupt` unless the file begins as a segment of a version that we know."""
    if data[:8] == MAGIC:
        return
    if data[:6] == MAGIC[:6]:
        version = int.from_bytes(data[6:8], "big")
        if len(data) >= len(MAGIC) and version in READABLE:
            return
        raise JournalCorrupt(
            f"{path} has format version {version}; this KeyGate reads up to version {VERSION}. Start the version that wrote it."
        )
    raise JournalCorrupt(f"{path} is not a journal segment. Restore it from a backup, or move it away if it does not belong here.")


def bodies(data: bytes, offset: int, path: Path, *, base: int = 0) -> Iterator[tuple[memoryview, int]]:
    """Whole records in `data` from `offset` on, each with the offset behind it (plus `base`). Stops before a torn tail."""
    view = memoryview(data)
    end = len(data)
    while offset + HEADER.size <= end:
        length, checksum = HEADER.unpack_from(data, offset)
        behind = offset + HEADER.size + length
        if length == 0 or length > MAX_BODY:
            if any(view[offset:]):
                raise JournalCorrupt(f"{path}: no record begins at byte {base + offset}. {REMEDY}")
            return  # zeros up to the end: space that was reserved and never written
        if behind > end:
            return
        body = view[offset + HEADER.size : behind]
        if zlib.crc32(body) != checksum:
            if behind == end or not any(view[behind:]):
                return
            raise JournalCorrupt(f"{path}: the record at byte {base + offset} fails its checksum. {REMEDY}")
        yield body, base + behind
        offset = behind


REMEDY = "Restore the file from a backup; if there is none, move it away: what it holds beyond the last fold is then lost."
