"""Raising and listing events. An event is a row of the transaction that caused it: it can't be lost, nor told of something undone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keygate.events.model import Event
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id

if TYPE_CHECKING:
    from keygate.events.repository import EventRepository
    from keygate.kit.database import Database, UnitOfWork


class EventOutbox:
    def __init__(self, *, database: Database, repository: EventRepository, clock: Clock) -> None:
        self._database = database
        self._repository = repository
        self._clock = clock

    async def raise_event(self, work: UnitOfWork, organization_id: str, type_: str, subject: str, payload: Mapping[str, Any]) -> None:
        """Adds one event to `work`. `payload` must be JSON and hold no secret."""
        event = Event(
            id=new_id("evt"),
            organization_id=organization_id,
            type=type_,
            subject=subject,
            payload=json.dumps(payload, sort_keys=True),
            at_ns=self._clock.now_ns(),
        )
        await self._repository.add(work.connection, event)

    async def page(self, organization_id: str, *, before: str | None, type_: str | None, limit: int) -> list[Event]:
        async with self._database.read() as connection:
            return await self._repository.page(connection, organization_id, before=before, type_=type_, limit=limit)
