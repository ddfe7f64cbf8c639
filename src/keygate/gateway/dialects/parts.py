"""Content parts as they stand in messages, and what they mean for the bound on input."""

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


def tool_types(tools: list[Tool]) -> list[object]:
    return [getattr(tool.type, "value", None) for tool in tools]


class Tally:
    """What the parts of one body add up to."""

    __slots__ = ("audio", "images", "unknown")

    def __init__(self) -> None:
        self.images = 0
        self.audio = False
        self.unknown = False  # the body doesn't show how much input this is: files, compressed documents, kinds that we don't know

    def take(self, parts: list[Part], depth: int = 0) -> None:
        for part in parts:
            kind = part.type
            if kind in _TEXT:
                pass
            elif kind in _IMAGE:
                self.images += 1
            elif kind == "input_audio":
                self.audio = True
            elif kind == "document" and part.source is not None and part.source.type in ("text", "content"):
                self._nested(part.source.content, depth)
            elif kind == "file" or kind not in _NESTING:
                self.unknown = True
            self._nested(part.content, depth)

    def _nested(self, content: str | list[Part] | None, depth: int) -> None:
        if isinstance(content, list):
            self.take(content, depth + 1)


# OpenAI chat and responses, Anthropic messages. Everything else counts as unknown input, bounded by the context window.
_TEXT = frozenset(
    {
        "text",
        "input_text",
        "output_text",
        "summary_text",
        "reasoning_text",
        "refusal",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "server_tool_use",
    }
)
_IMAGE = frozenset({"image_url", "input_image", "image", "computer_screenshot"})
_NESTING = frozenset({"tool_result", "search_result", "mid_conv_system"})


def blob_members(value: dict[str, Any]) -> tuple[str, ...]:
    """Members of this object whose text is base64 that the vendor decodes: counted by ceilings, not by their bytes."""
    kind = value.get("type")
    if kind in ("image_url", "input_image", "computer_screenshot"):
        return ("image_url",)
    if kind == "base64" and isinstance(value.get("media_type"), str):
        return ("data",)
    if kind in ("file", "input_file"):
        return ("file", "file_data")
    return ()
