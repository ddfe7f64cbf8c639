"""Crossed budget thresholds become events, in the transaction that posts the spend which crossed them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from keygate.events import EventOutbox, EventType
from keygate.kit.clock import rfc3339
from keygate.kit.money import format_usd
from keygate.ledger.meters.budget import Crossed

if TYPE_CHECKING:
    from keygate.kit.database import UnitOfWork
    from keygate.ledger.repository import LedgerRepository


class ThresholdSource(Protocol):
    def has_crossed(self) -> bool:
        """True where `drain` has something."""

    def drain(self) -> Sequence[Crossed]:
        """Thresholds crossed since the last call, oldest first."""


class ThresholdEvents:
    """The `Crossings` of the fold."""

    def __init__(self, *, source: ThresholdSource, outbox: EventOutbox, repository: LedgerRepository) -> None:
        self._source = source
        self._outbox = outbox
        self._repository = repository

    def has_crossed(self) -> bool:
        return self._source.has_crossed()

    def drain(self) -> Sequence[Crossed]:
        return self._source.drain()

    async def announce(self, work: UnitOfWork, crossings: Sequence[Crossed]) -> Sequence[Crossed]:
        """Those whose spend has not been posted yet are returned: what names their organisation is not there yet either."""
        organizations = await self._repository.organizations_of(work.connection, list({crossed.budget_id for crossed in crossings}))
        later: list[Crossed] = []
        for crossed in crossings:
            organization_id = organizations.get(crossed.budget_id)
            if organization_id is None:
                later.append(crossed)
                continue
            payload = {
                "scope": crossed.scope,
                "scope_id": crossed.scope_id,
                "spent_usd": format_usd(crossed.spent_nano),
                "amount_usd": format_usd(crossed.amount_nano),
                "window_start": rfc3339(crossed.window_start_ns),
            }
            for percent in crossed.percents:  # each: somebody may wait for just one of them
                kind = EventType.BUDGET_SPENT if percent >= 100 else EventType.BUDGET_THRESHOLD_REACHED
                await self._outbox.raise_event(work, organization_id, kind, crossed.budget_id, {**payload, "percent": percent})
        return later
