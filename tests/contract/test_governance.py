"""Policies, budgets and limits over HTTP: every scope counts, all must pass, keys only narrow, explain tells the same as the gateway."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.house import CHAT, CLAUDE, COST, MESSAGE, MODEL, House

_SECRETLESS = re.compile(r"sk-kg-[0-9A-Za-z]{40,}")


@pytest.fixture(scope="module")
def chain(house: House) -> dict[str, str]:
    """One owner of each kind, nested: team above developer and app."""
    team = house.call("POST", "/teams", {"name": "Chain"})["id"]
    developer = house.call("POST", "/developers", {"name": "Chain", "email": "chain@example.com", "team_id": team})["id"]
    app = house.call("POST", "/apps", {"name": "Chain", "team_id": team})["id"]
    return {"team": team, "developer": developer, "app": app}


def _scoped(house: House, chain: dict[str, str], scope: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A key, and the words that name a rule of this scope that applies to it."""
    if scope in {"organization", "vendor", "model", "tag"}:
        made = house.key(scope, tags=["project=x"])
    elif scope == "team":
        made = house.key(scope, owner={"developer_id": chain["developer"]})
    elif scope == "key":
        made = house.key(scope)
    else:
        made = house.key(scope, owner={f"{scope}_id": chain[scope]})
    selectors = {"vendor": "openai", "model": f"openai/{MODEL}", "tag": "project=x"}
    named: dict[str, Any] = {"scope": scope}
    if scope in selectors:
        named["selector"] = selectors[scope]
    elif scope == "key":
        named["scope_id"] = made["id"]
    elif scope in chain:
        named["scope_id"] = chain[scope]
    return made, named


SCOPES = ["organization", "team", "developer", "app", "key", "vendor", "model", "tag"]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_budget_of_each_scope_refuses_names_itself_and_can_be_changed(house: House, chain: dict[str, str], scope: str) -> None:
    made, named = _scoped(house, chain, scope)
    assert house.send(made["key"]).status_code == 200
    budget = house.call("POST", "/budgets", {**named, "amount_usd": "0.000001", "period": "month", "mode": "hard"})
    assert budget["id"].startswith("bud_")
    assert {name: budget[name] for name in named} == named
    try:
        answer = house.send(made["key"])
        assert answer.status_code == 402
        message = answer.json()["error"]["message"]
        assert f"{budget['id']} of {scope} " in message
        told = house.call("POST", "/policies/explain", {"key_id": made["id"], "model": MODEL, "endpoint": "chat"})
        assert (told["allowed"], told["status"]) == (False, 402)
        assert told["refused_by"]["scope"] == scope
        [shown] = [one for one in house.keygate.usage(made["id"])["budgets"] if one["id"] == budget["id"]]
        assert (shown["scope"], shown["amount_usd"], shown["spent_usd"]) == (scope, "0.000001", "0.00")
        assert budget["id"] in [one["id"] for one in house.call("GET", "/budgets", scope=scope)["items"]]
        raised = house.call("PATCH", f"/budgets/{budget['id']}", {"amount_usd": "5.00"})
        assert raised["amount_usd"] == "5.00"
        assert house.call("GET", f"/budgets/{budget['id']}") == raised
        assert house.send(made["key"]).status_code == 200
        [shown] = [one for one in house.keygate.usage(made["id"])["budgets"] if one["id"] == budget["id"]]
        assert shown["spent_usd"] == COST
        house.call("PATCH", f"/budgets/{budget['id']}", {"amount_usd": "0.000001"})
        assert house.send(made["key"]).status_code == 402
    finally:
        house.call("DELETE", f"/budgets/{budget['id']}")
    assert house.send(made["key"]).status_code == 200
    assert house.raw("GET", f"/budgets/{budget['id']}", token=house.keygate.sign_in()).status_code == 404


@pytest.mark.parametrize("scope", SCOPES)
def test_a_limit_of_each_scope_refuses_and_names_itself(house: House, chain: dict[str, str], scope: str) -> None:
    made, named = _scoped(house, chain, scope)
    limit = house.call("POST", "/limits", {**named, "kind": "requests_per_minute", "amount": 1})
    assert limit["id"].startswith("lim_")
    try:
        statuses = {house.send(made["key"]).status_code for _ in range(2)}
        assert statuses == {200, 429} or statuses == {429}  # what was sent before may count
        message = house.send(made["key"]).json()["error"]["message"]
        assert f"{limit['id']} of {scope} " in message
        assert limit["id"] in [one["id"] for one in house.call("GET", "/limits", scope=scope)["items"]]
        assert limit["id"] in [one["id"] for one in house.keygate.usage(made["id"])["limits"]]
        house.call("PATCH", f"/limits/{limit['id']}", {"amount": 1000})
        assert house.send(made["key"]).status_code == 200
    finally:
        house.call("DELETE", f"/limits/{limit['id']}")


