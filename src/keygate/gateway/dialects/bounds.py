"""How many input tokens a body can cost at most.

A token of a byte-level tokeniser covers at least one byte of text, and the JSON around a message (`{"role":"user","content":""}`) is
longer than the few tokens that frame it, so the body's bytes bound its text. What the bytes don't show is added here:

- Images. OpenAI, developers guide "Images and vision" (checked 2026-11-21): tiles, at most 8 after scaling (short side 768, long side
  2048), gpt-4o-mini 2833 + 5667 a tile, others at most 85 + 170 a tile; patch models at most 10,000 patches (`original` detail) times
  at most 2.46. Anthropic, "Vision": width x height / 750 after scaling to 1568 px, on newer models 2576 px: at most 4,784 tokens.
- Tools. Anthropic, "Tool use pricing": 290 to 806 hidden tokens when there are tools, and up to 735 for each tool of the vendor's own that
  the caller executes (computer, text editor, bash).
- Documents by base64: PDF text is compressed, so bytes bound nothing; the model's context window does (`input_unknown`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

OVERHEAD = 128  # frames of roles, of the answer's start, of a system prompt
TOOLS = 1024
VENDOR_TOOL = 1536

_TILES_MINI = 2833 + 5667 * 8
_PATCHES = 24_600
_OPENAI_OTHERS = ("gpt-4.1", "gpt-5", "o1", "o3", "o4", "chatgpt-", "gpt-4-", "computer-use")
ANTHROPIC_IMAGE = 5_000


def image_bound(model: str) -> int:
    """Tokens that one image can cost on this model; an unknown name (an alias) gets the largest."""
    bare = model.rpartition("/")[2].lower()
    if bare.startswith("claude-"):
        return ANTHROPIC_IMAGE
    if bare.startswith(_OPENAI_OTHERS) or (bare.startswith("gpt-4o") and not bare.startswith("gpt-4o-mini")):
        return _PATCHES
    return _TILES_MINI


def walked(body: bytes, *, blobs: Callable[[dict[str, Any]], int]) -> int:
    """The length in bytes of the JSON as it would be without escapes and white space, and without the `blobs`, whose tokens are bounded
    otherwise."""
    decoded = msgspec.json.decode(body)
    total = -blobs(decoded)
    stack: list[Any] = [decoded]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            total += len(value.encode("utf-8", "surrogatepass")) + 3
        elif isinstance(value, dict):
            total += 2 + sum(len(name.encode("utf-8", "surrogatepass")) + 4 for name in value)
            stack.extend(value.values())
        elif isinstance(value, list):
            total += 2 + len(value)
            stack.extend(value)
        else:
            total += 26
    return total
