"""Compiles genai-prices into the flat integer tables that KeyGate ships: `python -m keygate.ledger.prices.compile`.

Runs at build time only; the server never imports genai-prices (36 MB and 0.7 s). The output is deterministic. Prices are
© Pydantic Services Inc., MIT licence; see NOTICE.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, time
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from keygate.ledger.prices.model import MILLION

DATA = Path(__file__).parent / "data"
NANO = 1_000_000_000

# Price keys of genai-prices → our class and the units that the price is for.
CLASS_OF = {
    "input_mtok": ("input", MILLION),
    "cache_read_mtok": ("cache_read", MILLION),
    "cache_write_mtok": ("cache_write", MILLION),
    "cache_write_1h_mtok": ("cache_write_1h", MILLION),
    "input_audio_mtok": ("input_audio", MILLION),
    "output_mtok": ("output", MILLION),
    "output_reasoning_mtok": ("reasoning", MILLION),
    "output_audio_mtok": ("output_audio", MILLION),
    "web_searches_kcount": ("web_search", 1000),
    "requests_kcount": ("request", 1000),
}
# Priced apart by the vendor but not told apart in what KeyGate reads: counted as the class they are part of, or (searches of files)
# a server-side tool, which a hard budget refuses anyway.
IGNORED = {"cache_audio_read_mtok", "storage_searches_kcount"}


def compile_all() -> dict[str, str]:
    """File name → content, for every vendor that genai-prices knows."""
    from genai_prices.data import providers  # noqa: PLC0415  (build time only)

    source = {"source": "genai-prices", "version": version("genai-prices")}
    files = {}
    for provider in sorted(providers, key=lambda provider: provider.id):
        models = [_model(model) for model in provider.models]
        table = {**source, "vendor": provider.id, "fallbacks": list(provider.fallback_model_providers or ()), "models": models}
        files[f"{provider.id}.json"] = _dump(table)
    return files


def _dump(table: dict[str, Any]) -> str:
    """One model a line, so that a change of prices reads well in a diff."""
    models = ",\n".join(json.dumps(model, separators=(",", ":"), sort_keys=True) for model in table["models"])
    head = json.dumps({key: value for key, value in table.items() if key != "models"}, separators=(",", ":"), sort_keys=True)
    return f'{head[:-1]},"models":[\n{models}\n]}}\n'


def _model(model: Any) -> dict[str, Any]:
    conditional = model.prices if isinstance(model.prices, list) else None
    compiled: dict[str, Any] = {"id": model.id, "match": _match(model.match)}
    if model.context_window:
        compiled["window"] = model.context_window
    if conditional is None:
        compiled["prices"] = [[None, _rates(model.prices)]]
    else:
        compiled["prices"] = [[_constraint(each.constraint), _rates(each.prices)] for each in conditional]
    if model.price_variants:
        compiled["variants"] = [[dict(each.when), _constraint(each.constraint), _rates(each.prices)] for each in model.price_variants]
    return compiled


def _rates(price: Any) -> dict[str, Any] | None:
    """None where the price depends on something that tokens do not bound: seconds, characters, pages, pixels, kinds of image."""
    rates: dict[str, Any] = {}
    for key, value in sorted(price.__dict__.items()):
        if value is None or key in IGNORED:
            continue
        if key not in CLASS_OF:
            return None
        name, per = CLASS_OF[key]
        if isinstance(value, Decimal):
            rates[name] = _integer(value, per)
        else:
            rates[name] = [_integer(value.base, per), *([tier.start, _integer(tier.price, per)] for tier in value.tiers)]
    return rates


def _integer(price: Decimal, per: int) -> int:
    """Nano-dollars per million, rounded up: a handful of entries carry the tail of a binary fraction (0.18000000000000002)."""
    return int((price * NANO * (MILLION // per)).to_integral_value(ROUND_CEILING))


def _constraint(constraint: Any) -> Any:
    """None: always. An integer: from this instant on. [start, end]: seconds of each day in UTC."""
    if constraint is None:
        return None
    if hasattr(constraint, "start_date"):
        day: date = constraint.start_date
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * NANO
    return [_seconds(constraint.start_time), _seconds(constraint.end_time)]


def _seconds(value: time) -> int:
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    moved = datetime.combine(date(1970, 1, 2), aware).astimezone(UTC)
    return moved.hour * 3600 + moved.minute * 60 + moved.second


def _match(clause: Any) -> list[Any]:
    for name, sign in (("equals", "="), ("starts_with", "^"), ("ends_with", "$"), ("contains", "*")):
        if hasattr(clause, name):
            return [sign, getattr(clause, name).lower()]
    if hasattr(clause, "regex"):
        return ["~", clause.regex]
    if hasattr(clause, "or_"):
        return ["|", *(_match(each) for each in clause.or_)]
    return ["&", *(_match(each) for each in clause.and_)]


def main() -> None:
    DATA.mkdir(exist_ok=True)
    files = compile_all()
    for stale in DATA.glob("*.json"):
        if stale.name not in files:
            stale.unlink()
    for name, content in files.items():
        (DATA / name).write_text(content)
    sys.stdout.write(f"{len(files)} vendors, {sum(map(len, files.values()))} bytes\n")


if __name__ == "__main__":
    main()
