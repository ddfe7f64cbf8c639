"""OpenAI's organization API in the sandbox: its answers fit the published description, and its limits hold at the inference side."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest
from tests.sandbox.contract import fits
from tests.sandbox.wire import chat

from keygate.sandbox import SandboxServer
from keygate.sandbox.admin import Account


@pytest.fixture
async def project(openai: httpx.AsyncClient) -> str:
    return str((await openai.post("/projects", json={"name": "kg-team"})).json()["id"])


@pytest.fixture
async def account_id(openai: httpx.AsyncClient, project: str) -> str:
    body = {"name": "kg-service", "create_service_account_only": True}
    made = (await openai.post(f"/projects/{project}/service_accounts", json=body)).json()
    await openai.post(f"/projects/{project}/service_accounts/{made['id']}", json={"role": "member"})
    return str(made["id"])


async def key_of(openai: httpx.AsyncClient, project: str, account_id: str, **body: Any) -> dict[str, Any]:
    answer = await openai.post(f"/projects/{project}/service_accounts/{account_id}/api_keys", json={"name": "kg-1", **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def call(sandbox: SandboxServer, value: str, *, model: str = "gpt-4.1-mini", prompt: str = "Hello") -> httpx.Response:
    async with httpx.AsyncClient(base_url=sandbox.openai_base_url, timeout=10) as client:
        return await client.post("/chat/completions", json=chat(prompt, model=model), headers={"authorization": f"Bearer {value}"})


async def test_every_answer_fits_the_contract(sandbox: SandboxServer, openai: httpx.AsyncClient, account: Account) -> None:
    async def ask(method: str, path: str, schema: str, **options: Any) -> dict[str, Any]:
        answer = await openai.request(method, path, **options)
        assert answer.status_code == 200, (path, answer.text)
        fits(answer.json(), schema)
        return dict(answer.json())

    project = (await ask("POST", "/projects", "Project", json={"name": "kg-team"}))["id"]
    await ask("GET", f"/projects/{project}", "Project")
    await ask("POST", f"/projects/{project}", "Project", json={"name": "kg-other"})
    await ask("GET", "/projects", "ProjectListResponse")
    accounts = f"/projects/{project}/service_accounts"
    made = await ask("POST", accounts, "ProjectServiceAccountCreateResponse", json={"name": "kg"})
    bare = await ask("POST", accounts, "ProjectServiceAccountCreateResponse", json={"name": "kg", "create_service_account_only": True})
    assert bare["api_key"] is None
    await ask("GET", accounts, "ProjectServiceAccountListResponse")
    await ask("POST", f"{accounts}/{bare['id']}", "ProjectServiceAccount", json={"role": "member"})
    await ask("GET", f"{accounts}/{bare['id']}", "ProjectServiceAccount")
    await ask("POST", f"{accounts}/{made['id']}/api_keys", "ServiceAccountApiKeyBody", json={"name": "second"})
    assert (await call(sandbox, made["api_key"]["value"])).status_code == 200
    key = f"/projects/{project}/api_keys/{made['api_key']['id']}"
    assert (await ask("GET", key, "ProjectApiKey"))["last_used_at"] is not None
    await ask("POST", key, "ProjectApiKey", json={"scopes": ["api.all.read"], "expires_in_seconds": 60})
    await ask("GET", f"/projects/{project}/api_keys", "ProjectApiKeyListResponse")
    limits = await ask("GET", f"/projects/{project}/rate_limits", "ProjectRateLimitListResponse")
    row = f"/projects/{project}/rate_limits/{limits['data'][0]['id']}"
    await ask("POST", row, "ProjectRateLimit", json={"max_requests_per_1_minute": 5})
    await ask("GET", f"/projects/{project}/model_permissions", "ProjectModelPermissions")
    models = {"mode": "allow_list", "model_ids": ["gpt-4.1"]}
    await ask("POST", f"/projects/{project}/model_permissions", "ProjectModelPermissions", json=models)
    await ask("DELETE", f"/projects/{project}/model_permissions", "ProjectModelPermissionsDeleteResponse")
    limit = {"threshold_amount": 500, "currency": "USD", "interval": "month"}
    for path, kind in ((f"/projects/{project}/spend_limit", "Project"), ("/spend_limit", "Organization")):
        await ask("POST", path, f"{kind}SpendLimitResource", json=limit)
        await ask("GET", path, f"{kind}SpendLimitResource")
        await ask("DELETE", path, f"{kind}SpendLimitDeletedResource")
        assert (await openai.get(path)).status_code == 404
    admin = await ask("POST", "/admin_api_keys", "AdminApiKeyCreateResponse", json={"name": "second", "expires_in_seconds": 60})
    await ask("GET", "/admin_api_keys", "ApiKeyList")
    await ask("GET", f"/admin_api_keys/{admin['id']}", "AdminApiKey")
    for path in ("/costs", "/usage/completions", "/usage/embeddings", "/usage/moderations"):
        await ask("GET", path, "UsageResponse", params={"start_time": account.clock.now_s()})
    await ask("DELETE", f"{accounts}/{made['id']}", "ProjectServiceAccountDeleteResponse")
    await ask("POST", f"/projects/{project}/archive", "Project")
    refused = await openai.post(f"/projects/{project}", json={"name": "late"})
    assert refused.status_code == 400
    fits(refused.json(), "ErrorResponse")


async def test_project_without_permission_for_a_model_cannot_use_it(
    sandbox: SandboxServer, openai: httpx.AsyncClient, project: str, account_id: str
) -> None:
    key = (await key_of(openai, project, account_id))["value"]
    path = f"/projects/{project}/model_permissions"
    await openai.post(path, json={"mode": "allow_list", "model_ids": ["gpt-4.1"]})
    assert (await call(sandbox, key)).json()["error"]["code"] == "model_not_found"
    assert (await call(sandbox, key, model="gpt-4.1")).status_code == 200
    await openai.post(path, json={"mode": "deny_list", "model_ids": ["gpt-4.1"]})
    assert (await call(sandbox, key)).status_code == 200
    assert (await call(sandbox, key, model="gpt-4.1")).status_code == 403
    await openai.delete(path)
    assert (await call(sandbox, key, model="gpt-4.1")).status_code == 200


async def test_rate_limit_of_a_project_holds_per_model(
    sandbox: SandboxServer, openai: httpx.AsyncClient, control: httpx.AsyncClient, project: str, account_id: str
) -> None:
    key = (await key_of(openai, project, account_id))["value"]
    row = f"/projects/{project}/rate_limits/rl-gpt-4.1-mini"
    assert (await openai.post(row, json={"max_requests_per_1_minute": 2})).json()["max_requests_per_1_minute"] == 2
    answers = [(await call(sandbox, key)).status_code for _ in range(3)]
    assert answers == [200, 200, 429]
    assert (await call(sandbox, key, model="gpt-4.1")).status_code == 200
    await control.post("/clock", json={"advance_seconds": 61})
    assert (await call(sandbox, key)).status_code == 200
    await openai.post(row, json={"max_requests_per_1_minute": 1000, "max_tokens_per_1_minute": 10})
    assert (await call(sandbox, key)).status_code == 429
    assert (await openai.post(row, json={"max_requests_per_1_minute": 10**9})).status_code == 400


async def test_spend_limit_stops_the_project_until_the_month_is_over(
    sandbox: SandboxServer, openai: httpx.AsyncClient, control: httpx.AsyncClient, project: str, account_id: str
) -> None:
    key = (await key_of(openai, project, account_id))["value"]
    path = f"/projects/{project}/spend_limit"
    await openai.post(path, json={"threshold_amount": 40, "currency": "USD", "interval": "month"})
    assert (await openai.get(path)).json()["enforcement"] == {"status": "inactive"}
    assert (await call(sandbox, key, prompt="sandbox(input_tokens=1000000 output_tokens=0)")).status_code == 200
    refused = await call(sandbox, key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "project_spend_limit_exceeded")
    assert (await openai.get(path)).json()["enforcement"] == {"status": "enforcing"}
    await control.post("/clock", json={"advance_seconds": 32 * 86_400})
    assert (await call(sandbox, key)).status_code == 200


async def test_changed_limit_is_enforced_as_late_as_is_set(
    sandbox: SandboxServer, openai: httpx.AsyncClient, control: httpx.AsyncClient, project: str, account_id: str
) -> None:
    key = (await key_of(openai, project, account_id))["value"]
    await control.patch("/openai", json={"limits_s": 300})
    models = {"mode": "allow_list", "model_ids": ["gpt-4.1"]}
    assert (await openai.post(f"/projects/{project}/model_permissions", json=models)).json()["model_ids"] == ["gpt-4.1"]
    assert (await call(sandbox, key)).status_code == 200
    await control.post("/clock", json={"advance_seconds": 301})
    assert (await call(sandbox, key)).status_code == 403


async def test_key_ends_when_it_expires(
    sandbox: SandboxServer, openai: httpx.AsyncClient, control: httpx.AsyncClient, project: str, account_id: str
) -> None:
    key = await key_of(openai, project, account_id, expires_in_seconds=3600)
    path = f"/projects/{project}/api_keys/{key['id']}"
    await openai.post(path, json={"expires_in_seconds": 7200})
    await control.post("/clock", json={"advance_seconds": 3700})
    assert (await call(sandbox, key["value"])).status_code == 200
    await control.post("/clock", json={"advance_seconds": 3700})
    assert (await call(sandbox, key["value"])).status_code == 401
    assert (await openai.post(path, json={"scopes": []})).json()["error"]["code"] == "api_key_expired"


async def test_read_only_key_cannot_infer(sandbox: SandboxServer, openai: httpx.AsyncClient, project: str, account_id: str) -> None:
    key = await key_of(openai, project, account_id, scopes=["api.all.read"])
    assert (await call(sandbox, key["value"])).status_code == 403
    await openai.post(f"/projects/{project}/api_keys/{key['id']}", json={"scopes": []})
    assert (await call(sandbox, key["value"])).status_code == 200


async def test_keys_of_an_account_without_access_are_hidden_unless_asked_for(openai: httpx.AsyncClient, project: str) -> None:
    bare = (await openai.post(f"/projects/{project}/service_accounts", json={"name": "kg", "create_service_account_only": True})).json()[
        "id"
    ]
    key = await key_of(openai, project, bare)
    path = f"/projects/{project}/api_keys"
    assert (await openai.get(path)).json()["data"] == []
    for wanted, seen in (("active", []), ("inactive", [key["id"]]), ("any", [key["id"]])):
        assert [each["id"] for each in (await openai.get(path, params={"owner_project_access": wanted})).json()["data"]] == seen


@pytest.mark.parametrize("deed", ["delete the account", "archive the project"])
async def test_container_takes_its_keys_along(
    sandbox: SandboxServer, openai: httpx.AsyncClient, project: str, account_id: str, deed: str
) -> None:
    key = (await key_of(openai, project, account_id))["value"]
    assert (await call(sandbox, key)).status_code == 200
    if deed == "delete the account":
        assert (await openai.delete(f"/projects/{project}/service_accounts/{account_id}")).status_code == 200
    else:
        assert (await openai.post(f"/projects/{project}/archive")).json()["status"] == "archived"
        assert (await openai.get("/projects")).json()["last_id"] == "proj_default"
        assert (await openai.get("/projects", params={"include_archived": "true"})).json()["last_id"] == project
    assert (await call(sandbox, key)).status_code == 401


async def test_default_project_takes_no_service_account(openai: httpx.AsyncClient) -> None:
    assert (await openai.post("/projects/proj_default/service_accounts", json={"name": "kg"})).status_code == 400


async def test_costs_equal_the_books_by_key_project_and_line(
    sandbox: SandboxServer, openai: httpx.AsyncClient, account: Account, project: str, account_id: str
) -> None:
    keys = [await key_of(openai, project, account_id) for _ in range(2)]
    start = account.clock.now_s()
    for key in keys:
        await call(sandbox, key["value"], prompt="sandbox(input_tokens=1234567 cache_read_tokens=1000 output_tokens=31)")
    for group in ("api_key_id", "project_id", "line_item"):
        data = (await openai.get("/costs", params={"start_time": start, "group_by": group})).json()["data"]
        rows = [row for bucket in data for row in bucket["results"]]
        total = sum(Decimal(str(row["amount"]["value"])) for row in rows)
        assert total == account.books.total_usd(), group
        assert len(rows) == {"api_key_id": 2, "project_id": 1, "line_item": 3}[group]
    both = await openai.get(
        "/costs", params={"start_time": start, "group_by[]": ["project_id", "api_key_id"], "api_key_ids": keys[0]["id"]}
    )
    (row,) = both.json()["data"][-1]["results"]
    assert (row["project_id"], row["api_key_id"]) == (project, keys[0]["id"])
    usage = await openai.get("/usage/completions", params={"start_time": start, "group_by": "model", "bucket_width": "1m"})
    rows = [row for bucket in usage.json()["data"] for row in bucket["results"]]
    assert sum(row["num_model_requests"] for row in rows) == 2
    assert {row["model"] for row in rows} == {"gpt-4.1-mini"}
    assert sum(row["output_tokens"] for row in rows) == 62


async def test_pages_of_buckets_cover_the_range_once(
    sandbox: SandboxServer, openai: httpx.AsyncClient, control: httpx.AsyncClient, account: Account, project: str, account_id: str
) -> None:
    key = (await key_of(openai, project, account_id))["value"]
    start = account.clock.now_s()
    for _ in range(4):
        await call(sandbox, key)
        await control.post("/clock", json={"advance_seconds": 86_400})
    seen: list[int] = []
    page = None
    for _ in range(10):
        params = {"start_time": start, "limit": 2, **({"page": page} if page else {})}
        answer = (await openai.get("/costs", params=params)).json()
        seen += [bucket["start_time"] for bucket in answer["data"]]
        page = answer["next_page"]
        if not answer["has_more"]:
            break
    assert page is None
    assert seen == sorted(set(seen))
    assert len(seen) == 5


async def test_lists_are_paged_by_the_last_id(openai: httpx.AsyncClient) -> None:
    for number in range(5):
        await openai.post("/projects", json={"name": f"p{number}"})
    first = (await openai.get("/projects", params={"limit": 4})).json()
    rest = (await openai.get("/projects", params={"limit": 4, "after": first["last_id"]})).json()
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert len({each["id"] for each in (*first["data"], *rest["data"])}) == 6


async def test_admin_key_made_here_is_one_until_it_is_deleted_or_expires(openai: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
    keys = [(await openai.post("/admin_api_keys", json={"name": "n", "expires_in_seconds": 3600})).json() for _ in range(2)]
    headers = [{"authorization": f"Bearer {key['value']}"} for key in keys]
    assert (await openai.get("/projects", headers=headers[0])).status_code == 200
    await openai.delete(f"/admin_api_keys/{keys[0]['id']}")
    assert (await openai.get("/projects", headers=headers[0])).status_code == 401
    await control.post("/clock", json={"advance_seconds": 3700})
    assert (await openai.get("/projects", headers=headers[1])).status_code == 401


async def test_admin_key_is_no_inference_key_and_the_other_way_round(
    sandbox: SandboxServer, openai: httpx.AsyncClient, project: str, account_id: str
) -> None:
    key = (await key_of(openai, project, account_id))["value"]
    assert (await openai.get("/projects", headers={"authorization": f"Bearer {key}"})).status_code == 401
    admin = openai.headers["authorization"].partition(" ")[2]
    assert (await call(sandbox, admin)).status_code == 401


async def test_key_of_a_person_is_listed_as_theirs(sandbox: SandboxServer, openai: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
    made = (await control.post("/openai/console/keys", json={"name": "mine", "user": "sam@example.com"})).json()
    assert (await call(sandbox, made["value"])).status_code == 200
    (listed,) = (await openai.get("/projects/proj_default/api_keys")).json()["data"]
    assert (listed["id"], listed["owner"]["user"]["email"]) == (made["id"], "sam@example.com")
