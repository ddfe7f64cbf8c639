"""What the pipeline knows of a dialect: values read from a request, edits to it, and a tap on the answer.

    facts = codec.read(body, content_type)                       what was asked, and the most it can use
    body = codec.rewrite(body, facts, model=…, max_output=…)     only these members change, other bytes stay
    tap = codec.tap(facts, content_type=…, content_encoding=…)   of the upstream's answer
    send(tap.feed(chunk)) …                                      what to pass on (the same object where nothing is hidden)
    reading = tap.finish(); send(reading.rest)                   what the vendor says it used

Codecs hold no state: one instance per dialect serves every request. `dialects.registry.codec(dialect)` finds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import ClassVar, NamedTuple, final

from keygate.ledger import TokenUsage
from keygate.vendors import Dialect, ErrorStyle


class BadBody(Exception):
    """The request body can't be governed. `field` is a path into the body (`` for the whole); `remedy` is for the caller.

    `code` is `invalid_body`, or `unsupported_feature` for what the gateway knows and does not serve (`background`).
    """

    def __init__(self, field: str, remedy: str, *, code: str = "invalid_body") -> None:
        super().__init__(f"{field}: {remedy}" if field else remedy)
        self.field = field
        self.remedy = remedy
        self.code = code


@final
class Facts:
    """What a request asks for, and bounds on what it can use. Bounds are never less than what the vendor will count."""

    __slots__ = (
        "answers",
        "cache_write_possible",
        "extra_output",
        "images",
        "include_usage",
        "input_bound",
        "input_unknown",
        "model",
        "output_free",
        "output_max",
        "output_min",
        "service_tier",
        "stream",
        "unbounded",
        "usage_on_request",
    )

    def __init__(
        self,
        model: str = "",
        stream: bool = False,
        include_usage: bool = False,
        usage_on_request: bool = False,
        output_max: int | None = None,
        output_min: int = 1,
        answers: int = 1,
        output_free: bool = False,
        input_bound: int = 0,
        input_unknown: bool = False,
        images: int = 0,
        cache_write_possible: bool = False,
        extra_output: int = 0,
        service_tier: str | None = None,
        unbounded: tuple[str, ...] = (),
    ) -> None:
        self.model = model  # as the caller wrote it; no control characters, at most 256; never unescaped into headers, paths or logs
        self.stream = stream
        self.include_usage = include_usage  # the caller itself asked for usage on an OpenAI chat or completions stream
        self.usage_on_request = usage_on_request  # this stream tells its usage only if asked: pass `include_usage=True` to `rewrite`
        self.output_max = output_max  # the caller's own maximum for one answer; None: none set
        self.output_min = output_min  # the least maximum that the vendor takes (16 for OpenAI responses): don't set a lower one
        self.answers = answers  # output_max counts this many times: `n`, `best_of`, prompts
        self.output_free = output_free  # no billed output: embeddings, moderations, count_tokens
        self.input_bound = input_bound  # tokens, cheap bound; `codec.tight_input_bound` finds a lower one
        self.input_unknown = (
            input_unknown  # the body doesn't show all input (stored responses, files): bound it by the model's context window
        )
        self.images = images  # counted into `input_bound` at the most that one costs on `model`
        self.cache_write_possible = cache_write_possible
        self.extra_output = extra_output  # further tokens at output rates (predicted outputs)
        self.service_tier = service_tier
        self.unbounded = unbounded  # features whose cost tokens don't bound: `web_search`, `code_interpreter`, `audio` …

    def resolved(self, input_bound: int, unbounded: tuple[str, ...]) -> Facts:
        """The same with what hangs on the model's name taken from another one."""
        return Facts(
            self.model,
            self.stream,
            self.include_usage,
            self.usage_on_request,
            self.output_max,
            self.output_min,
            self.answers,
            self.output_free,
            input_bound,
            self.input_unknown,
            self.images,
            self.cache_write_possible,
            self.extra_output,
            self.service_tier,
            unbounded,
        )


