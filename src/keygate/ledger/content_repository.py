"""All SQL of recorded content."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.kit.database import insert_or_ignore
from keygate.ledger.tables import entries, recorded_contents


class ContentRepository:
    async def add(self, connection: AsyncConnection, values: dict[str, Any]) -> None:
        await insert_or_ignore(connection, recorded_contents, values)

    async def get(self, connection: AsyncConnection, organization_id: str, request_id: str) -> Any:
        """With the entry's `developer_id`, where the entry is there already."""
        table = recorded_contents
        query = (
            sa.select(table, entries.c.developer_id)
            .select_from(table.outerjoin(entries, entries.c.request_id == table.c.request_id))
            .where(table.c.request_id == request_id, table.c.organization_id == organization_id)
        )
        return (await connection.execute(query)).one_or_none()

    async def delete_before(self, connection: AsyncConnection, before_ns: int, *, limit: int) -> int:
        """Rows that a rotation of the data key is sealing anew are passed over; they go the next time."""
        table = recorded_contents
        oldest = sa.select(table.c.request_id).where(table.c.at_ns < before_ns).order_by(table.c.at_ns).limit(limit)
        oldest = oldest.with_for_update(skip_locked=True)
        return (await connection.execute(table.delete().where(table.c.request_id.in_(oldest)))).rowcount
