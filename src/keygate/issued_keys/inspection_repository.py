"""Which keys are to be read at their vendors."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.issued_keys.life import State
from keygate.issued_keys.tables import issued_keys as t


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
