"""The guides name every right that a provisioner asks for, every setting, and every vendor without an API."""

from __future__ import annotations

from pathlib import Path

import pytest

from keygate.vendors.admin.adopted import ADOPTIONS, Adoption
from keygate.vendors.admin.google import GoogleProvisioner

GUIDES = Path(__file__).resolve().parents[3] / "docs" / "guides"
FACTS = GoogleProvisioner().facts


@pytest.mark.parametrize("word", [*FACTS.rights, *FACTS.settings])
def test_guide_to_google_names_each_right_and_setting(word: str) -> None:
    assert f"`{word}`" in (GUIDES / "issued-keys-google.md").read_text()


@pytest.mark.parametrize("adoption", ADOPTIONS.values(), ids=ADOPTIONS)
def test_guide_tells_each_vendor_without_an_api(adoption: Adoption) -> None:
    text = (GUIDES / "issued-keys-other-vendors.md").read_text()
    assert f"| {adoption.title} |" in text
    assert f"<{adoption.console}>" in text
