"""The control API as its callers see it."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.conftest import OWNER_PASSWORD

from keygate.api import create_app
from keygate.api.envelope import MAX_BODY_BYTES
from keygate.audit import AuditOutcome, EntryFilter
from keygate.identities import Role


async def test_signing_in_gives_a_bearer_token_that_ends_with_signing_out(client):
    answer = await client.post("/api/v1/auth/login", json={"email": "Owner@Example.com", "password": OWNER_PASSWORD})
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "bearer"
    assert answer.json()["expires_in"] > 0
    headers = {"authorization": f"Bearer {answer.json()['access_token']}"}
    me = (await client.get("/api/v1/auth/me", headers=headers)).json()
    assert (me["email"], me["role"]) == ("owner@example.com", "owner")
    assert "teams.write" in me["permissions"]
    assert (await client.post("/api/v1/auth/logout", headers=headers)).status_code == 204
    assert (await client.get("/api/v1/auth/me", headers=headers)).status_code == 401


async def test_too_many_failures_answer_when_to_try_again(client):
    for _ in range(5):
        answer = await client.post("/api/v1/auth/login", json={"email": "owner@example.com", "password": "wrong"})
        assert answer.status_code == 401
    answer = await client.post("/api/v1/auth/login", json={"email": "owner@example.com", "password": "wrong"})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


async def test_the_whole_life_of_teams_developers_and_apps(signed_in):
    team = (await signed_in.post("/api/v1/teams", json={"name": " research "})).json()
    assert team["name"] == "research"
    body = {"name": "Ada", "email": "ada@example.com", "team_id": team["id"]}
    developer = (await signed_in.post("/api/v1/developers", json=body)).json()
    assert developer["status"] == "active"
    assert developer["created_at"].endswith("Z")
    app = (await signed_in.post("/api/v1/apps", json={"name": "ci", "developer_id": developer["id"]})).json()
    changed = await signed_in.patch(f"/api/v1/developers/{developer['id']}", json={"team_id": None})
    assert changed.json()["team_id"] is None
    assert (await signed_in.patch(f"/api/v1/apps/{app['id']}", json={"name": None})).status_code == 422
    assert (await signed_in.delete(f"/api/v1/apps/{app['id']}")).status_code == 204
    assert (await signed_in.delete(f"/api/v1/developers/{developer['id']}")).status_code == 204
    assert (await signed_in.get(f"/api/v1/developers/{developer['id']}")).json()["status"] == "deactivated"
    assert (await signed_in.post(f"/api/v1/developers/{developer['id']}/activate")).json()["status"] == "active"
    assert (await signed_in.delete(f"/api/v1/teams/{team['id']}")).status_code == 204
    assert (await signed_in.get("/api/v1/teams")).json() == {"items": [], "next_cursor": None}
    assert (await signed_in.patch("/api/v1/organization", json={"time_zone": "Asia/Tokyo"})).json()["time_zone"] == "Asia/Tokyo"


async def test_users_and_api_tokens_over_the_wire(signed_in, client):
    body = {"email": "v@example.com", "name": "V", "role": "viewer", "password": "quite a long password"}
    user = (await signed_in.post("/api/v1/users", json=body)).json()
    assert user["role"] == "viewer"
    assert (await signed_in.put(f"/api/v1/users/{user['id']}/password", json={"password": "another long password"})).status_code == 204
    assert (await signed_in.patch(f"/api/v1/users/{user['id']}", json={"role": "admin"})).json()["role"] == "admin"
    assert (await signed_in.delete(f"/api/v1/users/{user['id']}")).status_code == 204
    assert len((await signed_in.get("/api/v1/users")).json()["items"]) == 2
    made = await signed_in.post("/api/v1/api-tokens", json={"name": "ci", "scopes": ["teams.read"], "expires_at": "2100-01-01T00:00:00Z"})
    token = made.json()
    assert made.status_code == 201
    headers = {"authorization": f"Bearer {token['token']}"}
    assert (await client.get("/api/v1/teams", headers=headers)).status_code == 200
    assert (await client.post("/api/v1/teams", json={"name": "x"}, headers=headers)).status_code == 403
    assert "token" not in (await signed_in.get("/api/v1/api-tokens")).json()["items"][0]
    assert (await signed_in.delete(f"/api/v1/api-tokens/{token['id']}")).status_code == 204
    assert (await client.get("/api/v1/teams", headers=headers)).status_code == 401
    change = {"current_password": OWNER_PASSWORD, "password": "another long password"}
    assert (await signed_in.post("/api/v1/auth/password", json=change)).status_code == 204


async def test_lists_are_paged_by_cursor(signed_in):
    names = [f"team {number}" for number in range(5)]
    for name in names:
        await signed_in.post("/api/v1/teams", json={"name": name})
    found, cursor = [], None
    while True:
        page = (await signed_in.get("/api/v1/teams", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        found += [team["name"] for team in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(found) == names


async def test_every_answer_has_an_id_and_safe_headers(client, signed_in):
    for answer in (await client.get("/health"), await client.get("/nowhere"), await signed_in.get("/api/v1/teams")):
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_errors_are_problems_with_a_stable_code_and_the_field(signed_in):
    answer = await signed_in.post("/api/v1/developers", json={"name": "Ada", "email": "no address"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_input"
    assert problem["field"] == "email"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert (await signed_in.get("/api/v1/nowhere")).json()["code"] == "not_found"
    answer = await signed_in.put("/api/v1/teams", json={})
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"


async def test_what_was_sent_is_never_repeated(signed_in, caplog):
    secret = "kga_SECRETSECRETSECRET"
    for body in (
        {"email": secret, "password": 1},
        {"email": [secret], "password": secret},
        {"email": "x", "password": {"deep": secret}},
        [secret],
        secret,
    ):
        answer = await signed_in.post("/api/v1/auth/login", json=body)
        assert answer.status_code in {401, 422}
        assert secret not in answer.text
    answer = await signed_in.post("/api/v1/users", json={"email": "a@b.c", "name": "n", "role": secret, "password": "short" + secret * 20})
    assert secret not in answer.text
    assert secret not in caplog.text


async def test_refusals_to_change_something_are_recorded_whichever_layer_refused(client, signed_in, token_of, audit, started):
    viewer = {"authorization": f"Bearer {await token_of(Role.VIEWER)}"}
    assert (await client.post("/api/v1/teams", json={"name": "x"}, headers=viewer)).status_code == 403
    assert (await client.get("/api/v1/teams", headers=viewer)).status_code == 200
    await signed_in.post("/api/v1/teams", json={"name": "x"})
    assert (await signed_in.post("/api/v1/teams", json={"name": "x"})).status_code == 409
    assert (await signed_in.delete("/api/v1/teams/team_unknown")).status_code == 404
    entries = await audit.find(started.organization.id, EntryFilter(outcome=AuditOutcome.REFUSED), before=None, limit=10)
    assert [(entry.action, entry.target) for entry in reversed(entries)] == [
        ("teams.write", "POST /api/v1/teams"),
        ("teams.write", "POST /api/v1/teams"),
        ("teams.write", "DELETE /api/v1/teams/team_unknown"),
    ]
    assert entries[0].address == "10.0.0.1"
    assert entries[0].request_id.startswith("req_")


HOSTILE_BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"\xff\xfe",
    b'{"name": "\\u0000"}',
    b'{"name": "a\\u0000b"}',
    b'{"name": "\\ud800"}',
    b'{"name": 1e999}',
    b'{"name": NaN}',
    b'{"name": ' + b"9" * 5000 + b"}",
    b'{"name": "x", "policy_id": "\\u0000"}',
    b'{"name": "x", "surprise": 1}',
    b'{"name": "' + b"x" * 5000 + b'"}',
    b'{"name": "  "}',
    b"[" * 100_000,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
]


@pytest.mark.parametrize("body", HOSTILE_BODIES, ids=range(len(HOSTILE_BODIES)))
async def test_a_body_that_makes_no_sense_is_the_callers_mistake(signed_in, body):
    for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "\xff"):
        answer = await signed_in.post("/api/v1/teams", content=body, headers={"content-type": content_type.encode("latin-1")})
        assert answer.status_code == 422, (content_type, answer.text)
        assert answer.json()["code"] == "invalid_input"


@pytest.mark.parametrize(
    "address",
    [
        "/api/v1/teams/%00",
        "/api/v1/teams/%ff",
        "/api/v1/teams/a%00b",
        "/api/v1/teams/" + "x" * 5000,
        "/api/v1/teams/..%2f..",
        "/api/v1/teams?cursor=%00",
        "/api/v1/teams?cursor=%ff",
        "/api/v1/teams?cursor=AAAA",
        "/api/v1/teams?cursor=%F0%9F%98%80",
        "/api/v1/teams?cursor=_____",
        "/api/v1/teams?limit=0",
        "/api/v1/teams?limit=-1",
        "/api/v1/teams?limit=501",
        "/api/v1/teams?limit=" + "9" * 5000,
        "/api/v1/teams?limit=x",
        "/api/v1/developers?team_id=%00",
        "/api/v1/developers?team_id=" + "9" * 100,
        "/api/v1/developers?status=none",
    ],
)
async def test_an_address_that_makes_no_sense_is_the_callers_mistake(signed_in, address):
    answer = await signed_in.get(address)
    assert answer.status_code in {404, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "ends", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2100-01-01T00:00:00", "9999-12-31T23:59:59-23:59", 1e300, "5", 5]
)
async def test_times_that_can_not_be_kept_are_refused(signed_in, ends):
    answer = await signed_in.post("/api/v1/api-tokens", json={"name": "ci", "scopes": ["teams.read"], "expires_at": ends})
    assert answer.status_code == 422
    assert answer.json()["field"] == "expires_at"


async def test_bodies_are_bounded_whether_or_not_they_say_how_long_they_are(signed_in):
    async def endless():
        for _ in range(100):
            yield b" " * 65_536

    for content in (b" " * (MAX_BODY_BYTES + 1), endless()):
        answer = await signed_in.post("/api/v1/teams", content=content, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_failure_of_ours_tells_the_caller_an_id_and_the_log_the_cause(people, audit, caplog):
    def broken():
        raise RuntimeError("cause that only the log sees")

    app = create_app(services=people.by_class(), sessions=people.sessions, audit=audit, public_url="x", metrics=broken)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://keygate.test") as client:
        answer = await client.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "cause that only" not in answer.text
    assert "cause that only" in caplog.text
    assert answer.json()["request_id"] in caplog.text


async def test_ready_says_what_is_missing(people, audit):
    async def well():
        return

    async def away():
        raise ConnectionError("secret address")

    async def asked(checks):
        app = create_app(services={}, sessions=people.sessions, audit=audit, public_url="x", checks=checks, metrics=lambda: b"up 1\n")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://keygate.test") as client:
            assert (await client.get("/metrics")).text == "up 1\n"
            assert (await client.get("/health")).json() == {"status": "ok"}
            return await client.get("/ready")

    assert (await asked({"database": well})).status_code == 200
    answer = await asked({"database": well, "gateway": away})
    assert answer.status_code == 503
    assert answer.json() == {"status": "not_ready", "checks": {"database": "ok", "gateway": "failed"}}


async def test_a_developer_sees_nothing_of_others(client, token_of, people, owner):
    eve = await people.developers.create(owner, name="Eve", email="eve@example.com")
    headers = {"authorization": f"Bearer {await token_of(Role.DEVELOPER)}"}
    assert (await client.get(f"/api/v1/developers/{eve.id}", headers=headers)).status_code == 404
    listed = (await client.get("/api/v1/developers", headers=headers)).json()["items"]
    assert [each["email"] for each in listed] == ["ada@example.com"]
    assert (await client.get("/api/v1/users", headers=headers)).status_code == 403


async def test_a_deactivated_developer_is_out_at_once(client, signed_in, token_of):
    token = await token_of(Role.DEVELOPER)
    headers = {"authorization": f"Bearer {token}"}
    me = (await client.get("/api/v1/auth/me", headers=headers)).json()
    assert (await signed_in.delete(f"/api/v1/developers/{me['developer_id']}")).status_code == 204
    assert (await client.get("/api/v1/auth/me", headers=headers)).status_code == 401


async def test_many_changes_at_once_all_happen(signed_in):
    answers = await asyncio.gather(*(signed_in.post("/api/v1/teams", json={"name": f"team {number}"}) for number in range(30)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({json.loads(answer.text)["id"] for answer in answers}) == 30


async def test_the_framework_tells_no_collector_of_calls_bodies_or_exceptions(client, monkeypatch) -> None:
    """FastAPI traces and logs to whatever provider the process has, for example one that `opentelemetry-instrument` has set."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    answer = await client.post("/api/v1/auth/login", json={"email": "owner@example.com", "password": 7})
    assert answer.status_code == 422
    assert not spans.get_finished_spans()
