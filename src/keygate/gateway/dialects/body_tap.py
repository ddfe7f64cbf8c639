"""Taps on whole JSON answers, and on compressed ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from keygate.gateway.dialects.answer_shapes import NO_USAGE, Answer, AnswerWithOutput, ChatAnswer, OutputItem, Tier
from keygate.gateway.dialects.interface import Reading, Tap
from keygate.gateway.dialects.usage import openai_counts
from keygate.ledger import TokenUsage

MAX_BODY = 8 * 2**20
MAX_INFLATED = 64 * 2**20
_TAIL = 64 * 2**10


_chat_answer = msgspec.json.Decoder(ChatAnswer)
_tier = msgspec.json.Decoder(Tier)
_answer = msgspec.json.Decoder(Answer)
_answer_with_output = msgspec.json.Decoder(AnswerWithOutput)


def searches(output: Any) -> int:
    """How many web searches a response's output items show."""
    items = output if isinstance(output, list) else []
    kinds = (item.type if isinstance(item, OutputItem) else item.get("type") if isinstance(item, dict) else None for item in items)
    return sum(kind == "web_search_call" for kind in kinds)


def _word(value: Any, most: int) -> str | None:
    return value[:most] if isinstance(value, str) else None


class BodyTap(Tap):
    """Keeps up to 8 MiB and reads them at the end. Of a larger body only the tail is kept, and used where `usage_last` says that
    nothing but numbers and base64 stands before the usage (embeddings)."""

    __slots__ = ("_chunks", "_items", "_kept", "_large", "_tier_in_usage", "_usage", "_usage_last")

    def __init__(
        self, usage: Callable[..., TokenUsage | None], *, usage_last: bool = False, items: bool = False, tier_in_usage: bool = False
    ) -> None:
        self.done = False
        self._usage = usage
        self._usage_last = usage_last
        self._tier_in_usage = tier_in_usage
        self._items = items  # output items count too (web searches)
        self._chunks: list[bytes] = []
        self._kept = 0
        self._large = False

    def feed(self, chunk: bytes) -> bytes:
        self._chunks.append(chunk)
        self._kept += len(chunk)
        if self._kept > MAX_BODY:
            self._large = True
            self._chunks = [b"".join(self._chunks)[-_TAIL:]]
            self._kept = MAX_BODY - 2**20  # cut again after another MiB
        return chunk

    def finish(self) -> Reading:
        body = b"".join(self._chunks) if len(self._chunks) != 1 else self._chunks[0]
        self._chunks = []
        if self._large:
            return self._finish_large(body)
        reading = self._quick(body)
        return self._carefully(body) if reading is None else reading

    def _quick(self, body: bytes) -> Reading | None:
        """Reads an answer that is as it should be; None: it is not, or nobody knows how."""
        return None

    def _carefully(self, body: bytes) -> Reading:
        """Reads each member by itself, so that garbage in one leaves the others."""
        try:
            answer = _answer_with_output.decode(body) if self._items else _answer.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return Reading()
        self.done = True
        error = bool(answer.error) or answer.type == "error"
        usage = None
        tier = answer.service_tier
        if answer.usage is not NO_USAGE:
            if self._items:
                usage = self._usage(answer.usage, web_searches=searches(getattr(answer, "output", None)))
            else:
                usage = self._usage(answer.usage)
            if tier is None and usage is not None and self._tier_in_usage:
                said = _tier.decode(answer.usage)
                tier = said.speed if said.speed == "fast" else said.service_tier  # fast is priced as a tier of its own
        model, answer_id = answer.model, answer.id
        return Reading(  # by position: once per request
            usage,
            True,
            error,
            model[:256] if type(model) is str else None,
            tier[:64] if type(tier) is str else None,
            answer_id[:256] if type(answer_id) is str else None,
        )

    def _finish_large(self, tail: bytes) -> Reading:
        at = tail.rfind(b'"usage"')
        if not self._usage_last or at < 0:
            return Reading()
        try:
            answer = _answer.decode(b"{" + tail[at:])
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return Reading()
        return Reading(usage=self._usage(answer.usage), complete=True, model_served=_word(answer.model, 256))


class ChatBodyTap(BodyTap):
    """Of OpenAI's chat and completions: most answers are read in one go."""

    __slots__ = ()

    def _quick(self, body: bytes) -> Reading | None:
        try:
            answer = _chat_answer.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return None
        self.done = True
        counts, model, tier, answer_id = answer.usage, answer.model, answer.service_tier, answer.id
        return Reading(
            openai_counts(counts) if counts is not None else None,
            True,
            bool(answer.error) or answer.type == "error",
            model[:256] if type(model) is str else None,
            tier[:64] if type(tier) is str else None,
            answer_id[:256] if type(answer_id) is str else None,
        )


class NoTap(Tap):
    """Nothing to read: models, or an encoding that we can't look into."""

    __slots__ = ()

    def feed(self, chunk: bytes) -> bytes:
        return chunk

    def finish(self) -> Reading:
        return Reading()


class InflatingTap(Tap):
    """An upstream compressed although it was asked not to: passed on as it is, unpacked on the side, within bounds, to read usage.
    Nothing can be hidden in such a stream."""

    __slots__ = ("_inflate", "_inner", "_left")

    def __init__(self, inner: Tap) -> None:
        super().__init__()
        self._inner = inner
        self._inflate: Any = None
        self._left = MAX_INFLATED

    def feed(self, chunk: bytes) -> bytes:
        if self._left > 0:
            try:
                self._unpack(chunk)
                self.done = self._inner.done
            except zlib.error:
                self._left = 0
        return chunk

    def _unpack(self, chunk: bytes) -> None:
        if self._inflate is None:
            self._inflate = zlib.decompressobj(47)  # gzip or zlib, by its first bytes
        while chunk and self._left > 0:
            plain = self._inflate.decompress(chunk, min(self._left, 2**20))
            self._left -= len(plain)
            if plain:
                self._inner.feed(plain)
            chunk = self._inflate.unconsumed_tail
            if not plain:
                return

    def finish(self) -> Reading:
        reading = self._inner.finish()
        reading.rest = b""  # nothing of it was held back
        return reading if self._left > 0 else Reading()


def whole_json(content_type: bytes | None, content_encoding: bytes | None) -> bool:
    """The usual answer, told without looking closely; then only a `BodyTap` need be made."""
    return content_type is not None and not content_encoding and content_type.startswith(b"application/json")


def tap_for(events: Tap, body: Tap, *, content_type: bytes | None, content_encoding: bytes | None) -> Tap:
    """The tap that fits an answer's headers."""
    kind = (content_type or b"").partition(b";")[0].strip().lower()
    inner = events if kind == b"text/event-stream" else body
    encoding = (content_encoding or b"").strip().lower()
    if encoding in (b"", b"identity"):
        return inner
    return InflatingTap(inner) if encoding in (b"gzip", b"x-gzip", b"deflate") else NoTap()
