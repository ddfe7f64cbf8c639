"""Prices: the shipped tables say what genai-prices says, in integers, and a bound is never below a cost."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal

import genai_prices.data
import pytest
from genai_prices import Usage, calc_price
from hypothesis import given, settings
from hypothesis import strategies as st

from keygate.kit.clock import to_ns
from keygate.ledger import TokenUsage
from keygate.ledger.ports import PriceRow
from keygate.ledger.prices import PriceBook
from keygate.ledger.prices.compile import DATA, compile_all

PROVIDERS = {provider.id: provider for provider in genai_prices.data.providers}
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MOMENTS = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 3, 12, 23, 59, 59, tzinfo=UTC), datetime(2026, 3, 13, tzinfo=UTC), NOW)
BOOK = PriceBook()


def test_shipped_tables_are_what_the_locked_genai_prices_compiles_to() -> None:
    assert {path.name: path.read_text() for path in DATA.glob("*.json")} == compile_all()


def test_shipped_tables_are_small() -> None:
    assert sum(path.stat().st_size for path in DATA.glob("*.json")) < 1_000_000


def theirs(vendor: str, model: str, usage: TokenUsage, at: datetime, context: dict[str, str] | None = None) -> int:
    reported = Usage(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write + usage.cache_write_1h,
        cache_write_1h_tokens=usage.cache_write_1h,
        cache_audio_read_tokens=0,
        cache_audio_write_tokens=0,
        cache_audio_write_1h_tokens=0,
        input_audio_tokens=usage.input_audio,
        output_audio_tokens=usage.output_audio,
        output_audio_reasoning_tokens=0,
        output_reasoning_tokens=usage.reasoning,
        web_searches=usage.web_searches,
    )
    price = calc_price(reported, model, provider_id=vendor, genai_request_timestamp=at, price_context=context)
    return int((price.total_price * 10**9).to_integral_value(ROUND_CEILING))


def random_usage(pick: random.Random) -> TokenUsage:
    scale = pick.choice((10, 1_000, 99_999, 100_001, 199_999, 200_001, 272_000, 272_001, 900_000))
    total = pick.choice((scale, pick.randint(0, scale)))
    read = pick.randint(0, total) if pick.random() < 0.6 else 0
    write = pick.randint(0, total - read) if pick.random() < 0.5 else 0
    hour = pick.randint(0, total - read - write) if pick.random() < 0.5 else 0
    audio = pick.randint(0, total) if read == write == hour == 0 and pick.random() < 0.3 else 0
    output = pick.randint(0, 70_000)
    reasoning = pick.randint(0, output) if pick.random() < 0.5 else 0
    spoken = pick.randint(0, output) if reasoning == 0 and pick.random() < 0.2 else 0
    return TokenUsage(total, read, write, hour, output, reasoning, audio, spoken, pick.choice((0, 0, 3)))


@pytest.mark.parametrize("vendor", sorted(PROVIDERS))
def test_cost_equals_genai_prices_rounded_up_for_every_model(vendor: str) -> None:
    pick = random.Random(vendor)
    exact = vendor in {"openai", "anthropic", "google", "mistral", "cohere", "deepseek"}
    compared = 0
    for model in PROVIDERS[vendor].models:
        for at in MOMENTS if exact else MOMENTS[-1:]:
            name = model.id
            price = BOOK.find(vendor, name, to_ns(at))
            if price is None:
                continue
            for _ in range(3):
                usage = random_usage(pick)
                try:
                    expected = theirs(vendor, name, usage, at)
                except (LookupError, ValueError):
                    continue  # kinds of audio that genai-prices wants told apart
                assert abs(price.cost(usage) - expected) <= (0 if exact else 1), (vendor, name, usage, price.id)
                compared += 1
    assert compared or all(BOOK.find(vendor, model.id, to_ns(NOW)) is None for model in PROVIDERS[vendor].models)


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_cost_of_each_service_tier_equals_genai_prices(vendor: str) -> None:
    pick = random.Random(7)
    seen = set()
    for model in PROVIDERS[vendor].models:
        for variant in model.price_variants or ():
            for at in MOMENTS:
                price = BOOK.find(vendor, model.id, to_ns(at))
                if price is None:
                    continue
                tier = next(iter(variant.when.values()))
                seen.add(tier)
                usage = random_usage(pick)
                assert price.cost(usage, tier) == theirs(vendor, model.id, usage, at, dict(variant.when))
    assert {"openai": {"flex", "priority", "batch"}, "anthropic": {"fast", "batch"}}[vendor] <= seen


def names() -> list[tuple[str, str]]:
    """Every id and exact name, with the endings that callers and proxies put on them."""
    found = []

    def texts(clause: object) -> list[str]:
        for attribute in ("equals", "starts_with", "ends_with", "contains"):
            if hasattr(clause, attribute):
                return [getattr(clause, attribute)]
        return [text for inner in getattr(clause, "or_", getattr(clause, "and_", ())) for text in texts(inner)]

    for vendor in ("openai", "anthropic", "google", "mistral", "azure", "aws", "openrouter", "x-ai"):
        for model in PROVIDERS[vendor].models:
            for text in {model.id, *texts(model.match)}:
                found += [
                    (vendor, text + end) for end in ("", "-latest", "-20251211", "-2025-12-11", "@20250805", "-20259999", "-mini", "x")
                ]
                found.append((vendor, text.upper()))
    found += [("openai", name) for name in ("", "gpt-6-imaginary", "\u212a", "a" * 300, "../../etc/passwd")]
    return found


def test_names_mean_the_same_model_as_in_genai_prices() -> None:
    compared = 0
    for vendor, name in names():
        model = PROVIDERS[vendor].find_model(name, all_providers=list(PROVIDERS.values()))
        entry = BOOK._entry(vendor, name.lower())
        assert (entry[1].id if entry else None) == (model.id if model else None), (vendor, name)
        compared += 1
    assert compared > 10_000


def test_unknown_models_and_vendors_have_no_price() -> None:
    assert BOOK.find("openai", "gpt-6-imaginary", to_ns(NOW)) is None
    assert BOOK.find("nobody", "gpt-4.1", to_ns(NOW)) is None
    assert BOOK.find("../secrets", "x", to_ns(NOW)) is None


def test_what_tokens_do_not_bound_has_no_price() -> None:
    assert BOOK.find("openai", "whisper-1", to_ns(NOW)) is None
    assert BOOK.find("openai", "gpt-image-1", to_ns(NOW)) is None


def test_prices_change_at_their_start_date_not_before() -> None:
    before = BOOK.find("anthropic", "claude-opus-4-6", to_ns(MOMENTS[1]))
    after = BOOK.find("anthropic", "claude-opus-4-6", to_ns(MOMENTS[2]))
    usage = TokenUsage(input=300_000, output=10)
    assert before is not None
    assert after is not None
    assert before.id != after.id
    assert before.cost(usage) == 300_000 * 10_000 + 10 * 37_500
    assert after.cost(usage) == 300_000 * 5_000 + 10 * 25_000


MODELS = [
    (vendor, model.id)
    for vendor in ("openai", "anthropic")
    for model in PROVIDERS[vendor].models
    if BOOK.find(vendor, model.id, to_ns(NOW))
]


@settings(max_examples=600, deadline=None)
@given(data=st.data(), target=st.sampled_from(MODELS))
def test_no_usage_within_the_bounds_costs_more_than_the_upper_bound(data: st.DataObject, target: tuple[str, str]) -> None:
    vendor, model = target
    price = BOOK.find(vendor, model, to_ns(NOW))
    assert price is not None
    bound_in = data.draw(st.integers(0, 1_000_000) | st.sampled_from((100_000, 100_001, 200_000, 200_001, 272_000, 272_001)))
    bound_out = data.draw(st.integers(0, 200_000))
    writes = data.draw(st.booleans())
    tier = data.draw(st.sampled_from((None, "auto", "default", "flex", "priority", "fast")))
    served = data.draw(st.sampled_from(sorted({None, *price.tiers} - {"batch"}, key=str))) if tier in {None, "auto"} else tier
    total = data.draw(st.integers(0, bound_in))
    parts = []
    left = total
    for possible in (True, writes or price.implicit_cache_writes, writes or price.implicit_cache_writes, True):
        part = data.draw(st.integers(0, left)) if possible else 0
        left -= part
        parts.append(part)
    read, write, hour, audio = parts
    output = data.draw(st.integers(0, bound_out))
    reasoning = data.draw(st.integers(0, output))
    spoken = data.draw(st.integers(0, output - reasoning))
    usage = TokenUsage(total, read, write, hour, output, reasoning, audio, spoken)
    bound = price.upper_bound(bound_in, bound_out, cache_write_possible=writes, tier=tier)
    assert price.cost(usage, served) <= bound
    assert price.cost(usage) <= bound


@given(nano=st.integers(0, 10**12), tokens=st.integers(0, 10**6), target=st.sampled_from(MODELS))
def test_affordable_output_is_the_most_that_fits(nano: int, tokens: int, target: tuple[str, str]) -> None:
    price = BOOK.find(*target, to_ns(NOW))
    assert price is not None
    ceiling = price.ceiling(tokens)
    output = ceiling.affordable_output(nano, tokens)
    if output is None:
        assert ceiling.nano(tokens, 10**9) <= nano
    elif output >= 0:
        assert ceiling.nano(tokens, output) <= nano < ceiling.nano(tokens, output + 1)
    else:
        assert ceiling.nano(tokens, 0) > nano


def test_the_operators_price_stands_above_the_shipped_one() -> None:
    class Rows:
        def rows(self) -> list[PriceRow]:
            return [
                PriceRow("openai", "gpt-4.1*", {"input": 10**9, "output": 3 * 10**9}, "prc_1"),
                PriceRow("openai", "house-*", {"input": 5, "output": 7}, "prc_2", "org_a"),
            ]

    book = PriceBook(Rows())
    price = book.find("openai", "gpt-4.1-mini", to_ns(NOW))
    assert price is not None
    assert price.id == "own:prc_1"
    assert price.cost(TokenUsage(input=1000, cache_read=400, output=10, reasoning=4)) == 1000 * 1000 + 10 * 3000
    assert book.find("openai", "house-1", to_ns(NOW), "org_b") is None
    assert book.find("openai", "house-1", to_ns(NOW), "org_a") is not None


def test_lists_name_priced_models_and_windows() -> None:
    assert "gpt-4.1" in BOOK.models("openai")
    assert "whisper-1" not in BOOK.models("openai")
    assert BOOK.models("openai") == sorted(BOOK.models("openai"))
    assert BOOK.models("nobody") == []
    assert BOOK.context_window("openai", "gpt-4.1-2025-04-14") == 1_047_576
    assert BOOK.context_window("openai", "gpt-6-imaginary") is None


def test_reference_costs_checked_by_hand() -> None:
    sonnet = BOOK.find("anthropic", "claude-sonnet-4-5-20250929", to_ns(NOW))
    gpt = BOOK.find("openai", "gpt-5", to_ns(NOW))
    assert sonnet is not None
    assert gpt is not None
    usage = TokenUsage(input=7100, cache_read=5000, cache_write=500, cache_write_1h=1500, output=97, web_searches=2)
    assert sonnet.cost(usage) == int(Decimal("0.03413") * 10**9)
    assert gpt.cost(TokenUsage(input=1000, cache_read=800, output=500, reasoning=300)) == 5_350_000


def test_the_server_loads_a_vendor_quickly_and_without_genai_prices() -> None:
    code = (
        "import time,sys; from keygate.ledger.prices import PriceBook; t=time.perf_counter(); book=PriceBook();"
        "assert book.find('openai','gpt-4.1',1_790_000_000_000_000_000); book.find('anthropic','claude-opus-4-5',1);"
        "ms=(time.perf_counter()-t)*1000; assert 'genai_prices' not in sys.modules; print(ms)"
    )
    fastest = min(float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout) for _ in range(3))
    assert fastest < 30


def test_finding_a_known_price_again_takes_microseconds() -> None:
    at = to_ns(NOW)
    BOOK.find("openai", "gpt-4.1", at)
    started = time.perf_counter()
    for _ in range(10_000):
        BOOK.find("openai", "gpt-4.1", at)
    assert (time.perf_counter() - started) / 10_000 < 20e-6
