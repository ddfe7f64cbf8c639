"""Content parts as they stand in messages, and what they mean for the bound on input."""

from __future__ import annotations

from typing import Any

from keygate.gateway.dialects.request_shapes import Part, Tool


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


def blob_bytes(body: dict[str, Any]) -> int:
    """How many bytes of this decoded body are base64 of images, at the places where `Tally` counts images and nowhere else: the vendor
    decodes those; the same shape in a tool's arguments is text."""
    total = 0
    stack: list[Any] = [body.get("system")]
    for name in ("messages", "input"):
        items = body.get(name)
        if isinstance(items, list):
            stack += [item.get(member) for item in items if isinstance(item, dict) for member in ("content", "output")]
    while stack:
        content = stack.pop()
        for part in content if isinstance(content, list) else (content,):
            if not isinstance(part, dict):
                continue
            if part.get("type") in _IMAGE:
                total += _image_bytes(part)
            stack.append(part.get("content"))
            source = part.get("source")
            if part.get("type") == "document" and isinstance(source, dict):
                stack.append(source.get("content"))
    return total


def _image_bytes(part: dict[str, Any]) -> int:
    image, source = part.get("image_url"), part.get("source")
    if isinstance(image, dict):
        image = image.get("url")
    data = source.get("data") if isinstance(source, dict) and source.get("type") == "base64" else None
    return sum(len(text) for text in (image, data) if isinstance(text, str) and text.isascii())
