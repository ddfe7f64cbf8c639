"""OpenAI chat completions and completions.

Source: the vendor's API description (`openapi.json`, CreateChatCompletionRequest, CreateCompletionRequest) and the Python SDK's types
(openai 3.52.0), 2026-11-20. `max_completion_tokens` is taken by every chat model, `max_tokens` not by reasoning models.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import UNSET, UnsetType

from keygate.gateway.dialects import bounds
from keygate.gateway.dialects.bodies import (
    BodyDecoder,
    Governed,
    count,
    flag,
    given,
    insert,
    member_value,
    model_name,
    replace,
    safe_word,
    text,
)
from keygate.gateway.dialects.body_tap import BodyTap, ChatBodyTap, tap_for, whole_json
from keygate.gateway.dialects.event_stream import EventTap
from keygate.gateway.dialects.interface import BadBody, Codec, Facts, Tap
from keygate.gateway.dialects.parts import Tally, blob_bytes, tool_types
from keygate.gateway.dialects.refusals import openai_stream_error
from keygate.gateway.dialects.request_shapes import Chat, Completion
from keygate.gateway.dialects.usage import openai_usage
from keygate.vendors import Dialect, ErrorStyle

_MAX_ANSWERS = 128
_COMPLETIONS_DEFAULT = 16  # the vendor's default of `max_tokens` for completions
# Tiers that the price table knows (`Ask.service_tier`); any other may cost what we can't bound.
_TIERS = frozenset({None, "auto", "default", "flex", "priority", "fast", "scale", "standard_only", "standard"})


def model_features(model: str) -> tuple[str, ...]:
    """Costs that tokens don't bound and that the model's name brings along: search on every call."""
    bare = model.lower()
    if "search" not in bare:
        return ()
    if "-search-" in bare or bare.endswith("-search") or "deep-research" in bare:
        return ("search_model",)
    return ()


def tier_features(tier: str | None) -> tuple[str, ...]:
    return () if tier in _TIERS else (f"service_tier_{safe_word(tier)}",)


def usage_asked(options: Governed) -> bool:
    if not given(options):
        return False
    value = getattr(options, "value", None)
    if not isinstance(value, dict):
        raise BadBody("stream_options", "must be an object")
    asked = value.get("include_usage")
    if asked not in (None, True, False):
        raise BadBody("stream_options.include_usage", "must be true or false")
    return asked is True


def with_usage(body: bytes, changes: dict[str, object]) -> None:
    """Adds to `changes` what makes a chat or completions stream tell its usage."""
    options = member_value(body, "stream_options")
    changes["stream_options"] = {**options, "include_usage": True} if isinstance(options, dict) else {"include_usage": True}


_NULL_USAGE = len(b'"usage":null}\n\n')


class ChatTap(EventTap):
    """Chunks `data: {…}`; usage in a last chunk with `choices: []`, before `data: [DONE]`."""

    __slots__ = ()
    HEADS = 1

    def feed(self, chunk: bytes) -> bytes:
        # Most chunks: one whole event, an object, without usage or an error. Each search of a chunk counts here.
        if chunk.startswith(b"data: {") and not self._held and not self._heads:
            size = len(chunk)
            if chunk.find(b"\n\n") == size - 2 and b'"error"' not in chunk:
                at = chunk.find(b'"usage"')
                if at < 0 or (at == size - _NULL_USAGE and chunk.endswith(b'"usage":null}\n\n')):
                    self._events += 1
                    return chunk
        return EventTap.feed(self, chunk)

    def _matters(self, chunk: bytes) -> bool:
        at = chunk.find(b'"usage"')
        if at >= 0 and not (
            at == len(chunk) - _NULL_USAGE and chunk.endswith(b'"usage":null}\n\n')
        ):  # most chunks, where usage was asked for
            return True
        return b"[DONE]" in chunk or b'"error"' in chunk

    def _read(self, event: dict[str, Any]) -> bool:
        self._named(event)
        if event.get("error"):
            self._error = True
        usage = event.get("usage")
        if usage is None:
            return False
        self._usage = openai_usage(usage)
        return event.get("choices") == []


class ChatCodec(Codec):
    dialect: ClassVar[Dialect] = Dialect.OPENAI_CHAT
    error_style: ClassVar[ErrorStyle] = ErrorStyle.OPENAI

    def __init__(self) -> None:
        self._decoder = BodyDecoder(Chat)

    def read(self, body: bytes, content_type: bytes | None) -> Facts:
        chat = self._decoder.decode(body, content_type)
        model = model_name(chat.model)
        stream = flag("stream", chat.stream)
        include_usage = stream and usage_asked(chat.stream_options)
        older = None if chat.max_tokens is UNSET else count("max_tokens", chat.max_tokens)
        newer = None if chat.max_completion_tokens is UNSET else count("max_completion_tokens", chat.max_completion_tokens)
        tier = None if chat.service_tier is UNSET else text("service_tier", chat.service_tier)
        tally = Tally()
        for message in chat.messages or ():
            if isinstance(message.content, list):
                tally.take(message.content)
        bound = len(body) + bounds.OVERHEAD
        if tally.images:
            bound += tally.images * bounds.image_bound(model)
        if chat.tools:
            bound += bounds.TOOLS
        return Facts(
            model=model,
            stream=stream,
            include_usage=include_usage,
            usage_on_request=stream and not include_usage,
            output_max=older if newer is None else newer if older is None else max(older, newer),
            answers=1 if chat.n is UNSET else count("n", chat.n, least=1, most=_MAX_ANSWERS) or 1,
            input_bound=bound,
            images=tally.images,
            input_unknown=tally.unknown,
            cache_write_possible=True,  # newer models bill writes to the cache, which they make by themselves
            extra_output=0 if chat.prediction is UNSET or not given(chat.prediction) else len(body),
            service_tier=tier,
            unbounded=model_features(model) + tier_features(tier) + _features(chat, tally),
        )

    def tight_input_bound(self, body: bytes) -> int:
        facts = self.read(body, None)
        extra = facts.input_bound - len(body)
        return min(facts.input_bound, extra + bounds.walked(body, blobs=blob_bytes))

    def rewrite(
        self, body: bytes, facts: Facts, *, model: str | None = None, max_output: int | None = None, include_usage: bool = False
    ) -> bytes:
        changes: dict[str, object] = {}
        if include_usage and facts.usage_on_request:
            if b"stream_options" not in body and model is None and max_output is None and b"\\u00" not in body:
                return insert(body, "stream_options", {"include_usage": True})
            with_usage(body, changes)
        if model is not None and model != facts.model:
            changes["model"] = model
        if max_output is not None:
            changes["max_completion_tokens"] = max_output
            return replace(body, changes, drop=("max_tokens",))
        return replace(body, changes) if changes else body

    def tap(self, facts: Facts, *, content_type: bytes | None, content_encoding: bytes | None) -> Tap:
        if whole_json(content_type, content_encoding):
            return ChatBodyTap(openai_usage)
        return tap_for(
            ChatTap(hide=not facts.include_usage),
            BodyTap(openai_usage),
            content_type=content_type,
            content_encoding=content_encoding,
        )

    def stream_error(self, message: str, *, code: str, status: int = 500) -> bytes:
        return openai_stream_error(message, code=code, status=status)


def _features(chat: Chat, tally: Tally) -> tuple[str, ...]:
    features: tuple[str, ...] = ()
    if chat.tools:
        features = tuple(safe_word(kind) for kind in tool_types(chat.tools) if kind not in ("function", "custom"))
    if not isinstance(chat.web_search_options, UnsetType) and chat.web_search_options.value is not None:  # an empty object searches too
        features += ("web_search",)
    if tally.audio or (chat.audio is not UNSET and given(chat.audio)) or (chat.modalities is not UNSET and _speaks(chat.modalities)):
        features += ("audio",)
    return features


def _speaks(modalities: Governed) -> bool:
    value = getattr(modalities, "value", None)
    if value is None or value == ["text"]:
        return False
    return not isinstance(value, list) or any(kind != "text" for kind in value)


class CompletionsCodec(ChatCodec):
    """The older endpoint: several prompts and `best_of` multiply the output, `echo` returns the prompt as output."""

    dialect: ClassVar[Dialect] = Dialect.OPENAI_COMPLETIONS

    def __init__(self) -> None:
        self._completions = BodyDecoder(Completion)

    def read(self, body: bytes, content_type: bytes | None) -> Facts:
        asked = self._completions.decode(body, content_type)
        model = model_name(asked.model)
        stream = flag("stream", asked.stream)
        include_usage = stream and usage_asked(asked.stream_options)
        most = count("max_tokens", asked.max_tokens)
        tier = text("service_tier", asked.service_tier)
        answers = max(
            count("n", asked.n, least=1, most=_MAX_ANSWERS) or 1, count("best_of", asked.best_of, least=1, most=_MAX_ANSWERS) or 1
        )
        bound = len(body) + bounds.OVERHEAD
        return Facts(
            model=model,
            stream=stream,
            include_usage=include_usage,
            usage_on_request=stream and not include_usage,
            output_max=_COMPLETIONS_DEFAULT if most is None else most,
            output_min=0,
            answers=answers * prompts("prompt", asked.prompt),
            input_bound=bound,
            cache_write_possible=True,
            extra_output=bound * answers if flag("echo", asked.echo) else 0,
            service_tier=tier,
            unbounded=model_features(model) + tier_features(tier),
        )

    def rewrite(
        self, body: bytes, facts: Facts, *, model: str | None = None, max_output: int | None = None, include_usage: bool = False
    ) -> bytes:
        changes: dict[str, object] = {}
        if include_usage and facts.usage_on_request:
            with_usage(body, changes)
        if model is not None and model != facts.model:
            changes["model"] = model
        if max_output is not None:
            changes["max_tokens"] = max_output
        return replace(body, changes) if changes else body


def prompts(name: str, member: Governed) -> int:
    """How many texts: a string or an array of token numbers is one, an array of either is as many as it holds."""
    value = getattr(member, "value", None)
    if value is None or isinstance(value, str):
        return 1
    if not isinstance(value, list):
        raise BadBody(name, "must be a string or an array")
    return len(value) or 1 if not value or isinstance(value[0], (str, list)) else 1
