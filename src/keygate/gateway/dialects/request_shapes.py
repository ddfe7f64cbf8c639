"""What msgspec reads of request bodies: the governed members, and content parts as they stand in messages; all else is skipped.

These shapes stand apart from the codecs that use them because msgspec's types can't be compiled (docs/adr/0007-compiled-request-path.md).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from keygate.gateway.dialects.bodies import Governed


class Part(msgspec.Struct):
    """A content block of any dialect; only what tells its cost. `content` nests in tool results and documents."""

    type: str | None = None
    content: str | list[Part] | None = None
    source: Source | None = None
    file_id: Any = None


class Source(msgspec.Struct):
    type: str | None = None
    content: str | list[Part] | None = None


class Message(msgspec.Struct):
    content: str | list[Part] | None = None


class Tool(msgspec.Struct):
    type: Governed = UNSET  # twice in one tool is refused: what a tool costs hangs on it


class Chat(msgspec.Struct):
    model: Governed = UNSET
    stream: Governed = UNSET
    stream_options: Governed = UNSET
    max_tokens: Governed = UNSET
    max_completion_tokens: Governed = UNSET
    n: Governed = UNSET
    service_tier: Governed = UNSET
    web_search_options: Governed = UNSET
    modalities: Governed = UNSET
    audio: Governed = UNSET
    prediction: Governed = UNSET
    messages: list[Message] | None = None
    tools: list[Tool] | None = None


class Completion(msgspec.Struct):
    model: Governed = UNSET
    stream: Governed = UNSET
    stream_options: Governed = UNSET
    max_tokens: Governed = UNSET
    n: Governed = UNSET
    best_of: Governed = UNSET
    echo: Governed = UNSET
    prompt: Governed = UNSET
    service_tier: Governed = UNSET


class ItemOutput(msgspec.Struct):
    type: str | None = None


class Item(msgspec.Struct):
    type: str | None = None
    content: str | list[Part] | None = None
    output: str | list[Part] | ItemOutput | None = None


class Response(msgspec.Struct):
    model: Governed = UNSET
    stream: Governed = UNSET
    max_output_tokens: Governed = UNSET
    background: Governed = UNSET
    service_tier: Governed = UNSET
    previous_response_id: Governed = UNSET
    conversation: Governed = UNSET
    prompt: Governed = UNSET
    context_management: Governed = UNSET
    input: str | list[Item] | None = None
    tools: list[Tool] | None = None


class Messages(msgspec.Struct):
    model: Governed = UNSET
    stream: Governed = UNSET
    max_tokens: Governed = UNSET
    service_tier: Governed = UNSET
    speed: Governed = UNSET
    inference_geo: Governed = UNSET
    mcp_servers: Governed = UNSET
    container: Governed = UNSET
    context_management: Governed = UNSET
    fallbacks: Governed = UNSET
    messages: list[Message] | None = None
    system: str | list[Part] | None = None
    tools: list[Tool] | None = None


class Inputs(msgspec.Struct):
    model: Governed = UNSET
