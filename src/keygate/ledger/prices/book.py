"""Finding the price of a model: the operator's own rows first, then the shipped tables, loaded when a vendor is first asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import msgspec

from keygate.ledger.ports import PriceOverrides, PriceRow
from keygate.ledger.prices.matching import Matcher, dashed_dates
from keygate.ledger.prices.model import CLASSES, Price, RawRate, Tariff, tariff
from keygate.ledger.prices.outputs import max_output

_DAY_NS = 86_400_000_000_000
_NANO = 1_000_000_000
_CACHE = 4096  # names are the callers' choice: bounded
# Request members that pick a variant. KeyGate knows one word for all of them: the service tier.
_TIER_KEYS = frozenset({"service_tier", "speed"})
# Vendors whose prompt cache is only written where the caller marks it with `cache_control` (Anthropic). Every other vendor may write it
# unasked: OpenAI does "automatically for eligible requests", for 1.25 times the input's price from gpt-5.6 on (developers.openai.com,
# "Prompt caching", a stored copy read 2026-11-21). Not verified: what a write for 12 hours costs (`prompt_cache_options.ttl`; usage counts
# it apart), and any other vendor: the table's price of a write counts, where it has one.
_EXPLICIT_CACHE = frozenset({"anthropic"})
# Windows that the source rounds down, as a bound on input: gpt-4.1, gpt-4-32k by LiteLLM's table, gpt-5.5 by models.dev, 2026-11-21.
_WIDER = {"gpt-4.1": 1_047_576, "gpt-4.1-mini": 1_047_576, "gpt-4.1-nano": 1_047_576, "gpt-4-32k": 32_768} | dict.fromkeys(
    ("gpt-5.5", "gpt-5.5-pro"), 1_050_000
)


class ModelFacts(NamedTuple):
    """One entry of a vendor's table, for lists of models."""

    id: str
    context_window: int | None
    max_output: int | None
    priced: bool


class _Entry(msgspec.Struct):
    id: str
    match: list[Any]
    prices: list[tuple[Any, dict[str, RawRate] | None]]
    variants: list[tuple[dict[str, str], Any, dict[str, RawRate] | None]] = []
    window: int | None = None


class _Table(msgspec.Struct):
    source: str
    version: str
    vendor: str
    fallbacks: list[str]
    models: list[_Entry]


@dataclass(slots=True)
class _Vendor:
    table: _Table
    matcher: Matcher


_decode = msgspec.json.Decoder(_Table).decode


