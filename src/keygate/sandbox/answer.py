"""From a request as read to the answer that will be given: how much text, which tool, where it stops. Pure."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from keygate.sandbox import tokens
from keygate.sandbox.catalogue import Model, Use
from keygate.sandbox.errors import VendorError
from keygate.sandbox.model import Behaviour, Usage

IMAGE_BYTES = 340  # an image counts as 85 tokens, OpenAI's price of a low-detail one; its data isn't text

encode = msgspec.json.Encoder().encode


class Finish(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the caller offers and that the answer calls."""

    name: str
    schema: Any


@dataclass(slots=True)
class Asked:
    """A request, read by its dialect."""

    model: str  # as the caller wrote it
    body: dict[str, Any]
    prompt: Any  # whatever counts as input: messages, input, system, tools
    messages: int = 1
    last_text: str = ""  # the last user text: where a directive or a tool's name may stand
    max_output: int | None = None
    answers: int = 1
    streamed: bool = False
    include_usage: bool = False
    tool: Tool | None = None
    structure: Any = None  # JSON schema that the answer must fit
    has_structure: bool = False
    service_tier: str | None = None


@dataclass(slots=True)
class Answer:
    """What is given back. `usage` counts all `answers`; `text` is one answer's, or the arguments of its tool call."""

    id: str
    created: int
    asked: Asked
    model: str
    usage: Usage
    text: str
    pieces: tuple[tuple[str, int], ...]
    reasoning: int  # tokens of one answer before its first piece
    finish: Finish
    show_usage: bool = True
    call_id: str = field(default_factory=lambda: secrets.token_hex(12))


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes of a stream, with the output tokens that had to be produced for them. Pieces are what `chunk_ms` spaces."""

    data: bytes
    tokens: int = 0
    reasoning: int = 0
    piece: bool = False


class Dialect(Protocol):
    """One endpoint's language."""

    use: Use
    id_prefix: str

    def read(self, body: dict[str, Any]) -> Asked:
        """Raises `VendorError` as the vendor would for a request it does not understand."""

    def check(self, asked: Asked, model: Model) -> None:
        """Raises `VendorError` where this model can't do what was asked."""

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The plain answer's body."""

    def frames(self, answer: Answer) -> Iterator[Frame]:
        """The stream, frame by frame."""

    def error_frame(self, error: VendorError, request_id: str) -> bytes:
        """An error in the middle of a stream."""


def measure(value: Any) -> int:
    """Bytes of text in a prompt; images count as `IMAGE_BYTES`."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        return sum(map(measure, value))
    if isinstance(value, dict):
        if value.get("type") in {"image", "image_url", "input_image"}:
            return IMAGE_BYTES
        return sum(measure(item) for name, item in value.items() if name not in {"type", "role", "id", "cache_control"})
    return 0


def text_of(content: Any) -> str:
    """The text of a message's content, in any dialect's shape."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""


def compose(asked: Asked, behaviour: Behaviour, *, id_prefix: str, body_bytes: int, most: int | None = None) -> Answer:
    """The answer, by the rules of `tokens.py`; `most` is the model's own maximum, which holds whatever the caller says."""
    if asked.tool is not None or asked.has_structure:
        schema = asked.tool.schema if asked.tool is not None else asked.structure
        text = encode(tokens.example_of(schema)).decode()
        natural = max(1, -(-len(text) // 4))
    else:
        text, natural = "", len(tokens.WORDS)
    output = natural + behaviour.reasoning_tokens if behaviour.output_tokens is None else behaviour.output_tokens
    finish = Finish.TOOL if asked.tool is not None else Finish.STOP
    maximum = min((limit for limit in (asked.max_output, most) if limit is not None), default=None)
    if maximum is not None and output > maximum:
        output, finish = maximum, Finish.LENGTH
    reasoning = min(behaviour.reasoning_tokens, output)
    visible = output - reasoning
    if text:
        text = text if finish is not Finish.LENGTH else text[: len(text) * min(visible, natural) // natural]
    else:
        text = tokens.text_of(visible)
    counted = behaviour.input_tokens
    if counted is None:
        counted = tokens.input_tokens(measure(asked.prompt), asked.messages, body_bytes=body_bytes)
    cached = behaviour.cache_read_tokens + behaviour.cache_write_tokens + behaviour.cache_write_1h_tokens
    return Answer(
        id=f"{id_prefix}{secrets.token_hex(12)}",
        created=int(time.time()),
        asked=asked,
        model=behaviour.model_served or asked.model,
        usage=Usage(
            input=max(counted, cached),
            cache_read=behaviour.cache_read_tokens,
            cache_write=behaviour.cache_write_tokens,
            cache_write_1h=behaviour.cache_write_1h_tokens,
            output=output * asked.answers,
            reasoning=reasoning * asked.answers,
        ),
        text=text,
        pieces=tokens.pieces_of(text, visible, behaviour.chunks),
        reasoning=reasoning,
        finish=finish,
    )


def wanted_tool(tools: list[Tool], choice: Any, last_text: str) -> Tool | None:
    """Which tool is called: the named one; any when one is required; else one whose name stands in the last user text."""
    named = choice.get("name") if isinstance(choice, dict) else None
    if not named and isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        named = choice["function"].get("name")
    if named:
        return next((tool for tool in tools if tool.name == named), None)
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind in {"required", "any"}:
        return tools[0] if tools else None
    if kind == "none":
        return None
    return next((tool for tool in tools if tool.name and tool.name in last_text), None)
