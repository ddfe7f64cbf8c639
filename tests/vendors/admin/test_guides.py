"""The least privilege that the guides show is what the provisioners ask for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from keygate.vendors.admin.azure import AZURE_ADMIN
from keygate.vendors.admin.bedrock import BEDROCK_ADMIN

GUIDES = Path(__file__).parents[3] / "docs" / "guides" / "vendors"


def shown(page: str) -> Any:
    block = re.search(r"```json\n(.*?)```", (GUIDES / page).read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return json.loads(block[1])


def test_the_role_for_azure_has_each_action_and_no_other() -> None:
    role = shown("azure.md")
    assert sorted(role["Actions"]) == sorted(AZURE_ADMIN.facts.rights)


def test_the_policy_for_aws_has_each_action_and_no_other() -> None:
    statements = shown("aws-bedrock.md")["Statement"]
    actions = [action for each in statements for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])]
    assert sorted(actions) == sorted(BEDROCK_ADMIN.facts.rights)
