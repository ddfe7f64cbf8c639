"""Issued keys, wired: provisioners, desks, the worker's operations, services; and the listener that ends what a holder has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from keygate.events import EventOutbox
from keygate.identities import Actor
from keygate.identities.directory import OwnerDirectory
from keygate.issued_keys import (
    Handover,
    IssuedKeyAccess,
    IssuedKeyService,
    LeakService,
    MintingService,
    Operations,
    ReceiptService,
    VendorAccountService,
)
from keygate.issued_keys.account_repository import VendorAccountRepository
from keygate.issued_keys.bench import AtStep, Tools, nothing
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.inspection import InspectionService
from keygate.issued_keys.inspection_repository import InspectionRepository
from keygate.issued_keys.issuer import TokenIssuer
from keygate.issued_keys.jobs import jobs
from keygate.issued_keys.last_bill import LastBill
from keygate.issued_keys.moving import move_accounts
from keygate.issued_keys.refusals import Refusals
from keygate.issued_keys.repository import IssuedKeyRepository
from keygate.issued_keys.rotation.jobs import jobs as rotation_jobs
from keygate.issued_keys.rotation.outlooks import Outlooks
from keygate.issued_keys.rotation.repository import RotationRepository
from keygate.issued_keys.rotation.scheduling import RotationScheduler
from keygate.issued_keys.rotation.service import RotationService
from keygate.kit.database import UnitOfWork
from keygate.kit.outbound import Outbound
from keygate.policies import Place
from keygate.processes.foundation import Foundation, raw_secret
from keygate.processes.worker import Worker
from keygate.vendor_spend.attributing import Attributor
from keygate.vendor_spend.last_readings import LastReadings
from keygate.vendor_spend.repository import SpendRepository
from keygate.vendor_spend.watch_repository import WatchRepository
from keygate.vendors.admin import PROVISIONERS, Provisioner
from keygate.virtual_keys import VirtualKeyService
from keygate.virtual_keys.repository import VirtualKeyRepository

ISSUER = "token-issuer"  # seed of the key that signs identity tokens for vendors


@dataclass(frozen=True, slots=True)
class Issuing:
    keys: IssuedKeyService
    handover: Handover
    receipts: ReceiptService
    accounts: VendorAccountService
    minting: MintingService
    leaks: LeakService
    inspection: InspectionService
    operations: Operations
    access: IssuedKeyAccess
    outbound: Outbound
    rows: IssuedKeyRepository
    account_rows: VendorAccountRepository
    desks: Desks
    last_bill: LastBill
    provisioners: Mapping[str, Provisioner]
    outlooks: Outlooks
    rotation: RotationService
    scheduler: RotationScheduler

    def schedule(self, worker: Worker) -> None:
        for job in (*jobs(self.operations, self.inspection, self.accounts), *rotation_jobs(self.scheduler)):
            worker.every(job.every_seconds, job.name, job.tick, first=min(job.every_seconds, 0.5 if job.every_seconds < 60 else 30.0))

    async def move(self, actor: Actor, former: str, address: str, base: Foundation) -> None:
        await move_accounts(
            actor, former, address, database=base.database, repository=self.account_rows, audit=base.audit, clock=base.clock
        )

    async def close(self) -> None:
        await self.operations.stop()
        await self.outbound.close()

    @property
    def services(self) -> dict[type, object]:
        return {
            IssuedKeyService: self.keys,
            Handover: self.handover,
            ReceiptService: self.receipts,
            VendorAccountService: self.accounts,
            MintingService: self.minting,
            LeakService: self.leaks,
            InspectionService: self.inspection,
            Outlooks: self.outlooks,
            RotationService: self.rotation,
        }


async def issuing(
    base: Foundation,
    outbox: EventOutbox,
    owners: OwnerDirectory,
    *,
    node_id: str,
    provisioners: Mapping[str, Provisioner] = PROVISIONERS,
    at_step: AtStep = nothing,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Issuing:
    """Everything of issued keys; what a former process of this node was working on is free again."""
    rows, account_rows, watches, outbound = IssuedKeyRepository(), VendorAccountRepository(), WatchRepository(), Outbound()
    issuer = TokenIssuer(await raw_secret(base.vault, ISSUER), url=base.settings.address, clock=base.clock)
    desks = Desks(sender=outbound, vault=base.vault, issuer=issuer, clock=base.clock, provisioners=provisioners, sleep=sleep)
    access = IssuedKeyAccess(accounts=account_rows, keys=rows, desks=desks, provisioners=provisioners)
    readings = LastReadings(database=base.database, repository=SpendRepository(), attributor=Attributor(access, owners))
    last_bill = LastBill(readings, clock=base.clock, sleep=sleep, at_step=at_step)
    tools = Tools(
        database=base.database,
        repository=rows,
        vault=base.vault,
        audit=base.audit,
        outbox=outbox,
        clock=base.clock,
        digest_key=base.digest_key,
        restraints=watches,
        last_bill=last_bill,
        at_step=at_step,
        sleep=sleep,
    )
    operations = Operations(tools, accounts=account_rows, desks=desks, provisioners=provisioners, node_id=node_id)
    await operations.recover()
    accounts = VendorAccountService(
        database=base.database,
        repository=account_rows,
        keys=rows,
        vault=base.vault,
        audit=base.audit,
        desks=desks,
        provisioners=provisioners,
        operations=operations,
        clock=base.clock,
    )
    desks.refused = Refusals(
        database=base.database,
        repository=account_rows,
        desks=desks,
        audit=base.audit,
        outbox=outbox,
        provisioners=provisioners,
        clock=base.clock,
    ).seen
    handover = Handover(
        database=base.database,
        repository=rows,
        operations=operations,
        vault=base.vault,
        audit=base.audit,
        provisioners=provisioners,
        clock=base.clock,
    )
    receipts = ReceiptService(database=base.database, repository=rows, signer=base.signer, clock=base.clock)
    keys = IssuedKeyService(
        database=base.database,
        repository=rows,
        account_rows=account_rows,
        accounts=accounts,
        operations=operations,
        desks=desks,
        owners=owners,
        handover=handover,
        restraints=watches,
        audit=base.audit,
        provisioners=provisioners,
        clock=base.clock,
    )
    minting = MintingService(
        database=base.database,
        rows=rows,
        account_rows=account_rows,
        keys=keys,
        handover=handover,
        desks=desks,
        issuer=issuer,
        audit=base.audit,
        digest_key=base.digest_key,
        provisioners=provisioners,
        clock=base.clock,
    )
    leaks = LeakService(
        database=base.database,
        repository=rows,
        keys=keys,
        operations=operations,
        audit=base.audit,
        outbox=outbox,
        digest_key=base.digest_key,
        provisioners=provisioners,
        clock=base.clock,
    )
    inspection = InspectionService(
        database=base.database,
        repository=InspectionRepository(),
        keys=rows,
        accounts=account_rows,
        owners=owners,
        desks=desks,
        audit=base.audit,
        outbox=outbox,
        provisioners=provisioners,
        restraints=watches,
        clock=base.clock,
    )
    rotation_rows = RotationRepository()
    outlooks = Outlooks(
        database=base.database, repository=rotation_rows, owners=owners, restraints=watches, provisioners=provisioners, clock=base.clock
    )
    rotation = RotationService(
        database=base.database,
        repository=rotation_rows,
        keys=rows,
        outlooks=outlooks,
        owners=owners,
        audit=base.audit,
        provisioners=provisioners,
        clock=base.clock,
    )
    scheduler = RotationScheduler(
        database=base.database, repository=rotation_rows, keys=rows, outlooks=outlooks, audit=base.audit, outbox=outbox, clock=base.clock
    )
    return Issuing(
        keys=keys,
        handover=handover,
        receipts=receipts,
        accounts=accounts,
        minting=minting,
        leaks=leaks,
        inspection=inspection,
        operations=operations,
        access=access,
        outbound=outbound,
        rows=rows,
        account_rows=account_rows,
        desks=desks,
        last_bill=last_bill,
        provisioners=provisioners,
        outlooks=outlooks,
        rotation=rotation,
        scheduler=scheduler,
    )


class Holders:
    """The `HolderListener`: a holder that ends loses its virtual keys in the same transaction, and its vendor keys at the vendors, with one
    receipt for all of them."""

    def __init__(
        self, *, virtual: VirtualKeyService, virtual_rows: VirtualKeyRepository, issued: IssuedKeyService, owners: OwnerDirectory
    ) -> None:
        self._virtual = virtual
        self._virtual_rows = virtual_rows
        self._issued = issued
        self._owners = owners

    async def developer_deactivated(self, work: UnitOfWork, actor: Actor, developer_id: str) -> str | None:
        held = await self._held(work, actor, developer_id)
        await self._virtual.developer_deactivated(work, actor, developer_id)
        return await self._end(work, actor, "developer.deactivate", developer_id, "its developer was deactivated", held)

    async def app_deactivated(self, work: UnitOfWork, actor: Actor, app_id: str) -> str | None:
        held = await self._held(work, actor, app_id)
        await self._virtual.app_deactivated(work, actor, app_id)
        return await self._end(work, actor, "app.deactivate", app_id, "its app was deactivated", held)

    async def team_archived(self, work: UnitOfWork, actor: Actor, team_id: str, *, ended: Sequence[str]) -> str | None:
        held = await self._held(work, actor, team_id, *ended)
        await self._virtual.team_archived(work, actor, team_id, ended=ended)
        return await self._end(work, actor, "team.archive", team_id, "its team was archived", held, also=ended)

    async def _held(self, work: UnitOfWork, actor: Actor, *owner_ids: str) -> list[dict[str, str]]:
        held = await self._virtual_rows.held_by(work.connection, actor.organization_id, owner_ids)
        return [{"id": key.id, "name": key.name, "hint": key.hint, **_whose(key.owner)} for key in held]

    async def _end(
        self,
        work: UnitOfWork,
        actor: Actor,
        cause: str,
        owner_id: str,
        reason: str,
        virtual_keys: list[dict[str, str]],
        *,
        also: Sequence[str] = (),
    ) -> str | None:
        holder = (await self._owners.holders(work.connection, actor.organization_id, [owner_id])).get(owner_id)
        name = owner_id if holder is None else holder.name
        return await self._issued.holder_ended(
            work, actor, cause=cause, subject=owner_id, also=also, name=name, reason=reason, virtual_keys=virtual_keys
        )


def _whose(owner: Place | None) -> dict[str, str]:
    return {} if owner is None else {"owner_id": owner.scope_id}
