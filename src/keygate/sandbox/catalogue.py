"""The models that the sandbox serves: real names, so that prices are real.

Names are those of `genai-prices`; a test asks it for a price of each. `max_output` is the vendor's maximum as far as it is known: asking
for more is a 400 there, so it is one here. Sources, read 2026-11-21: LiteLLM's model_prices_and_context_window.json, models.dev and, for
Claude, github.com/anthropics/skills (claude-api/shared/models.md). Not verified: o1-pro, o3, o3-pro, o4-mini, Claude 3, the legacy
completion models. None: no source says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from keygate.sandbox.model import Vendor


class Use(StrEnum):
    CHAT = "chat"  # chat completions and responses, or messages
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MODERATIONS = "moderations"


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    vendor: Vendor
    use: Use = Use.CHAT
    max_output: int | None = None
    dimensions: int = 0
    reasons: bool = False  # takes `max_completion_tokens` only: `max_tokens` is a 400


_OPENAI_CHAT: dict[str, int | None] = {
    "gpt-3.5-turbo": 4_096,
    "gpt-4": 8_192,
    "gpt-4-turbo": 4_096,
    "gpt-4o": 16_384,
    "gpt-4o-mini": 16_384,
    "gpt-4.1": 32_768,
    "gpt-4.1-mini": 32_768,
    "gpt-4.1-nano": 32_768,
    "o1": 100_000,
    "o1-pro": 100_000,
    "o3": 100_000,
    "o3-mini": 100_000,
    "o3-pro": 100_000,
    "o4-mini": 100_000,
    "gpt-5": 128_000,
    "gpt-5-mini": 128_000,
    "gpt-5-nano": 128_000,
    "gpt-5-pro": 272_000,
    "gpt-5.1": 128_000,
    "gpt-5.2": 128_000,
    "gpt-5.4": 128_000,
    "gpt-5.5": 128_000,
    "gpt-6-luna": 128_000,
    "gpt-6-sol": 128_000,
    "gpt-6.1-sol": None,
}
_ANTHROPIC: dict[str, int | None] = {
    "claude-3-haiku": 4_096,
    "claude-3-5-haiku": 8_192,
    "claude-3-7-sonnet": 64_000,
    "claude-opus-4": 32_000,
    "claude-opus-4-1": 32_000,
    "claude-sonnet-4": 64_000,
    "claude-sonnet-4-5": 64_000,
    "claude-haiku-4-5": 64_000,
    "claude-opus-4-5": 64_000,
    "claude-opus-4-6": 128_000,
    "claude-opus-4-7": 128_000,
    "claude-opus-4-8": 128_000,
    "claude-sonnet-4-6": 128_000,
    "claude-sonnet-5": 128_000,
    "claude-sonnet-5-5": None,
    "claude-haiku-5-5": 128_000,
    "claude-opus-5": 128_000,
    "claude-opus-5-5": None,
}
_GOOGLE: dict[str, int | None] = {
    "gemini-2.0-flash": 8_192,
    "gemini-2.5-flash": 65_536,
    "gemini-2.5-flash-lite": 65_536,
    "gemini-2.5-pro": 65_536,
    "gemini-3.5-flash": None,
}
_OPENROUTER = ("openai/gpt-4.1-mini", "openai/gpt-5-mini", "anthropic/claude-sonnet-4.5", "anthropic/claude-haiku-4.5")
_XAI = ("grok-3", "grok-3-mini", "grok-4-0709", "grok-4-fast-reasoning")
_REASONS = re.compile(r"o\d|gpt-[5-9]")

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        *(Model(name, Vendor.OPENAI, max_output=most, reasons=bool(_REASONS.match(name))) for name, most in _OPENAI_CHAT.items()),
        Model("gpt-3.5-turbo-instruct", Vendor.OPENAI, Use.COMPLETIONS, 4_096),
        Model("davinci-002", Vendor.OPENAI, Use.COMPLETIONS, 16_384),
        Model("babbage-002", Vendor.OPENAI, Use.COMPLETIONS, 16_384),
        Model("text-embedding-3-small", Vendor.OPENAI, Use.EMBEDDINGS, dimensions=1536),
        Model("text-embedding-3-large", Vendor.OPENAI, Use.EMBEDDINGS, dimensions=3072),
        Model("text-embedding-ada-002", Vendor.OPENAI, Use.EMBEDDINGS, dimensions=1536),
        Model("omni-moderation-latest", Vendor.OPENAI, Use.MODERATIONS),
        Model("text-moderation-latest", Vendor.OPENAI, Use.MODERATIONS),
        *(Model(name, Vendor.ANTHROPIC, max_output=most) for name, most in _ANTHROPIC.items()),
        *(Model(name, Vendor.OPENROUTER) for name in _OPENROUTER),
        *(Model(name, Vendor.GOOGLE, max_output=most) for name, most in _GOOGLE.items()),
        *(Model(name, Vendor.XAI) for name in _XAI),
    )
}
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest|0)$")


_HOSTED = {Vendor.AZURE: Vendor.OPENAI, Vendor.BEDROCK: Vendor.ANTHROPIC}  # clouds, and whose models they serve here
_ON_BEDROCK = re.compile(r"(?:(?:us|eu|apac|jp|au|global)\.)?anthropic\.(.+?)(?:-v\d+(?::\d+)?)?")


def find(models: dict[str, Model], vendor: Vendor, name: str) -> Model | None:
    """The model of this name, or of the name without its date or `-latest`, that the vendor has. Bedrock names it
    `us.anthropic.claude-…-20250929-v1:0`."""
    if vendor is Vendor.BEDROCK:
        found = _ON_BEDROCK.fullmatch(name)
        if found is None:
            return None
        name = found[1]
    vendor = _HOSTED.get(vendor, vendor)
    model = models.get(name) or models.get(_DATED.sub("", name))
    return model if model is not None and model.vendor is vendor else None
