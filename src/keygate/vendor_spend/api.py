"""`/reconciliation`, a key's watched budget, and reading a vendor's bill on demand."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Query
from pydantic import Field

from keygate.identities import Actor
from keygate.kit.clock import to_ns
from keygate.kit.routes import Instant, Routes, Schema, current_actor, service
from keygate.vendor_spend.importer import SpendImporter
from keygate.vendor_spend.reconciliation import BillReconciliation
from keygate.vendor_spend.schemas import BalanceOut, ImportOut, ResumeIn, WatchIn, WatchOut
from keygate.vendor_spend.watching import BudgetWatch

reconciliation_routes = Routes("/reconciliation", tag="usage")
account_routes = Routes("/vendors/accounts", tag="vendors")
key_routes = Routes("/keys", tag="issued keys")
ALL = (reconciliation_routes, account_routes, key_routes)

_Actor = Annotated[Actor, Depends(current_actor)]
_Id = Annotated[str, Path(max_length=100)]
_Day = Annotated[Instant | None, Query(description="RFC 3339; whole UTC days are reported")]
Responses = dict[int | str, dict[str, Any]]
_ABSENT: Responses = {404: {"description": "Absent, or not visible to this actor"}}
_BUSY: Responses = {503: {"description": "The ledger is catching up; try again in a moment"}}
_CONFLICT: Responses = {409: {"description": "The vendor can't do this, or it is going on already"}}


class ImportIn(Schema):
    from_: Instant | None = Field(None, alias="from", description="RFC 3339: what was told since then is read again")


@reconciliation_routes.get(permission="reconciliation.read", responses=_BUSY)
async def reconcile_bills(
    actor: _Actor,
    reconciliation: Annotated[BillReconciliation, service(BillReconciliation)],
    from_: Annotated[_Day, Query(alias="from")] = None,
    to: _Day = None,
    account: Annotated[str | None, Query(min_length=1, max_length=100, pattern=r"^[^\x00]+$", description="Id or name")] = None,
) -> BalanceOut:
    """Our ledger against the vendors' bills, by vendor account and day: the difference, how much of it data delay, charges in doubt and
    midnight explain, and what bypassed KeyGate. Thirty days unless `from` and `to` say otherwise, at most 93."""
    balance = await reconciliation.balance(
        actor, from_ns=None if from_ is None else to_ns(from_), to_ns=None if to is None else to_ns(to), account=account
    )
    return BalanceOut.of(balance)


@account_routes.post("/{account_id}/import-spend", permission="vendors.write", responses=_ABSENT | _CONFLICT)
async def import_vendor_spend(
    account_id: _Id, actor: _Actor, importer: Annotated[SpendImporter, service(SpendImporter)], body: ImportIn | None = None
) -> ImportOut:
    """Reads the account's bill now, as the worker does by itself; `from` reads from there again. What the vendor refuses stands in
    `error`."""
    since = None if body is None or body.from_ is None else to_ns(body.from_)
    return ImportOut.of(await importer.run(actor, account_id, since_ns=since))


@key_routes.get("/{issued_key_id}/watch", permission="issued_keys.read", responses=_ABSENT)
async def get_budget_watch(issued_key_id: _Id, actor: _Actor, watch: Annotated[BudgetWatch, service(BudgetWatch)]) -> WatchOut:
    """A key's budget by the vendor's bill, and who stands behind it."""
    return WatchOut.of(await watch.standing(actor, issued_key_id))


@key_routes.post("/{issued_key_id}/resume", permission="issued_keys.write", responses=_ABSENT | _CONFLICT)
async def resume_issued_key(
    issued_key_id: _Id, body: ResumeIn, actor: _Actor, watch: Annotated[BudgetWatch, service(BudgetWatch)]
) -> WatchOut:
    """Lets a key that was disabled for its budget go on: with a higher budget, with so much more in this period, or whatever comes until
    the period ends. With the first two it is disabled again once that is spent too."""
    return WatchOut.of(await watch.resume(actor, issued_key_id, body.resumption()))


@key_routes.put("/{issued_key_id}/watch", permission="issued_keys.write", responses=_ABSENT | _CONFLICT)
async def set_budget_watch(
    issued_key_id: _Id, body: WatchIn, actor: _Actor, watch: Annotated[BudgetWatch, service(BudgetWatch)]
) -> WatchOut:
    """What KeyGate does as the budget is used up, where the vendor does nothing: warn, lower the key's limits, disable or revoke it."""
    return WatchOut.of(await watch.set_rule(actor, issued_key_id, body.rule()))
