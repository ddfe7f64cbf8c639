"""The assembled control API over a real database, called in the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from tests.conftest import OWNER_PASSWORD

from keygate.api import create_app
from keygate.audit import AuditService
from keygate.identities import Role
from keygate.kit.secret import Secret

PASSWORD = "quite a long password"


@pytest.fixture
def app(people, audit):
    """With the areas whose services stand by themselves; others are tested in their own directories and as a whole process."""
    return create_app(
        services={**people.by_class(), AuditService: audit},
        sessions=people.sessions,
        audit=audit,
        public_url="http://keygate.test",
    )


@pytest.fixture
async def client(app, started) -> AsyncIterator[httpx.AsyncClient]:
    """Not signed in."""
    transport = httpx.ASGITransport(app=app, client=("10.0.0.1", 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://keygate.test") as opened:
        yield opened


@pytest.fixture
async def signed_in(client) -> httpx.AsyncClient:
    """As the first owner."""
    answer = await client.post("/api/v1/auth/login", json={"email": "owner@example.com", "password": OWNER_PASSWORD})
    client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
    return client


@pytest.fixture
def token_of(people, owner) -> Callable[[Role], Awaitable[str]]:
    """Makes a user of a role and signs them in."""

    async def make(role: Role) -> str:
        developer = None
        if role is Role.DEVELOPER:
            developer = await people.developers.create(owner, name="Ada", email="ada@example.com")
        email = f"{role}-user@example.com"
        await people.users.create(
            owner, email=email, name=role, role=role, password=Secret(PASSWORD), developer_id=developer.id if developer else None
        )
        _, session = await people.sessions.login(email, Secret(PASSWORD), address=None)
        return session.token.open()

    return make
