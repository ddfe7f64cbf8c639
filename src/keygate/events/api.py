"""`GET /events`: what happened, newest first."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, Query

from keygate.events.service import EventOutbox
from keygate.identities import Actor
from keygate.kit.clock import rfc3339
from keygate.kit.routes import Page, PageQuery, Routes, Schema, current_actor, service

routes = Routes("/events", tag="events")


class EventView(Schema):
    id: str
    type: str
    subject: str
    at: str
    payload: dict[str, Any]


@routes.get(permission="events.read")
async def list_events(
    actor: Annotated[Actor, Depends(current_actor)],
    outbox: Annotated[EventOutbox, service(EventOutbox)],
    page: Annotated[PageQuery, Depends()],
    type_: Annotated[str | None, Query(alias="type", max_length=100, pattern=r"^[a-z_.]+$")] = None,
) -> Page[EventView]:
    """What happened, newest first: budget thresholds passed, keys revoked, developers deactivated, and all that befalls issued keys."""
    found = await outbox.page(actor.organization_id, before=page.after, type_=type_, limit=page.limit + 1)
    kept, cursor = page.page(found, key=lambda event: event.id)
    views = [EventView(id=e.id, type=e.type, subject=e.subject, at=rfc3339(e.at_ns) or "", payload=json.loads(e.payload)) for e in kept]
    return Page(items=views, next_cursor=cursor)
