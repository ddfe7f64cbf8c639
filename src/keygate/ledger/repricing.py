"""What entries would cost at other prices. Pure: entries carry the price they were charged by and every token class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from keygate.ledger.model import TokenUsage


class PricedBy(Protocol):
    """A price: what a usage costs, and its id."""

    @property
    def id(self) -> str: ...

    def cost(self, usage: TokenUsage, tier: str | None = None) -> int: ...


class PriceFinder(Protocol):
    def find(self, vendor: str, model: str, at_ns: int, organization_id: str) -> PricedBy | None: ...


class Repriced(NamedTuple):
    request_id: str
    former_price_id: str | None
    former_nano: int | None  # None: it was recorded without a price
    price_id: str
    nano: int

    @property
    def difference_nano(self) -> int:
        return self.nano - (self.former_nano or 0)


def usage_of(entry: Any) -> TokenUsage:
    """The token classes of a row of the ledger."""
    return TokenUsage(
        input=entry.input_tokens,
        cache_read=entry.cache_read_tokens,
        cache_write=entry.cache_write_tokens,
        cache_write_1h=entry.cache_write_1h_tokens,
        output=entry.output_tokens,
        reasoning=entry.reasoning_tokens,
        input_audio=entry.input_audio_tokens,
        output_audio=entry.output_audio_tokens,
        web_searches=entry.web_searches,
    )


def reprice(entries: Iterable[Any], prices: PriceFinder) -> Iterator[Repriced]:
    """The entries whose cost differs at these prices. Left out: charges in doubt (their usage is not known), requests that failed
    without usage, and models that have no price."""
    for entry in entries:
        usage = usage_of(entry)
        if entry.in_doubt or not any(usage) or entry.price_id == "free":
            continue
        price = prices.find(entry.vendor, entry.model, entry.at_ns, entry.organization_id)
        if price is None:
            continue
        nano = price.cost(usage, entry.service_tier)
        if nano != entry.cost_nano:
            yield Repriced(entry.request_id, entry.price_id, entry.cost_nano, price.id, nano)