@final
class Reading:
    """What an answer said. `usage` None: nothing usable was read, so the hold decides.

    `complete`: the vendor's own end was seen ([DONE], message_stop, response.completed, or a whole JSON body).
    `partial`: on a stream without final usage, what is known so far (Anthropic names the input at the start), with `output` estimated
    from the events seen: an estimate for reports, never a bound. `rest`: bytes still held back; pass them on.
    """

    __slots__ = (
        "answer_id",
        "complete",
        "error",
        "model_served",
        "output_seen",
        "partial",
        "rest",
        "service_tier",
        "usage",
    )

    def __init__(
        self,
        usage: TokenUsage | None = None,
        complete: bool = False,
        error: bool = False,
        model_served: str | None = None,
        service_tier: str | None = None,
        answer_id: str | None = None,
        output_seen: int = 0,
        partial: TokenUsage | None = None,
        rest: bytes = b"",
    ) -> None:
        self.usage = usage
        self.complete = complete
        self.error = error  # the vendor reported an error inside a stream, or the body is an error
        self.model_served = model_served
        self.service_tier = service_tier
        self.answer_id = answer_id  # the vendor's id of the answer: `chatcmpl-…`, `msg_…`, `resp_…`
        self.output_seen = output_seen  # events that carried output
        self.partial = partial
        self.rest = rest

    def _values(self) -> tuple[object, ...]:
        return (
            self.usage,
            self.complete,
            self.error,
            self.model_served,
            self.service_tier,
            self.answer_id,
            self.output_seen,
            self.partial,
            self.rest,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reading) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"Reading{self._values()}"


class Tap(ABC):
    """Reads an answer on the side. Never raises on what a vendor sends; memory is bounded (8 MiB per event or body).

    `done`: the vendor's own end was seen: usage is final, the request can be settled before the last bytes leave.
    """

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    @abstractmethod
    def feed(self, chunk: bytes) -> bytes:
        """What to pass on to the caller: `chunk` itself where nothing is hidden, else other bytes, maybe none.
        Over a whole answer the output does not depend on how the input was cut into chunks."""

    @abstractmethod
    def finish(self) -> Reading:
        """Call once, after the last chunk, in every ending."""


class Codec(ABC):
    """What a dialect is made of. Plain classes and not protocols, as `Tap`: calls between compiled classes are as cheap as calls in C."""

    dialect: ClassVar[Dialect]
    error_style: ClassVar[ErrorStyle]

    @abstractmethod
    def read(self, body: bytes, content_type: bytes | None) -> Facts:
        """Raises `BadBody`: not JSON, a governed member of the wrong type or twice, a feature that is refused by name."""

    @abstractmethod
    def tight_input_bound(self, body: bytes) -> int:
        """A lower bound than `facts.input_bound` where there is one, by walking the whole body: milliseconds for large ones.
        Call only with a body that `read` took, and only where the cheap bound doesn't fit."""

    @abstractmethod
    def rewrite(
        self, body: bytes, facts: Facts, *, model: str | None = None, max_output: int | None = None, include_usage: bool = False
    ) -> bytes:
        """The body with these top-level members changed and the values of all others as they were, byte for byte; `body` itself if
        nothing changes."""

    @abstractmethod
    def tap(self, facts: Facts, *, content_type: bytes | None, content_encoding: bytes | None) -> Tap:
        """A tap for an answer with these headers. An event stream is read as one whatever was asked, and the usage chunk is hidden
        where the caller didn't ask for it."""

    @abstractmethod
    def stream_error(self, message: str, *, code: str, status: int = 500) -> bytes:
        """The event that ends a stream with an error which the dialect's SDK raises."""


class Problem(StrEnum):
    """Why the gateway refuses. Each has one status per error style (`dialects.refusals`)."""

    BAD_REQUEST = "bad_request"  # 400
    UNAUTHENTICATED = "unauthenticated"  # 401
    BUDGET_SPENT = "budget_spent"  # 402, don't retry
    FORBIDDEN = "forbidden"  # 403
    NOT_FOUND = "not_found"  # 404
    METHOD_NOT_ALLOWED = "method_not_allowed"  # 405
    REQUEST_TIMEOUT = "request_timeout"  # 408: the caller was too slow
    BODY_TOO_LARGE = "body_too_large"  # 413
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"  # 415
    UPGRADE_REQUIRED = "upgrade_required"  # 426: WebSockets are not served here
    HELD = "held"  # 429, short retry-after: only holds in flight stand in the way
    RATE_LIMITED = "rate_limited"  # 429
    INTERNAL = "internal"  # 500
    UPSTREAM_FAILED = "upstream_failed"  # 502
    UNAVAILABLE = "unavailable"  # 503
    UPSTREAM_TIMEOUT = "upstream_timeout"  # 504


class Answer(NamedTuple):
    """A whole answer of the gateway's own. Header names lower case; `content-type` and `x-request-id` are in, `content-length` isn't."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
