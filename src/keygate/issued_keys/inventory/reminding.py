"""Reminders of the end of keys that nobody but a person can renew: an event so many days before, once each."""

from __future__ import annotations

from itertools import groupby

from keygate.events import EventType
from keygate.issued_keys.inventory.assessment import Eyes
from keygate.issued_keys.inventory.model import DAY_NS
from keygate.issued_keys.life import LIVE
from keygate.kit.clock import rfc3339


class Reminders:
    def __init__(self, eyes: Eyes) -> None:
        self._eyes = eyes

    async def tick(self) -> None:
        """Sends what is due by the keys' ends as they are now. Of several that are due at once, the last alone. For the worker."""
        eyes, now = self._eyes, self._eyes.clock.now_ns()
        async with eyes.database.read() as connection:
            waiting = await eyes.repository.open_reminders(connection)
        for (organization_id, key_id), rows in groupby(waiting, key=lambda row: (row[0], row[1])):
            days = [row[2] for row in rows]
            async with eyes.database.unit(organization_id) as work:
                key = await eyes.key_rows.get(work.connection, organization_id, key_id)
                if key is None or key.state not in LIVE or key.expires_at_ns is None:
                    continue
                due = [each for each in days if key.expires_at_ns - each * DAY_NS <= now]
                sent = [
                    each for each in due if await eyes.repository.reminder_sent(work.connection, organization_id, key_id, each, at_ns=now)
                ]
                if not sent:
                    continue
                left = max(0, key.expires_at_ns - now) // DAY_NS
                payload = {
                    "vendor": key.vendor,
                    "name": key.name,
                    "owner": None if key.owner is None else key.owner.scope_id,
                    "days_left": left,
                    "expires_at": rfc3339(key.expires_at_ns),
                }
                await eyes.outbox.raise_event(work, organization_id, EventType.KEY_ENDS_SOON, key_id, payload)
