"""`/bulk`: many keys from a list or a team."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from keygate.errors import InvalidInput
from keygate.identities import Actor
from keygate.issued_keys.bulk.model import RowState
from keygate.issued_keys.bulk.schemas import BulkIn, BulkOut, LinksIn, LinksOut, PlanOut, RowLinkOut, RowOut
from keygate.issued_keys.bulk.service import BulkService
from keygate.kit.clock import Clock
from keygate.kit.routes import Page, PageQuery, Routes, current_actor, service

routes = Routes("/bulk", tag="issued keys")

_Actor = Annotated[Actor, Depends(current_actor)]
_Bulk = Annotated[BulkService, service(BulkService)]
_Clock = Annotated[Clock, service(Clock)]
_Id = Annotated[str, Path(max_length=100)]
_ABSENT = {404: {"description": "Absent, or not visible to this actor"}}
_STATE = {409: {"description": "No room at the vendor, or the state does not allow it"}}


@routes.post("/check", permission="issued_keys.write", responses=_STATE)
async def check_bulk_order(body: BulkIn, actor: _Actor, bulk: _Bulk, clock: _Clock) -> PlanOut:
    """What the order would do: every problem by its line, and whether all of it fits under the vendor's ceiling, of which the vendor
    itself is asked where it can tell. Makes nothing."""
    return PlanOut.of(await bulk.check(actor, body.draft(clock.now_ns())))


@routes.post("", permission="issued_keys.write", status_code=201, responses=_STATE)
async def create_bulk_order(body: BulkIn, actor: _Actor, bulk: _Bulk, clock: _Clock) -> BulkOut:
    """Orders a key for each row. Refused whole where a row can't be or the vendor has no room; then the worker makes one after the other,
    as fast as the vendor allows. Secrets wait for one-time links."""
    standing, _ = await bulk.order(actor, body.draft(clock.now_ns()))
    return BulkOut.of(standing)


@routes.get("", permission="issued_keys.read")
async def list_bulk_orders(actor: _Actor, bulk: _Bulk, page: Annotated[PageQuery, Depends()]) -> Page[BulkOut]:
    """Bulk orders, newest first."""
    found = await bulk.page(actor, before=page.after, limit=page.limit + 1)
    rows, cursor = page.page(found, key=lambda standing: standing.order.id)
    return Page(items=[BulkOut.of(standing) for standing in rows], next_cursor=cursor)


@routes.get("/{order_id}", permission="issued_keys.read", responses=_ABSENT)
async def get_bulk_order(order_id: _Id, actor: _Actor, bulk: _Bulk) -> BulkOut:
    """How far the order is."""
    return BulkOut.of(await bulk.get(actor, order_id))


@routes.get("/{order_id}/rows", permission="issued_keys.read", responses=_ABSENT)
async def list_bulk_rows(
    order_id: _Id,
    actor: _Actor,
    bulk: _Bulk,
    page: Annotated[PageQuery, Depends()],
    state: Annotated[RowState | None, Query()] = None,
) -> Page[RowOut]:
    """The order's report: what has become of each row."""
    after = page.after or "0"
    if not (after.isascii() and after.isdecimal() and len(after) < 8):
        raise InvalidInput("cursor: not one that we gave out; start again without it", field="cursor")
    found = await bulk.rows(actor, order_id, state=state, after=int(after), limit=page.limit + 1)
    rows, cursor = page.page(found, key=lambda row: str(row.line))
    return Page(items=[RowOut.of(row) for row in rows], next_cursor=cursor)


@routes.post("/{order_id}/resume", permission="issued_keys.write", responses=_ABSENT | _STATE)
async def resume_bulk_order(order_id: _Id, actor: _Actor, bulk: _Bulk) -> BulkOut:
    """Goes on with a halted order, and tries failed rows again."""
    return BulkOut.of(await bulk.resume(actor, order_id))


@routes.post("/{order_id}/cancel", permission="issued_keys.write", responses=_ABSENT | _STATE)
async def cancel_bulk_order(order_id: _Id, actor: _Actor, bulk: _Bulk) -> BulkOut:
    """Makes no further keys; those that are made stay."""
    return BulkOut.of(await bulk.cancel(actor, order_id))


@routes.post("/{order_id}/links", permission="issued_keys.write", responses=_ABSENT | _STATE)
async def link_bulk_order(order_id: _Id, body: LinksIn, request: Request, actor: _Actor, bulk: _Bulk) -> LinksOut:
    """One-time links to the secrets that wait, a page at a time, for handing out."""
    links, after = await bulk.links(actor, order_id, expires_in_seconds=body.expires_in_seconds, after=body.after, limit=body.limit)
    return LinksOut(items=[RowLinkOut.of(link, request.app.state.public_url) for link in links], next_after=after)
