"""How many tokens an answer has, where nobody set it. A rule that tests can repeat, not a tokenizer:

- input: a quarter of the prompt's UTF-8 bytes, rounded up, and three for each message; never more than the body has bytes.
- output: as many as the sentence below has words, or `output_tokens`; the caller's maximum and the model's own cut it.
- text: one word a token. A stream has `chunks` pieces (default: eight, or one per token if there are fewer).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import cycle, islice
from typing import Any

WORDS = ("This", "answer", "comes", "from", "the", "sandbox", "of", "KeyGate:", "no", "vendor", "was", "asked,", "nothing", "was", "paid.")
DEFAULT_CHUNKS = 8


def input_tokens(text_bytes: int, messages: int, *, body_bytes: int) -> int:
    return max(1, min(-(-text_bytes // 4) + 3 * messages, body_bytes))


@lru_cache(maxsize=256)
def text_of(tokens: int) -> str:
    return " ".join(islice(cycle(WORDS), tokens))


@lru_cache(maxsize=256)
def pieces_of(text: str, tokens: int, chunks: int | None) -> tuple[tuple[str, int], ...]:
    """`text` in pieces, each with the tokens that it stands for; texts join to `text`, tokens add up to `tokens`."""
    count = min(DEFAULT_CHUNKS, max(tokens, 1)) if chunks is None else max(chunks, 1)
    length = len(text)
    return tuple(
        (text[length * i // count : length * (i + 1) // count], tokens * (i + 1) // count - tokens * i // count) for i in range(count)
    )


def example_of(schema: Any, depth: int = 0) -> Any:
    """The smallest value that fits a JSON schema as tools and structured outputs use them (no references)."""
    if not isinstance(schema, dict) or depth > 20:
        return None
    if schema.get("enum"):
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return example_of(schema[union][0], depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    match kind:
        case "string":
            return "sandbox"
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return [example_of(schema.get("items"), depth + 1)]
        case "null":
            return None
        case _:
            properties = schema.get("properties")
            properties = properties if isinstance(properties, dict) else {}
            needed = schema.get("required", properties)
            return {name: example_of(properties.get(name), depth + 1) for name in needed if isinstance(name, str)}
