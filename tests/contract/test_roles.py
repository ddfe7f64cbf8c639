"""Roles and API tokens on every route of the running product, and the throttle at the door."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.contract.house import House, furnished

NAMES = re.compile(r"\{[a-z_]+\}")


@dataclass(frozen=True, slots=True)
class People:
    developer_id: str
    tokens: dict[str, str]
    permissions: dict[str, frozenset[str]]


def _sign_in(house: House, email: str, password: str) -> str:
    answer = house.raw("POST", "/auth/login", json={"email": email, "password": password})
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Its own: the throttle counts per address."""
    with furnished(tmp_path_factory.mktemp("roles")) as found:
        yield found


@pytest.fixture(scope="module")
def people(house: House) -> People:
    developer = house.call("POST", "/developers", {"name": "Dev", "email": "dev@example.com"})["id"]
    tokens = {"owner": house.keygate.sign_in()}
    for role in ("admin", "viewer", "developer"):
        password = secrets.token_urlsafe(16)
        body = {"email": f"{role}@example.com", "name": role, "role": role, "password": password}
        house.call("POST", "/users", body | ({"developer_id": developer} if role == "developer" else {}))
        tokens[role] = _sign_in(house, body["email"], password)
    held = {role: frozenset(house.raw("GET", "/auth/me", token=token).json()["permissions"]) for role, token in tokens.items()}
    return People(developer, tokens, held)


def _routes(house: House) -> list[tuple[str, str, str]]:
    for path in ("/api/v1/openapi.json", "/openapi.json"):
        answer = house.client.get(path)
        if answer.status_code == 200:
            break
    return [
        (method.upper(), path.removeprefix("/api/v1"), operation["x-permission"])
        for path, operations in answer.json()["paths"].items()
        if path.startswith("/api/v1")
        for method, operation in operations.items()
    ]


def test_every_route_is_closed_to_roles_that_lack_its_permission(house: House, people: People) -> None:
    closed, opened = 0, 0
    for method, path, permission in _routes(house):
        address = NAMES.sub("absent_1", path)
        if permission == "public":
            continue
        assert house.raw(method, address, json={} if method != "GET" else None).status_code == 401, (method, path)
        for role in ("viewer", "developer"):
            if permission.endswith(".self"):
                continue
            status = house.raw(method, address, token=people.tokens[role], json={} if method != "GET" else None).status_code
            if permission in people.permissions[role]:
                assert status not in {401, 500}, (role, method, path)
                opened += 1
            else:
                assert status in {403, 404}, (role, method, path, status)
                closed += 1
    assert closed > 60
    assert opened > 30


def test_a_viewer_sees_everything_and_changes_nothing(house: House, people: People) -> None:
    viewer = people.tokens["viewer"]
    made = house.key("seen")
    assert house.raw("GET", f"/virtual-keys/{made['id']}", token=viewer).status_code == 200
    for method, path, body in (
        ("POST", "/teams", {"name": "x"}),
        ("POST", "/virtual-keys", {"name": "x"}),
        ("POST", f"/virtual-keys/{made['id']}/revoke", {}),
        ("PATCH", f"/virtual-keys/{made['id']}", {"name": "x"}),
        ("POST", "/budgets", {"scope": "organization", "amount_usd": "1.00", "period": "day"}),
        ("POST", "/credentials", {"vendor": "openai", "name": "x", "secret": "sk-something-long"}),
    ):
        answer = house.raw(method, path, token=viewer, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert house.send(made["key"]).status_code == 200


def test_a_developer_has_their_own_keys_only(house: House, people: People) -> None:
    token = people.tokens["developer"]
    foreign = house.key("foreign")
    given = house.key("given", owner={"developer_id": people.developer_id})
    listed = house.raw("GET", "/virtual-keys", token=token).json()["items"]
    assert given["id"] in [key["id"] for key in listed]
    assert foreign["id"] not in [key["id"] for key in listed]
    for method, path in (("GET", ""), ("GET", "/usage"), ("POST", "/revoke"), ("POST", "/rotate"), ("PATCH", "")):
        answer = house.raw(method, f"/virtual-keys/{foreign['id']}{path}", token=token, json={} if method != "GET" else None)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)
    own = house.raw("POST", "/virtual-keys", token=token, json={"name": "mine", "owner": {"developer_id": people.developer_id}})
    assert own.status_code == 201
    unnamed = house.raw("POST", "/virtual-keys", token=token, json={"name": "mine too"})
    assert unnamed.status_code == 201
    assert unnamed.json()["owner"]["developer_id"] == people.developer_id
    assert house.raw("POST", f"/virtual-keys/{own.json()['id']}/revoke", token=token).status_code == 200
    team = house.call("POST", "/teams", {"name": "Not theirs"})
    answer = house.raw("POST", "/virtual-keys", token=token, json={"name": "x", "owner": {"team_id": team["id"]}})
    assert answer.status_code in {403, 404}
    house.send(foreign["key"])
    house.send(given["key"])
    [row] = house.raw("GET", "/usage", token=token).json()["items"]
    assert row["requests"] == 1
    for path in ("/credentials", "/users", "/audit", "/policies", "/budgets"):
        assert house.raw("GET", path, token=token).status_code == 403


