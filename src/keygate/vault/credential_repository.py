"""All SQL of credentials. Every query is scoped to an organisation but the one that fills the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.kit.database import insert_or_ignore
from keygate.vault.credentials import Credential, CredentialStatus
from keygate.vault.tables import credentials

_COLUMNS = tuple(credentials.c[name] for name in Credential.__slots__)


class CredentialRepository:
    async def add(self, connection: AsyncConnection, credential: Credential) -> bool:
        """False where the name is taken."""
        return await insert_or_ignore(connection, credentials, _row(credential))

    async def get(self, connection: AsyncConnection, organization_id: str, credential_id: str) -> Credential | None:
        query = _scoped(organization_id).where(credentials.c.id == credential_id)
        row = (await connection.execute(query)).one_or_none()
        return _credential(row) if row else None

    async def named(self, connection: AsyncConnection, organization_id: str, vendor: str, name: str) -> Credential | None:
        query = _scoped(organization_id).where(credentials.c.vendor == vendor, credentials.c.name == name)
        row = (await connection.execute(query)).one_or_none()
        return _credential(row) if row else None

    async def with_digest(self, connection: AsyncConnection, organization_id: str, vendor: str, digest: str) -> bool:
        """Whether a credential of this vendor has this secret."""
        query = _scoped(organization_id).where(credentials.c.vendor == vendor, credentials.c.secret_digest == digest).limit(1)
        return (await connection.execute(query)).first() is not None

    async def alike(self, connection: AsyncConnection, organization_id: str, *, digest: str | None, hint: str) -> str | None:
        """The name of a credential, of any vendor, with this secret; without a digest, of one whose secret ends as the hint does."""
        same = credentials.c.hint == hint if digest is None else credentials.c.secret_digest == digest
        query = sa.select(credentials.c.name).where(credentials.c.organization_id == organization_id, same).order_by(credentials.c.id)
        return (await connection.execute(query.limit(1))).scalar_one_or_none()

    async def page(
        self, connection: AsyncConnection, organization_id: str, *, vendor: str | None, after: str | None, limit: int
    ) -> list[Credential]:
        query = _scoped(organization_id).order_by(credentials.c.id).limit(limit)
        if vendor is not None:
            query = query.where(credentials.c.vendor == vendor)
        if after is not None:
            query = query.where(credentials.c.id > after)
        return [_credential(row) for row in await connection.execute(query)]

    async def update(self, connection: AsyncConnection, credential: Credential) -> None:
        change = sa.update(credentials).where(
            credentials.c.organization_id == credential.organization_id, credentials.c.id == credential.id
        )
        await connection.execute(change.values(_row(credential)))

    async def delete(self, connection: AsyncConnection, organization_id: str, credential_id: str) -> None:
        await connection.execute(
            sa.delete(credentials).where(credentials.c.organization_id == organization_id, credentials.c.id == credential_id)
        )

    async def enabled(self, connection: AsyncConnection) -> list[Credential]:
        """Of all organisations: what the gateway serves from."""
        query = sa.select(*_COLUMNS).where(credentials.c.status == CredentialStatus.ENABLED).order_by(credentials.c.id)
        return [_credential(row) for row in await connection.execute(query)]

    async def mark_used(self, connection: AsyncConnection, organization_id: str, used: Mapping[str, int]) -> None:
        """`credential id → time of its last use`; never goes back. In the order of ids, as a rotation of the data key locks them."""
        for credential_id, at_ns in sorted(used.items()):
            last = credentials.c.last_used_at_ns
            change = sa.update(credentials).where(
                credentials.c.organization_id == organization_id,
                credentials.c.id == credential_id,
                sa.or_(last.is_(None), last < at_ns),
            )
            await connection.execute(change.values(last_used_at_ns=at_ns))


def _scoped(organization_id: str) -> sa.Select[Any]:
    return sa.select(*_COLUMNS).where(credentials.c.organization_id == organization_id)


def _row(credential: Credential) -> dict[str, Any]:
    return {**asdict(credential), "models": None if credential.models is None else list(credential.models)}


def _credential(row: sa.Row[Any]) -> Credential:
    fields = row._asdict()
    models = fields["models"]
    return Credential(**{**fields, "models": None if models is None else tuple(models), "status": CredentialStatus(fields["status"])})
