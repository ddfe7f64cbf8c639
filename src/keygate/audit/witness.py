"""What the heads file vouches for: which entries it names, and whether a crash can have kept the others out of it. Pure.

Heads are written after the commit of their entries, so a process that dies in between leaves its last units of work out: a request or
two, however many entries those have, or a few entries that no request stands behind. More than that is no crash: the file was lost, cut
or put back from a copy, and newest entries may have been cut off the database with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from keygate.audit.model import AuditEntry

_FIRST_UNIT = 2  # entries: the organisation and its owner
_LAST_UNITS = 4  # entries without a request; a request counts as two, whatever it has


class Witness:
    """The sequences of one chain that the heads file names. They come nearly in order, so runs of them are kept."""

    def __init__(self) -> None:
        self._runs: list[tuple[int, int]] = []

    def add(self, sequence: int) -> None:
        if self._runs and self._runs[-1][1] + 1 == sequence:
            self._runs[-1] = (self._runs[-1][0], sequence)
        else:
            self._runs.append((sequence, sequence))

    @property
    def oldest(self) -> int:
        """0: none is named."""
        return min((first for first, _ in self._runs), default=0)

    @property
    def newest(self) -> int:
        return max((last for _, last in self._runs), default=0)

    def gaps(self, *, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Runs of entries from `start` to `end` that are not named: first and last of each."""
        self._runs.sort()
        for first, last in self._runs:
            if first > end:
                break
            if first > start:
                yield start, first - 1
            start = max(start, last + 1)
        if start <= end:
            yield start, end


class Crash:
    """Feed the entries of one gap in order: False from the first on that no crash explains."""

    def __init__(self, *, first: int) -> None:
        self._at_start = first == 1
        self._requests: set[str] = set()
        self._alone = 0

    def explains(self, entry: AuditEntry) -> bool:
        if entry.request_id is None:
            self._alone += 1
        else:
            self._requests.add(entry.request_id)
        if self._at_start:
            return self._alone <= _FIRST_UNIT and not self._requests
        return 2 * len(self._requests) + self._alone <= _LAST_UNITS