def test_nobody_grants_more_than_they_hold(house: House, people: People) -> None:
    body = {"email": "new@example.com", "name": "new", "role": "owner", "password": secrets.token_urlsafe(16)}
    assert house.raw("POST", "/users", token=people.tokens["admin"], json=body).status_code == 403
    assert house.raw("POST", "/users", token=people.tokens["admin"], json=body | {"role": "viewer"}).status_code == 201
    token = {"name": "more", "scopes": ["teams.write"]}
    assert house.raw("POST", "/api-tokens", token=people.tokens["developer"], json=token).status_code in {403, 422}


def test_an_api_token_holds_its_scopes_until_it_expires_or_is_revoked(house: House, people: People) -> None:
    expires = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    made = house.call("POST", "/api-tokens", {"name": "ci", "scopes": ["teams.read", "virtual_keys.write"], "expires_at": expires})
    token = made["token"]
    assert token not in str(house.call("GET", "/api-tokens"))
    assert house.raw("GET", "/teams", token=token).status_code == 200
    assert house.raw("POST", "/teams", token=token, json={"name": "x"}).status_code == 403
    assert house.raw("GET", "/usage", token=token).status_code == 403
    assert house.raw("POST", "/virtual-keys", token=token, json={"name": "by token"}).status_code == 201
    time.sleep(2.1)
    assert house.raw("GET", "/teams", token=token).status_code == 401
    lasting = house.call("POST", "/api-tokens", {"name": "lasting", "scopes": ["teams.read"]})
    assert house.raw("GET", "/teams", token=lasting["token"]).status_code == 200
    house.call("DELETE", f"/api-tokens/{lasting['id']}")
    assert house.raw("GET", "/teams", token=lasting["token"]).status_code == 401


def test_signing_out_ends_the_session(house: House) -> None:
    token = _sign_in(house, house.keygate.EMAIL, house.keygate.password)
    assert house.raw("POST", "/auth/logout", token=token).status_code == 204
    assert house.raw("GET", "/teams", token=token).status_code == 401


def test_a_deactivated_users_session_ends_at_once(house: House) -> None:
    body: dict[str, Any] = {"email": "gone@example.com", "name": "gone", "role": "viewer", "password": secrets.token_urlsafe(16)}
    user = house.call("POST", "/users", body)
    token = _sign_in(house, body["email"], body["password"])
    assert house.raw("GET", "/teams", token=token).status_code == 200
    house.call("DELETE", f"/users/{user['id']}")
    assert house.raw("GET", "/teams", token=token).status_code == 401


def test_sign_in_is_throttled_per_account(house: House) -> None:
    body = {"email": "victim@example.com", "name": "victim", "role": "viewer", "password": secrets.token_urlsafe(16)}
    house.call("POST", "/users", body)
    for _ in range(40):
        answer = house.raw("POST", "/auth/login", json={"email": body["email"], "password": "wrong"})
        if answer.status_code == 429:
            break
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["code"]
    right = house.raw("POST", "/auth/login", json={"email": body["email"], "password": body["password"]})
    assert right.status_code == 429
