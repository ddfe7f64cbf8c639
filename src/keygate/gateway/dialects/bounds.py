"""How many input tokens a body can cost at most.

A token of a byte-level tokeniser covers at least one byte of text, and the JSON around a message (`{"role":"user","content":""}`) is
longer than the few tokens that frame it, so the body's bytes bound its text. What the bytes don't show is added here:

- Images. OpenAI, "Images and vision" (developers.openai.com), as several public copies and programs of 2026 quote it, read 2026-11-21:
  tile models at most 8 tiles (short side 768, long side 2048), gpt-4o-mini 2,833 + 5,667 a tile, all others at most 85 + 170 a tile;
  patch models up to gpt-5.5 at most 10,000 patches of 32 px (`original`), most of them 1,536 or 2,500; from gpt-5.6 on, `original` and
  `auto` resize nothing and the vendor refuses more than 30,000 patches ("exceeding the limit of 30000", github.com/Prism-Shadow/agenthub
  pull 194). A patch costs 1 to 2.46 tokens: gpt-5.6 1.2. Not verified: what a patch costs on gpt-6, and whether the 30,000 hold there;
  the dearest known factor stands for it, as for every name that we don't know. Anthropic, "Vision" (platform.claude.com, a stored
  copy): a token for each 28 x 28 px after scaling, at most 1,568 tokens, from Claude 4.7 on 4,784.
- Tools. Anthropic, "Tool use", table of Claude 3 to Opus 5 (quoted the same way): 159 to 804 hidden tokens when there are tools. Tools of
  the vendor's that the caller executes: computer 735 and 499 more of system prompt, text editor 700, bash 245. Not verified: the memory
  tool, models after Opus 5; the bounds below leave a quarter of room. That OpenAI's rendering of functions is no longer than their JSON
  is not documented; TOOLS covers its frame.
- Documents by base64: PDF text is compressed, so bytes bound nothing. The model's context window does, whatever a page costs: the vendor
  refuses what doesn't fit (`input_unknown`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

OVERHEAD = 128  # frames of roles, of the answer's start, of a system prompt
TOOLS = 1024
VENDOR_TOOL = 1536

_TILES_MINI = 2_833 + 5_667 * 8
_RESIZED = 24_600  # 10,000 patches at 2.46
_GPT_5_6 = 36_000  # 30,000 patches at 1.2
_LARGEST = 73_800  # 30,000 patches at 2.46
# Models that scale every image down, by tiles or to 10,000 patches or fewer.
_RESIZING = re.compile(r"gpt-4o|gpt-4\.|gpt-4-|gpt-5(?:\.[1-5])?(?:-|$)|o[134](?:-|$)|chatgpt-4o|computer-use|codex-mini")
ANTHROPIC_IMAGE = 5_000


def image_bound(model: str) -> int:
    """Tokens that one image can cost on this model; an unknown name (an alias) gets the largest."""
    bare = model.rpartition("/")[2].lower()
    if bare.startswith("claude-"):
        return ANTHROPIC_IMAGE
    if bare.startswith("gpt-4o-mini"):
        return _TILES_MINI
    if _RESIZING.match(bare):
        return _RESIZED
    return _GPT_5_6 if bare.startswith("gpt-5.6") else _LARGEST


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
