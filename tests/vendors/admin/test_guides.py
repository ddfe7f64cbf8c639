"""The guides name every right that a provisioner asks for, every setting, and every vendor without an API."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from keygate.vendors.admin import PROVISIONERS
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


# Where each vendor's least privilege stands: the guide, and its section's heading.
LEAST_PRIVILEGE = {
    "openai": ("issued-keys.md", "Least privilege at OpenAI"),
    "anthropic": ("issued-keys-anthropic.md", "Least privilege"),
    "openrouter": ("issued-keys-other-vendors.md", "Least privilege at OpenRouter"),
    "google": ("issued-keys-google.md", "Least privilege"),
    "xai": ("issued-keys-other-vendors.md", "Least privilege at xAI"),
    "azure": ("issued-keys-azure.md", "Least privilege: the admin credential"),
    "bedrock": ("issued-keys-bedrock.md", "Least privilege: the admin credential"),
}
MAKERS = {name: each.facts for name, each in PROVISIONERS.items() if not each.facts.adopt_only}


def section(page: str, heading: str) -> str:
    """From the heading to the next one of its rank or a higher one."""
    text = (GUIDES / page).read_text()
    found = re.search(rf"^(#+) {re.escape(heading)}$\n(.*?)(?=^#{{1,6}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page} has no section {heading!r}"
    return found[2]


def named(text: str) -> set[str]:
    """Rights that a section names: the first column of its tables, and what JSON lists as actions."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    names = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL):
        names |= set(_actions(json.loads(block)))
    return names


def _actions(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for each in value for name in _actions(each)]
    if not isinstance(value, dict):
        return []
    own = [each for name in ("Action", "Actions") for each in ([value[name]] if isinstance(value.get(name), str) else value.get(name, []))]
    return own + [name for each in value.values() for name in _actions(each)]


def test_every_vendor_that_makes_keys_has_its_least_privilege_in_a_guide() -> None:
    assert set(MAKERS) == set(LEAST_PRIVILEGE)


@pytest.mark.parametrize("vendor", MAKERS)
def test_least_privilege_names_each_right_that_the_provisioner_needs_and_no_other(vendor: str) -> None:
    facts, text = MAKERS[vendor], section(*LEAST_PRIVILEGE[vendor])
    assert facts.rights, "a provisioner says which rights it needs"
    listed = named(text)
    told = listed | set(re.findall(r"`([^`\n]+)`", text)) if vendor == "google" else listed  # some of Google's stand in prose
    assert set(facts.rights) - told == set(), "rights that the guide does not name"
    assert listed - set(facts.rights) == set(), "rights that nobody needs"


@pytest.mark.parametrize("vendor", MAKERS)
def test_names_of_rights_that_are_no_vendors_own_are_marked(vendor: str) -> None:
    """Where the facts say that names are not published, the guide must not give them out as the vendor's."""
    facts = MAKERS[vendor]
    told = " ".join(f"{what}: {source}" for what, source in facts.sources.items() if "rights" in what)
    if re.search("ours|not published|unverified|not verified", told):
        assert re.search("unverified|KeyGate's", section(*LEAST_PRIVILEGE[vendor]))


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
