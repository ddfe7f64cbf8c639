"""Random calls as real clients make them: every dialect, streamed or not, with a maximum or without, and with everything that goes wrong.

The answer's size, speed and fault are asked of the sandbox by a directive in the prompt, which passes the gateway as any prompt does.
The sandbox never counts more input tokens than the prompt has bytes, and no more output than the maximum: a vendor can't either.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.drills.callers import request
from tests.drills.ground import Key

_WORDS = ("budget", "ledger", "key", "vault", "team", "Straße", "gateway", "hold", "settle", "日本", "slice", "journal")
_RUNAWAY = 10**6  # an answer that goes on until its maximum, or the model's, stops it


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one endpoint."""

    path: str
    vendor: str
    model: str
    maximum: str | None  # the body's name for it; None: the endpoint has none
    tiers: tuple[str, ...] = ()
    reasons: bool = False


TARGETS = (
    Target("/openai/v1/chat/completions", "openai", "gpt-4.1", "max_tokens", tiers=("priority",)),
    Target("/openai/v1/chat/completions", "openai", "gpt-4.1-mini", "max_completion_tokens"),
    Target("/v1/chat/completions", "openai", "gpt-4o", "max_tokens"),
    Target("/openai/v1/chat/completions", "openai", "gpt-5", "max_completion_tokens", tiers=("flex", "priority"), reasons=True),
    Target("/openai/v1/responses", "openai", "gpt-5", "max_output_tokens", tiers=("flex",), reasons=True),
    Target("/v1/responses", "openai", "gpt-4.1", "max_output_tokens"),
    Target("/openai/v1/completions", "openai", "gpt-3.5-turbo-instruct", "max_tokens"),
    Target("/openai/v1/embeddings", "openai", "text-embedding-3-large", None),
    Target("/anthropic/v1/messages", "anthropic", "claude-sonnet-4-5", "max_tokens"),
    Target("/anthropic/v1/messages", "anthropic", "claude-opus-4-1", "max_tokens"),
    Target("/v1/anthropic/v1/messages", "anthropic", "claude-haiku-4-5", "max_tokens"),
)

# Share of calls in a thousand. Nothing is billed in the first row; the second is billed and its usage can't be read, or not all of it.
FAULTS: Mapping[str, int] = {
    "status": 30, "reset": 10, "garbage": 5, "stall": 3,
    "lost": 10, "no_usage": 15, "malformed": 10, "cut": 25, "error_event": 15, "bad_chunk": 5, "long_length": 5, "short_length": 5,
    "hang": 5,
}  # fmt: skip
NO_HANGS: Mapping[str, int] = {name: share for name, share in FAULTS.items() if name not in {"stall", "hang"}}


@dataclass(slots=True)
class Draft:
    """A request to send, and when its caller loses patience."""

    data: bytes
    target: Target
    streamed: bool
    bounded: bool  # the caller set a maximum
    leave_after: float | None = None


@dataclass(slots=True)
class Traffic:
    """An endless source of calls; the same seed makes the same ones."""

    seed: int
    faults: Mapping[str, int] = field(default_factory=lambda: FAULTS)
    targets: Sequence[Target] = TARGETS
    latency_ms: tuple[int, int] = (0, 60)
    impatient: float = 0.08  # share of callers that vanish while they wait
    _random: random.Random = field(init=False)
    _count: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draft(self, key: Key) -> Draft:
        rng = self._random
        self._count += 1
        target = rng.choice(self.targets)
        streamed = target.maximum is not None and rng.random() < 0.5
        bounded = target.maximum is not None and (target.vendor == "anthropic" or rng.random() < 0.5)
        body: dict[str, Any] = {"model": target.model}
        if bounded:
            body[target.maximum or ""] = rng.choice((16, 60, 200, 400, 1000))
        if streamed:
            body["stream"] = True
            if target.path.endswith("/completions") and rng.random() < 0.5:
                body["stream_options"] = {"include_usage": rng.random() < 0.7}
        if target.tiers and rng.random() < 0.2:
            body["service_tier"] = rng.choice((*target.tiers, "auto", "default"))
        if target.path.endswith("chat/completions") and rng.random() < 0.05:
            body["n"] = rng.randint(2, 3)
        text = " ".join(rng.choices(_WORDS, k=rng.choice((3, 10, 40, 150))))
        marks = target.vendor == "anthropic" and rng.random() < 0.2
        text += " " + self._directive(target, len(text.encode()), streamed=streamed, marks=marks)
        self._say(body, target, text, marks=marks)
        user = f"{key.id}:{self._count}"
        if target.vendor == "anthropic":
            body["metadata"] = {"user_id": user}
        else:
            body["user"] = user
        data = request("POST", target.path, key.token, body, anthropic=target.vendor == "anthropic")
        return Draft(data, target, streamed, bounded, rng.uniform(0.001, 0.15) if rng.random() < self.impatient else None)

    def _say(self, body: dict[str, Any], target: Target, text: str, *, marks: bool) -> None:
        if target.path.endswith("/embeddings"):
            body["input"] = text
        elif target.path.endswith("/responses"):
            body["input"] = text if self._random.random() < 0.5 else [{"role": "user", "content": [{"type": "input_text", "text": text}]}]
        elif target.path.endswith("/v1/completions"):
            body["prompt"] = text
        elif marks:
            body["messages"] = [{"role": "user", "content": [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]}]
        else:
            body["messages"] = [{"role": "user", "content": text}]

    def _directive(self, target: Target, size: int, *, streamed: bool, marks: bool) -> str:
        rng = self._random
        output = _RUNAWAY if rng.random() < 0.15 and target.maximum else rng.randint(1, 400)
        settings: dict[str, Any] = {"output_tokens": output, "latency_ms": rng.randint(*self.latency_ms)}
        if rng.random() < 0.5:
            settings["input_tokens"] = counted = rng.randint(1, size)
            if rng.random() < 0.5 and not target.path.endswith(("/embeddings", "/v1/completions")):
                settings["cache_read_tokens"] = cached = rng.randint(0, counted)
                if marks:
                    settings["cache_write_tokens"] = written = rng.randint(0, counted - cached)
                    settings["cache_write_1h_tokens"] = rng.randint(0, counted - cached - written)
        if target.reasons and rng.random() < 0.5:
            settings["reasoning_tokens"] = rng.randint(0, min(output, 400))
        settings["chunks"] = rng.choice((1, 4, 12))
        settings["chunk_ms"] = rng.choice((0, 1, 10))
        if rng.random() < 0.1:
            settings["continues"] = "true"
        fault = self._fault()
        if fault == "error_event" and not streamed:
            fault = "status"  # no vendor bills an answer that is an error from its first byte
        if fault is not None:
            settings["fault"] = fault
        if fault == "status":
            settings["status"] = rng.choice((400, 429, 500, 503, 529))
        return "sandbox(" + " ".join(f"{name}={value}" for name, value in settings.items()) + ")"

    def _fault(self) -> str | None:
        drawn = self._random.randrange(1000)
        for name, share in self.faults.items():
            drawn -= share
            if drawn < 0:
                return name
        return None
