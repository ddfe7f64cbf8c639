"""Vendor credentials through the API, on a real database: sealed, shown never, in use at once, tested against a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.audit import AuditService, EntryFilter, HeadsFile, Signer, digest_secret
from keygate.audit.repository import AuditRepository
from keygate.errors import KeyGateError
from keygate.identities import Actor, ActorKind, Role
from keygate.kit.clock import ManualClock, SystemClock
from keygate.kit.database import Database
from keygate.kit.secret import Secret
from keygate.vault import CredentialService, HttpProbe, LocalKeySource, NewCredential, Vault
from keygate.vault.api import routes
from keygate.vault.credential_repository import CredentialRepository
from keygate.vault.repository import VaultRepository
from keygate.vault.tables import credentials
from keygate.vendors.anthropic import ANTHROPIC
from keygate.vendors.openai import OPENAI

ACTOR = Actor(kind=ActorKind.USER, id="usr_1", organization_id="org_1", role=Role.OWNER)
OTHER = Actor(kind=ActorKind.USER, id="usr_2", organization_id="org_2", role=Role.OWNER)
SECRET = "sk-canary-0123456789-abcd"


class Publisher:
    """Counts, and looks at what is committed when it is told: the promise is that the change holds by then."""

    def __init__(self) -> None:
        self.told = 0

    async def credentials_changed(self) -> None:
        self.told += 1


class Issued:
    """The issued keys whose secrets are known, by digest."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], str] = {}

    def knows(self, organization_id: str, secret: str, key_id: str) -> None:
        self.known[organization_id, digest_secret(Secret(secret), b"d")] = key_id

    async def key_with(self, connection: AsyncConnection, organization_id: str, digest: str) -> str | None:
        return self.known.get((organization_id, digest))


@pytest.fixture
def issued() -> Issued:
    return Issued()


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def audit(database: Database, clock: ManualClock, tmp_path: Path) -> AuditService:
    return AuditService(database, AuditRepository(), signer=Signer(bytes(32)), digest_key=b"k", heads=HeadsFile(tmp_path), clock=clock)


@pytest.fixture
async def vault(database: Database, clock: ManualClock, tmp_path: Path) -> Vault:
    vault = Vault(database, VaultRepository(), source=LocalKeySource(tmp_path / "data"), clock=clock)
    await vault.start()
    return vault


@pytest.fixture
def service(
    database: Database, vault: Vault, audit: AuditService, publisher: Publisher, issued: Issued, clock: ManualClock
) -> CredentialService:
    return CredentialService(
        database,
        CredentialRepository(),
        vault=vault,
        audit=audit,
        publisher=publisher,
        probe=HttpProbe(clock=SystemClock(), timeout=1),
        vendors={"openai": OPENAI, "anthropic": ANTHROPIC},
        issued=issued,
        digest_key=b"d",
        clock=clock,
    )


