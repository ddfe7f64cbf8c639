"""Which way to a key is open at each vendor: no vendor that is known goes without a reason, and none is said to do what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from keygate.vendors import VENDORS
from keygate.vendors.admin import PROVISIONERS, UNUSED, KeyApi, Way, way_of, why_none

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "issued-keys-other-vendors.md").read_text()
EVERY = [*PROVISIONERS, *UNUSED]


@pytest.mark.parametrize("vendor", EVERY)
def test_each_vendor_says_which_way_is_open_and_why(vendor: str) -> None:
    found = way_of(vendor)
    assert found is not None
    assert found.why
    made = vendor in PROVISIONERS and not PROVISIONERS[vendor].facts.adopt_only
    assert (found.way is Way.MADE) is made
    if made:
        assert f"keygate provision --vendor {vendor}" in found.instead
    else:
        assert found.sources, "a fact has a source"
        assert ("so a virtual key can't stand in for it" in found.instead) is (vendor not in VENDORS)
    assert (f"keygate inventory enter {vendor}" in found.instead) is (found.way is Way.BY_HAND)
    assert (why_none(vendor) is not None) is (found.way is Way.NONE)


def test_what_a_vendors_api_would_do_is_told_apart_from_what_keygate_does() -> None:
    told = {vendor: found.vendor_api for vendor in EVERY if (found := way_of(vendor)) is not None}
    assert {vendor for vendor, api in told.items() if api is KeyApi.YES} - {
        "openai",
        "azure",
        "google",
        "openrouter",
        "bedrock",
        "xai",
    } == {
        "fireworks",
        "elevenlabs",
        "litellm",
    }
    assert told["anthropic"] is KeyApi.NO
    assert (told["mistral"], told["perplexity"], told["groq"]) == (KeyApi.PREVIEW, KeyApi.PARTLY, KeyApi.NONE_KNOWN)


@pytest.mark.parametrize("unused", UNUSED.values(), ids=UNUSED)
def test_guide_names_each_vendor_that_keygate_does_nothing_at(unused) -> None:
    assert f"| {unused.title} |" in GUIDE.partition("### Neither made nor kept")[2]


def test_of_a_vendor_that_nobody_knows_nothing_is_said() -> None:
    assert way_of("nobody") is None
    assert why_none("nobody") is None
