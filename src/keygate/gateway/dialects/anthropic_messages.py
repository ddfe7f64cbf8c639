"""Anthropic messages, and the count of their tokens.

Source: the Python SDK's types (anthropic 2.11.0 `types/message_create_params.py`, `types/raw_message_stream_event.py`) and the vendor's
pages on tool use, caching and streaming, 2026-11-20.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import UNSET

from keygate.gateway.dialects import bounds
from keygate.gateway.dialects.bodies import BodyDecoder, Governed, count, flag, given, model_name, replace, safe_word, text
from keygate.gateway.dialects.body_tap import BodyTap, NoTap, tap_for, whole_json
from keygate.gateway.dialects.event_stream import EventTap
from keygate.gateway.dialects.interface import BadBody, Codec, Facts, Tap
from keygate.gateway.dialects.openai_chat import tier_features
from keygate.gateway.dialects.parts import Tally, blob_bytes, tool_types
from keygate.gateway.dialects.refusals import anthropic_stream_error
from keygate.gateway.dialects.request_shapes import Messages, Tool
from keygate.gateway.dialects.usage import anthropic_usage, merged_anthropic
from keygate.ledger import TokenUsage
from keygate.vendors import Dialect, ErrorStyle

# The vendor's own tools that the caller runs, by the name before their date: `bash_20250124`. All others run at the vendor.
_CALLERS_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")
_FAST = "fast"  # a speed that is priced as a tier of its own
_PRICED = {"speed": (None, "standard", "fast"), "inference_geo": (None, "global", "not_available")}


class MessagesTap(EventTap):
    """`message_start` names the input, `message_delta` carries cumulative counts, `message_stop` ends."""

    __slots__ = ("_counts", "_final")
    HEADS = 1
    QUIET = (b"event: content_block_delta\n",)

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, Any] = {}
        self._final = False

    def _matters(self, chunk: bytes) -> bool:
        return b'"usage"' in chunk or b"message_stop" in chunk or b'"error"' in chunk

    def _read(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        if kind == "message_start":
            message = event.get("message")
            if isinstance(message, dict):
                self._named(message)
                self._count(message.get("usage"), final=False)
        elif kind == "message_delta":
            # Only `message_start` tells the tier and how long what was written to the cache stays: without it the cost is not known.
            self._count(event.get("usage"), final=bool(self._counts))
        elif kind == "message_stop":
            self._complete = self.done = True
        elif kind == "error":
            self._error = True
        return False

    def _count(self, usage: Any, *, final: bool) -> None:
        if usage is None:
            return
        self._counts = merged_anthropic(self._counts, usage)
        tier = _FAST if self._counts.get("speed") == _FAST else self._counts.get("service_tier")
        if isinstance(tier, str):
            self._tier = tier[:64]
        if final:
            self._usage = anthropic_usage(self._counts)

    def _partial(self) -> TokenUsage | None:
        known = anthropic_usage(self._counts)
        return known and known._replace(output=max(known.output, self._events))


class MessagesCodec(Codec):
    dialect: ClassVar[Dialect] = Dialect.ANTHROPIC_MESSAGES
    error_style: ClassVar[ErrorStyle] = ErrorStyle.ANTHROPIC

    def __init__(self) -> None:
        self._decoder = BodyDecoder(Messages)

    def read(self, body: bytes, content_type: bytes | None) -> Facts:
        asked = self._decoder.decode(body, content_type)
        model = model_name(asked.model)
        most = count("max_tokens", asked.max_tokens)
        if most is None:
            raise BadBody("max_tokens", "field required: say how many tokens the answer may have")
        tier = text("service_tier", asked.service_tier)
        tally = Tally()
        for message in asked.messages or ():
            if isinstance(message.content, list):
                tally.take(message.content)
        if isinstance(asked.system, list):
            tally.take(asked.system)
        bound = len(body) + bounds.OVERHEAD + tally.images * bounds.image_bound(model)
        unbounded = tier_features(tier)
        if asked.tools:
            tools, features = _tools(asked.tools)
            bound += tools
            unbounded += features
        for name, priced in _PRICED.items():
            member: Governed = getattr(asked, name)
            if member is not UNSET and (value := text(name, member)) not in priced:
                unbounded += (f"{name}_{safe_word(value)}",)
        for name in ("mcp_servers", "container", "context_management", "fallbacks"):
            member = getattr(asked, name)
            if member is not UNSET and given(member):
                unbounded += (name,)
        if asked.speed is not UNSET and text("speed", asked.speed) == _FAST:
            tier = _FAST
        return Facts(
            model=model,
            stream=flag("stream", asked.stream),
            output_max=most,
            input_bound=bound,
            images=tally.images,
            input_unknown=tally.unknown,
            cache_write_possible=b"cache_control" in body or b"\\u00" in body,
            service_tier=tier,
            unbounded=unbounded,
        )

    def tight_input_bound(self, body: bytes) -> int:
        facts = self.read(body, None)
        return min(facts.input_bound, facts.input_bound - len(body) + bounds.walked(body, blobs=blob_bytes))

    def rewrite(
        self, body: bytes, facts: Facts, *, model: str | None = None, max_output: int | None = None, include_usage: bool = False
    ) -> bytes:
        changes: dict[str, object] = {}
        if model is not None and model != facts.model:
            changes["model"] = model
        if max_output is not None:
            changes["max_tokens"] = max_output
        return replace(body, changes) if changes else body

    def tap(self, facts: Facts, *, content_type: bytes | None, content_encoding: bytes | None) -> Tap:
        if whole_json(content_type, content_encoding):
            return BodyTap(anthropic_usage, tier_in_usage=True)
        return tap_for(
            MessagesTap(), BodyTap(anthropic_usage, tier_in_usage=True), content_type=content_type, content_encoding=content_encoding
        )

    def stream_error(self, message: str, *, code: str, status: int = 500) -> bytes:
        return anthropic_stream_error(message, code=code, status=status)


class CountTokensCodec(MessagesCodec):
    """Counts and is not billed."""

    dialect: ClassVar[Dialect] = Dialect.ANTHROPIC_COUNT_TOKENS

    def read(self, body: bytes, content_type: bytes | None) -> Facts:
        asked = self._decoder.decode(body, content_type)
        return Facts(model=model_name(asked.model), output_max=0, output_free=True, input_bound=len(body))

    def tight_input_bound(self, body: bytes) -> int:
        return len(body)

    def tap(self, facts: Facts, *, content_type: bytes | None, content_encoding: bytes | None) -> Tap:
        return NoTap()


def _tools(tools: list[Tool]) -> tuple[int, tuple[str, ...]]:
    """Hidden tokens that tools bring, and the tools that run at the vendor."""
    bound = bounds.TOOLS
    features: tuple[str, ...] = ()
    for kind in tool_types(tools):
        if kind in (None, "custom"):
            continue
        bound += bounds.VENDOR_TOOL
        if not (isinstance(kind, str) and kind.startswith(_CALLERS_TOOLS)):
            features += (safe_word(kind),)
    return bound, features
