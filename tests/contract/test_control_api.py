"""The control API by its published names and shapes: sign-in, owners, credentials, problems, pages, and what is not there yet."""

from __future__ import annotations

import re
import secrets
from typing import Any

import pytest
from tests.contract.house import MODEL, OPENAI_SECRET, House

RFC3339_UTC = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """RFC 9457, with our stable code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= set(body)
    assert (body["status"], body["code"]) == (status, code)
    assert answer.headers["x-request-id"] == body["request_id"]
    return body


@pytest.fixture(scope="module")
def token(house: House) -> str:
    return house.keygate.sign_in()


def test_login_answers_a_bearer_token(house: House) -> None:
    body = {"email": house.keygate.EMAIL, "password": house.keygate.password}
    answer = house.raw("POST", "/auth/login", json=body)
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "token_type", "expires_in"}
    assert answer.json()["token_type"].lower() == "bearer"
    assert answer.json()["expires_in"] > 0
    assert "no-store" in answer.headers["cache-control"]
    assert house.raw("GET", "/teams", token=answer.json()["access_token"]).status_code == 200


def test_wrong_password_and_unknown_account_look_alike(house: House) -> None:
    wrong = problem(house.raw("POST", "/auth/login", json={"email": house.keygate.EMAIL, "password": "no"}), 401, "unauthenticated")
    unknown = problem(house.raw("POST", "/auth/login", json={"email": "x@example.com", "password": "no"}), 401, "unauthenticated")
    assert wrong["detail"] == unknown["detail"]


def test_without_a_token_there_is_nothing(house: House) -> None:
    for path in ("/teams", "/virtual-keys", "/usage", "/audit", "/credentials", "/dashboard/stats"):
        answer = house.raw("GET", path)
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].lower().startswith("bearer")
        problem(house.raw("GET", path, token="made-up"), 401, "unauthenticated")


@pytest.mark.parametrize("path", ["/pools", "/key", "/grants", "/okap", "/sso"])
def test_what_is_not_built_is_absent(house: House, token: str, path: str) -> None:
    for method in ("GET", "POST"):
        assert house.raw(method, path, token=token, json={} if method == "POST" else None).status_code == 404, path


def test_teams_and_developers_have_the_published_names(house: House) -> None:
    team = house.call("POST", "/teams", {"name": "Search"})
    assert team["id"].startswith("team_")
    assert team["name"] == "Search"
    assert RFC3339_UTC.match(team["created_at"])
    person = house.call("POST", "/developers", {"name": "Ada", "email": "ada@example.com", "team_id": team["id"]})
    assert person["id"].startswith("dev_")
    assert (person["email"], person["team_id"]) == ("ada@example.com", team["id"])
    assert house.call("GET", f"/developers/{person['id']}")["id"] == person["id"]
    assert person["id"] in [one["id"] for one in house.call("GET", "/developers")["items"]]
    alone = house.call("POST", "/developers", {"name": "Bob", "email": "bob@example.com"})
    assert alone["team_id"] is None


def test_deactivating_a_developer_revokes_what_they_hold(house: House) -> None:
    person = house.call("POST", "/developers", {"name": "Eve", "email": "eve@example.com"})
    app = house.call("POST", "/apps", {"name": "eves-app", "developer_id": person["id"]})
    keys = [house.key("theirs", owner={"developer_id": person["id"]}), house.key("apps", owner={"app_id": app["id"]})]
    for made in keys:
        assert house.send(made["key"]).status_code == 200
    answer = house.raw("DELETE", f"/developers/{person['id']}", token=house.keygate.sign_in())
    assert answer.status_code in {200, 204}
    for made in keys:
        assert house.send(made["key"]).status_code == 401
    assert house.call("GET", f"/virtual-keys/{keys[0]['id']}")["status"] == "revoked"


def test_a_credential_never_shows_its_secret(house: House, token: str) -> None:
    secret = f"sk-marked-{secrets.token_hex(12)}"
    body = {
        "vendor": "openai",
        "name": "second",
        "secret": secret,
        "base_url": f"{house.vendor.address}/v1",
        "account": "org-1",
        "weight": 1,
        "models": ["gpt-none*"],
    }
    made = house.raw("POST", "/credentials", token=token, json=body)
    assert made.status_code == 201
    identifier = made.json()["id"]
    assert identifier.startswith("cred_")
    assert {name: made.json()[name] for name in body if name != "secret"} == {name: body[name] for name in body if name != "secret"}
    tested = house.raw("POST", f"/credentials/{identifier}/test", token=token)
    assert (tested.status_code, tested.json()["ok"]) == (200, True)
    changed = house.raw("PATCH", f"/credentials/{identifier}", token=token, json={"name": "renamed", "weight": 3})
    assert (changed.json()["name"], changed.json()["weight"]) == ("renamed", 3)
    shown = house.raw("GET", f"/credentials/{identifier}", token=token)
    gone = house.raw("DELETE", f"/credentials/{identifier}", token=token)
    assert gone.status_code == 204
    problem(house.raw("GET", f"/credentials/{identifier}", token=token), 404, "not_found")
    for answer in (made, tested, changed, shown):
        assert secret not in answer.text


@pytest.mark.parametrize(
    "address", ["http://169.254.169.254/latest", "http://[fe80::1]/", "ftp://example.com", "http://metadata.google.internal/"]
)
def test_a_base_url_may_be_private_but_never_link_local(house: House, token: str, address: str) -> None:
    body = {"vendor": "openai", "name": f"evil {address}", "secret": "x" * 20, "base_url": address}
    assert house.raw("POST", "/credentials", token=token, json=body).status_code == 422


def test_a_private_base_url_is_fine(house: House, token: str) -> None:
    for address in ("http://10.1.2.3:8080/v1", "http://localhost:1/v1", "http://192.168.1.1/v1"):
        body = {"vendor": "openai", "name": f"private {address}", "secret": "x" * 20, "base_url": address, "models": ["none"]}
        answer = house.raw("POST", "/credentials", token=token, json=body)
        assert answer.status_code == 201
        house.call("DELETE", f"/credentials/{answer.json()['id']}")


def test_problems_carry_stable_codes(house: House, token: str) -> None:
    problem(house.raw("GET", "/teams/team_none", token=token), 404, "not_found")
    problem(house.raw("GET", "/made-up", token=token), 404, "not_found")
    assert problem(house.raw("POST", "/teams", token=token, json={}), 422, "invalid_input")["field"] == "name"
    assert problem(house.raw("POST", "/teams", token=token, json={"name": "x", "nmae": 1}), 422, "invalid_input")["field"] == "nmae"
    problem(house.raw("POST", "/teams", token=token, content=b"{"), 422, "invalid_input")
    assert house.raw("PUT", "/teams", token=token).status_code == 405


def test_lists_are_paged_by_cursor(house: House) -> None:
    for number in range(5):
        house.call("POST", "/teams", {"name": f"Page {number}"})
    whole = [team["id"] for team in house.call("GET", "/teams")["items"]]
    found, cursor = [], None
    while True:
        page = house.call("GET", "/teams", limit=2, **({} if cursor is None else {"cursor": cursor}))
        assert set(page) == {"items", "next_cursor"}
        assert len(page["items"]) <= 2
        found += [team["id"] for team in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == whole
    for path in (
        "/developers",
        "/apps",
        "/virtual-keys",
        "/credentials",
        "/policies",
        "/budgets",
        "/limits",
        "/aliases",
        "/users",
        "/audit",
        "/events",
    ):
        page = house.call("GET", path, limit=1)
        assert {"items", "next_cursor"} == set(page), path
    assert house.raw("GET", "/teams?cursor=garbage!", token=house.keygate.sign_in()).status_code == 422


def test_vendors_are_listed_with_what_they_serve(house: House) -> None:
    listed = house.call("GET", "/vendors")
    found = listed["items"] if isinstance(listed, dict) else listed
    assert {"openai", "anthropic"} == {vendor["name"] for vendor in found if vendor["mount"] is not None}
    assert {"openai", "anthropic", "azure", "google", "openrouter", "bedrock"} <= {vendor["name"] for vendor in found if vendor["issuing"]}


def test_one_vendor_is_shown_with_the_way_to_a_key_that_is_open_there(house: House) -> None:
    ways = {name: house.call("GET", f"/vendors/{name}")["keys"]["way"] for name in ("openai", "groq", "elevenlabs")}
    assert ways == {"openai": "made", "groq": "by_hand", "elevenlabs": "none"}
    assert house.call("GET", "/vendors/accounts")["items"] == []  # no vendor's name
    assert house.raw("GET", "/vendors/nobody", token=house.keygate.sign_in()).status_code == 404


def test_health_readiness_and_metrics_are_open(house: House) -> None:
    house.send(house.key("metrics")["key"])
    assert house.client.get("/health").status_code == 200
    assert house.client.get("/ready").status_code == 200
    answer = house.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    for name in ("requests", "refusals", "upstream", "holds", "journal_lag"):
        assert re.search(rf"^keygate_[a-z_]*{name}", answer.text, re.MULTILINE), name
    assert "sk-kg-" not in answer.text
    assert OPENAI_SECRET not in answer.text


def test_every_answer_of_the_control_api_has_a_request_id(house: House, token: str) -> None:
    for path in ("/teams", "/made-up"):
        assert house.raw("GET", path, token=token).headers["x-request-id"]


def test_prices_of_the_operator_are_kept_and_listed(house: House) -> None:
    found = {f"{price['vendor']}/{price['model']}": price["rates_usd"] for price in house.call("GET", "/prices")}
    assert found[f"openai/{MODEL}"] == {"input": "1.00", "output": "10.00"}
