"""Virtual keys over HTTP: every field that is published, and what each of them does to the next request."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.contract.house import CHAT, CLAUDE, COST, MESSAGE, MODEL, House

TOKEN = re.compile(r"^sk-kg-[0-9A-Za-z]{40,}$")
USD = re.compile(r"^\d+\.\d{2,9}$")


def test_a_key_is_made_with_every_published_field(house: House) -> None:
    team = house.call("POST", "/teams", {"name": "Every field"})
    policy = house.call("POST", "/policies", {"name": "every field", "models": ["openai/*"]})
    body = {
        "name": "every field",
        "owner": {"team_id": team["id"]},
        "policy_id": policy["id"],
        "models": ["openai/gpt-4.1*"],
        "vendors": ["openai"],
        "endpoints": ["chat", "responses"],
        "limits": {
            "requests_per_minute": 60,
            "requests_per_day": 1000,
            "tokens_per_minute": 100000,
            "tokens_per_day": 1000000,
            "concurrent_requests": 4,
        },
        "budgets": [{"amount_usd": "10.00", "period": "month", "mode": "hard"}, {"amount_usd": "5.00", "period": "day", "mode": "soft"}],
        "expires_at": "2100-01-01T00:00:00Z",
        "tags": ["project=x", "ci"],
    }
    answer = house.raw("POST", "/virtual-keys", token=house.keygate.sign_in(), json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert made["id"].startswith("vk_")
    assert TOKEN.match(made["key"])
    assert made["key"].startswith(made["hint"].rstrip("….")) or made["hint"] in made["key"]
    assert len(made["hint"]) < 24
    assert made["env"] == {
        "OPENAI_BASE_URL": f"{house.url}/openai/v1",
        "OPENAI_API_KEY": made["key"],
    }
    assert made["owner"]["team_id"] == team["id"]
    for name in ("policy_id", "models", "vendors", "endpoints", "limits", "tags"):
        assert made[name] == body[name]
    assert datetime.fromisoformat(made["expires_at"]) == datetime(2100, 1, 1, tzinfo=UTC)
    assert [{name: budget[name] for name in ("amount_usd", "period", "mode")} for budget in made["budgets"]] == body["budgets"]
    shown = house.raw("GET", f"/virtual-keys/{made['id']}", token=house.keygate.sign_in())
    assert made["key"] not in shown.text
    assert "key" not in shown.json()
    assert {name: value for name, value in made.items() if name not in {"key", "env"}} == shown.json()
    assert made["id"] in [one["id"] for one in house.call("GET", "/virtual-keys", limit=500)["items"]]
    assert house.send(made["key"]).status_code == 200


def test_a_name_alone_is_enough(house: House) -> None:
    made = house.key("only a name")
    assert set(made["env"]) == {"OPENAI_BASE_URL", "OPENAI_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"}
    assert house.send(made["key"]).status_code == 200
    assert house.send(made["key"], "/anthropic/v1/messages", MESSAGE).status_code == 200


@pytest.mark.parametrize("owner", ["team", "developer", "app"])
def test_each_kind_of_owner_can_hold_a_key(house: House, owner: str) -> None:
    body = {"name": f"holder {owner}"} | ({"email": "holder@example.com"} if owner == "developer" else {})
    holder = house.call("POST", f"/{owner}s", body)
    made = house.key("held", owner={f"{owner}_id": holder["id"]})
    assert made["owner"][f"{owner}_id"] == holder["id"]
    house.send(made["key"])
    [row] = house.call("GET", "/usage", group_by=owner, key_id=made["id"])["items"]
    assert row["group"] == {owner: holder["id"]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"owner": {"team_id": "team_none"}},
        {"owner": {"team_id": "team_a", "developer_id": "dev_b"}},
        {"policy_id": "pol_none"},
        {"budgets": [{"amount_usd": "ten", "period": "day", "mode": "hard"}]},
        {"budgets": [{"amount_usd": "-1.00", "period": "day", "mode": "hard"}]},
        {"budgets": [{"amount_usd": "1.00", "period": "fortnight", "mode": "hard"}]},
        {"budgets": [{"amount_usd": "1.00", "period": "day", "mode": "firm"}]},
        {"budgets": [{"amount_usd": 1.5, "period": "day", "mode": "hard"}]},
        {"limits": {"requests_per_minute": 0}},
        {"limits": {"requests_per_hour": 1}},
        {"vendors": ["made-up"]},
        {"endpoints": ["made-up"]},
        {"expires_at": "2000-01-01T00:00:00Z"},
        {"expires_at": "tomorrow"},
        {"expires_at": "2100-01-01T00:00:00"},
        {"modles": ["openai/*"]},
    ],
)
def test_mistakes_are_refused_when_the_key_is_made(house: House, wrong: dict[str, Any]) -> None:
    answer = house.raw("POST", "/virtual-keys", token=house.keygate.sign_in(), json={"name": "wrong", **wrong})
    assert answer.status_code in {404, 422}
    assert answer.json()["code"]


@pytest.mark.parametrize("period", ["day", "week", "month", "quarter", "year", "lifetime"])
@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_budgets_of_every_period_and_mode_count(house: House, period: str, mode: str) -> None:
    made = house.key(f"{period} {mode}", budgets=[{"amount_usd": "0.0005", "period": period, "mode": mode}])
    assert house.send(made["key"]).status_code == 200
    used = house.keygate.usage(made["id"])
    [budget] = used["budgets"]
    assert (budget["scope"], budget["period"], budget["mode"], budget["amount_usd"]) == ("key", period, mode, "0.0005")
    assert (budget["spent_usd"], budget["held_usd"]) == (COST, "0.00")
    now = datetime.now(UTC)
    if period == "lifetime":
        assert budget["resets_at"] is None
    else:
        resets = datetime.fromisoformat(budget["resets_at"])
        assert now < resets <= now + timedelta(days=366)
        assert (resets.hour, resets.minute) == (0, 0)
        if period == "week":
            assert resets.weekday() == 0
    statuses = [house.send(made["key"]).status_code for _ in range(9)]
    assert statuses[-1] == (402 if mode == "hard" else 200)


def test_usage_has_the_published_fields_and_is_true_as_of_the_answer(house: House) -> None:
    made = house.key("usage", limits={"requests_per_minute": 10}, budgets=[{"amount_usd": "1.00", "period": "day", "mode": "hard"}])
    for number in range(1, 4):
        house.send(made["key"])
        used = house.keygate.usage(made["id"])
        assert {"requests", "input_tokens", "output_tokens", "spent_usd", "held_usd", "in_doubt_usd", "budgets", "limits"} <= set(used)
        assert (used["requests"], used["input_tokens"], used["output_tokens"]) == (number, 10 * number, 5 * number)
        assert float(used["spent_usd"]) == pytest.approx(float(COST) * number)
        assert used["held_usd"] == used["in_doubt_usd"] == "0.00"
        assert all(USD.match(used[name]) for name in ("spent_usd", "held_usd", "in_doubt_usd"))
        [budget] = used["budgets"]
        assert {"id", "scope", "period", "mode", "amount_usd", "spent_usd", "held_usd", "resets_at"} <= set(budget)
        assert budget["id"].startswith("bud_")
        assert budget["spent_usd"] == used["spent_usd"]
        [limit] = used["limits"]
        assert (limit["kind"], limit["amount"], limit["used"]) == ("requests_per_minute", 10, number)


def test_quota_tells_the_holder_of_a_key_the_same(house: House) -> None:
    made = house.key("quota", budgets=[{"amount_usd": "1.00", "period": "day", "mode": "hard"}])
    house.send(made["key"])
    answer = house.raw("GET", "/quota", token=made["key"])
    assert answer.status_code == 200
    assert answer.json() == house.keygate.usage(made["id"])
    assert house.raw("GET", "/quota").status_code == 401
    assert house.raw("GET", "/quota", token=house.keygate.sign_in()).status_code == 401
    assert house.raw("GET", "/teams", token=made["key"]).status_code == 401


def test_a_change_holds_for_the_next_request(house: House) -> None:
    made = house.key("patched")
    path = f"/virtual-keys/{made['id']}"
    assert house.send(made["key"]).status_code == 200
    house.call("PATCH", path, {"models": [f"anthropic/{CLAUDE}"], "name": "renamed", "tags": ["a"]})
    assert house.call("GET", path)["name"] == "renamed"
    assert house.send(made["key"]).status_code == 403
    house.call("PATCH", path, {"models": None})
    assert house.send(made["key"]).status_code == 200
    house.call("PATCH", path, {"limits": {"requests_per_minute": 1}})
    assert [house.send(made["key"]).status_code for _ in range(2)][-1] == 429
    house.call("PATCH", path, {"limits": {"requests_per_minute": None}})
    assert house.send(made["key"]).status_code == 200
    house.call("PATCH", path, {"budgets": [{"amount_usd": "0.00", "period": "lifetime", "mode": "hard"}]})
    assert house.send(made["key"]).status_code == 402
    house.call("PATCH", path, {"budgets": []})
    assert house.send(made["key"]).status_code == 200
    house.call("PATCH", path, {"expires_at": (datetime.now(UTC) + timedelta(seconds=1)).isoformat()})
    time.sleep(1.1)
    assert house.send(made["key"]).status_code == 401


def test_rotation_keeps_the_old_key_for_the_grace_only(house: House) -> None:
    made = house.key("rotated", budgets=[{"amount_usd": "1.00", "period": "day", "mode": "hard"}])
    house.send(made["key"])
    fresh = house.call("POST", f"/virtual-keys/{made['id']}/rotate", {"grace_seconds": 1})
    assert fresh["id"] == made["id"]
    assert TOKEN.match(fresh["key"])
    assert fresh["key"] != made["key"]
    assert fresh["env"]["OPENAI_API_KEY"] == fresh["key"]
    assert house.send(made["key"]).status_code == 200
    assert house.send(fresh["key"]).status_code == 200
    time.sleep(1.1)
    assert house.send(made["key"]).status_code == 401
    assert house.send(fresh["key"]).status_code == 200
    assert house.keygate.usage(made["id"])["requests"] == 4
    last = house.call("POST", f"/virtual-keys/{made['id']}/rotate")
    assert house.send(fresh["key"]).status_code == 401
    assert house.send(last["key"]).status_code == 200


def test_revoking_is_for_good_and_can_be_said_twice(house: House) -> None:
    made = house.key("ended")
    for _ in range(2):
        ended = house.call("POST", f"/virtual-keys/{made['id']}/revoke")
        assert ended["status"] == "revoked"
        assert ended["revoked_at"]
    assert house.send(made["key"]).status_code == 401
    token = house.keygate.sign_in()
    assert house.raw("POST", f"/virtual-keys/{made['id']}/rotate", token=token).status_code == 409
    assert house.raw("PATCH", f"/virtual-keys/{made['id']}", token=token, json={"name": "x"}).status_code == 409


def test_last_use_is_known(house: House) -> None:
    made = house.key("used")
    assert made["last_used_at"] is None
    house.send(made["key"])
    deadline = time.monotonic() + 15
    while house.call("GET", f"/virtual-keys/{made['id']}")["last_used_at"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_later_use_of_the_same_minute_is_known_after_a_restart_at_the_latest(house: House) -> None:
    made = house.key("used again")

    def last_use() -> str | None:
        seen: str | None = house.call("GET", f"/virtual-keys/{made['id']}")["last_used_at"]
        return seen

    house.send(made["key"])
    deadline = time.monotonic() + 15
    while last_use() is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    first = last_use()
    house.send(made["key"])
    house.keygate.stop()
    house.keygate.start()
    house.keygate.sign_in()
    assert str(last_use()) > str(first)


def test_patterns_and_endpoint_groups_decide(house: House) -> None:
    key = house.key("pattern", models=["openai/gpt-4.1*", "anthropic/*"], endpoints=["chat"])["key"]
    assert house.send(key).status_code == 200
    assert house.send(key, "/anthropic/v1/messages", MESSAGE).status_code == 200
    assert house.send(key, body=CHAT | {"model": "gpt-4o"}).status_code == 403
    assert house.send(key, "/openai/v1/responses", {"model": MODEL, "input": "hi"}).status_code == 403
    assert house.send(key, "/openai/v1/embeddings", {"model": "text-embedding-3-small", "input": "hi"}).status_code == 403


def test_free_calls_are_counted_but_cost_nothing_even_where_no_price_is_known(house: House) -> None:
    made = house.key("free", budgets=[{"amount_usd": "0.00", "period": "lifetime", "mode": "hard"}])
    assert house.send(made["key"], "/openai/v1/moderations", {"model": "omni-moderation-latest", "input": "hi"}).status_code == 200
    assert (
        house.send(made["key"], "/anthropic/v1/messages/count_tokens", {k: v for k, v in MESSAGE.items() if k != "max_tokens"}).status_code
        == 200
    )
    assert house.keygate.usage(made["id"])["spent_usd"] == "0.00"
