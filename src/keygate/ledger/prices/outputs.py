"""The longest answer a model gives, where it is known. Only used to choose a maximum for a caller who set none.

The gateway chooses `UNKNOWN` at most, so what counts here is which models give less: a value that is too low shortens nothing that a caller
asked for, one that is too high makes the vendor refuse the request. Where sources differ, the lower value stands.

Sources, read 2026-11-21: LiteLLM's model_prices_and_context_window.json (gpt-3.5, gpt-4, gpt-4-32k, gpt-4.1, gpt-4o, gpt-audio, gpt-5 to
5.2, gpt-5.1-chat, Claude 4 and 4.5), its entry for Azure's computer-use; models.dev (gpt-4: 8,192 where LiteLLM has 4,096; gpt-5-pro,
gpt-5.3-chat, gpt-5.4, gpt-5.5, gpt-6, o1, o3-mini, Claude Haiku 5.5); Anthropic's own catalogue (github.com/anthropics/skills,
claude-api/shared/models.md: Claude 4.5 to 5.1). Not verified, chosen low: chatgpt-4o, gpt-4.5, gpt-5-chat, gpt-5.2-chat, gpt-5-search,
Claude 2 and 3; of davinci-002 and babbage-002 one copy says 4,096. Not verified, and without effect because they are above `UNKNOWN`: the
other o models, codex-mini, Claude Opus and Sonnet 5.5.
"""

from __future__ import annotations

UNKNOWN = 16_384

# (prefix of the model's name, tokens); the first that fits wins.
_KNOWN: tuple[tuple[str, int], ...] = (
    ("gpt-3.5", 4_096),
    ("gpt-4o-2024-05-13", 4_096),
    ("gpt-4o-realtime", 4_096),
    ("gpt-4o-mini-realtime", 4_096),
    ("gpt-4o", 16_384),
    ("gpt-4.1", 32_768),
    ("gpt-4.5", 16_384),
    ("gpt-4", 4_096),
    ("chatgpt-4o", 4_096),
    ("gpt-audio", 16_384),
    ("gpt-5-chat", 16_384),
    ("gpt-5.1-chat", 16_384),
    ("gpt-5.2-chat", 16_384),
    ("gpt-5.3-chat", 8_192),
    ("gpt-5-search", 16_384),
    ("gpt-5-pro", 272_000),
    ("gpt-5", 128_000),
    ("gpt-6", 128_000),
    ("o1-preview", 32_768),
    ("o1-mini", 65_536),
    ("o1", 100_000),
    ("o3", 100_000),
    ("o4", 100_000),
    ("codex-mini", 100_000),
    ("computer-use", 1_024),
    ("davinci-002", 4_096),
    ("babbage-002", 4_096),
    ("claude-2", 4_096),
    ("claude-3-haiku", 4_096),
    ("claude-3-opus", 4_096),
    ("claude-3-sonnet", 4_096),
    ("claude-3-5-sonnet-20240620", 4_096),
    ("claude-3-5", 8_192),
    ("claude-3-7", 64_000),
    ("claude-opus-4-1", 32_000),
    ("claude-opus-4-0", 32_000),
    ("claude-opus-4-2025", 32_000),
    ("claude-opus-4-5", 64_000),
    ("claude-sonnet-4-6", 128_000),
    ("claude-sonnet-4", 64_000),
    ("claude-haiku-4", 64_000),
    ("claude-opus", 128_000),
    ("claude-sonnet-5", 128_000),
    ("claude-haiku-5", 128_000),
    ("claude-fable-5", 128_000),
    ("claude-mythos-5", 128_000),
)


def max_output(model: str) -> int | None:
    """By the name as the vendor has it; a fine-tuned model (`ft:…`) gives what the model under it gives."""
    bare = model.removeprefix("ft:")
    for prefix, tokens in _KNOWN:
        if bare.startswith(prefix):
            return tokens
    return None
