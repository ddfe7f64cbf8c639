"""The sandbox's own words: keys, how they behave, faults on request, and what was served. Values; no sockets here.

Behaviour is a set of `name=value` settings. They come, later ones winning, from the whole sandbox, the key, the request header
`x-sandbox: output_tokens=50 fault=cut` and a directive in the prompt: `sandbox(output_tokens=50 fault=cut)`. So the model's
answer can be chosen through any gateway and with any SDK, even one that lets no header through.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keygate.sandbox.admin.grants import IssuedSecret


class Vendor(StrEnum):
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OPENROUTER = "openrouter"
    GOOGLE = "google"
    XAI = "xai"
    AZURE = "azure"
    BEDROCK = "bedrock"


class KeyStatus(StrEnum):
    VALID = "valid"
    REVOKED = "revoked"  # 401, as a key that never was
    OUT_OF_QUOTA = "out_of_quota"  # OpenAI 429 insufficient_quota, Anthropic 400 billing
    RATE_LIMITED = "rate_limited"  # 429 with `retry-after`
    FORBIDDEN = "forbidden"  # 403: the key's project may not use this


class Fault(StrEnum):
    """What goes wrong. Nothing is produced, so nothing is served, in the first group; everything is in the second; the third ends
    an answer at chunk `at` and serves what was produced until then (a plain answer is always produced whole)."""

    STATUS = "status"  # answers `status` with the vendor's error body
    RESET = "reset"  # the connection is reset before the first byte
    STALL = "stall"  # no byte is ever sent
    GARBAGE = "garbage"  # bytes that are not HTTP

    LOST = "lost"  # produced and billed, then the connection is reset before the first byte
    MALFORMED = "malformed"  # JSON that ends in its middle, in a well-framed answer
    NO_USAGE = "no_usage"  # the answer says nothing of usage
    LONG_LENGTH = "long_length"  # content-length is larger than the body
    SHORT_LENGTH = "short_length"  # content-length is smaller than the body
    BAD_CHUNK = "bad_chunk"  # a chunk size that is no number
    ENDLESS = "endless"  # the body never ends

    CUT = "cut"  # the connection closes in the middle of the body
    HANG = "hang"  # the middle of the body is the last that is heard
    ERROR_EVENT = "error_event"  # a stream ends by the vendor's error event


NOT_PRODUCED = frozenset({Fault.STATUS, Fault.RESET, Fault.STALL, Fault.GARBAGE})
MIDWAY = frozenset({Fault.CUT, Fault.HANG, Fault.ERROR_EVENT})


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How an answer is made. None means the documented default: see `tokens.py`.

    Token counts are the whole prompt's (`input_tokens` includes what the cache counts) and one answer's; with `n` answers the
    output counts `n` times. The caller's maximum always cuts the output. `chunks` divides the visible output of a stream.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    latency_ms: float = 0  # before the first byte
    chunk_ms: float = 0  # between two chunks of a stream
    chunks: int | None = None
    continues: bool = False  # goes on producing, and billing, after the caller has gone
    model_served: str | None = None  # the name that the answer gives; None: as asked
    fault: Fault | None = None
    status: int = 500
    retry_after: str | None = None
    at: int | None = None  # the chunk before which a midway fault strikes; None: the middle

    def with_settings(self, settings: Mapping[str, Any]) -> Behaviour:
        """A copy with these settings. ValueError names the one that is unknown or doesn't fit."""
        return replace(self, **{name: _read(name, value) for name, value in settings.items()}) if settings else self

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_KINDS = {item.name: str(item.type) for item in fields(Behaviour)}
_LIMIT = 10**9


def _read(name: str, value: Any) -> Any:
    kind = _KINDS.get(name)
    if kind is None:
        raise ValueError(f"{name}: no such setting; there are {', '.join(_KINDS)}")
    optional = kind.endswith("| None")
    if value is None or value == "null":
        if not optional:
            raise ValueError(f"{name}: must have a value")
        return None
    try:
        if kind.startswith("int"):
            number = int(value)
        elif kind == "float":
            number = float(value)  # type: ignore[assignment]  # narrowed by the setting's own type
        elif kind == "bool":
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        else:
            return Fault(value) if kind.startswith("Fault") else str(value)
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"{name}: {value!r} does not fit") from None
    if not 0 <= number <= _LIMIT:
        raise ValueError(f"{name}: must be between 0 and {_LIMIT}")
    return number


