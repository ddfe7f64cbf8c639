"""What a vendor can't keep is told before it is called, with the field that it is about; what stands within the bounds is taken."""

from __future__ import annotations

import re
from typing import Any

import pytest

from keygate.kit.clock import NANOSECONDS
from keygate.kit.money import NANO, parse_usd
from keygate.vendors.admin import PROVISIONERS, Checks, Period, Terms, Unfit, Wanted

NOW = 1_800_000_000 * NANOSECONDS
DAY = 86_400 * NANOSECONDS
OWN_PROJECTS = {"parent": "folders/1", "billing_account": "012345-6789AB-CDEF01"}
VERTEX = {"service": "aiplatform.googleapis.com", **OWN_PROJECTS}
DOLLAR, CENT = NANO, NANO // 100
LONG = tuple(f"anthropic.claude-{'x' * 100}-{number}" for number in range(20))

REFUSED: list[tuple[str, str, dict[str, Any], dict[str, str], dict[str, str]]] = [
    ("openai", "budget", {"budget_nano": 5 * DOLLAR + CENT // 2}, {}, {}),
    ("openai", "budget", {"budget_nano": CENT - 1}, {}, {}),
    ("openai", "budget_period", {"budget_nano": DOLLAR, "budget_period": Period.DAY}, {}, {}),
    ("openai", "expiry", {"expires_at_ns": NOW + 366 * DAY}, {}, {}),
    ("anthropic", "budget", {"budget_nano": CENT + 1}, {}, {}),
    ("anthropic", "budget_period", {"budget_nano": DOLLAR, "budget_period": Period.WEEK}, {}, {}),
    ("anthropic", "expiry", {"expires_at_ns": NOW + 74 * NANOSECONDS}, {}, {}),
    ("azure", "models", {"models": None}, {}, {}),
    ("azure", "models", {"models": tuple(f"m{number}" for number in range(33))}, {}, {}),
    ("azure", "models", {"models": ("gpt 4",)}, {}, {}),
    ("azure", "tokens_per_minute", {"models": ("gpt-4.1-mini",), "tokens_per_minute": 1_500}, {}, {}),
    ("azure", "tokens_per_minute", {"models": ("gpt-4.1-mini",), "tokens_per_minute": 999}, {}, {}),
    ("azure", "options.sku", {"models": ("gpt-4.1-mini",)}, {"sku": "ProvisionedManaged"}, {}),
    ("azure", "options.region", {"models": ("gpt-4.1-mini",)}, {"region": "Sweden Central"}, {}),
    ("google", "budget", {"budget_nano": DOLLAR}, {}, {}),
    ("google", "requests_per_minute", {"requests_per_minute": 5}, {}, {}),
    ("google", "budget", {"budget_nano": DOLLAR}, {}, VERTEX),
    ("google", "budget_period", {"budget_nano": DOLLAR, "budget_period": Period.LIFETIME}, {}, OWN_PROJECTS),
    ("google", "scopes", {"scopes": ("storage.googleapis.com",)}, {}, {}),
    ("google", "options.allowed_ips", {}, {"allowed_ips": "203.0.113.0/24, office"}, {}),
    ("openrouter", "budget", {"budget_nano": 1_500}, {}, {}),
    ("openrouter", "budget", {"budget_nano": 999}, {}, {}),
    ("xai", "options.requests_per_second", {}, {"requests_per_second": "1.5"}, {}),
    ("xai", "options.requests_per_second", {}, {"requests_per_second": "0"}, {}),
    ("bedrock", "models", {"models": ("claude sonnet",)}, {}, {}),
    ("bedrock", "models", {"models": LONG}, {}, {}),
    ("bedrock", "options.age_days", {}, {"age_days": "36601"}, {}),
    ("bedrock", "options.age_days", {}, {"age_days": "²"}, {}),
]
TAKEN: list[tuple[str, dict[str, Any], dict[str, str], dict[str, str]]] = [
    ("openai", {}, {}, {}),
    ("openai", {"budget_nano": CENT, "expires_at_ns": NOW + 365 * DAY, "requests_per_minute": 1}, {}, {}),
    ("anthropic", {"expires_at_ns": NOW + 75 * NANOSECONDS}, {}, {}),
    ("anthropic", {"budget_nano": 5 * DOLLAR, "requests_per_minute": 1, "expires_at_ns": NOW + 4_000 * DAY}, {}, {}),
    (
        "azure",
        {"models": tuple(f"m{number}" for number in range(32)), "tokens_per_minute": 1_000},
        {"sku": "Standard", "region": "eastus2"},
        {},
    ),
    ("google", {"budget_nano": 1, "requests_per_minute": 1}, {"allowed_ips": "203.0.113.0/24, 2001:db8::1"}, OWN_PROJECTS),
    ("google", {"scopes": ("aiplatform.googleapis.com",)}, {}, VERTEX),
    ("openrouter", {"budget_nano": 1_000, "budget_period": Period.LIFETIME, "expires_at_ns": NOW + 1}, {}, {}),
    ("xai", {"requests_per_minute": 1, "tokens_per_minute": 1}, {"requests_per_second": "10"}, {}),
    ("bedrock", {"models": ("us.anthropic.claude-sonnet-4-v1:0",), "expires_at_ns": NOW + DAY}, {"age_days": "36600"}, {}),
]


def check(vendor: str, terms: dict[str, Any], options: dict[str, str], settings: dict[str, str]) -> None:
    provisioner = PROVISIONERS[vendor]
    assert isinstance(provisioner, Checks)
    provisioner.check(Wanted(Terms(**terms), options, settings, NOW))


@pytest.mark.parametrize(("vendor", "field", "terms", "options", "settings"), REFUSED)
def test_what_a_vendor_cannot_keep_is_refused_with_its_field(vendor: str, field: str, terms: Any, options: Any, settings: Any) -> None:
    with pytest.raises(Unfit) as refused:
        check(vendor, terms, options, settings)
    assert refused.value.field == field
    assert refused.value.lasting


@pytest.mark.parametrize(
    ("vendor", "asked", "named"),
    [
        ("openai", "50.005", "50.00 or 50.01, not 50.005"),
        ("anthropic", "0.0099", "0.01, not 0.0099"),
    ],
)
def test_an_amount_between_two_that_a_vendor_takes_is_told_with_both(vendor: str, asked: str, named: str) -> None:
    with pytest.raises(Unfit, match=re.escape(named)):
        check(vendor, {"budget_nano": parse_usd(asked)}, {}, {})


@pytest.mark.parametrize(("vendor", "terms", "options", "settings"), TAKEN)
def test_what_stands_within_the_bounds_is_taken(vendor: str, terms: Any, options: Any, settings: Any) -> None:
    check(vendor, terms, options, settings)


@pytest.mark.parametrize("vendor", [name for name, each in PROVISIONERS.items() if not each.facts.adopt_only])
def test_every_vendor_that_keys_are_made_at_has_a_check(vendor: str) -> None:
    assert isinstance(PROVISIONERS[vendor], Checks)
