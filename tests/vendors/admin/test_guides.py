"""The guides name every right that a provisioner asks for, every setting, and every vendor without an API."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from keygate.vendors.admin.adopted import ADOPTIONS, Adoption
from keygate.vendors.admin.azure import AZURE_ADMIN
from keygate.vendors.admin.bedrock import BEDROCK_ADMIN
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


def shown(page: str) -> Any:
    """The guide's role or policy."""
    block = re.search(r"```json\n(.*?)```", (GUIDES / page).read_text(), re.DOTALL)
    assert block is not None
    return json.loads(block[1])


def test_role_for_azure_has_each_action_and_no_other() -> None:
    assert sorted(shown("issued-keys-azure.md")["Actions"]) == sorted(AZURE_ADMIN.facts.rights)


def test_policy_for_bedrock_has_each_action_and_no_other() -> None:
    statements = shown("issued-keys-bedrock.md")["Statement"]
    actions = [action for each in statements for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])]
    assert sorted(actions) == sorted(BEDROCK_ADMIN.facts.rights)
