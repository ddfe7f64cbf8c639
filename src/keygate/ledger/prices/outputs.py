"""The longest answer a model gives, where it is known. Only used to choose a maximum for a caller who set none.

Source: the vendors' model pages (platform.openai.com/docs/models, docs.claude.com "Models overview"), checked 2026-11-21. A value that
is too low shortens nothing that a caller asked for; one that is too high makes the vendor refuse the request, so the unknown is modest.
"""

from __future__ import annotations

UNKNOWN = 16_384

# (prefix of the model's name, tokens); the first that fits wins.
_KNOWN: tuple[tuple[str, int], ...] = (
    ("gpt-3.5", 4_096),
    ("gpt-4-32k", 8_192),
    ("gpt-4-turbo", 4_096),
    ("gpt-4-1106", 4_096),
    ("gpt-4-0125", 4_096),
    ("gpt-4-vision", 4_096),
    ("gpt-4o-2024-05-13", 4_096),
    ("gpt-4o", 16_384),
    ("gpt-4.1", 32_768),
    ("gpt-4", 8_192),
    ("gpt-5", 128_000),
    ("o1-preview", 32_768),
    ("o1-mini", 65_536),
    ("o1", 100_000),
    ("o3", 100_000),
    ("o4", 100_000),
    ("davinci-002", 4_096),
    ("babbage-002", 4_096),
    ("claude-3-haiku", 4_096),
    ("claude-3-opus", 4_096),
    ("claude-3-sonnet", 4_096),
    ("claude-3-5", 8_192),
    ("claude-3-7", 64_000),
    ("claude-opus-4-1", 32_000),
    ("claude-opus-4-0", 32_000),
    ("claude-opus-4-2025", 32_000),
    ("claude-opus", 64_000),
    ("claude-sonnet", 64_000),
    ("claude-haiku", 64_000),
)


def max_output(model: str) -> int | None:
    for prefix, tokens in _KNOWN:
        if model.startswith(prefix):
            return tokens
    return None