@pytest.fixture
async def client(service: CredentialService) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    routes.add_to(app)

    async def authorise(request: Request, permission: str) -> Actor:
        assert permission.startswith("credentials.")
        return OTHER if request.headers.get("x-actor") == "other" else ACTOR

    app.state.authorise = authorise
    app.state.services = {CredentialService: service}

    @app.exception_handler(KeyGateError)
    async def problem(_request: Request, error: KeyGateError) -> JSONResponse:
        return JSONResponse({"code": error.code, "detail": error.detail, "field": error.field}, error.status)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def created(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/credentials", json={"vendor": "openai", "name": "main", "secret": SECRET, **fields})
    assert answer.status_code == 201, answer.text
    assert "canary" not in answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_credential_is_sealed_and_shown_only_by_its_hint(
    client: httpx.AsyncClient, service: CredentialService, database: Database, publisher: Publisher, audit: AuditService
) -> None:
    made = await created(client)
    assert (made["hint"], made["base_url"], made["weight"], made["models"], made["status"]) == (
        "…abcd",
        "https://api.openai.com/v1",
        1,
        None,
        "enabled",
    )
    assert publisher.told == 1
    for answer in (await client.get("/credentials"), await client.get(f"/credentials/{made['id']}")):
        assert answer.status_code == 200
        assert "canary" not in answer.text
    (opened,) = await service.load()
    assert opened.secret.open() == SECRET
    assert "canary" not in repr(opened)
    async with database.read() as connection:
        assert "canary" not in repr((await connection.execute(sa.select(credentials))).all())
    (entry,) = await audit.find("org_1", EntryFilter(), before=None, limit=5)
    assert (entry.action, entry.target) == ("credential.create", made["id"])
    assert "canary" not in repr(entry)
    assert json.loads(entry.after or "")["secret"].startswith("sha256:")


async def test_names_are_unique_per_vendor_and_organisation(client: httpx.AsyncClient, publisher: Publisher) -> None:
    await created(client)
    again = await client.post("/credentials", json={"vendor": "openai", "name": "main", "secret": SECRET})
    assert (again.status_code, again.json()["field"]) == (409, "name")
    assert "canary" not in again.text
    assert publisher.told == 1
    await created(client, vendor="anthropic")
    second = await created(client, name="second")
    answer = await client.patch(f"/credentials/{second['id']}", json={"name": "main"})
    assert answer.status_code == 409
    assert (
        await client.post("/credentials", headers={"x-actor": "other"}, json={"vendor": "openai", "name": "main", "secret": SECRET})
    ).status_code == 201


async def test_other_organisations_see_nothing(client: httpx.AsyncClient) -> None:
    made = await created(client)
    other = {"x-actor": "other"}
    path = f"/credentials/{made['id']}"
    assert (await client.get("/credentials", headers=other)).json()["items"] == []
    assert (await client.get(path, headers=other)).status_code == 404
    assert (await client.patch(path, headers=other, json={"weight": 2})).status_code == 404
    assert (await client.delete(path, headers=other)).status_code == 404
    assert (await client.post(f"{path}/test", headers=other)).status_code == 404
    assert (await client.get(path)).json()["weight"] == 1


async def test_changes_hold_when_the_answer_arrives(client: httpx.AsyncClient, service: CredentialService, publisher: Publisher) -> None:
    made = await created(client, base_url="http://127.0.0.1:9000/v1", models=["gpt-4*"], account="org-acme", weight=3)
    path = f"/credentials/{made['id']}"
    answer = await client.patch(path, json={"secret": "sk-canary-second-0123-wxyz", "weight": 9, "models": None})
    assert answer.status_code == 200
    assert "canary" not in answer.text
    body = answer.json()
    assert (body["hint"], body["weight"], body["models"], body["account"], body["name"]) == ("…wxyz", 9, None, "org-acme", "main")
    (opened,) = await service.load()
    assert (opened.secret.open(), opened.weight, opened.models) == ("sk-canary-second-0123-wxyz", 9, None)
    assert (await client.patch(path, json={"status": "disabled"})).status_code == 200
    assert await service.load() == []
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.delete(path)).status_code == 404
    assert publisher.told == 4


async def test_a_secret_does_not_follow_a_base_url_to_another_host(client: httpx.AsyncClient) -> None:
    made = await created(client)
    path = f"/credentials/{made['id']}"
    answer = await client.patch(path, json={"base_url": "https://evil.example/v1"})
    assert (answer.status_code, answer.json()["field"]) == (422, "base_url")
    assert (await client.patch(path, json={"base_url": "http://api.openai.com/v1"})).status_code == 422
    assert (await client.patch(path, json={"base_url": "https://api.openai.com/v2"})).status_code == 200
    assert (await client.patch(path, json={"base_url": "https://proxy.example/v1", "secret": SECRET})).status_code == 200
    assert (await client.patch(path, json={"base_url": None, "secret": SECRET})).json()["base_url"] == "https://api.openai.com/v1"


BAD = [
    {"vendor": "nobody"},
    {"vendor": "OpenAI\0"},
    {"base_url": "http://169.254.169.254/"},
    {"base_url": "https://u:p@host/"},
    {"name": ""},
    {"name": "a\0b"},
    {"name": "x" * 101},
    {"weight": 0},
    {"weight": 2**70},
    {"models": ["a b"]},
    {"models": ["x"] * 201},
    {"account": "a\r\nb"},
    {"unknown": 1},
]


@pytest.mark.parametrize("fields", BAD, ids=[str(index) for index in range(len(BAD))])
async def test_bad_fields_are_refused(client: httpx.AsyncClient, fields: dict[str, Any], publisher: Publisher) -> None:
    answer = await client.post("/credentials", json={"vendor": "openai", "name": "main", "secret": SECRET, **fields})
    assert answer.status_code == 422, answer.text
    assert publisher.told == 0


@pytest.mark.parametrize(
    "secret", ["", " ", "sk-canary\r\nx: y", "sk-canary\0", "sk-canary–dash", "sk canary with spaces", "canary" * 2_000]
)
async def test_a_bad_secret_is_refused_without_repeating_it(service: CredentialService, secret: str) -> None:
    with pytest.raises(KeyGateError) as refused:
        await service.create(ACTOR, NewCredential(vendor="openai", name="a", secret=Secret(secret)))
    assert refused.value.field == "secret"
    assert "canary" not in refused.value.detail


