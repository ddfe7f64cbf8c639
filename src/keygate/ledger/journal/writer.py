"""Writing the journal. One process owns it; each record is one `write`, so it survives `kill -9`; `sync` makes it survive a power cut.

Every segment begins with the begins that were open when it was opened, and has every context that its records name. So recovery never has
to look further back than the segment that the fold has reached, and everything older can be deleted.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from keygate.errors import StartRefused, Unavailable
from keygate.ledger.journal.records import BEGIN, BOOT, CONTEXT, SETTLE, Begin, Boot, Context, Position, Settle, encode, encode_context
from keygate.ledger.journal.segments import MAGIC, SUFFIX, frame, segment_numbers, segment_path

SEGMENT_BYTES = 32 << 20
RECENT_NS = 60_000_000_000

# A record in one concatenation: the header and the kind, then the payload, with the checksum carried over the kind.
_FRAME = struct.Struct("<IIB").pack
_CRC_BEGIN = crc32(bytes([BEGIN]))
_CRC_SETTLE = crc32(bytes([SETTLE]))


class JournalUnwritable(Unavailable):
    """A record could not be written (disk full, read-only, gone). What can't be journaled must not happen."""

    code = "journal_unwritable"
    title = "The journal can't be written"


class Written(NamedTuple):
    """What the health page shows."""

    segment: int
    offset: int
    open_requests: int
    failing: str | None  # why the last write failed; None: it succeeded


class Journal:
    """Promises: a begin that returned is on file; a settle that returned is on file; a record is whole or not there.

    `open_journal` makes one. Not for more than one thread; `sync` may run beside the others.
    """

    def __init__(self, directory: Path, lock: int, identity: str, first: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = directory
        self.id = identity
        self.failing: str | None = None
        self._lock = lock
        self._segment_bytes = segment_bytes
        self._open: dict[str, tuple[Context, bytes]] = {}  # framed begins without a settle, oldest first
        self._contexts = 0  # how many have a number
        self._number = first - 1
        self._last_at = 0  # when the newest record was made
        self._closed: dict[int, int] = {}  # segment → when its newest record was made
        self._started_at = 0
        self._fd = -1
        self._size = 0

    def start(self, boot: Boot) -> None:
        """Opens the first segment of this process. Raises `JournalUnwritable`."""
        self._last_at = self._started_at = boot.at_ns
        self._next_segment(frame(bytes([BOOT]) + encode(boot)))

    def begin(self, record: Begin) -> None:
        """Raises `JournalUnwritable`; then nothing was written and the request must not be sent."""
        context = record.context
        if context.journal is not self:
            self._adopt(context)
        payload = encode(record)
        framed = _FRAME(len(payload) + 1, crc32(payload, _CRC_BEGIN), BEGIN) + payload
        self._last_at = record.at_ns
        self._write(framed, context)
        self._open[record.request_id] = (context, framed)

    def settle(self, record: Settle) -> Position:
        """Returns the position behind it. Raises `JournalUnwritable`; then nothing was written, and the caller keeps the record."""
        context = record.context
        if context.journal is not self:
            self._adopt(context)
        payload = encode(record)
        self._write(_FRAME(len(payload) + 1, crc32(payload, _CRC_SETTLE), SETTLE) + payload, context)
        self._open.pop(record.request_id, None)
        return Position(self._number, self._size)

    @property
    def position(self) -> Position:
        """Where the next record will stand."""
        return Position(self._number, self._size)

    @property
    def state(self) -> Written:
        return Written(self._number, self._size, len(self._open), self.failing)

    def sync(self) -> None:
        """Puts what was written onto the disk itself. Raises `JournalUnwritable`."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._failed(error) from error

    def prune(self, folded: Position, now_ns: int) -> int:
        """Deletes segments that lie wholly before `folded` and are older than any limit per minute looks back; returns how many."""
        gone = 0
        for number in segment_numbers(self.directory):
            if number >= folded.segment or self._closed.get(number, self._started_at) > now_ns - RECENT_NS:
                break
            self._closed.pop(number, None)
            segment_path(self.directory, number).unlink(missing_ok=True)
            gone += 1
        return gone

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _adopt(self, context: Context) -> None:
        self._contexts += 1
        context.journal, context.number, context.segment = self, self._contexts, 0

    def _write(self, data: bytes, context: Context) -> None:
        """A record, and before it its context where this segment has not got that."""
        if self._size + len(data) > self._segment_bytes and self._size > len(MAGIC):
            self._next_segment(b"")
        if context.segment != self._number:
            data = _framed(context) + data
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            raise self._failed(error) from error
        if written != len(data):
            self._cut_back()
            raise self._failed(OSError(28, "no space left for a whole record"))
        context.segment = self._number
        self._size += written
        if self.failing is not None:
            self.failing = None

    def _cut_back(self) -> None:
        """Takes a half-written record away, so that the next one stands behind a whole one."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            os.close(self._fd)
            self._fd = -1  # every write fails from now on: better than a record behind a torn one

    def _next_segment(self, first: bytes) -> None:
        number = self._number + 1
        path = segment_path(self.directory, number)
        unfinished = path.with_suffix(f"{SUFFIX}.new")
        contexts = list({id(context): context for context, _ in self._open.values()}.values())
        data = b"".join((MAGIC, first, *(_framed(context) for context in contexts), *(begin for _, begin in self._open.values())))
        fd = -1
        try:
            fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if os.write(fd, data) != len(data):
                raise OSError(28, "no space left for a new segment")  # noqa: TRY301  (one place turns OSErrors into ours)
            os.fdatasync(fd)
            unfinished.rename(path)
            _sync_directory(self.directory)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise self._failed(error) from error
        if self._fd >= 0:
            os.close(self._fd)
            self._closed[self._number] = self._last_at
        self._fd, self._number, self._size = fd, number, len(data)
        for context in contexts:
            context.segment = number

    def _failed(self, error: OSError) -> JournalUnwritable:
        self.failing = error.strerror or str(error)
        return JournalUnwritable(f"The journal can't be written ({self.failing}); requests under it are not sent until it can.")


def _framed(context: Context) -> bytes:
    return frame(bytes([CONTEXT]) + encode_context(context))


def lock_directory(directory: Path) -> int:
    """Takes the journal for this process; the lock ends with the process. Raises `StartRefused` when another one has it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartRefused(
            f"{directory} can't be used for the journal ({error.strerror}). Make it writable, or set KEYGATE_DATA_DIR."
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StartRefused(
            f"Another KeyGate process uses the journal in {directory}. Stop it first, or give this one a KEYGATE_DATA_DIR of its own."
        ) from error
    return fd


def identity_of(directory: Path) -> str:
    """The journal's name for the life of the data directory, made at its first use."""
    path = directory / "id"
    if path.exists():
        text = path.read_text().strip()
        if text:
            return text
    identity = f"jrn_{secrets.token_hex(12)}"
    unfinished = directory / "id.new"
    unfinished.write_text(identity + "\n")
    unfinished.rename(path)
    _sync_directory(directory)
    return identity


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