class PriceBook:
    """Promises: the same model and the same price as genai-prices gives for the moment of the request, from integers alone."""

    def __init__(self, overrides: PriceOverrides | None = None) -> None:
        self._overrides = overrides
        self._rows: list[tuple[re.Pattern[str], PriceRow]] = []
        self._vendors: dict[str, _Vendor | None] = {}
        self._found: dict[tuple[str, str, str | None], Price | None] = {}
        self.revision = 0
        self.reload()

    def reload(self) -> None:
        """Reads the operator's rows again; every price found from now on follows them."""
        rows = self._overrides.rows() if self._overrides else ()
        self._rows = [(_pattern(f"{row.vendor}/{row.model}"), row) for row in rows]
        self._found.clear()
        self.revision += 1

    def find(self, vendor: str, model: str, at_ns: int, organization_id: str | None = None) -> Price | None:
        """The price of `vendor`'s `model` for a request that begins at `at_ns`. None: no price is known, which is not free."""
        key = (vendor, model, organization_id if self._rows else None)
        try:
            price = self._found[key]
        except KeyError:
            pass
        else:
            if price is None or price.applies(at_ns):
                return price
        price = self._own(vendor, model, organization_id) or self._shipped(vendor, model, at_ns)
        if len(self._found) >= _CACHE:
            self._found.clear()
        if price is not None or self._entry(vendor, model.lower()) is None:
            self._found[key] = price
        return price

    def models(self, vendor: str) -> list[str]:
        """Bare names of this vendor's priced models, sorted; the operator's own rows that name one model included."""
        own = {row.model for _, row in self._rows if row.vendor == vendor and "*" not in row.model}
        return sorted(own.union(facts.id for facts in self.facts(vendor) if facts.priced))

    def context_window(self, vendor: str, model: str) -> int | None:
        """The most input tokens that one request of this model can have; None: not known."""
        found = self._entry(vendor, model.lower())
        return _WIDER.get(found[1].id, found[1].window) if found else None

    def facts(self, vendor: str) -> list[ModelFacts]:
        """What the vendor's table lists, in its order."""
        loaded = self._load(vendor)
        if loaded is None:
            return []
        return [
            ModelFacts(entry.id, entry.window, max_output(entry.id), any(prices for _, prices in entry.prices))
            for entry in loaded.table.models
        ]

    def _own(self, vendor: str, model: str, organization_id: str | None) -> Price | None:
        name = f"{vendor}/{model}".lower()
        for pattern, row in self._rows:
            if (row.organization_id is None or row.organization_id == organization_id) and pattern.fullmatch(name):
                rates: dict[str, RawRate] = {known: row.rates[known] for known in CLASSES if known in row.rates}
                shipped = self._entry(vendor, model.lower())
                window = shipped[1].window if shipped else None
                return Price(
                    f"own:{row.id or row.model}", tariff(rates), {}, window, max_output(model.lower()), vendor not in _EXPLICIT_CACHE
                )
        return None

    def _shipped(self, vendor: str, model: str, at_ns: int) -> Price | None:
        found = self._entry(vendor, model.lower())
        if found is None:
            return None
        table, entry, borrowed = found
        index, since, until = _active(entry, at_ns)
        rates = entry.prices[index][1]
        if rates is None:
            return None
        period = f"#{index}" if len(entry.prices) > 1 else ""
        tiers: dict[str, Tariff] = {}
        for context in () if borrowed else _contexts(entry):
            overlay: dict[str, RawRate] = {}
            for when, constraint, prices in entry.variants:
                if all(context.get(key) == value for key, value in when.items()) and _holds(constraint, at_ns):
                    for name, rate in (prices or {}).items():
                        overlay.setdefault(name, rate)
            if overlay:
                tiers[next(iter(context.values()))] = tariff({**rates, **overlay})
        return Price(
            f"{table.source}-{table.version}:{table.vendor}/{entry.id}{period}",
            tariff(rates),
            tiers,
            entry.window,
            max_output(model.lower()),
            vendor not in _EXPLICIT_CACHE,
            since,
            until,
        )

    def _entry(self, vendor: str, name: str) -> tuple[_Table, _Entry, bool] | None:
        loaded = self._load(vendor)
        if loaded is None:
            return None
        for spelling in dict.fromkeys((name, dashed_dates(name))):
            index = loaded.matcher.find(spelling)
            if index is not None:
                return loaded.table, loaded.table.models[index], False
            for fallback in loaded.table.fallbacks:
                other = self._load(fallback)
                index = other.matcher.find(spelling) if other else None
                if other is not None and index is not None:
                    return other.table, other.table.models[index], True
        return None

    def _load(self, vendor: str) -> _Vendor | None:
        if vendor not in self._vendors:
            loaded = None
            if vendor.replace("-", "").replace("_", "").isalnum():
                file = resources.files("keygate.ledger.prices").joinpath("data", f"{vendor}.json")
                if file.is_file():
                    table = _decode(file.read_bytes())
                    loaded = _Vendor(table, Matcher([entry.match for entry in table.models]))
            if loaded is None and len(self._vendors) > _CACHE:
                return None
            self._vendors[vendor] = loaded
        return self._vendors[vendor]


def _contexts(entry: _Entry) -> list[Mapping[str, str]]:
    seen: dict[tuple[str, str], None] = {}
    for when, _, _ in entry.variants:
        for key, value in when.items():
            if len(when) == 1 and (key in _TIER_KEYS or (key, value) == ("processing", "batch")):
                seen[key, value] = None
    return [{key: value} for key, value in seen]


def _active(entry: _Entry, at_ns: int) -> tuple[int, int, int | None]:
    """The index of the prices that apply at `at_ns` (the last one whose constraint holds, else the first), since when and until when."""
    chosen = 0
    for index in range(len(entry.prices) - 1, -1, -1):
        if _holds(entry.prices[index][0], at_ns):
            chosen = index
            break
    constraints = [constraint for constraint, _ in entry.prices] + [constraint for _, constraint, _ in entry.variants]
    changes = [change for constraint in constraints for change in _changes(constraint, at_ns)]
    since = max((change for change in changes if change <= at_ns), default=0)
    return chosen, since, min((change for change in changes if change > at_ns), default=None)


def _holds(constraint: Any, at_ns: int) -> bool:
    if constraint is None:
        return True
    if isinstance(constraint, int):
        return at_ns >= constraint
    start, end = constraint
    second = at_ns % _DAY_NS // _NANO
    if end < start:
        return bool(second >= start or second < end)
    return bool(start <= second < end)


def _changes(constraint: Any, at_ns: int) -> list[int]:
    """Instants around `at_ns` at which the constraint begins or ceases to hold."""
    if constraint is None:
        return []
    if isinstance(constraint, int):
        return [constraint]
    midnight = at_ns - at_ns % _DAY_NS
    return [midnight + day * _DAY_NS + second * _NANO for day in (-1, 0, 1) for second in constraint]


def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in glob.lower().split("*")), re.DOTALL)
