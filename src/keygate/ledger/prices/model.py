"""What a model costs, as integers. Pure.

A rate is nano-dollars per million units (tokens, searches, requests), so every published price is an exact integer and a cost is one
sum of products, rounded up to the nano-dollar once at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from keygate.ledger.model import TokenUsage

MILLION = 1_000_000

# Classes that a vendor may price apart, in the order of `Rates`. Where one has no price of its own, its tokens cost what the class
# behind the arrow costs: they are part of it.
PARENTS: tuple[tuple[str, str | None], ...] = (
    ("input", None),
    ("cache_read", "input"),
    ("cache_write", "input"),
    ("cache_write_1h", "cache_write"),
    ("input_audio", "input"),
    ("output", None),
    ("reasoning", "output"),
    ("output_audio", "output"),
    ("web_search", None),
    ("request", None),
)
CLASSES = tuple(name for name, _ in PARENTS)

# A rate as shipped: one integer, or [base, [start, rate], …]: above `start` input tokens, all tokens of the class cost `rate`.
RawRate = int | list[int | list[int]]


class Rates(NamedTuple):
    """Nano-dollars per million of each class."""

    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    input_audio: int
    output: int
    reasoning: int
    output_audio: int
    web_search: int
    request: int


class Ceiling(NamedTuple):
    """Nano-dollars per million that no token of a direction can exceed."""

    input: int
    output: int
    request: int

    def nano(self, input_tokens: int, output_tokens: int) -> int:
        return -(-(input_tokens * self.input + output_tokens * self.output + self.request) // MILLION)

    def affordable_output(self, nano: int, input_tokens: int) -> int | None:
        """The most output tokens whose bound is at most `nano`; negative when the input alone costs more; None: output is free."""
        rest = nano * MILLION - input_tokens * self.input - self.request
        if self.output:
            return rest // self.output
        return None if rest >= 0 else -1


@dataclass(frozen=True, slots=True)
class Band:
    """The rates that apply above `start` input tokens."""

    start: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Tariff:
    """The bands of one service tier, ascending; the first starts at -1."""

    bands: tuple[Band, ...]

    @property
    def measures_searches(self) -> bool:
        """Whether web searches that the usage counts have a price here."""
        return self.bands[0].rates.web_search > 0

    def cost(self, usage: TokenUsage) -> int:
        """What `usage` costs in nano-dollars, rounded up. Reasoning is part of output and cached tokens are part of input: never twice."""
        whole, read, write, write_1h, output, reasoning, heard, spoken, searches = usage
        band = self.bands[0]
        if len(self.bands) > 1:
            for candidate in self.bands:
                if whole > candidate.start:
                    band = candidate
        rates = band.rates
        total = searches * rates.web_search + rates.request
        if read or write or write_1h or heard:
            total += read * rates.cache_read + write * rates.cache_write + write_1h * rates.cache_write_1h + heard * rates.input_audio
            whole = max(whole - read - write - write_1h - heard, 0)
        if reasoning or spoken:
            total += reasoning * rates.reasoning + spoken * rates.output_audio
            output = max(output - reasoning - spoken, 0)
        return -(-(total + whole * rates.input + output * rates.output) // MILLION)

    def ceiling(self, input_tokens: int, cache_write_possible: bool) -> Ceiling:
        reachable = [band.rates for band in self.bands if band.start < input_tokens or band.start < 0]
        dearest_input = 0
        for rates in reachable:
            dearest_input = max(dearest_input, rates.input, rates.cache_read, rates.input_audio)
            if cache_write_possible:
                dearest_input = max(dearest_input, rates.cache_write, rates.cache_write_1h)
        output = max(max(rates.output, rates.reasoning, rates.output_audio) for rates in reachable)
        return Ceiling(dearest_input, output, max(rates.request for rates in reachable))


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one model at one time, all service tiers of it.

    `id` names source, version, vendor, model and period, so that a ledger entry can be priced again. Valid in [`since_ns`, `until_ns`).
    """

    id: str
    standard: Tariff
    tiers: Mapping[str, Tariff] = field(default_factory=dict)
    context_window: int | None = None
    max_output: int | None = None
    implicit_cache_writes: bool = True  # the vendor writes its cache without being asked
    since_ns: int = 0
    until_ns: int | None = None

    def applies(self, at_ns: int) -> bool:
        return self.since_ns <= at_ns and (self.until_ns is None or at_ns < self.until_ns)

    def cost(self, usage: TokenUsage, tier: str | None = None) -> int:
        """Nano-dollars for `usage` as served in `tier` (None, or one without a price of its own: the standard price)."""
        return (self.tiers.get(tier, self.standard) if tier else self.standard).cost(usage)

    def ceiling(self, input_tokens: int, *, cache_write_possible: bool = False, tier: str | None = None) -> Ceiling:
        """Rates that no usage of at most `input_tokens` can exceed, however it is split into classes.

        A caller who names no tier (or `auto`) leaves the choice to the vendor's project settings, so every tier counts; one who names
        a tier may be served in it or at the standard price.
        """
        writes = cache_write_possible or self.implicit_cache_writes
        ceiling = self.standard.ceiling(input_tokens, writes)
        if not self.tiers:
            return ceiling
        if tier is None or tier == "auto":
            others = [tariff for name, tariff in self.tiers.items() if name != "batch"]
        else:
            named = self.tiers.get(tier)
            others = [named] if named else []
        for tariff in others:
            other = tariff.ceiling(input_tokens, writes)
            ceiling = Ceiling(max(ceiling.input, other.input), max(ceiling.output, other.output), max(ceiling.request, other.request))
        return ceiling

    def upper_bound(self, input_tokens: int, output_tokens: int, *, cache_write_possible: bool = False, tier: str | None = None) -> int:
        """Nano-dollars; never less than `cost` of any usage within these bounds (server-side tools apart)."""
        return self.ceiling(input_tokens, cache_write_possible=cache_write_possible, tier=tier).nano(input_tokens, output_tokens)


def tariff(raw: Mapping[str, RawRate]) -> Tariff:
    """The bands of shipped rates, with every class filled from the one it is part of."""
    filled: dict[str, RawRate] = {}
    for name, parent in PARENTS:
        filled[name] = raw[name] if name in raw else (filled[parent] if parent else 0)
    starts = {-1}
    for rate in filled.values():
        if isinstance(rate, list):
            starts.update(step[0] for step in rate[1:] if isinstance(step, list))
    return Tariff(tuple(Band(start, Rates(*(_at(filled[name], start) for name in CLASSES))) for start in sorted(starts)))


def _at(rate: RawRate, start: int) -> int:
    if isinstance(rate, int):
        return rate
    found = rate[0]
    for step in rate[1:]:
        if isinstance(step, list) and step[0] <= start:
            found = step[1]
    if isinstance(found, list):
        raise TypeError("a rate begins with its base")
    return found
