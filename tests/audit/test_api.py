"""`/audit` on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from keygate.audit import AuditService, Checker, HeadsFile, Signer, read_end, verify_export
from keygate.audit.api import routes
from keygate.audit.repository import AuditRepository
from keygate.audit.tables import audit_entries
from keygate.errors import KeyGateError
from keygate.identities import Actor, ActorKind, Role
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database

ACTOR = Actor(kind=ActorKind.USER, id="usr_1", organization_id="org_1", role=Role.OWNER)


@pytest.fixture
def audit(database: Database, clock: ManualClock, tmp_path: Path) -> AuditService:
    return AuditService(database, AuditRepository(), signer=Signer(bytes(32)), digest_key=b"k", heads=HeadsFile(tmp_path), clock=clock)


@pytest.fixture
async def client(audit: AuditService, database: Database, clock: ManualClock) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    routes.add_to(app)

    async def authorise(_request: Request, permission: str) -> Actor:
        assert permission in {"audit.read", "audit.verify"}
        return ACTOR

    app.state.authorise = authorise
    app.state.services = {AuditService: audit}

    @app.exception_handler(KeyGateError)
    async def problem(_request: Request, error: KeyGateError) -> JSONResponse:
        return JSONResponse({"code": error.code, "detail": error.detail}, error.status)

    for number in range(7):
        clock.advance(60)
        async with database.unit(ACTOR.organization_id) as work:
            await audit.record(work, ACTOR, "team.create", f"team_{number}", after={"name": f"Team {number}"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_entries_are_paged_and_filtered(client: httpx.AsyncClient) -> None:
    first = (await client.get("/audit", params={"limit": 4})).json()
    second = (await client.get("/audit", params={"limit": 4, "cursor": first["next_cursor"]})).json()
    assert [entry["sequence"] for entry in first["items"] + second["items"]] == [7, 6, 5, 4, 3, 2, 1]
    assert second["next_cursor"] is None
    assert first["items"][0]["actor"] == {"kind": "user", "id": "usr_1"}
    assert first["items"][0]["after"] == {"name": "Team 6"}
    found = (await client.get("/audit", params={"from": "2026-01-01T00:02:00Z", "to": "2026-01-01T00:04:00Z"})).json()
    assert [entry["sequence"] for entry in found["items"]] == [3, 2]
    assert len((await client.get("/audit", params={"target": "team_3"})).json()["items"]) == 1
    assert len((await client.get("/audit", params={"outcome": "refused"})).json()["items"]) == 0


@pytest.mark.parametrize(
    "query", ["cursor=eHg", "cursor=!!", "target=%00", "from=x", "outcome=x", "limit=0", "from=0001-01-01T00:00:00%2B23:00"]
)
async def test_bad_questions_are_refused(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/audit?{query}")).status_code == 422


async def test_verification_names_the_bad_entry(client: httpx.AsyncClient, database: Database) -> None:
    good = (await client.get("/audit/verify")).json()
    assert (good["ok"], good["entries"], good["head_sequence"], good["fault"]) == (True, 7, 7, None)
    async with database.unit() as work:
        await work.connection.execute(sa.update(audit_entries).where(audit_entries.c.sequence == 3).values(after="no json"))
    bad = (await client.get("/audit/verify")).json()
    assert (bad["ok"], bad["fault"]["sequence"], bad["fault"]["kind"]) == (False, 3, "edited")
    assert (await client.get("/audit", params={"limit": 9})).status_code == 200
    export = (await client.get("/audit/export")).content.splitlines(keepends=True)
    fault = verify_export(export, read_end(export[-1])).fault
    assert fault is not None
    assert fault.sequence == 3


async def test_an_export_is_verified_with_the_key_that_verification_shows(client: httpx.AsyncClient) -> None:
    answer = await client.get("/audit/export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = answer.content.splitlines(keepends=True)
    key = Checker.from_text((await client.get("/audit/verify")).json()["public_key"])
    found = verify_export(lines, read_end(lines[-1]), trusted=key)
    assert (found.fault, found.entries) == (None, 7)
