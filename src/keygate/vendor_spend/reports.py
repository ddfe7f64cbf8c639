"""One usage report over the gateway's ledger and the vendors' bills."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keygate.errors import InvalidInput
from keygate.identities import Actor
from keygate.issued_keys import IssuedKeyAccess
from keygate.kit.clock import from_ns
from keygate.kit.turns import pieces
from keygate.ledger import Bill, BilledReport, BilledSum, Selection, Source, Sum, UsageReports
from keygate.vendor_spend.model import ImportState
from keygate.vendors.admin import spend_of, why_no_spend

if TYPE_CHECKING:
    from keygate.kit.database import Database
    from keygate.vendor_spend.report_queries import VendorSpendQueries
    from keygate.vendor_spend.repository import SpendRepository

_COMMON = ("key", "team", "developer", "app", "vendor", "model")
_ONLY_BILLS = ("account", "vendor_key", "item")
_TIMES = {"day": "%Y-%m-%d", "month": "%Y-%m"}
SOURCE = "source"
MAX_ROWS = 10_000


class VendorUsageReports:
    """The `VendorUsage` of the ledger's API."""

    def __init__(
        self,
        *,
        database: Database,
        queries: VendorSpendQueries,
        repository: SpendRepository,
        issued: IssuedKeyAccess,
        gateway: UsageReports,
    ) -> None:
        self._database = database
        self._queries = queries
        self._repository = repository
        self._issued = issued
        self._gateway = gateway

    async def usage(
        self, actor: Actor, selection: Selection, group_by: Sequence[str], *, source: Source, most: int = MAX_ROWS
    ) -> BilledReport:
        self._check(selection, group_by, source)
        groups = [name for name in group_by if name in _COMMON or name in _ONLY_BILLS]
        rows: list[BilledSum] = []
        truncated = False
        limit = (MAX_ROWS + 1) * 31 if "month" in group_by else most + 1  # months are added up here, of days
        if source is Source.ALL:
            report = await self._gateway.usage(selection, [name for name in group_by if name != SOURCE], most=most)
            async for piece in pieces(report.rows):
                rows += [_of_gateway(row, group_by) for row in piece]
            truncated = report.truncated
        async with self._database.read() as connection:
            found = await self._queries.sums(
                connection,
                selection,
                groups,
                by_day=any(name in _TIMES for name in group_by),
                only_issued=source is Source.ALL,
                limit=limit,
            )
            bills = await self._bills(actor, selection)
        async for billed in pieces(found):
            rows += [_of_vendor(row, group_by) for row in billed if row.rows]
        merged = await _merged(rows)
        truncated = truncated or len(merged) > most or len(found) >= limit
        return BilledReport(selection.from_ns, selection.to_ns, tuple(merged[:most]), bills, truncated)

    async def issued(self, selection: Selection) -> int | None:
        if selection.tag is not None:
            return None
        async with self._database.read() as connection:
            found = await self._queries.sums(connection, selection, [], by_day=False, only_issued=True, limit=1)
        return sum(row.cost_nano or 0 for row in found)

    async def _bills(self, actor: Actor, selection: Selection) -> tuple[Bill, ...]:
        async with self._database.read() as connection:
            accounts = await self._issued.accounts(connection, selection.organization_id)
            states = {state.account_id: state for state in await self._repository.states(connection, selection.organization_id)}
            unknown = await self._queries.unknown(connection, selection.organization_id, from_ns=selection.from_ns, to_ns=selection.to_ns)
        sums: dict[str, int] = {}
        for row in unknown:
            sums[row.account_id] = sums.get(row.account_id, 0) + row.amount_nano
        wanted = selection.filters.get("vendor")
        bills = []
        for account in accounts:
            if wanted is not None and account.vendor not in wanted:
                continue
            provisioner = self._issued.provisioner(account.vendor)
            facts = spend_of(provisioner, account.settings)
            state = states.get(account.id) or ImportState(account.id, account.organization_id, account.vendor)
            bills.append(
                Bill(
                    account_id=account.id,
                    account=account.name,
                    vendor=account.vendor,
                    reported=facts is not None,
                    why_not=why_no_spend(provisioner, account.settings),
                    means=None if facts is None else facts.means,
                    as_of_ns=state.as_of_ns,
                    delay_seconds=None if facts is None else facts.delay_seconds,
                    restated_days=None if facts is None else facts.restated_days,
                    unknown_nano=0 if actor.only_own else sums.get(account.id, 0),
                    error=None if actor.only_own else state.trouble(),
                )
            )
        return tuple(bills)

    def _check(self, selection: Selection, group_by: Sequence[str], source: Source) -> None:
        known = (*_COMMON, *_TIMES, SOURCE, *(_ONLY_BILLS if source is Source.VENDOR else ()))
        for name in group_by:
            if name not in known:
                raise InvalidInput(f"group_by: with source={source}, {name} is not one of {', '.join(known)}", field="group_by")
        if len(set(group_by)) != len(group_by) or len([name for name in group_by if name in _TIMES]) > 1:
            raise InvalidInput("group_by: each group once, and at most one of day, month", field="group_by")
        if selection.tag is not None:
            raise InvalidInput("tag: vendors' bills know no tags; ask with source=gateway", field="tag")


def _of_gateway(row: Sum, group_by: Sequence[str]) -> BilledSum:
    group = {name: Source.GATEWAY.value if name == SOURCE else row.group[name] for name in group_by}
    values = row.values
    return BilledSum(
        group, values["requests"], values["input_tokens"], values["output_tokens"], values["cost_nano"], values["in_doubt_nano"]
    )


def _of_vendor(row: Any, group_by: Sequence[str]) -> BilledSum:
    values: Mapping[str, Any] = row._mapping  # noqa: SLF001  (the public name of a row's mapping)
    group: dict[str, str | int | None] = {}
    for name in group_by:
        if name in _TIMES:
            group[name] = from_ns(values["bucket_ns"]).strftime(_TIMES[name])
        else:
            group[name] = Source.VENDOR.value if name == SOURCE else values[name]
    return BilledSum(
        group,
        values["requests"],
        values["input_tokens"],
        values["output_tokens"],
        values["cost_nano"] or 0,
        restated_nano=values["restated_nano"] or 0,
    )


async def _merged(rows: Sequence[BilledSum]) -> list[BilledSum]:
    """Rows of one group as one: days of a month, and both sources. In order of time where that is a group, else the dearest first."""
    merged: dict[tuple[object, ...], BilledSum] = {}
    async for piece in pieces(rows):
        for row in piece:
            key = tuple(row.group.values())
            known = merged.get(key)
            merged[key] = row if known is None else _added(known, row)
    first = next(iter(merged.values()), None)
    time = None if first is None else next((name for name in first.group if name in _TIMES), None)

    def place(row: BilledSum) -> tuple[str, int]:
        return "" if time is None else str(row.group[time]), -row.cost_nano

    return await asyncio.to_thread(sorted, merged.values(), key=place)


def _added(one: BilledSum, other: BilledSum) -> BilledSum:
    def both(a: int | None, b: int | None) -> int | None:
        return None if a is None or b is None else a + b

    return replace(
        one,
        requests=both(one.requests, other.requests),
        input_tokens=both(one.input_tokens, other.input_tokens),
        output_tokens=both(one.output_tokens, other.output_tokens),
        cost_nano=one.cost_nano + other.cost_nano,
        in_doubt_nano=one.in_doubt_nano + other.in_doubt_nano,
        restated_nano=one.restated_nano + other.restated_nano,
    )
