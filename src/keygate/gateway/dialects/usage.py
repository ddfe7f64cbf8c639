"""From a vendor's usage object to `TokenUsage`. Garbage (negative, fractional, absurd, contradictory) is None: unknown, never a guess.

Paths: OpenAI `openai/types/completion_usage.py`, `openai/types/responses/response_usage.py` (3.51.0), Anthropic
`anthropic/types/usage.py`, `message_delta_usage.py` (2.8.0), read 2026-11-21.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from keygate.gateway.dialects.answer_shapes import AnthropicUsage, Details, OpenAIUsage, WritesByTime
from keygate.ledger import TokenUsage

Shape = TypeVar("Shape", bound=msgspec.Struct)
_NO_DETAILS = Details()
_NO_TIMES = WritesByTime()
_decode_openai = msgspec.json.Decoder(OpenAIUsage).decode
_decode_anthropic = msgspec.json.Decoder(AnthropicUsage).decode


def _read(value: object, shape: type[Shape], decode: Callable[[msgspec.Raw], Shape]) -> Shape | None:
    try:
        return decode(value) if isinstance(value, msgspec.Raw) else msgspec.convert(value, shape)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def openai_usage(value: object, *, web_searches: int = 0) -> TokenUsage | None:
    """Of a decoded usage object or its raw JSON: chat, completions, embeddings (`prompt_tokens`…) and responses (`input_tokens`…). Cached,
    written and audio parts are inside the input, reasoning inside the output."""
    usage = _read(value, OpenAIUsage, _decode_openai)
    return None if usage is None else openai_counts(usage, web_searches=web_searches)


def openai_counts(usage: OpenAIUsage, *, web_searches: int = 0) -> TokenUsage | None:
    """Of a usage object whose members are counts each; None where they contradict each other."""
    if usage.prompt_tokens is not None:
        whole, output = usage.prompt_tokens, usage.completion_tokens or 0
        inputs, outputs = usage.prompt_tokens_details or _NO_DETAILS, usage.completion_tokens_details or _NO_DETAILS
    elif usage.input_tokens is not None:
        whole, output = usage.input_tokens, usage.output_tokens or 0
        inputs, outputs = usage.input_tokens_details or _NO_DETAILS, usage.output_tokens_details or _NO_DETAILS
    else:
        return None
    read, written = inputs.cached_tokens or 0, inputs.cache_write_tokens or 0
    audio_in, audio_out = inputs.audio_tokens or 0, outputs.audio_tokens or 0
    if read + written > whole or audio_in > whole or audio_out > output:
        return None
    return TokenUsage(whole, read, written, 0, output, min(outputs.reasoning_tokens or 0, output), audio_in, audio_out, web_searches)


def anthropic_usage(value: object, *, web_searches: int = 0) -> TokenUsage | None:
    """Of a decoded usage object or its raw JSON: `input_tokens` excludes what was read from or written to the cache, so the whole prompt
    is the sum of three."""
    usage = _read(value, AnthropicUsage, _decode_anthropic)
    if usage is None:
        return None
    output = usage.output_tokens or 0
    read = usage.cache_read_input_tokens or 0
    times = usage.cache_creation or _NO_TIMES
    hour = times.ephemeral_1h_input_tokens or 0
    written = max(usage.cache_creation_input_tokens or 0, hour + (times.ephemeral_5m_input_tokens or 0))
    thinking = (usage.output_tokens_details.thinking_tokens or 0) if usage.output_tokens_details else 0
    searches = (usage.server_tool_use.web_search_requests or 0) if usage.server_tool_use else web_searches
    return TokenUsage(usage.input_tokens + written + read, read, written - hour, hour, output, min(thinking, output), 0, 0, searches)


def merged_anthropic(start: dict[str, Any], delta: Any) -> dict[str, Any]:
    """`message_delta.usage` is cumulative and may restate or omit what `message_start` said: counters never go down."""
    if not isinstance(delta, dict):
        return {**start, "output_tokens": delta}
    merged = dict(start)
    for name, value in delta.items():
        before: Any = merged.get(name)
        counter = before is not None and name.endswith("_tokens")
        if value is None or (counter and (type(before) is not int or before < 0)):
            continue  # nothing said, or garbage at the start, which stays garbage
        if counter and type(value) is int and 0 <= value < before:
            continue
        merged[name] = value
    return merged
