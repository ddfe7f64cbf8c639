"""From a vendor's usage object to `TokenUsage`. Garbage (negative, fractional, absurd, contradictory) is None: unknown, never a guess.

Paths: OpenAI `openai/types/completion_usage.py`, `openai/types/responses/response_usage.py` (3.52.0), Anthropic
`anthropic/types/usage.py`, `message_delta_usage.py` (2.11.0), read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keygate.ledger import TokenUsage

MOST = 10**9  # tokens in one answer; no vendor comes near


class _Garbage(Exception):  # noqa: N818  (leaves this module never)
    pass


def _tokens(usage: Mapping[str, Any], name: str, *, required: bool = False) -> int:
    value = usage.get(name)
    if value is None and not required:
        return 0
    if type(value) is not int or not 0 <= value <= MOST:
        raise _Garbage
    return value


def _part(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = usage.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _Garbage
    return value


def openai_usage(usage: Any, *, web_searches: int = 0) -> TokenUsage | None:
    """Chat, completions, embeddings (`prompt_tokens`…) and responses (`input_tokens`…): cached, written and audio parts are inside the
    input, reasoning inside the output."""
    if not isinstance(usage, dict):
        return None
    chat = "prompt_tokens" in usage
    try:
        whole = _tokens(usage, "prompt_tokens" if chat else "input_tokens", required=True)
        output = _tokens(usage, "completion_tokens" if chat else "output_tokens")
        inputs = _part(usage, "prompt_tokens_details" if chat else "input_tokens_details")
        outputs = _part(usage, "completion_tokens_details" if chat else "output_tokens_details")
        read = _tokens(inputs, "cached_tokens")
        written = _tokens(inputs, "cache_write_tokens")
        audio_in = _tokens(inputs, "audio_tokens")
        audio_out = _tokens(outputs, "audio_tokens")
        reasoning = _tokens(outputs, "reasoning_tokens")
    except _Garbage:
        return None
    if read + written > whole or audio_in > whole or audio_out > output:
        return None
    return TokenUsage(
        input=whole,
        cache_read=read,
        cache_write=written,
        output=output,
        reasoning=min(reasoning, output),
        input_audio=audio_in,
        output_audio=audio_out,
        web_searches=web_searches,
    )


def anthropic_usage(usage: Any) -> TokenUsage | None:
    """Messages: `input_tokens` excludes what was read from or written to the cache, so the whole prompt is the sum of three."""
    if not isinstance(usage, dict):
        return None
    try:
        fresh = _tokens(usage, "input_tokens", required=True)
        output = _tokens(usage, "output_tokens")
        written = _tokens(usage, "cache_creation_input_tokens")
        read = _tokens(usage, "cache_read_input_tokens")
        by_time = _part(usage, "cache_creation")
        hour = _tokens(by_time, "ephemeral_1h_input_tokens")
        short = _tokens(by_time, "ephemeral_5m_input_tokens")
        thinking = _tokens(_part(usage, "output_tokens_details"), "thinking_tokens")
        searches = _tokens(_part(usage, "server_tool_use"), "web_search_requests")
    except _Garbage:
        return None
    written = max(written, hour + short)
    return TokenUsage(
        input=fresh + written + read,
        cache_read=read,
        cache_write=written - hour,
        cache_write_1h=hour,
        output=output,
        reasoning=min(thinking, output),
        web_searches=searches,
    )


def merged_anthropic(start: dict[str, Any], delta: Any) -> dict[str, Any]:
    """`message_delta.usage` is cumulative and may restate or omit what `message_start` said: counters never go down."""
    if not isinstance(delta, dict):
        return {**start, "output_tokens": delta}
    merged = dict(start)
    for name, value in delta.items():
        before = merged.get(name)
        if value is None or (type(value) is int and type(before) is int and 0 <= value < before):
            continue
        merged[name] = value
    return merged
