"""What the sandbox vendor charges: the real prices, so that its bill and KeyGate's ledger can be held against each other.

Standard tier, lowest band of context; genai-prices 0.2.3, read 2026-11-26. A test compares each with genai-prices. Cache writes of an
hour cost twice the input at Anthropic (its prompt caching page, as public copies have it; not verified), elsewhere what others cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from keygate.sandbox.catalogue import Model, find
from keygate.sandbox.model import Usage, Vendor

_MICRO = 10**6  # dollars a million tokens → pico-dollars a token


@dataclass(frozen=True, slots=True)
class Price:
    """Pico-dollars a token, by class."""

    input: int
    cache_read: int
    cache_write: int
    output: int

    @classmethod
    def of(cls, input_: str, cache_read: str, cache_write: str, output: str) -> Self:
        """From dollars a million tokens."""
        return cls(*(int(Decimal(each) * _MICRO) for each in (input_, cache_read, cache_write, output)))

    def parts_pico(self, usage: Usage) -> dict[str, int]:
        """The cost by class of token."""
        plain = usage.input - usage.cache_read - usage.cache_write - usage.cache_write_1h
        return {
            "input": plain * self.input,
            "cache_read": usage.cache_read * self.cache_read,
            "cache_write": usage.cache_write * self.cache_write,
            "cache_write_1h": usage.cache_write_1h * max(self.cache_write, 2 * self.input if self.cache_write > self.input else 0),
            "output": usage.output * self.output,
        }

    def cost_pico(self, usage: Usage) -> int:
        return sum(self.parts_pico(usage).values())


UNLISTED = Price.of("1", "0.1", "1.25", "5")  # models that a test adds

_PRICES: dict[str, Price] = {
    "gpt-3.5-turbo": Price.of("0.5", "0.5", "0.5", "1.5"),
    "gpt-4": Price.of("30", "30", "30", "60"),
    "gpt-4-turbo": Price.of("10", "10", "10", "30"),
    "gpt-4o": Price.of("2.5", "1.25", "2.5", "10"),
    "gpt-4o-mini": Price.of("0.15", "0.075", "0.15", "0.6"),
    "gpt-4.1": Price.of("2", "0.5", "2", "8"),
    "gpt-4.1-mini": Price.of("0.4", "0.1", "0.4", "1.6"),
    "gpt-4.1-nano": Price.of("0.1", "0.025", "0.1", "0.4"),
    "o1": Price.of("15", "7.5", "15", "60"),
    "o1-pro": Price.of("150", "150", "150", "600"),
    "o3": Price.of("2", "0.5", "2", "8"),
    "o3-mini": Price.of("1.1", "0.55", "1.1", "4.4"),
    "o3-pro": Price.of("20", "20", "20", "80"),
    "o4-mini": Price.of("1.1", "0.275", "1.1", "4.4"),
    "gpt-5": Price.of("1.25", "0.125", "1.25", "10"),
    "gpt-5-mini": Price.of("0.25", "0.025", "0.25", "2"),
    "gpt-5-nano": Price.of("0.05", "0.005", "0.05", "0.4"),
    "gpt-5-pro": Price.of("15", "15", "15", "120"),
    "gpt-5.1": Price.of("1.25", "0.125", "1.25", "10"),
    "gpt-5.2": Price.of("1.75", "0.175", "1.75", "14"),
    "gpt-5.4": Price.of("2.5", "0.25", "2.5", "15"),
    "gpt-5.5": Price.of("5", "0.5", "5", "30"),
    "gpt-6-luna": Price.of("0.1", "0.01", "0.125", "0.5"),
    "gpt-6-sol": Price.of("2", "0.2", "2.5", "10"),
    "gpt-6.1-sol": Price.of("2", "0.1", "2.5", "10"),
    "gpt-3.5-turbo-instruct": Price.of("1.5", "1.5", "1.5", "2"),
    "davinci-002": Price.of("2", "2", "2", "2"),
    "babbage-002": Price.of("0.4", "0.4", "0.4", "0.4"),
    "text-embedding-3-small": Price.of("0.02", "0.02", "0.02", "0"),
    "text-embedding-3-large": Price.of("0.13", "0.13", "0.13", "0"),
    "text-embedding-ada-002": Price.of("0.1", "0.1", "0.1", "0"),
    "claude-3-haiku": Price.of("0.25", "0.03", "0.3", "1.25"),
    "claude-3-5-haiku": Price.of("0.8", "0.08", "1", "4"),
    "claude-3-7-sonnet": Price.of("3", "0.3", "3.75", "15"),
    "claude-opus-4": Price.of("15", "1.5", "18.75", "75"),
    "claude-opus-4-1": Price.of("15", "1.5", "18.75", "75"),
    "claude-sonnet-4": Price.of("3", "0.3", "3.75", "15"),
    "claude-sonnet-4-5": Price.of("3", "0.3", "3.75", "15"),
    "claude-haiku-4-5": Price.of("1", "0.1", "1.25", "5"),
    "claude-opus-4-5": Price.of("5", "0.5", "6.25", "25"),
    "claude-opus-4-6": Price.of("5", "0.5", "6.25", "25"),
    "claude-opus-4-7": Price.of("5", "0.5", "6.25", "25"),
    "claude-opus-4-8": Price.of("5", "0.5", "6.25", "25"),
    "claude-sonnet-4-6": Price.of("3", "0.3", "3.75", "15"),
    "claude-sonnet-5": Price.of("2", "0.2", "2.5", "10"),
    "claude-sonnet-5-5": Price.of("2", "0.1", "2.5", "10"),
    "claude-haiku-5-5": Price.of("0.1", "0.01", "0.125", "0.5"),
    "claude-opus-5": Price.of("5", "0.5", "6.25", "25"),
    "claude-opus-5-5": Price.of("4", "0.2", "5", "20"),
    "gemini-2.0-flash": Price.of("0.1", "0.025", "0.1", "0.4"),
    "gemini-2.5-flash": Price.of("0.3", "0.03", "0.3", "2.5"),
    "gemini-2.5-flash-lite": Price.of("0.1", "0.01", "0.1", "0.4"),
    "gemini-2.5-pro": Price.of("1.25", "0.125", "1.25", "10"),
    "gemini-3.5-flash": Price.of("1.5", "0.15", "1.5", "9"),
    "openai/gpt-4.1-mini": Price.of("0.4", "0.1", "0.4", "1.6"),
    "openai/gpt-5-mini": Price.of("0.25", "0.025", "0.25", "2"),
    "anthropic/claude-sonnet-4.5": Price.of("3", "0.3", "3.75", "15"),
    "anthropic/claude-haiku-4.5": Price.of("1", "0.1", "1.25", "5"),
    "grok-3": Price.of("3", "0.75", "3", "15"),
    "grok-3-mini": Price.of("0.3", "0.075", "0.3", "0.5"),
    "grok-4-0709": Price.of("3", "0.75", "3", "15"),
    "grok-4-fast-reasoning": Price.of("0.2", "0.05", "0.2", "0.5"),
    "omni-moderation-latest": Price.of("0", "0", "0", "0"),
    "text-moderation-latest": Price.of("0", "0", "0", "0"),
}


def price_of(models: dict[str, Model], vendor: Vendor, name: str) -> Price:
    """The price of a model by the name that a caller asked for, dated or not."""
    model = find(models, vendor, name)
    return _PRICES.get(model.name, UNLISTED) if model is not None else UNLISTED
