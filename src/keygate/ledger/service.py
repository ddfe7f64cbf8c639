"""What people change in the ledger: charges in doubt, and prices of the operator's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from keygate.audit import AuditLog
from keygate.errors import Conflict, InvalidInput, NotFound
from keygate.identities import Actor
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id
from keygate.kit.money import format_usd
from keygate.ledger.ports import PriceRow

if TYPE_CHECKING:
    from keygate.kit.database import Database
    from keygate.ledger.reports import Freshness
    from keygate.ledger.repository import LedgerRepository


class LiveSpend(Protocol):
    """The engine's memory of what budgets have spent."""

    def correct(self, budget_id: str, window_start_ns: int, nano: int, in_doubt_nano: int) -> None:
        """Adds these (mostly negative) amounts to a window, where it has it in memory. The database has them already."""


class PriceReload(Protocol):
    def reload(self) -> None:
        """Reads the operator's prices again; the next request is priced by them."""


class Reconciliation:
    """Replaces the charge of a request whose true cost was unknown, once."""

    def __init__(
        self,
        *,
        database: Database,
        repository: LedgerRepository,
        audit: AuditLog,
        clock: Clock,
        fresh: Freshness | None = None,
        live: LiveSpend | None = None,
    ) -> None:
        self._database = database
        self._repository = repository
        self._audit = audit
        self._clock = clock
        self._fresh = fresh
        self._live = live

    async def reconcile(self, actor: Actor, request_id: str, cost_nano: int) -> Any:
        """The corrected entry. Raises `NotFound`, and `Conflict` where the charge is not in doubt (any more)."""
        if self._fresh is not None:
            await self._fresh.flush(2.0)
        async with self._database.unit(actor.organization_id) as work:
            await self._repository.lock_fold(work.connection)  # what is spent and rolled up changes in one place at a time
            entry = await self._repository.entry(work.connection, actor.organization_id, request_id, for_update=True)
            if entry is None:
                raise NotFound(f"There is no ledger entry of a request {request_id}")
            if not entry.in_doubt:
                raise Conflict("The charge of this request is not in doubt; it can't be reconciled")
            charged = entry.cost_nano or 0
            await self._audit.record(
                work,
                actor,
                "ledger_entry.reconcile",
                request_id,
                before={"cost_usd": format_usd(charged), "in_doubt": True},
                after={"cost_usd": format_usd(cost_nano), "in_doubt": False},
            )
            windows = await self._repository.reconcile(
                work.connection, entry, cost_nano=cost_nano, now_ns=self._clock.now_ns(), actor_id=actor.id
            )

            async def tell() -> None:
                if self._live is not None:
                    for budget_id, start in windows:
                        self._live.correct(budget_id, start, cost_nano - charged, -charged)

            work.after_commit(tell)
            return await self._repository.entry(work.connection, actor.organization_id, request_id)


class OperatorPrices:
    """Prices above the shipped ones. `rows` answers from memory, for the price book; call `load` before the first request."""

    def __init__(
        self, *, database: Database, repository: LedgerRepository, audit: AuditLog, clock: Clock, book: PriceReload | None = None
    ) -> None:
        self._database = database
        self._repository = repository
        self._audit = audit
        self._clock = clock
        self._book = book
        self._rows: tuple[PriceRow, ...] = ()

    def watch(self, book: PriceReload) -> None:
        """The book to tell of changes, where it is made after this (it reads `rows`)."""
        self._book = book

    def rows(self) -> Sequence[PriceRow]:
        return self._rows

    async def load(self) -> None:
        async with self._database.read() as connection:
            found = await self._repository.all_prices(connection)
        # The first match wins: exact names before patterns, longer patterns before shorter ones.
        rows = sorted(found, key=lambda row: ("*" in row.model, -len(row.model), row.model))
        self._rows = tuple(
            PriceRow(vendor=row.vendor, model=row.model, rates=json.loads(row.rates), id=row.id, organization_id=row.organization_id)
            for row in rows
        )
        if self._book is not None:
            self._book.reload()

    async def list(self, actor: Actor) -> Sequence[Any]:
        async with self._database.read() as connection:
            return await self._repository.prices(connection, actor.organization_id)

    async def put(self, actor: Actor, vendor: str, model: str, rates: Mapping[str, int]) -> Any:
        """Sets the price of a model (or of a pattern with `*`). Entries keep the id of the price that they were charged by."""
        if "input" not in rates and "output" not in rates:
            raise InvalidInput("rates: name at least input or output", field="rates")
        organization_id = actor.organization_id
        async with self._database.unit(actor.organization_id) as work:
            former = await self._repository.price(work.connection, organization_id, vendor, model)
            values = {
                "organization_id": organization_id,
                "vendor": vendor,
                "model": model,
                "id": new_id("price"),
                "rates": json.dumps(dict(rates), sort_keys=True),
                "updated_at_ns": self._clock.now_ns(),
                "updated_by": actor.id,
            }
            await self._audit.record(
                work,
                actor,
                "price.set",
                f"{vendor}/{model}",
                before=None if former is None else {"rates": json.loads(former.rates)},
                after={"rates": dict(rates)},
            )
            await self._repository.put_price(work.connection, values)
            work.after_commit(self.load)
            return await self._repository.price(work.connection, organization_id, vendor, model)

    async def delete(self, actor: Actor, vendor: str, model: str) -> None:
        """The shipped price counts again. Raises `NotFound`."""
        async with self._database.unit(actor.organization_id) as work:
            former = await self._repository.price(work.connection, actor.organization_id, vendor, model)
            if former is None:
                raise NotFound(f"There is no price of your own for {vendor}/{model}")
            await self._audit.record(work, actor, "price.delete", f"{vendor}/{model}", before={"rates": json.loads(former.rates)})
            await self._repository.delete_price(work.connection, actor.organization_id, vendor, model)
            work.after_commit(self.load)
