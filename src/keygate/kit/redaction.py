"""What looks like a secret is blacked out of text that people wrote or libraries made. The last line of defence, behind `Secret`:
for a key that somebody pastes where an id belongs, and for traces."""

from __future__ import annotations

import re

# Ours; those of OpenAI, Anthropic, OpenRouter, DeepSeek …; xAI, Perplexity; Groq, Hugging Face, Fireworks; Google (both forms, and access
# tokens); Bedrock; Azure's 84 characters; the sandbox's; JSON web tokens; what follows `Bearer`; passwords in addresses.
_SHAPES = (
    r"\bokap_[0-9A-Za-z]{12,}",
    r"\bkg[a-z]_[0-9A-Za-z]{12,}",
    r"\bsk-[A-Za-z0-9_-]{12,}",
    r"\b(?:xai|pplx)-[A-Za-z0-9_-]{16,}",
    r"\b(?:gsk|hf|fw)_[0-9A-Za-z]{16,}",
    r"\bAIza[0-9A-Za-z_-]{16,}",
    r"\bAQ\.[0-9A-Za-z_-]{16,}",
    r"\bya29\.[0-9A-Za-z._-]{16,}",
    r"\bABSK[0-9A-Za-z+/=]{20,}",
    r"\b[0-9A-Za-z]{84}\b",
    r"\bsandbox-[a-z]+-[A-Za-z0-9_-]{12,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
    r"(?i:\bbearer\s+)[^\s\"',]{8,}",
    r"(?<=://)[^/@\s:]+:[^/@\s]+(?=@)",
)
_OURS = re.compile(r"sk-kg-|okap_|kg[a-z]_")
_LOOKS_SECRET = re.compile("|".join(_SHAPES))


def redact(text: str) -> str:
    return _LOOKS_SECRET.sub("[redacted]", text)


def of_ours(text: str) -> bool:
    """Whether this begins as KeyGate's own tokens do, and so is nobody else's key."""
    return _OURS.match(text) is not None