OURS = [f"sk-kg-{'canary0' * 7}ab", f"okap_{'canary0' * 7}ab", f"kgt_{'canary0' * 6}a", f"kga_{'canary0' * 6}a", "sk-kg-canary-cut-off"]


@pytest.mark.parametrize("secret", OURS)
async def test_a_token_of_keygates_own_is_never_a_vendors_key(
    client: httpx.AsyncClient, service: CredentialService, caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    answer = await client.post("/credentials", json={"vendor": "openai", "name": "main", "secret": secret})
    assert (answer.status_code, "a token of KeyGate's own" in answer.text) == (422, True)
    stored = await created(client)
    assert (await client.patch(f"/credentials/{stored['id']}", json={"secret": secret})).status_code == 422
    assert await service.import_from_environment(ACTOR, {"OPENAI_API_KEY": secret, "ANTHROPIC_API_KEY": secret}) == []
    assert "ANTHROPIC_API_KEY holds a token of KeyGate's own" in caplog.text
    assert "canary" not in caplog.text + answer.text
    assert [each.secret.open() for each in await service.load()] == [SECRET]


async def test_white_space_around_a_pasted_secret_is_dropped(service: CredentialService) -> None:
    await service.create(ACTOR, NewCredential(vendor="openai", name="a", secret=Secret(f" {SECRET}\n")))
    assert (await service.load())[0].secret.open() == SECRET


async def test_lists_are_paged(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await created(client, name=f"n{number}")
    first = (await client.get("/credentials", params={"limit": 3})).json()
    second = (await client.get("/credentials", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert {each["name"] for each in first["items"] + second["items"]} == {f"n{number}" for number in range(5)}
    assert second["next_cursor"] is None
    assert (await client.get("/credentials", params={"vendor": "anthropic"})).json()["items"] == []


async def test_a_row_that_was_tampered_with_is_left_out_and_the_others_serve(
    client: httpx.AsyncClient, service: CredentialService, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await created(client), await created(client, name="second", secret="sk-canary-second-0123-wxyz")
    async with database.unit() as work:
        stolen = sa.select(credentials.c.secret).where(credentials.c.id == first["id"]).scalar_subquery()
        await work.connection.execute(sa.update(credentials).where(credentials.c.id == second["id"]).values(secret=stolen))
    assert [each.id for each in await service.load()] == [first["id"]]
    assert second["id"] in caplog.text
    assert "canary" not in caplog.text


async def test_keys_in_the_environment_are_taken_up_once(service: CredentialService, audit: AuditService) -> None:
    environment = {"OPENAI_API_KEY": SECRET, "ANTHROPIC_API_KEY": " ", "OTHER": "x"}
    (made,) = await service.import_from_environment(ACTOR, environment)
    assert (made.vendor, made.name, made.hint) == ("openai", "OPENAI_API_KEY", "…abcd")
    assert await service.import_from_environment(ACTOR, environment) == []
    (changed,) = await service.import_from_environment(ACTOR, {"OPENAI_API_KEY": "sk-canary-second-0123-wxyz"})
    assert (changed.id, changed.hint) == (made.id, "…wxyz")
    await service.update(ACTOR, made.id, {"secret": Secret("sk-canary-set-by-an-admin-9999")})
    assert await service.import_from_environment(ACTOR, {"OPENAI_API_KEY": "sk-canary-second-0123-wxyz"}) == []
    assert (await service.load())[0].secret.open().endswith("9999")
    actions = [entry.action for entry in await audit.find("org_1", EntryFilter(), before=None, limit=9)]
    assert actions == ["credential.update", "credential.update", "credential.create"]


async def test_a_key_that_is_stored_already_is_not_imported_again(client: httpx.AsyncClient, service: CredentialService) -> None:
    await created(client)
    assert await service.import_from_environment(ACTOR, {"OPENAI_API_KEY": SECRET}) == []


async def test_rotating_the_data_key_leaves_credentials_open(
    client: httpx.AsyncClient, service: CredentialService, database: Database, vault: Vault
) -> None:
    await created(client)
    async with database.unit() as work:
        assert await vault.rotate_data_key(work, "org_1") == 1
    assert (await service.load())[0].secret.open() == SECRET


class FakeVendor:
    """Answers each connection with fixed bytes and keeps what it was sent."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.asked = b""

    async def __aenter__(self) -> FakeVendor:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked = await reader.readuntil(b"\r\n\r\n")
        if self.answer is None:
            await reader.read()
        else:
            writer.write(self.answer)
        writer.close()


def answer(status: str, *headers: str) -> bytes:
    body = b'{"error":"echo sk-canary"}'
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_testing_a_credential_makes_one_plain_call(client: httpx.AsyncClient) -> None:
    async with FakeVendor(answer("200 OK")) as vendor:
        made = await created(client, base_url=f"http://127.0.0.1:{vendor.port}/openai/v1")
        found = (await client.post(f"/credentials/{made['id']}/test")).json()
        assert (found["ok"], found["status"]) == (True, 200)
        assert found["latency_ms"] >= 0
        assert vendor.asked.startswith(b"GET /openai/v1/models HTTP/1.1\r\n")
        assert f"authorization: bearer {SECRET}".encode() in vendor.asked.lower()
        assert f"host: 127.0.0.1:{vendor.port}".encode() in vendor.asked.lower()
    async with FakeVendor(answer("200 OK")) as vendor:
        made = await created(client, vendor="anthropic", base_url=f"http://localhost:{vendor.port}/anthropic")
        assert (await client.post(f"/credentials/{made['id']}/test")).json()["ok"]
        assert vendor.asked.startswith(b"GET /anthropic/v1/models HTTP/1.1\r\n")
        assert b"anthropic-version: 2023-06-01" in vendor.asked
        assert f"x-api-key: {SECRET}".encode() in vendor.asked.lower()


FAILURES: list[tuple[bytes | None, int | None, str]] = [
    (answer("401 Unauthorized"), 401, "does not know"),
    (answer("403 Forbidden"), 403, "may not"),
    (answer("404 Not Found"), 404, "base_url"),
    (answer("429 Too Many Requests"), 429, "limits"),
    (answer("500 Oops"), 500, "500"),
    (answer("302 Found", "location: http://169.254.169.254/"), 302, "redirect"),
    (b"garbage\r\n\r\n", None, "not valid HTTP"),
    (b"", None, "not valid HTTP"),
    (None, None, "did not answer within"),
]


@pytest.mark.parametrize(("said", "status", "words"), FAILURES, ids=[str(index) for index in range(len(FAILURES))])
async def test_whatever_a_vendor_does_a_test_answers_in_words_of_ours(
    client: httpx.AsyncClient, said: bytes | None, status: int | None, words: str
) -> None:
    async with FakeVendor(said) as vendor:
        made = await created(client, base_url=f"http://127.0.0.1:{vendor.port}/v1")
        result = await client.post(f"/credentials/{made['id']}/test")
    assert result.status_code == 200
    found = result.json()
    assert (found["ok"], found["status"]) == (False, status)
    assert words in found["detail"]
    assert "canary" not in result.text


async def test_a_vendor_that_is_not_there_is_said_to_be_unreachable(client: httpx.AsyncClient) -> None:
    async with FakeVendor(None) as vendor:
        port = vendor.port
    made = await created(client, base_url=f"http://127.0.0.1:{port}/v1")
    found = (await client.post(f"/credentials/{made['id']}/test")).json()
    assert (found["ok"], found["status"]) == (False, None)
    assert "reached" in found["detail"]


async def test_a_name_that_resolves_to_a_link_local_address_is_not_called(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", ("169.254.169.254", port))]

    made = await created(client, base_url="http://innocent.example/v1")
    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    found = (await client.post(f"/credentials/{made['id']}/test")).json()
    assert (found["ok"], found["status"]) == (False, None)
    assert "no address that requests may be sent to" in found["detail"]


async def test_secret_of_an_issued_key_never_serves_the_gateway(
    client: httpx.AsyncClient, service: CredentialService, issued: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    issued.knows("org_1", SECRET, "ik_1")
    answer = await client.post("/credentials", json={"vendor": "openai", "name": "main", "secret": f" {SECRET} "})
    assert (answer.status_code, answer.json()["field"]) == (409, "secret")
    assert "ik_1" in answer.json()["detail"]
    assert "canary" not in answer.text
    made = await created(client, secret="sk-another-0123456789-wxyz")
    answer = await client.patch(f"/credentials/{made['id']}", json={"secret": SECRET})
    assert answer.status_code == 409
    (kept,) = await service.load()
    assert kept.secret.open() == "sk-another-0123456789-wxyz"
    assert await service.import_from_environment(ACTOR, {"OPENAI_API_KEY": SECRET, "ANTHROPIC_API_KEY": "sk-fine-0123456789"}) != []
    assert {each.vendor for each in await service.load()} == {"openai", "anthropic"}, "the start goes on with the others"
    assert "OPENAI_API_KEY holds the secret of the issued key ik_1" in caplog.text
    assert "canary" not in caplog.text
    answer = await client.post("/credentials", json={"vendor": "openai", "name": "main", "secret": SECRET}, headers={"x-actor": "other"})
    assert answer.status_code == 201, "another organisation's bill is its own business"
