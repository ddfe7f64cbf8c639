"""Taps on event streams (WHATWG HTML, server-sent events): read on the side, passed on as they are.

A chunk of whole events without a marker in it is passed on after a few byte searches, unread. Only events that can carry usage, an
error or the end are parsed. Markers are quoted JSON names, and a quote inside a JSON string is escaped, so text can't contain one.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Any, ClassVar

import msgspec

from keygate.gateway.dialects.interface import Reading, Tap
from keygate.ledger import TokenUsage

MAX_EVENT = 8 * 2**20

# The end of an event: two line ends in a row, each LF, CRLF or CR. A CR at the very end waits for what follows: it may be half a CRLF.
_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?=[^\n]))")
_BOM = b"\xef\xbb\xbf"


def _ends(whole: bytes) -> list[int]:
    """Where each event of `whole` ends; the last one ends with it."""
    ends = [match.end() for match in _END.finditer(whole)]
    if not ends or whole[ends[-1] :].strip(b"\r\n"):
        ends.append(len(whole))
    ends[-1] = len(whole)
    return ends


class EventTap(Tap):
    """What all dialects share. A dialect says which chunks matter (`_matters`) and reads their events (`_read`)."""

    __slots__ = (
        "_answer_id",
        "_complete",
        "_error",
        "_events",
        "_heads",
        "_held",
        "_hide",
        "_lost",
        "_model",
        "_searched",
        "_tier",
        "_usage",
    )
    QUIET: ClassVar[tuple[bytes, ...]] = ()  # how an event begins that never matters
    HEADS: ClassVar[int] = 3  # events at the start that are read for the model's name and the answer's id

    def __init__(self, *, hide: bool = False) -> None:
        self.done = False
        self._hide = hide  # hold back incomplete events, so that whole ones can be hidden
        self._held = bytearray()
        self._searched = 0
        self._heads = self.HEADS
        self._events = 0
        self._lost = False  # an event was larger than we read; the stream passes through unread from there on
        self._usage: TokenUsage | None = None
        self._complete = False
        self._error = False
        self._model: str | None = None
        self._tier: str | None = None
        self._answer_id: str | None = None

    @abstractmethod
    def _matters(self, chunk: bytes) -> bool:
        """Whether an event of this chunk must be read; by its bytes, without parsing."""

    @abstractmethod
    def _read(self, event: dict[str, Any]) -> bool:
        """Takes what is needed from an event; True hides it where hiding is on."""

    def feed(self, chunk: bytes) -> bytes:
        if not self._held and not self._heads and chunk.endswith(b"\n\n"):
            if chunk.startswith(self.QUIET) and chunk.find(b"\n\n") == len(chunk) - 2:
                self._events += 1
                return chunk
            if not self._matters(chunk):
                self._events += chunk.count(b"\n\n")
                return chunk
        return self._feed_slowly(chunk)

    def _feed_slowly(self, chunk: bytes) -> bytes:
        if self._lost or not chunk:
            return chunk
        held = self._held
        held += chunk
        end = self._last_end()
        if end == 0:
            if len(held) <= MAX_EVENT:
                return b"" if self._hide else chunk
            self._lost = True
            passed_on = bytes(held) if self._hide else chunk
            self._held = bytearray()
            return passed_on
        whole = bytes(held) if end == len(held) else bytes(held[:end])
        del held[:end]
        self._searched = 0
        if not self._heads and not self._matters(whole):
            self._events += whole.count(b"\n\n") if b"\r" not in whole else len(_ends(whole))
            passed_on = whole
        else:
            passed_on = self._read_events(whole)
        if not self._hide or passed_on == chunk:
            return chunk
        return passed_on

    def _last_end(self) -> int:
        """Where the last whole event in `_held` ends; 0 if none does. What was searched before is not searched again."""
        held = self._held
        start = max(0, self._searched - 3)
        self._searched = len(held)
        if held.find(b"\r", start) < 0:
            return held.rfind(b"\n\n", start) + 2 if held.find(b"\n\n", start) >= 0 else 0
        end = 0
        for match in _END.finditer(held, start):
            end = match.end()
        return end

    def _read_events(self, whole: bytes) -> bytes:
        kept: list[bytes] = []
        start = 0
        for end in _ends(whole):
            event = whole[start:end]
            if not self._take(event):
                kept.append(event)
            start = end
        return b"".join(kept)

    def _take(self, event: bytes) -> bool:
        """Reads one event; True: hide it."""
        self._events += 1
        if self._heads:
            event = event.removeprefix(_BOM)
        lines = [line for line in event.splitlines() if line.startswith(b"data")]
        data = b"\n".join(line[6:] if line.startswith(b"data: ") else line[5:] for line in lines if line[4:5] in (b":", b""))
        if not data:
            return False
        if data.strip() == b"[DONE]":
            self._complete = self.done = True
            return False
        if not self._heads and not self._matters(event):
            return False
        if self._heads:
            self._heads -= 1
        try:
            decoded = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return False
        return isinstance(decoded, dict) and self._read(decoded) and self._hide

    def _named(self, source: dict[str, Any]) -> None:
        """Model, id and tier, wherever an object carries them."""
        model, answer_id, tier = source.get("model"), source.get("id"), source.get("service_tier")
        if isinstance(model, str):
            self._model = model[:256]
        if isinstance(answer_id, str):
            self._answer_id = answer_id[:256]
        if isinstance(tier, str):
            self._tier = tier[:64]

    def _partial(self) -> TokenUsage | None:
        return None

    def finish(self) -> Reading:
        rest = b""
        if self._held:
            remainder = bytes(self._held)
            self._held = bytearray()
            hidden = not self._lost and self._take(remainder)
            rest = remainder if self._hide and not hidden else b""
        return Reading(
            usage=None if self._lost else self._usage,
            complete=self._complete,
            error=self._error,
            model_served=self._model,
            service_tier=self._tier,
            answer_id=self._answer_id,
            output_seen=self._events,
            partial=None if self._usage is not None else self._partial(),
            rest=rest,
        )
