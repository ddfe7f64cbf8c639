"""What msgspec reads of answers: the members that tell what was used. `request_shapes.py` says why they stand by themselves."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Raw

NO_USAGE = Raw(b"null")
MOST = 10**9  # tokens in one answer; no vendor comes near

Count = Annotated[int, msgspec.Meta(ge=0, le=MOST)]


class Tier(msgspec.Struct):
    service_tier: Any = None
    speed: Any = None


class OutputItem(msgspec.Struct):
    type: Any = None


class Answer(msgspec.Struct):
    """The members of an answer that are read; all others are skipped."""

    usage: Raw = NO_USAGE
    model: Any = None
    id: Any = None
    service_tier: Any = None
    error: Any = None
    type: Any = None


class AnswerWithOutput(Answer):
    output: list[OutputItem] = msgspec.field(default_factory=list)


class Details(msgspec.Struct):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    audio_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class OpenAIUsage(msgspec.Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    input_tokens_details: Details | None = None
    output_tokens_details: Details | None = None


class WritesByTime(msgspec.Struct):
    ephemeral_5m_input_tokens: Count | None = None
    ephemeral_1h_input_tokens: Count | None = None


class OutputDetails(msgspec.Struct):
    thinking_tokens: Count | None = None


class ServerTools(msgspec.Struct):
    web_search_requests: Count | None = None


class AnthropicUsage(msgspec.Struct):
    input_tokens: Count
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation: WritesByTime | None = None
    output_tokens_details: OutputDetails | None = None
    server_tool_use: ServerTools | None = None


class ChatAnswer(msgspec.Struct):
    """An answer as it should be: usage and all in one reading."""

    usage: OpenAIUsage | None = None
    model: Any = None
    id: Any = None
    service_tier: Any = None
    error: Any = None
    type: Any = None
