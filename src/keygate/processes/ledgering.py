"""The ledger's parts, wired: journal, engine, fold, reports; and the small adapters between them and other areas."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keygate import __version__
from keygate.errors import Unavailable
from keygate.events import EventOutbox
from keygate.ledger.accounts import LedgerAccounts
from keygate.ledger.announcements import ThresholdEvents
from keygate.ledger.content import ContentReader, ContentRecorder
from keygate.ledger.content_repository import ContentRepository
from keygate.ledger.fold import Fold
from keygate.ledger.jobs import jobs
from keygate.ledger.journal import Settle
from keygate.ledger.journal.recovery import claim, recover
from keygate.ledger.prices import PriceBook
from keygate.ledger.report_queries import ReportQueries
from keygate.ledger.reports import UsageReports
from keygate.ledger.repository import LedgerRepository
from keygate.ledger.retention import Retention
from keygate.ledger.service import OperatorPrices, Reconciliation
from keygate.ledger.spend import DatabaseSpend, WholeGrant
from keygate.ledger.standing import KeyStanding
from keygate.policies import Estimate
from keygate.processes.foundation import Foundation
from keygate.processes.worker import Worker

_SYNC_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_REAP_SECONDS = 60.0
_FIRST_SECONDS = 5.0  # rare jobs too, so that they run in processes that are restarted often


class Estimates:
    """The price book, as explanations ask for it."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book

    def estimate(self, vendor: str, model: str, *, input_tokens: int, output_tokens: int, at_ns: int) -> Estimate | None:
        price = self._book.find(vendor, model, at_ns)
        return None if price is None else Estimate(price.id, price.upper_bound(input_tokens, output_tokens))


@dataclass(frozen=True, slots=True)
class Ledger:
    accounts: LedgerAccounts
    book: PriceBook
    estimates: Estimates
    fold: Fold
    grant: WholeGrant
    usage: KeyStanding
    reports: UsageReports
    recorder: ContentRecorder
    retention: Retention
    node_id: str  # of this node, stable over restarts
    in_doubt: int  # requests that a former process left open, charged at their holds now
    services: dict[type, object]

    def schedule(self, worker: Worker) -> None:
        for job in jobs(fold=self.fold, grant=self.grant, retention=self.retention, recorder=self.recorder):
            worker.every(job.every_seconds, job.name, job.tick, first=min(job.every_seconds, _FIRST_SECONDS))

        async def sync() -> None:
            await asyncio.to_thread(self.accounts.sync)

        async def retry() -> None:
            if self.accounts.retry():
                raise Unavailable("settled requests wait for the journal to be writable again")

        async def reap() -> None:
            if lost := self.accounts.reap():
                raise Unavailable(f"{lost} holds had no end; they are charged in doubt")

        worker.every(_SYNC_SECONDS, "journal.sync", sync)
        worker.every(_RETRY_SECONDS, "journal.retry", retry)
        worker.every(_REAP_SECONDS, "holds.reap", reap)

    async def close(self) -> None:
        """After the last request: everything settled stands in the database, and the budgets are given back."""
        await self.recorder.tick()
        await self.fold.tick()
        await self.fold.roll_up()
        self.accounts.close()
        await self.grant.release()


async def ledger(base: Foundation, outbox: EventOutbox, *, posted: Callable[[Sequence[Settle]], None] | None = None) -> Ledger:
    """Recovers the journal, takes the budgets' grant, and makes everything of the ledger. Raises `StartRefused`."""
    repository, clock = LedgerRepository(), base.clock
    folder = base.directory / "journal"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock, journal_id = claim(folder)
    grant = WholeGrant(database=base.database, repository=repository, clock=clock, node_id=journal_id)
    await grant.acquire()
    source = DatabaseSpend(database=base.database, repository=repository, journal_id=journal_id)
    async with base.database.read() as connection:
        checkpoint = await repository.checkpoint(connection, journal_id)
    recovered = recover(folder, lock, journal_id, checkpoint, clock=clock, boot_id=secrets.token_hex(8), version=__version__)
    own_prices = OperatorPrices(database=base.database, repository=repository, audit=base.audit, clock=clock)
    await own_prices.load()
    book = PriceBook(own_prices)
    own_prices.watch(book)
    accounts = LedgerAccounts(recovered=recovered, book=book, source=source, slices=grant, clock=clock, hold_wait=base.settings.hold_wait)
    fold = Fold(
        database=base.database,
        repository=repository,
        directory=folder,
        journal_id=journal_id,
        clock=clock,
        crossings=ThresholdEvents(source=accounts, outbox=outbox, repository=repository),
        release=accounts.folded,
        written=lambda: recovered.journal.position,
        posted=posted,
    )
    await fold.tick()  # up to and with what the recovery charged
    contents = ContentRepository()
    reports = UsageReports(database=base.database, queries=ReportQueries(), clock=clock, fresh=fold)
    services: dict[type, object] = {
        UsageReports: reports,
        OperatorPrices: own_prices,
        Reconciliation: Reconciliation(
            database=base.database, repository=repository, audit=base.audit, clock=clock, fresh=fold, live=accounts
        ),
        ContentReader: ContentReader(database=base.database, repository=contents, seal=base.vault, audit=base.audit),
    }
    return Ledger(
        accounts=accounts,
        book=book,
        estimates=Estimates(book),
        fold=fold,
        grant=grant,
        usage=KeyStanding(engine=accounts, reports=reports),
        reports=reports,
        recorder=ContentRecorder(database=base.database, repository=contents, seal=base.vault),
        retention=Retention(
            database=base.database,
            repository=repository,
            contents=contents,
            clock=clock,
            entry_days=base.settings.retention_days,
            content_days=base.settings.content_days,
        ),
        node_id=journal_id,
        in_doubt=len(recovered.in_doubt),
        services=services,
    )
