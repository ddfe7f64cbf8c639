"""Signed heads outside the database: `audit-heads.jsonl` in the data directory, one line per entry, only ever appended to.

A line is written after its entry has been committed and before the caller has its answer. So the file never names an entry that does
not exist: whatever it names and the database lacks was taken away. It may lack the very last entries (the process died in
between); `AuditService.reconcile` adds the newest head at the next start. Where it lacks more than a crash explains (`witness.py`), it
was lost or cut, and verification says so from then on. Copy the file to write-once storage to be safe from somebody who holds the data
directory too: who cuts both the database and this file after the same entry can't be found here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from keygate.audit.chain import canonical
from keygate.audit.model import SignedHead

FILE_NAME = "audit-heads.jsonl"
_LONGEST_LINE = 2_000


class HeadsFile:
    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE_NAME

    def append(self, head: SignedHead) -> None:
        """One write of one line, so that processes that share the file don't mix lines. Raises OSError."""
        line = canonical(asdict(head)).encode() + b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if self._torn():
                line = b"\n" + line
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def read(self, *, until: int, start: int = 0) -> Iterator[SignedHead]:
        """Heads among the first `until` bytes, from `start` on, in the order of writing. Lines that are no heads (torn by a crash) are left
        out."""
        if until <= start:
            return
        with self.path.open("rb") as file:
            position = file.seek(start)
            while position < until and (line := file.readline(_LONGEST_LINE)):
                position += len(line)
                head = _parse(line)
                if head is not None:
                    yield head

    def _torn(self) -> bool:
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def _parse(line: bytes) -> SignedHead | None:
    try:
        fields = json.loads(line)
        head = SignedHead(**fields)
    except (ValueError, TypeError):
        return None
    texts = (head.organization_id, head.hash, head.key_id, head.signature)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in (head.sequence, head.at_ns)):
        return None
    return head