def parse_settings(text: str) -> dict[str, str]:
    """`output_tokens=50 fault=cut` (spaces, commas or semicolons between) as a dict; ValueError for anything else."""
    settings = {}
    for part in re.split(r"[\s,;]+", text.strip()):
        name, equals, value = part.partition("=")
        if part and not equals:
            raise ValueError(f"{part}: write name=value")
        if part:
            settings[name.replace("-", "_")] = value
    return settings


_DIRECTIVE = re.compile(r"\bsandbox\(([^()]{0,500})\)")


def directive(text: str) -> dict[str, str]:
    """The settings of the last `sandbox(…)` in a prompt; none when there is no such text."""
    found = _DIRECTIVE.findall(text)
    return parse_settings(found[-1]) if found else {}


@dataclass(slots=True)
class FaultPlan:
    """Settings that apply to some of a key's calls: skips `after` of them, then strikes `calls` times (None: for ever), each
    with `probability`, drawn from `seed`, so that the same plan strikes the same calls in every run."""

    settings: Mapping[str, Any]
    calls: int | None = 1
    after: int = 0
    probability: float = 1.0
    seed: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311  (reproducible, not secret)
        Behaviour().with_settings(self.settings)

    def strikes(self) -> bool:
        """Whether the next call is hit; counts it."""
        if self.after > 0:
            self.after -= 1
            return False
        if self.calls == 0 or (self.probability < 1 and self._random.random() >= self.probability):
            return False
        if self.calls is not None:
            self.calls -= 1
        return True


@dataclass(slots=True)
class Key:
    """A key at the sandbox vendor. `value` is what a caller shows; `grant` stands on those that an admin API issued."""

    value: str
    vendor: Vendor
    status: KeyStatus = KeyStatus.VALID
    settings: dict[str, Any] = field(default_factory=dict)
    plans: list[FaultPlan] = field(default_factory=list)
    grant: IssuedSecret | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        """How the vendor's books name the key."""
        return self.grant.id if self.grant is not None else f"key_{hashlib.sha256(self.value.encode()).hexdigest()[:16]}"

    def standing(self) -> KeyStatus:
        """What the inference side makes of the key now: a key that was issued stands as its grant does."""
        return self.grant.status() if self.grant is not None and self.status is KeyStatus.VALID else self.status

    def as_dict(self) -> dict[str, Any]:
        return {"key": self.value, "vendor": self.vendor, "status": self.status, "behaviour": self.settings, "plans": len(self.plans)}


@dataclass(slots=True)
class Usage:
    """Tokens by class. `input` is the whole prompt, cached and written parts included; `output` includes reasoning."""

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0

    def add(self, other: Usage) -> None:
        self.input += other.input
        self.cache_read += other.cache_read
        self.cache_write += other.cache_write
        self.cache_write_1h += other.cache_write_1h
        self.output += other.output
        self.reasoning += other.reasoning


@dataclass(slots=True)
class Call:
    """One request that the sandbox saw. `usage` grows while tokens are produced and is what the vendor bills."""

    id: str  # our `x-request-id` (Anthropic: `request-id`)
    vendor: Vendor
    path: str
    key: str | None  # None: unknown key
    model: str | None = None
    answer_id: str | None = None  # `id` in the body
    status: int = 0  # 0: no status was sent
    streamed: bool = False
    produced: bool = False  # tokens were produced: billed
    finished: bool = False  # the whole answer was handed to the connection
    fault: Fault | None = None
    retry_count: str | None = None  # `x-stainless-retry-count`: which attempt of the SDK this is
    caller_request_id: str | None = None  # `x-request-id` as it arrived
    user: str | None = None  # the caller's own end user: `user`, Anthropic's `metadata.user_id`
    at_ns: int = 0  # when it arrived
    ended_at_ns: int = 0  # when the sandbox was done with it; 0: in flight
    usage: Usage = field(default_factory=Usage)
    service_tier: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