def test_a_budget_of_another_vendor_model_or_tag_does_not_count(house: House) -> None:
    made = house.key("elsewhere", tags=["project=y"])
    others = [("vendor", "anthropic"), ("model", "openai/gpt-4o*"), ("tag", "project=z")]
    budgets = [
        house.call("POST", "/budgets", {"scope": scope, "selector": selector, "amount_usd": "0.000001", "period": "day"})["id"]
        for scope, selector in others
    ]
    assert house.send(made["key"]).status_code == 200
    assert house.send(made["key"], "/anthropic/v1/messages", MESSAGE).status_code == 402
    for budget in budgets:
        house.call("DELETE", f"/budgets/{budget}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"scope": "team"},
        {"scope": "team", "scope_id": "team_none"},
        {"scope": "galaxy"},
        {"scope": "vendor", "selector": "made-up"},
        {"scope": "key", "scope_id": "vk_none"},
    ],
)
def test_rules_of_nothing_are_refused(house: House, wrong: dict[str, Any]) -> None:
    token = house.keygate.sign_in()
    for path, rest in (("/budgets", {"amount_usd": "1.00", "period": "day"}), ("/limits", {"kind": "requests_per_day", "amount": 1})):
        assert house.raw("POST", path, token=token, json={**wrong, **rest}).status_code in {404, 422}


def test_a_vendor_model_or_tag_may_be_named_as_any_scope_is(house: House) -> None:
    for scope, name in (("vendor", "openai"), ("model", "openai/gpt-4.1*"), ("tag", "project=x")):
        budget = house.call("POST", "/budgets", {"scope": scope, "scope_id": name, "amount_usd": "10.00", "period": "day", "mode": "soft"})
        limit = house.call("POST", "/limits", {"scope": scope, "scope_id": name, "kind": "requests_per_day", "amount": 100_000})
        assert budget["selector"] == limit["selector"] == name
        house.call("DELETE", f"/budgets/{budget['id']}")
        house.call("DELETE", f"/limits/{limit['id']}")


def test_policies_are_made_read_changed_and_removed(house: House) -> None:
    body = {"name": "chat only", "models": ["openai/*"], "models_deny": ["openai/gpt-4o*"], "vendors": ["openai"], "endpoints": ["chat"]}
    policy = house.call("POST", "/policies", body)
    assert policy["id"].startswith("pol_")
    assert {name: policy[name] for name in body} == body
    assert house.call("GET", f"/policies/{policy['id']}") == policy
    assert policy in house.call("GET", "/policies")["items"]
    made = house.key("governed", policy_id=policy["id"])
    assert house.send(made["key"]).status_code == 200
    assert house.send(made["key"], body=CHAT | {"model": "gpt-4o"}).status_code == 403
    assert house.send(made["key"], "/anthropic/v1/messages", MESSAGE).status_code == 403
    house.call("PATCH", f"/policies/{policy['id']}", {"models_deny": [f"openai/{MODEL}"]})
    assert house.send(made["key"]).status_code == 403
    token = house.keygate.sign_in()
    assert house.raw("POST", "/policies", token=token, json=body).status_code == 409
    assert house.raw("DELETE", f"/policies/{policy['id']}", token=token).status_code == 409
    house.call("PATCH", f"/virtual-keys/{made['id']}", {"policy_id": None})
    assert house.raw("DELETE", f"/policies/{policy['id']}", token=token).status_code == 204
    assert house.send(made["key"]).status_code == 200


def test_deny_wins_on_every_layer(house: House) -> None:
    made = house.key("denied", models=["openai/*"], models_deny=["openai/GPT-4.1*"])
    assert house.send(made["key"]).status_code == 403
    assert house.send(made["key"], body=CHAT | {"model": "gpt-4o-mini"}).status_code == 200


