"""Bulk orders and the inventory, wired. They stand on issued keys and on the services of identities."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keygate.events import EventOutbox
from keygate.identities import Actor, ActorKind, Developer, DeveloperService, Status, Team, actor_of, operator_actor, system_actor
from keygate.identities.access_repository import AccessRepository
from keygate.identities.directory import OwnerDirectory
from keygate.identities.repository import OwnerRepository
from keygate.issued_keys.bulk.jobs import jobs as bulk_jobs
from keygate.issued_keys.bulk.model import Order
from keygate.issued_keys.bulk.repository import BulkRepository
from keygate.issued_keys.bulk.runner import BulkRunner
from keygate.issued_keys.bulk.service import BulkService
from keygate.issued_keys.inventory.adopting import AdoptionService
from keygate.issued_keys.inventory.assessment import Eyes
from keygate.issued_keys.inventory.jobs import jobs as inventory_jobs
from keygate.issued_keys.inventory.reminding import Reminders
from keygate.issued_keys.inventory.repository import InventoryRepository
from keygate.issued_keys.inventory.scanning import Scanner
from keygate.issued_keys.inventory.service import InventoryService
from keygate.kit.clock import Clock
from keygate.processes.foundation import Foundation
from keygate.processes.issuing import Issuing
from keygate.processes.worker import Worker
from keygate.vault.credential_repository import CredentialRepository
from keygate.vendor_spend.watch_repository import WatchRepository

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


class Signed:
    """The `Orderers` of bulk orders."""

    def __init__(self, repository: AccessRepository, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock

    async def actor(self, connection: AsyncConnection, order: Order) -> Actor | None:
        home, token = order.organization_id, None
        if order.created_by_kind == ActorKind.SYSTEM:
            return system_actor(home)
        if order.created_by_kind == ActorKind.OPERATOR:
            return operator_actor(home)
        if order.created_by_kind == ActorKind.API_TOKEN:
            token = await self._repository.token(connection, home, order.created_by, user_id=None)
            if token is None or not token.usable(self._clock.now_ns()):
                return None
        user = await self._repository.user(connection, home, order.created_by if token is None else token.user_id)
        return actor_of(user, token) if user is not None and user.active else None


class Absent:
    """The `Leavers` of the inventory."""

    def __init__(self, repository: OwnerRepository) -> None:
        self._repository = repository

    async def inactive(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> frozenset[str]:
        teams, developers, apps = await self._repository.by_ids(connection, organization_id, ids)
        away = {developer.id for developer in developers if not developer.active}
        gone = [
            *(team.id for team in teams if not team.active),
            *away,
            *(app.id for app in apps if not app.active or app.developer_id in away),
        ]
        return frozenset(gone) & frozenset(ids)

    async def left(self, connection: AsyncConnection, organization_id: str, emails: Sequence[str]) -> frozenset[str]:
        found = await self._repository.developers_with_emails(connection, organization_id, emails)
        return frozenset(developer.email for developer in found if not developer.active)


class Served:
    """The `GatewaySecrets` of the inventory."""

    def __init__(self, repository: CredentialRepository) -> None:
        self._repository = repository

    async def credential_with(self, connection: AsyncConnection, organization_id: str, *, digest: str | None, hint: str) -> str | None:
        return await self._repository.alike(connection, organization_id, digest=digest, hint=hint)


@dataclass(frozen=True, slots=True)
class Stocktaking:
    bulk: BulkService
    runner: BulkRunner
    inventory: InventoryService
    adoptions: AdoptionService
    scanner: Scanner
    reminders: Reminders

    def schedule(self, worker: Worker) -> None:
        for job in (*bulk_jobs(self.runner), *inventory_jobs(self.scanner, self.reminders)):
            worker.every(job.every_seconds, job.name, job.tick, first=min(job.every_seconds, 0.5))

    @property
    def services(self) -> dict[type, object]:
        return {BulkService: self.bulk, InventoryService: self.inventory, AdoptionService: self.adoptions}


async def stocktaking(
    base: Foundation,
    issuing: Issuing,
    outbox: EventOutbox,
    developers: DeveloperService,
    *,
    node_id: str,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Stocktaking:
    """Everything of it; what a former process of this node was at is free again."""
    owners = OwnerRepository()
    rows, stock, people = BulkRepository(), InventoryRepository(), Directory(owners, developers)
    bulk = BulkService(
        database=base.database,
        repository=rows,
        accounts=issuing.accounts,
        keys=issuing.keys,
        handover=issuing.handover,
        people=people,
        crowd=stock,
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
        orderers=Signed(AccessRepository(), base.clock),
        outbox=outbox,
        clock=base.clock,
        node_id=node_id,
    )
    eyes = Eyes(
        database=base.database,
        repository=stock,
        key_rows=issuing.rows,
        accounts=issuing.account_rows,
        desks=issuing.desks,
        provisioners=issuing.provisioners,
        leavers=Absent(owners),
        restraints=WatchRepository(),
        ages=issuing.outlooks,
        outbox=outbox,
        clock=base.clock,
        node_id=node_id[:60],
        stale_days=base.settings.stale_days,
    )
    scanner = Scanner(eyes)
    inventory = InventoryService(
        eyes,
        scanner=scanner,
        keys=issuing.keys,
        inspection=issuing.inspection,
        operations=issuing.operations,
        last_bill=issuing.last_bill,
        audit=base.audit,
        sleep=sleep,
    )
    adoptions = AdoptionService(
        eyes,
        accounts=issuing.accounts,
        owners=OwnerDirectory(owners),
        gateway=Served(CredentialRepository()),
        digest_key=base.digest_key,
        audit=base.audit,
        sleep=sleep,
    )
    await runner.recover()
    await scanner.recover()
    return Stocktaking(bulk, runner, inventory, adoptions, scanner, Reminders(eyes))
