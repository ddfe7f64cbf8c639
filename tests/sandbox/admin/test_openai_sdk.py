"""OpenAI's own SDK administers the sandbox, and uses the keys that it made there."""

from __future__ import annotations

import pytest
from tests.sdks.admin_clients import Sdk
from tests.sdks.bridge import SdkError

from keygate.sandbox.admin import Account

PROJECTS = "admin.organization.projects"
HELLO = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def admin(account: Account) -> dict[str, str]:
    return {"admin": account.create_credential().value}


def test_sdk_makes_limits_reads_rotates_and_deletes(openai_sdk: Sdk, admin: dict[str, str], account: Account) -> None:
    project = openai_sdk(f"{PROJECTS}.create", name="kg-team", key=admin)["id"]
    owner = openai_sdk(f"{PROJECTS}.service_accounts.create", project, name="kg", expires_in_seconds=3600, key=admin)
    first = owner["api_key"]
    assert first["expires_at"] == first["created_at"] + 3600
    openai_sdk(f"{PROJECTS}.spend_limit.update", project, threshold_amount=1234, currency="USD", interval="month", key=admin)
    assert openai_sdk(f"{PROJECTS}.spend_limit.retrieve", project, key=admin)["threshold_amount"] == 1234
    models = ["gpt-4.1-mini"]
    openai_sdk(f"{PROJECTS}.model_permissions.update", project, mode="allow_list", model_ids=models, key=admin)
    assert openai_sdk(f"{PROJECTS}.model_permissions.retrieve", project, key=admin)["model_ids"] == models
    row = "rl-gpt-4.1-mini"
    openai_sdk(f"{PROJECTS}.rate_limits.update_rate_limit", row, project_id=project, max_requests_per_1_minute=7, key=admin)
    rows = openai_sdk(f"{PROJECTS}.rate_limits.list_rate_limits", project, all=True, key=admin)
    assert [each["max_requests_per_1_minute"] for each in rows if each["id"] == row] == [7]

    second = openai_sdk(f"{PROJECTS}.service_accounts.api_keys.create", owner["id"], project_id=project, name="kg-2", key=admin)
    for key in (first, second, first):
        assert openai_sdk("chat.completions.create", key={"key": key["value"]}, **HELLO)["usage"]["total_tokens"] > 0
    assert openai_sdk(f"{PROJECTS}.api_keys.delete", first["id"], project_id=project, key=admin)["deleted"] is True
    with pytest.raises(SdkError) as refused:
        openai_sdk("chat.completions.create", key={"key": first["value"]}, **HELLO)
    assert (refused.value.status, refused.value.reason) == ("AuthenticationError", "invalid_api_key")
    assert openai_sdk("chat.completions.create", key={"key": second["value"]}, **HELLO)["usage"]["total_tokens"] > 0
    (left,) = openai_sdk(f"{PROJECTS}.api_keys.list", project, owner_project_access="any", all=True, key=admin)
    assert (left["id"], left["last_used_at"] is not None) == (second["id"], True)

    start = account.clock.now_s()
    costs = openai_sdk("admin.organization.usage.costs", start_time=start, group_by=["api_key_id", "project_id"], key=admin)
    spent = {row["api_key_id"]: row["amount"]["value"] for bucket in costs["data"] for row in bucket["results"]}
    assert spent == {key["id"]: float(account.books.total_usd(key_id=key["id"])) for key in (first, second)}
    openai_sdk(f"{PROJECTS}.archive", project, key=admin)
    with pytest.raises(SdkError) as gone:
        openai_sdk("chat.completions.create", key={"key": second["value"]}, **HELLO)
    assert gone.value.code == 401


def test_sdk_tells_a_missing_right_from_a_wrong_key(openai_sdk: Sdk, account: Account) -> None:
    weak = {"admin": account.create_credential(without=["api.projects.write"]).value}
    with pytest.raises(SdkError, match=r"Missing scopes: api\.projects\.write") as refused:
        openai_sdk(f"{PROJECTS}.create", name="p", key=weak)
    assert refused.value.status == "PermissionDeniedError"
    with pytest.raises(SdkError) as unknown:
        openai_sdk(f"{PROJECTS}.list", all=True, key={"admin": "none"})
    assert unknown.value.status == "AuthenticationError"


def test_sdk_pages_through_every_project(openai_sdk: Sdk, admin: dict[str, str]) -> None:
    made = {openai_sdk(f"{PROJECTS}.create", name=f"p{number}", key=admin)["id"] for number in range(5)}
    listed = openai_sdk(f"{PROJECTS}.list", limit=2, all=True, key=admin)
    assert {each["id"] for each in listed} == made | {"proj_default"}
    assert len(listed) == 6
