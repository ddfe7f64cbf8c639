"""Vendors' bills, wired: the import, the watch over budgets, the reports, and the small adapters between them and other areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.events import EventOutbox
from keygate.identities.directory import OwnerDirectory
from keygate.issued_keys.ports import Budgets
from keygate.ledger import UsageReports, VendorUsage
from keygate.processes.foundation import Foundation
from keygate.processes.issuing import Issuing
from keygate.processes.worker import Worker
from keygate.vault.credential_repository import CredentialRepository
from keygate.vendor_spend import BillReconciliation, BudgetWatch, SpendImporter, VendorUsageReports
from keygate.vendor_spend.jobs import jobs
from keygate.vendor_spend.ports import GatewayCredential
from keygate.vendor_spend.report_queries import VendorSpendQueries
from keygate.vendor_spend.repository import SpendRepository
from keygate.vendor_spend.watch_repository import WatchRepository
from keygate.vendors import VENDORS

_FIRST_SECONDS = 5.0
_PAGE = 500


class Credentials:
    """The `CredentialDirectory`."""

    def __init__(self, repository: CredentialRepository) -> None:
        self._repository = repository

    async def credentials(self, connection: AsyncConnection, organization_id: str) -> Sequence[GatewayCredential]:
        found: list[GatewayCredential] = []
        after: str | None = None
        while True:
            page = await self._repository.page(connection, organization_id, vendor=None, after=after, limit=_PAGE)
            found += [GatewayCredential(each.id, each.vendor, each.base_url, each.account) for each in page]
            if len(page) < _PAGE:
                return found
            after = page[-1].id


@dataclass(frozen=True, slots=True)
class Spending:
    importer: SpendImporter
    watch: BudgetWatch
    services: dict[type, object]

    def schedule(self, worker: Worker) -> None:
        for job in jobs(self.importer, self.watch):
            worker.every(job.every_seconds, job.name, job.tick, first=min(job.every_seconds, _FIRST_SECONDS))


async def spending(
    base: Foundation, outbox: EventOutbox, owners: OwnerDirectory, orders: Issuing, reports: UsageReports, *, node_id: str
) -> Spending:
    """Everything of it; what a former process of this node was importing is free again."""
    rows, queries = SpendRepository(), VendorSpendQueries()
    importer = SpendImporter(
        database=base.database,
        repository=rows,
        issued=orders.access,
        owners=owners,
        audit=base.audit,
        clock=base.clock,
        node_id=node_id,
    )
    await importer.recover()
    watch = BudgetWatch(
        database=base.database,
        repository=WatchRepository(),
        spend=rows,
        issued=orders.access,
        keys=orders.keys,
        audit=base.audit,
        outbox=outbox,
        clock=base.clock,
    )
    usage = VendorUsageReports(database=base.database, queries=queries, repository=rows, issued=orders.access, gateway=reports)
    reconciliation = BillReconciliation(
        database=base.database,
        queries=queries,
        repository=rows,
        issued=orders.access,
        credentials=Credentials(CredentialRepository()),
        gateway=reports,
        default_hosts={vendor.name: urlsplit(vendor.sdk_base_url).netloc for vendor in VENDORS.values()},
        clock=base.clock,
    )
    services: dict[type, object] = {
        SpendImporter: importer,
        BudgetWatch: watch,
        Budgets: watch,
        VendorUsage: usage,
        BillReconciliation: reconciliation,
    }
    return Spending(importer, watch, services)
