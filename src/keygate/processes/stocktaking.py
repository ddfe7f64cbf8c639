"""Bulk orders and the inventory, wired. They stand on issued keys and on the services of identities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keygate.events import EventOutbox
from keygate.identities import Actor, Developer, DeveloperService, Status, Team
from keygate.identities.repository import OwnerRepository
from keygate.issued_keys.bulk.jobs import jobs as bulk_jobs
from keygate.issued_keys.bulk.repository import BulkRepository
from keygate.issued_keys.bulk.runner import BulkRunner
from keygate.issued_keys.bulk.service import BulkService
from keygate.processes.foundation import Foundation
from keygate.processes.issuing import Issuing
from keygate.processes.worker import Worker

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_MOST_TEAMS = 10_000


class Directory:
    """The `People` of bulk orders."""

    def __init__(self, repository: OwnerRepository, developers: DeveloperService) -> None:
        self._repository = repository
        self._developers = developers

    async def with_emails(self, connection: AsyncConnection, organization_id: str, emails: Sequence[str]) -> Mapping[str, Developer]:
        found = await self._repository.developers_with_emails(connection, organization_id, emails)
        return {developer.email: developer for developer in found}

    async def with_ids(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> Mapping[str, Developer]:
        _, developers, _ = await self._repository.by_ids(connection, organization_id, ids)
        return {developer.id: developer for developer in developers}

    async def of_team(self, connection: AsyncConnection, organization_id: str, team_id: str) -> Sequence[Developer]:
        return await self._repository.developers(
            connection, organization_id, after=None, limit=_MOST_TEAMS, only=None, team_id=team_id, status=Status.ACTIVE
        )

    async def teams(self, connection: AsyncConnection, organization_id: str) -> Sequence[Team]:
        return await self._repository.teams(connection, organization_id, after=None, limit=_MOST_TEAMS, only=None, archived=False)

    async def create(self, actor: Actor, *, name: str, email: str, team_id: str | None) -> Developer:
        return await self._developers.create(actor, name=name, email=email, team_id=team_id)


class Nobody:
    """The `Crowd` until an inventory is there to ask."""

    async def others(self, connection: AsyncConnection, organization_id: str, account_id: str) -> int:  # noqa: ARG002  (a protocol's)
        return 0


@dataclass(frozen=True, slots=True)
class Stocktaking:
    bulk: BulkService
    runner: BulkRunner

    def schedule(self, worker: Worker) -> None:
        for job in bulk_jobs(self.runner):
            worker.every(job.every_seconds, job.name, job.tick, first=min(job.every_seconds, 0.5))

    @property
    def services(self) -> dict[type, object]:
        return {BulkService: self.bulk}


async def stocktaking(
    base: Foundation, issuing: Issuing, outbox: EventOutbox, developers: DeveloperService, *, node_id: str
) -> Stocktaking:
    rows, people = BulkRepository(), Directory(OwnerRepository(), developers)
    bulk = BulkService(
        database=base.database,
        repository=rows,
        accounts=issuing.accounts,
        keys=issuing.keys,
        people=people,
        crowd=Nobody(),
        audit=base.audit,
        clock=base.clock,
    )
    runner = BulkRunner(
        database=base.database,
        repository=rows,
        key_rows=issuing.rows,
        accounts=issuing.accounts,
        keys=issuing.keys,
        people=people,
        outbox=outbox,
        clock=base.clock,
        node_id=node_id,
    )
    await runner.recover()
    return Stocktaking(bulk, runner)
