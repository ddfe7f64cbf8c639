"""SQL of the vault's keys and of KeyGate's own secrets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.kit.database import insert_or_ignore, lock, metadata
from keygate.vault.model import SYSTEM, SealedColumn, WrappedKey
from keygate.vault.tables import vault_keys, vault_secrets

_KEY = tuple(vault_keys.c[name] for name in WrappedKey.__slots__)


class VaultRepository:
    async def lock(self, connection: AsyncConnection) -> None:
        """New keys and rotations queue up here until the transaction ends, so that all keys are wrapped by one key-encryption key."""
        await lock(connection, "vault")

    async def keys(self, connection: AsyncConnection) -> list[WrappedKey]:
        # Across organisations: a rotation wraps them all.
        query = sa.select(*_KEY).order_by(vault_keys.c.organization_id, vault_keys.c.generation)
        return [WrappedKey(*row) for row in await connection.execute(query)]

    async def key(self, connection: AsyncConnection, key_id: str, *, organization_id: str) -> WrappedKey | None:
        query = sa.select(*_KEY).where(vault_keys.c.id == key_id, vault_keys.c.organization_id == organization_id)
        row = (await connection.execute(query)).one_or_none()
        return WrappedKey(*row) if row else None

    async def current_key(self, connection: AsyncConnection, organization_id: str) -> WrappedKey | None:
        query = sa.select(*_KEY).where(vault_keys.c.organization_id == organization_id).order_by(vault_keys.c.generation.desc()).limit(1)
        row = (await connection.execute(query)).one_or_none()
        return WrappedKey(*row) if row else None

    async def kek_id(self, connection: AsyncConnection) -> str | None:
        """By which key-encryption key the data keys are wrapped; None where there are none yet."""
        query = sa.select(vault_keys.c.kek_id).order_by(vault_keys.c.wrapped_at_ns.desc()).limit(1)
        found: str | None = (await connection.execute(query)).scalar_one_or_none()
        return found

    async def add_key(self, connection: AsyncConnection, key: WrappedKey) -> None:
        await connection.execute(vault_keys.insert().values(asdict(key)))

    async def rewrap(self, connection: AsyncConnection, key: WrappedKey) -> None:
        change = sa.update(vault_keys).where(vault_keys.c.id == key.id, vault_keys.c.organization_id == key.organization_id)
        await connection.execute(change.values(kek_id=key.kek_id, wrapped=key.wrapped, wrapped_at_ns=key.wrapped_at_ns))

    async def secret(self, connection: AsyncConnection, name: str) -> bytes | None:
        query = sa.select(vault_secrets.c.sealed).where(vault_secrets.c.organization_id == SYSTEM, vault_secrets.c.name == name)
        found: bytes | None = (await connection.execute(query)).scalar_one_or_none()
        return found

    async def add_secret(self, connection: AsyncConnection, name: str, sealed: bytes, *, at_ns: int) -> None:
        row = {"organization_id": SYSTEM, "name": name, "sealed": sealed, "created_at_ns": at_ns}
        await insert_or_ignore(connection, vault_secrets, row)

    async def sealed_batch(
        self, connection: AsyncConnection, where: SealedColumn, organization_id: str, *, after: str, limit: int
    ) -> list[tuple[str, bytes]]:
        """`(row id, sealed value)` in the order of row ids, locked until the transaction ends."""
        table, key, column = _columns(where)
        query = (
            sa.select(key, column)
            .where(table.c.organization_id == organization_id, key > after, column.is_not(None))
            .order_by(key)
            .limit(limit)
            .with_for_update()
        )
        return [(row[0], row[1]) for row in await connection.execute(query)]

    async def replace_sealed(
        self, connection: AsyncConnection, where: SealedColumn, organization_id: str, row_id: str, sealed: bytes
    ) -> None:
        table, key, column = _columns(where)
        change = sa.update(table).where(table.c.organization_id == organization_id, key == row_id)
        await connection.execute(change.values({column.name: sealed}))


def _columns(where: SealedColumn) -> tuple[sa.Table, sa.Column[Any], sa.Column[Any]]:
    table = metadata.tables[where.table]
    return table, table.c[where.id_column], table.c[where.column]
