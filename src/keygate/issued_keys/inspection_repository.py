"""All SQL of the inventory."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.issued_keys.life import State
from keygate.issued_keys.model import IssuedKey
from keygate.issued_keys.repository import key_of_row
from keygate.issued_keys.tables import inventory_notes as notes
from keygate.issued_keys.tables import issued_keys as t
from keygate.kit.database import upsert


class InspectionRepository:
    async def unread(self, connection: AsyncConnection, *, before_ns: int, limit: int) -> list[tuple[str, str]]:
        # Across organisations: the worker serves them all.
        query = (
            sa.select(t.c.organization_id, t.c.id)
            .where(t.c.state == str(State.ACTIVE), sa.or_(t.c.read_at_ns.is_(None), t.c.read_at_ns < before_ns))
            .order_by(t.c.read_at_ns)
            .limit(limit)
        )
        return [(row[0], row[1]) for row in await connection.execute(query)]

    async def keys_of(self, connection: AsyncConnection, organization_id: str, account_id: str) -> list[IssuedKey]:
        query = sa.select(t).where(t.c.organization_id == organization_id, t.c.account_id == account_id)
        return [key_of_row(row) for row in await connection.execute(query)]

    async def notes(self, connection: AsyncConnection, organization_id: str, account_id: str) -> dict[str, str]:
        query = sa.select(notes.c.vendor_id, notes.c.reason).where(
            notes.c.organization_id == organization_id, notes.c.account_id == account_id
        )
        return {row[0]: row[1] for row in await connection.execute(query)}

    async def note(
        self, connection: AsyncConnection, organization_id: str, account_id: str, vendor_id: str, *, reason: str, by: str, at_ns: int
    ) -> None:
        values = {
            "account_id": account_id,
            "vendor_id": vendor_id,
            "organization_id": organization_id,
            "reason": reason,
            "noted_by": by,
            "noted_at_ns": at_ns,
        }
        await upsert(connection, notes, values, key=("account_id", "vendor_id"), update=("reason", "noted_by", "noted_at_ns"))