def test_keys_inherit_from_their_owner_and_only_narrow(house: House) -> None:
    policy = house.call("POST", "/policies", {"name": "team rules", "models": ["openai/*"], "budgets": []})
    team = house.call("POST", "/teams", {"name": "Ruled", "policy_id": policy["id"]})
    developer = house.call("POST", "/developers", {"name": "Ruled", "email": "ruled@example.com", "team_id": team["id"]})
    made = house.key("wide", owner={"developer_id": developer["id"]}, models=["openai/*", "anthropic/*"])
    assert house.send(made["key"]).status_code == 200
    answer = house.send(made["key"], "/anthropic/v1/messages", MESSAGE)
    assert answer.status_code == 403
    assert "team" in answer.json()["error"]["message"]
    told = house.call("POST", "/policies/explain", {"key_id": made["id"], "model": f"anthropic/{CLAUDE}", "endpoint": "chat"})
    assert (told["allowed"], told["status"], told["refused_by"]["scope"]) == (False, 403, "team")
    house.call("PATCH", f"/teams/{team['id']}", {"policy_id": None})
    assert house.send(made["key"], "/anthropic/v1/messages", MESSAGE).status_code == 200


@pytest.mark.parametrize("by", ["key", "key_id"])
def test_explain_says_what_the_gateway_would_do_without_doing_it(house: House, by: str) -> None:
    made = house.key("explained", models=[f"openai/{MODEL}"], budgets=[{"amount_usd": "1.00", "period": "day", "mode": "hard"}])
    named = {"key": made["key"]} if by == "key" else {"key_id": made["id"]}
    before = len(house.vendor.calls)
    told = house.call("POST", "/policies/explain", {**named, "model": MODEL, "endpoint": "chat"})
    assert (told["allowed"], told["status"], told["vendor"], told["model"]) == (True, 200, "openai", MODEL)
    assert told["refused_by"] is None
    assert told["hold"]["price_known"] is True
    told = house.call("POST", "/policies/explain", {**named, "model": "gpt-4o", "endpoint": "chat"})
    assert (told["allowed"], told["status"], told["refused_by"]["rule"]) == (False, 403, "model_not_allowed")
    assert len(house.vendor.calls) == before
    assert house.keygate.usage(made["id"])["requests"] == 0
    house.call("POST", f"/virtual-keys/{made['id']}/revoke")
    told = house.call("POST", "/policies/explain", {**named, "model": MODEL, "endpoint": "chat"})
    assert (told["allowed"], told["status"]) == (False, 401)
    assert not _SECRETLESS.search(str(told))


def test_explain_of_nothing_is_refused(house: House) -> None:
    token = house.keygate.sign_in()
    assert house.raw("POST", "/policies/explain", token=token, json={"model": MODEL, "endpoint": "chat"}).status_code == 422
    assert (
        house.raw("POST", "/policies/explain", token=token, json={"key_id": "vk_none", "model": MODEL, "endpoint": "chat"}).status_code
        == 404
    )
    made = house.key("endpoints")
    body = {"key_id": made["id"], "model": MODEL, "endpoint": "made-up"}
    assert house.raw("POST", "/policies/explain", token=token, json=body).status_code == 422


def test_a_soft_budget_lets_calls_pass_and_raises_an_event_per_threshold(house: House) -> None:
    made = house.key("soft", budgets=[{"amount_usd": "0.0001", "period": "day", "mode": "soft", "thresholds": [50, 100]}])
    for _ in range(3):
        assert house.send(made["key"]).status_code == 200

    def events() -> list[dict[str, Any]]:
        found = house.call("GET", "/events", limit=500)["items"]
        return [event for event in found if made["id"] in str(event)]

    found = _until(events, lambda listed: len(listed) >= 2)
    assert len(found) == 2
    for event in found:
        assert event["id"].startswith("evt_")
        assert "budget" in event["type"] if "type" in event else "budget" in str(event)
    assert "50" in str(found)
    assert "100" in str(found)


def test_a_leaver_is_told_of_with_the_receipt_and_so_is_each_key_that_ended(house: House) -> None:
    made = house.call("POST", "/developers", {"name": "Leaver", "email": "leaver@example.com"})
    key = house.key("of the leaver", owner={"developer_id": made["id"]})
    token = house.keygate.sign_in()
    receipt = house.raw("DELETE", f"/developers/{made['id']}", token=token).headers["x-keygate-receipt"]
    (left,) = [each for each in house.call("GET", "/events?type=developer.deactivated")["items"] if each["subject"] == made["id"]]
    (ended,) = [each for each in house.call("GET", "/events?type=virtual_key.revoked")["items"] if each["subject"] == key["id"]]
    assert left["payload"]["receipt_id"] == receipt
    assert (ended["payload"]["owner"], ended["payload"]["reason"]) == (made["id"], "its developer was deactivated")


def test_concurrency_slots_are_free_again_after_the_request(house: House) -> None:
    key = house.key("narrow", limits={"concurrent_requests": 1})["key"]
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(house.send(key).status_code)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 429}
    assert house.send(key).status_code == 200


def _until(read: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while not good(found := read()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
