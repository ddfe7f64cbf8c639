"""The routes over HTTP: statuses, shapes, and that secrets leave in one answer only."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from keygate.api.app import create_app
from keygate.identities import SessionService
from keygate.policies import AliasService, BudgetService, ExplainService, PolicyService
from keygate.policies.api import ALL as POLICY_ROUTES
from keygate.virtual_keys import VirtualKeyService
from keygate.virtual_keys.api import ALL as KEY_ROUTES


@pytest.fixture
async def client(house):
    actors = {"admin": house.admin, "dev": house.developer, "stranger": house.stranger}

    class Sessions:
        async def authenticate(self, token, *, address=None, request_id=None):
            return replace(actors[token], address=address, request_id=request_id)

    services = {
        VirtualKeyService: house.keys,
        PolicyService: house.policies,
        BudgetService: house.budgets,
        AliasService: house.aliases,
        ExplainService: house.explain,
        SessionService: Sessions(),
    }
    app = create_app(
        services=services,
        sessions=Sessions(),
        audit=house.audit,
        public_url="https://keys.example.com",
        routes=(*POLICY_ROUTES, *KEY_ROUTES),
    )
    house.app = app
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x/api/v1", headers={"authorization": "Bearer admin"}) as opened:
        yield opened


def by(who: str) -> dict[str, str]:
    return {"authorization": f"Bearer {who}"}


async def test_a_keys_life_over_http(client) -> None:
    body = {
        "name": "ci",
        "owner": {"developer_id": "dev_1"},
        "models": ["openai/gpt-4.1*"],
        "limits": {"requests_per_minute": 60},
        "budgets": [{"amount_usd": "10.00", "period": "month", "mode": "hard"}],
        "expires_at": "2027-01-01T00:00:00Z",
        "tags": ["project=x"],
    }
    made = await client.post("/virtual-keys", json=body)
    assert made.status_code == 201, made.text
    shown = made.json()
    assert shown["key"].startswith(shown["hint"].rstrip("…"))
    assert shown["env"] == {"OPENAI_BASE_URL": "https://keys.example.com/openai/v1", "OPENAI_API_KEY": shown["key"]}
    assert shown["owner"] == {"team_id": None, "developer_id": "dev_1", "app_id": None}
    assert shown["budgets"][0]["amount_usd"] == "10.00"
    assert (shown["limits"], shown["expires_at"]) == ({"requests_per_minute": 60}, "2027-01-01T00:00:00.000000Z")
    address = f"/virtual-keys/{shown['id']}"

    got = await client.get(address)
    listed = await client.get("/virtual-keys", params={"developer_id": "dev_1", "limit": 1})
    assert got.json() == listed.json()["items"][0]
    assert shown["key"] not in got.text
    usage = (await client.get(f"{address}/usage")).json()
    quota = (await client.get("/quota", headers=by(shown["key"]))).json()
    assert usage == quota
    assert set(usage) >= {"requests", "input_tokens", "output_tokens", "spent_usd", "held_usd", "in_doubt_usd", "budgets", "limits"}
    assert set(usage["budgets"][0]) >= {"id", "scope", "period", "mode", "amount_usd", "spent_usd", "held_usd", "resets_at"}

    patched = await client.patch(address, json={"budgets": [{"amount_usd": "1", "period": "month"}], "models": None})
    assert (patched.json()["models"], patched.json()["budgets"][0]["amount_usd"]) == (None, "1.00")
    assert patched.json()["limits"] == {"requests_per_minute": 60}
    rotated = (await client.post(f"{address}/rotate", json={"grace_seconds": 30})).json()
    assert rotated["id"] == shown["id"]
    assert rotated["key"] != shown["key"]
    told = await client.post("/policies/explain", json={"key": rotated["key"], "model": "gpt-4.1", "endpoint": "chat"})
    assert (told.status_code, told.json()["status"], told.json()["refused_by"]["rule"]) == (200, 402, "budget_spent")
    assert rotated["key"] not in told.text
    for _ in range(2):
        revoked = await client.post(f"{address}/revoke")
        assert (revoked.status_code, revoked.json()["status"]) == (200, "revoked")
    assert (await client.get("/quota", headers=by(rotated["key"]))).status_code == 401
    assert (await client.post(f"{address}/rotate")).status_code == 409


async def test_policies_budgets_limits_and_aliases_over_http(client) -> None:
    policy = (
        await client.post(
            "/policies",
            json={
                "name": "standard",
                "models": ["anthropic/*"],
                "models_deny": ["*opus*"],
                "server_tool_ceiling_usd": "0.50",
                "limits": {"concurrent_requests": 2},
                "budgets": [{"amount_usd": "5", "period": "day"}],
            },
        )
    ).json()
    assert (policy["server_tool_ceiling_usd"], policy["budgets"][0]["time_zone"]) == ("0.50", "Europe/Berlin")
    changed = await client.patch(f"/policies/{policy['id']}", json={"server_tool_ceiling_usd": None, "vendors": ["anthropic"]})
    assert (changed.json()["server_tool_ceiling_usd"], changed.json()["vendors"]) == (None, ["anthropic"])
    assert changed.json()["budgets"] == policy["budgets"]
    assert (await client.get("/policies")).json()["items"] == [changed.json()]

    budget = (await client.post("/budgets", json={"scope": "team", "scope_id": "team_1", "amount_usd": "100", "period": "month"})).json()
    assert (await client.patch(f"/budgets/{budget['id']}", json={"amount_usd": "50"})).json()["amount_usd"] == "50.00"
    limit = (await client.post("/limits", json={"scope": "organization", "kind": "requests_per_day", "amount": 9})).json()
    alias = (await client.post("/aliases", json={"alias": "fast", "target": "gpt-4.1-mini"})).json()
    assert alias["target"] == "openai/gpt-4.1-mini"
    for kind, made in (("budgets", budget), ("limits", limit), ("aliases", alias), ("policies", policy)):
        address = f"/{kind}/{made['id']}"
        assert (await client.get(address, headers=by("stranger"))).status_code == 404
        assert (await client.get(address)).status_code == 200
        assert (await client.delete(address)).status_code == 204
        assert (await client.get(address)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x", "nmae": "y"},
        {"name": "x\x00"},
        {"name": "x" * 201},
        {"name": "x", "owner": {"team_id": "team_1", "developer_id": "dev_1"}},
        {"name": "x", "budgets": [{"amount_usd": 10.5, "period": "day"}]},
        {"name": "x", "budgets": [{"amount_usd": "-1", "period": "day"}]},
        {"name": "x", "budgets": [{"amount_usd": "1e400", "period": "day"}]},
        {"name": "x", "budgets": [{"amount_usd": "1", "period": "fortnight"}]},
        {"name": "x", "limits": {"requests_per_minute": 2**63}},
        {"name": "x", "expires_at": "2027-01-01T00:00:00"},
        {"name": "x", "expires_at": "9999-12-31T23:59:59Z"},
        {"name": "x", "models": ["a b"]},
    ],
)
async def test_bodies_that_cannot_be_are_refused_with_a_problem(client, body) -> None:
    answer = await client.post("/virtual-keys", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input"), answer.text


async def test_a_key_that_was_sent_is_never_repeated_in_a_refusal(client) -> None:
    canary = "sk-kg-" + "C4n4ry" * 50
    for path in ("/policies/explain", "/virtual-keys/report-leak"):
        for key in (canary, canary[:57]):
            answer = await client.post(path, json={"key": key, "model": "m"} if "explain" in path else {"key": key})
            assert answer.status_code in {404, 422}
            assert "C4n4ry" not in answer.text
    assert "C4n4ry" not in (await client.get("/quota", headers=by(canary))).text


async def test_the_holder_of_a_key_may_ask_only_for_its_quota(client) -> None:
    for headers in ({"authorization": ""}, {"authorization": "Basic x"}, by("sk-kg-nonsense")):
        answer = await client.get("/quota", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_a_leak_is_reported_without_an_account(client) -> None:
    made = (await client.post("/virtual-keys", json={"name": "x"})).json()
    answer = await client.post("/virtual-keys/report-leak", json={"key": made["key"]}, headers={"authorization": ""})
    assert answer.status_code == 204
    assert (await client.get(f"/virtual-keys/{made['id']}")).json()["revoked_reason"] == "reported as leaked"


async def test_a_developers_widening_is_forbidden_and_recorded_once(client, house) -> None:
    made = await client.post("/virtual-keys", json={"name": "x", "budgets": [{"amount_usd": "1", "period": "day"}]}, headers=by("dev"))
    address = f"/virtual-keys/{made.json()['id']}"
    assert (await client.patch(address, json={"budgets": []}, headers=by("dev"))).status_code == 403
    assert [entry.outcome for entry in await house.entries("virtual_key.update")] == ["refused"]
    assert await house.entries("virtual_keys.write") == []
    assert (await client.post("/policies", json={"name": "p"}, headers=by("dev"))).status_code == 403
