"""Closed by default: every route names a permission, every permission belongs to a role, and wrong callers are refused on all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from keygate.api import openapi_document
from keygate.api.routes import ALL, PREFIX
from keygate.identities import KNOWN, Role, permissions_of
from keygate.kit.routes import PUBLIC

OPEN = {
    ("POST", "/api/v1/auth/login"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/receive"),  # a page that holds nothing: the token is in its address, behind the #
    ("POST", "/api/v1/virtual-keys/report-leak"),  # holding the key that is reported is the evidence
    ("POST", "/api/v1/keys/report-leak"),  # as above
    ("POST", "/api/v1/keys/deliveries"),  # the token of a one-time link is the evidence
    ("GET", "/api/v1/quota"),  # its bearer is a virtual key, which the route itself checks
}


def _document():
    return json.loads(openapi_document())


def _operations():
    return [(method.upper(), path, operation) for path, methods in _document()["paths"].items() for method, operation in methods.items()]


def _registered():
    return {
        (method, PREFIX + path.replace(":path}", "}")): permission
        for routes in ALL
        for (method, path), permission in routes.permissions.items()
    }


def test_every_route_names_a_permission_that_a_role_has():
    for method, path, operation in _operations():
        permission = operation.get("x-permission")
        assert permission == PUBLIC or permission in KNOWN, f"{method} {path}: {permission}"


def test_every_permission_opens_a_route():
    """A scope that can be granted and opens nothing misleads; `owners.write` is asked for by the services, beside another permission."""
    assert KNOWN - {operation["x-permission"] for _, _, operation in _operations()} == {"owners.write"}


async def test_a_token_that_may_check_the_audit_log_may_not_read_it_and_one_that_may_read_it_may_check_it(client, token_of):
    headers = {"authorization": f"Bearer {await token_of(Role.ADMIN)}"}

    async def statuses(scope):
        made = await client.post("/api/v1/api-tokens", json={"name": scope, "scopes": [scope]}, headers=headers)
        assert made.status_code == 201, made.text
        token = {"authorization": f"Bearer {made.json()['token']}"}
        return [(await client.get(path, headers=token)).status_code for path in ("/api/v1/audit/verify", "/api/v1/audit")]

    assert await statuses("audit.verify") == [200, 403]
    assert await statuses("audit.read") == [200, 200]
    assert await statuses("usage.read") == [403, 403]
    for gone in ("webhooks.read", "webhooks.write", "vault.write"):
        refused = await client.post("/api/v1/api-tokens", json={"name": gone, "scopes": [gone]}, headers=headers)
        assert refused.status_code == 422


def test_only_the_named_routes_are_public():
    found = {(method, path) for method, path, operation in _operations() if operation["x-permission"] == PUBLIC}
    assert found <= OPEN


def test_nothing_is_served_that_is_not_in_the_list():
    served = {(method, path) for method, path, _ in _operations()}
    assert set(_registered()) | OPEN >= served
    assert set(_registered()) <= served


def test_only_reads_are_get_and_only_writes_are_not():
    for method, path, operation in _operations():
        permission = operation["x-permission"]
        if method == "GET":
            assert not permission.endswith(".write"), path
        elif permission not in {PUBLIC, "account.self", "policies.explain", "credentials.read"}:
            assert permission.endswith(".write"), f"{method} {path}"


def test_operation_ids_are_unique_and_plain():
    ids = [operation["operationId"] for _, _, operation in _operations()]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z][a-z_]*", each) for each in ids)


def test_every_text_and_list_that_comes_in_is_bounded():
    document = _document()
    schemas = document["components"]["schemas"]
    bodies = {
        content["schema"]["$ref"].rsplit("/", 1)[1]
        for _, _, operation in _operations()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in content["schema"]
    }
    unbounded = []

    def walk(name, schema, *, seen=()):
        if "$ref" in schema:
            target = schema["$ref"].rsplit("/", 1)[1]
            if target not in seen:
                walk(f"{name}:{target}", schemas[target], seen=(*seen, target))
            return
        for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
            walk(name, each, seen=seen)
        bounded = {"maxLength", "enum", "const", "format"} & schema.keys()
        if schema.get("type") == "string" and not bounded:
            unbounded.append(name)
        if schema.get("type") == "array":
            if "maxItems" not in schema:
                unbounded.append(name)
            walk(f"{name}[]", schema.get("items", {}), seen=seen)
        for field, inner in schema.get("properties", {}).items():
            walk(f"{name}.{field}", inner, seen=seen)

    for body in sorted(bodies):
        walk(body, schemas[body])
    assert unbounded == []


def test_errors_are_documented_as_problems_on_every_route():
    for method, path, operation in _operations():
        responses = operation["responses"]
        assert "422" in responses
        assert "503" in responses
        if operation["x-permission"] != PUBLIC:
            assert {"401", "403"} <= responses.keys(), path
        for status, response in responses.items():
            if int(status) >= 400 and path != "/ready":
                assert "application/problem+json" in response["content"], f"{method} {path} {status}"


def test_the_document_in_docs_is_current():
    written = (Path(__file__).parents[2] / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert written == openapi_document(), "run `make docs`"


def _call(method, path):
    return method, re.sub(r"\{[^}]+\}", "x_0000000000000000000000", path)


async def test_nobody_gets_in_without_signing_in(client):
    for method, path, operation in _operations():
        if operation["x-permission"] == PUBLIC:
            continue
        for header in (None, "Bearer kga_" + "0" * 43, "Bearer sk-kg-abc", "Basic eDp5", "Bearer"):
            answer = await client.request(*_call(method, path), json={}, headers={"authorization": header} if header else {})
            assert answer.status_code == 401, f"{method} {path}"
            assert answer.json()["code"] == "unauthenticated"
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", [Role.ADMIN, Role.DEVELOPER, Role.VIEWER])
async def test_a_role_is_refused_on_every_route_that_it_has_no_permission_for(client, token_of, role):
    headers = {"authorization": f"Bearer {await token_of(role)}"}
    for method, path, operation in _operations():
        permission = operation["x-permission"]
        if permission == PUBLIC or permission in permissions_of(role):
            continue
        answer = await client.request(*_call(method, path), json={}, headers=headers)
        assert answer.status_code == 403, f"{method} {path}"
        assert permission in answer.json()["detail"]
