"""An event stands or falls with the transaction that raised it."""

from __future__ import annotations

from pathlib import Path

import pytest

from keygate.events import EventOutbox, EventType
from keygate.events.repository import EventRepository
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database


@pytest.fixture
def outbox(database: Database, clock: ManualClock) -> EventOutbox:
    return EventOutbox(database=database, repository=EventRepository(), clock=clock)


async def test_an_event_of_a_failed_transaction_was_never_raised(database: Database, outbox: EventOutbox) -> None:
    with pytest.raises(LookupError):
        async with database.unit() as work:
            await outbox.raise_event(work, "org_1", "virtual_key.revoked", "vk_1", {})
            raise LookupError
    assert await outbox.page("org_1", before=None, type_=None, limit=9) == []


async def test_events_are_listed_newest_first_by_page_and_type_within_the_organisation(database: Database, outbox: EventOutbox) -> None:
    for number in range(5):
        async with database.unit() as work:
            await outbox.raise_event(work, "org_1", f"type.{number % 2}", f"vk_{number}", {"number": number})
            await outbox.raise_event(work, "org_2", "type.0", "vk_x", {})
    everything = await outbox.page("org_1", before=None, type_=None, limit=9)
    assert {event.subject for event in everything} == {f"vk_{number}" for number in range(5)}
    first = await outbox.page("org_1", before=None, type_=None, limit=3)
    rest = await outbox.page("org_1", before=first[-1].id, type_=None, limit=9)
    assert [*first, *rest] == everything
    assert {event.subject for event in await outbox.page("org_1", before=None, type_="type.1", limit=9)} == {"vk_1", "vk_3"}


@pytest.mark.parametrize("kind", EventType)
def test_every_event_stands_in_the_guide(kind: EventType) -> None:
    assert f"`{kind}`" in Path("docs/guides/events.md").read_text()
