"""All SQL of the outbox."""

from __future__ import annotations

from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.events.model import Event
from keygate.events.tables import events

_EVENT = tuple(events.c[name] for name in Event.__slots__)


class EventRepository:
    async def add(self, connection: AsyncConnection, event: Event) -> None:
        await connection.execute(events.insert().values(asdict(event)))

    async def page(
        self, connection: AsyncConnection, organization_id: str, *, before: str | None, type_: str | None, limit: int
    ) -> list[Event]:
        """Newest first; `before` is the last id of the page before."""
        query = sa.select(*_EVENT).where(events.c.organization_id == organization_id)
        if before is not None:
            query = query.where(events.c.id < before)
        if type_ is not None:
            query = query.where(events.c.type == type_)
        rows = await connection.execute(query.order_by(events.c.id.desc()).limit(limit))
        return [Event(*row) for row in rows]
