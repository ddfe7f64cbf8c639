"""Events are rows of the transaction that caused them."""

import pytest

from keygate.events import EventOutbox
from keygate.events.repository import EventRepository
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database


def _outbox(database: Database, clock: ManualClock) -> EventOutbox:
    return EventOutbox(database=database, repository=EventRepository(), clock=clock)


async def test_an_event_of_a_transaction_that_is_undone_never_happened(database: Database, clock: ManualClock) -> None:
    outbox = _outbox(database, clock)
    with pytest.raises(RuntimeError):
        async with database.unit() as work:
            await outbox.raise_event(work, "org_a", "virtual_key.revoked", "vk_1", {})
            raise RuntimeError
    assert await outbox.page("org_a", before=None, type_=None, limit=10) == []


async def test_events_are_listed_newest_first_page_by_page_within_their_organisation(database: Database, clock: ManualClock) -> None:
    outbox = _outbox(database, clock)
    async with database.unit() as work:
        for number in range(3):
            await outbox.raise_event(work, "org_a", "virtual_key.revoked", f"vk_{number}", {"number": number})
        await outbox.raise_event(work, "org_b", "virtual_key.revoked", "vk_x", {})
    first = await outbox.page("org_a", before=None, type_=None, limit=2)
    rest = await outbox.page("org_a", before=first[-1].id, type_=None, limit=2)
    assert {event.subject for event in first + rest} == {"vk_0", "vk_1", "vk_2"}
    assert [e.id for e in first + rest] == sorted((e.id for e in first + rest), reverse=True)
