"""Usage, audit and the dashboard's figures over HTTP."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.contract.house import CLAUDE, COST, MESSAGE, MODEL, House, furnished


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Its own: sums are compared."""
    with furnished(tmp_path_factory.mktemp("reports")) as found:
        yield found


@pytest.fixture(scope="module")
def traffic(house: House) -> dict[str, Any]:
    """Two teams with a key each: two calls of OpenAI for the first, one of Anthropic for the second."""
    teams = [house.call("POST", "/teams", {"name": f"Team {number}"})["id"] for number in range(2)]
    keys = [house.key(f"key {number}", owner={"team_id": team}, tags=[f"n={number}"]) for number, team in enumerate(teams)]
    for _ in range(2):
        assert house.send(keys[0]["key"]).status_code == 200
    assert house.send(keys[1]["key"], "/anthropic/v1/messages", MESSAGE).status_code == 200
    return {"teams": teams, "keys": [key["id"] for key in keys]}


def test_usage_groups_by_what_is_named(house: House, traffic: dict[str, Any]) -> None:
    today = datetime.now(UTC).date().isoformat()
    report = house.call("GET", "/usage", group_by="key,model,team,day")
    rows = {row["group"]["key"]: row for row in report["items"]}
    first, second = (rows[key] for key in traffic["keys"])
    assert first["group"] == {"key": traffic["keys"][0], "model": MODEL, "team": traffic["teams"][0], "day": today}
    assert (first["requests"], first["input_tokens"], first["output_tokens"], first["cost_usd"]) == (2, 20, 10, "0.00012")
    assert (second["group"]["model"], second["requests"], second["cost_usd"]) == (CLAUDE, 1, COST)
    [whole] = house.call("GET", "/usage")["items"]
    assert (whole["requests"], whole["cost_usd"]) == (3, "0.00018")


@pytest.mark.parametrize(
    "group", ["key", "team", "developer", "app", "vendor", "model", "hour", "day", "month", "endpoint", "status", "credential"]
)
def test_every_group_adds_up(house: House, traffic: dict[str, Any], group: str) -> None:
    rows = house.call("GET", "/usage", group_by=group)["items"]
    assert sum(row["requests"] for row in rows) == 3
    assert all(set(row["group"]) == {group} for row in rows)


def test_usage_is_cut_to_its_range_and_filters(house: House, traffic: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    assert (
        house.call("GET", "/usage", **{"from": (now - timedelta(days=9)).isoformat(), "to": (now - timedelta(days=8)).isoformat()})["items"]
        == []
    )
    until = house.call("GET", "/usage", **{"from": (now - timedelta(hours=1)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()})
    assert until["items"][0]["requests"] == 3
    assert {"from", "to"} <= set(until)
    for name, value, expected in (("team_id", traffic["teams"][0], 2), ("vendor", "anthropic", 1), ("model", MODEL, 2), ("tag", "n=1", 1)):
        assert house.call("GET", "/usage", **{name: value})["items"][0]["requests"] == expected
    token = house.keygate.sign_in()
    assert house.raw("GET", "/usage?group_by=colour", token=token).status_code == 422
    assert house.raw("GET", "/usage?from=yesterday", token=token).status_code == 422


def test_usage_leaves_as_csv(house: House, traffic: dict[str, Any]) -> None:
    answer = house.raw("GET", "/usage?group_by=key,day&format=csv", token=house.keygate.sign_in())
    assert answer.headers["content-type"].startswith("text/csv")
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(answer.text))}
    assert rows[traffic["keys"][0]]["cost_usd"] == "0.00012"
    asked = house.raw("GET", "/usage?group_by=key,day", token=house.keygate.sign_in(), headers={"accept": "text/csv"})
    assert asked.text == answer.text


def test_an_entry_tells_all_that_is_kept_of_a_request(house: House, traffic: dict[str, Any]) -> None:
    entries = house.call("GET", "/usage/entries", key_id=traffic["keys"][0])["items"]
    assert len(entries) == 2
    entry = entries[0]
    assert entry["request_id"].startswith("req_")
    assert entry["credential_id"].startswith("cred_")
    told = {name: entry[name] for name in ("vendor", "model_asked", "model", "model_served", "status", "in_doubt", "tags", "cost_usd")}
    assert told == {
        "vendor": "openai",
        "model_asked": MODEL,
        "model": MODEL,
        "model_served": MODEL,
        "status": 200,
        "in_doubt": False,
        "tags": ["n=0"],
        "cost_usd": COST,
    }
    assert entry["price_id"]
    assert entry["latency_ms"] >= 0
    assert entry["first_token_ms"] is not None
    assert "hi" not in [value for value in entry.values() if isinstance(value, str)]


def test_the_dashboards_figures_agree_with_the_ledger(house: House, traffic: dict[str, Any]) -> None:
    stats = house.call("GET", "/dashboard/stats")
    assert stats["today"]["requests"] == stats["last_30_days"]["requests"] == 3
    assert stats["today"]["cost_usd"] == "0.00018"


def test_every_change_stands_in_the_audit_log_with_actor_and_address(house: House) -> None:
    team = house.call("POST", "/teams", {"name": "Audited"})
    house.call("PATCH", f"/teams/{team['id']}", {"name": "Renamed"})
    credential = house.keygate.credential("openai", f"{house.vendor.address}/v1", "sk-marked-audit-4714")
    entries = house.call("GET", "/audit", limit=500)["items"]
    mine = [entry for entry in entries if entry["target"] == team["id"]]
    assert {entry["action"] for entry in mine} == {"team.create", "team.update"}
    change = next(entry for entry in mine if entry["action"] == "team.update")
    assert (change["before"]["name"], change["after"]["name"]) == ("Audited", "Renamed")
    assert change["address"] == "127.0.0.1"
    assert change["request_id"]
    assert change["actor"]["kind"] == "user"
    [made] = [entry for entry in entries if entry["target"] == credential["id"] and entry["action"] == "credential.create"]
    assert "sk-marked-audit" not in json.dumps(entries)
    assert made["after"]
    house.call("DELETE", f"/credentials/{credential['id']}")


def test_a_refusal_to_change_stands_in_the_audit_log(house: House) -> None:
    token = house.call("POST", "/api-tokens", {"name": "reader", "scopes": ["teams.read"]})["token"]
    assert house.raw("POST", "/teams", token=token, json={"name": "not mine"}).status_code == 403
    entries = house.call("GET", "/audit", limit=500)["items"]
    assert any(entry["outcome"] == "refused" and "teams" in f"{entry['action']} {entry['target']}" for entry in entries)


def test_the_audit_log_is_chained_verified_and_exported(house: House) -> None:
    found = house.call("GET", "/audit/verify")
    assert found["ok"] is True
    assert found["fault"] is None
    assert found["entries"] > 0
    answer = house.raw("GET", "/audit/export", token=house.keygate.sign_in())
    assert answer.status_code == 200
    lines = [json.loads(line) for line in answer.text.splitlines() if line]
    assert len(lines) >= found["entries"]
