"""`/inventory`: what stands at the vendors, and what is done about it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Query

from keygate.identities import Actor
from keygate.issued_keys.inventory.adopting import AdoptionService
from keygate.issued_keys.inventory.model import Finding, Item, Kind, Standing, Wanted
from keygate.issued_keys.inventory.schemas import (
    AcceptIn,
    AdoptedOut,
    AdoptIn,
    DisableIn,
    EnterIn,
    ItemOut,
    ScanIn,
    ScanOut,
    ScansOut,
    SummaryList,
    SummaryOut,
)
from keygate.issued_keys.inventory.service import InventoryService
from keygate.kit.clock import Clock
from keygate.kit.routes import Page, PageQuery, Routes, current_actor, service
from keygate.kit.secret import Secret

routes = Routes("/inventory", tag="inventory")

_Actor = Annotated[Actor, Depends(current_actor)]
_Inventory = Annotated[InventoryService, service(InventoryService)]
_Adoptions = Annotated[AdoptionService, service(AdoptionService)]
_Clock = Annotated[Clock, service(Clock)]
_Id = Annotated[str, Path(max_length=100)]
_IdQuery = Annotated[str | None, Query(max_length=40, pattern=r"^[A-Za-z0-9_]+$", description="Only of this vendor account")]
_VendorQuery = Annotated[str | None, Query(max_length=40, pattern=r"^[a-z0-9_-]+$", description="Only of this vendor: `openai`")]

Responses = dict[int | str, dict[str, Any]]
_ABSENT: Responses = {404: {"description": "Absent, or not visible to this actor"}}
_STATE: Responses = {409: {"description": "What it is, or what the vendor can do, does not allow it"}}
_VENDOR: Responses = {502: {"description": "The vendor did not do it, or still shows it as before"}}


def _told(inventory: InventoryService, item: Item) -> ItemOut:
    return ItemOut.of(item, remedies=inventory.remedies(item))


@routes.get("", permission="inventory.read")
async def list_inventory(
    actor: _Actor,
    inventory: _Inventory,
    page: Annotated[PageQuery, Depends()],
    account_id: _IdQuery = None,
    vendor: _VendorQuery = None,
    kind: Annotated[Kind | None, Query(description="Only keys, or only what holds them")] = None,
    standing: Annotated[Standing | None, Query(description="Only what is so: whose it is")] = None,
    finding: Annotated[Finding | None, Query(description="Only what has this finding, accepted or not")] = None,
    attention: Annotated[bool, Query(description="Only what somebody should look at")] = False,
) -> Page[ItemOut]:
    """What stands at the vendors, as the last scans saw it: ours, adopted, orphaned or unknown, and what is the matter with it."""
    wanted = Wanted(account_id=account_id, vendor=vendor, kind=kind, standing=standing, finding=finding, attention=attention)
    found = await inventory.page(actor, wanted, after=page.after, limit=page.limit + 1)
    rows, cursor = page.page(found, key=lambda item: item.id)
    return Page(items=[_told(inventory, item) for item in rows], next_cursor=cursor)


@routes.get("/summary", permission="inventory.read")
async def summarise_inventory(actor: _Actor, inventory: _Inventory) -> SummaryList:
    """Each vendor account in numbers, and its last scan."""
    return SummaryList(items=[SummaryOut.of(summary) for summary in await inventory.summaries(actor)])


@routes.get("/scans", permission="inventory.read")
async def list_inventory_scans(actor: _Actor, inventory: _Inventory, page: Annotated[PageQuery, Depends()]) -> Page[ScanOut]:
    """Scans, newest first."""
    found = await inventory.scans(actor, before=page.after, limit=page.limit + 1)
    rows, cursor = page.page(found, key=lambda scan: scan.id)
    return Page(items=[ScanOut.of(scan) for scan in rows], next_cursor=cursor)


@routes.post("/scans", permission="inventory.write", status_code=202, responses=_ABSENT | _STATE)
async def begin_inventory_scan(actor: _Actor, inventory: _Inventory, body: ScanIn | None = None) -> ScansOut:
    """Has the worker look at a vendor account now, or at all of them. Changes nothing at the vendor."""
    return ScansOut(items=[ScanOut.of(scan) for scan in await inventory.scan(actor, None if body is None else body.account)])


@routes.post("/by-hand", permission="inventory.write", status_code=201, responses=_STATE | _VENDOR)
async def enter_key_by_hand(body: EnterIn, actor: _Actor, adoptions: _Adoptions, clock: _Clock) -> AdoptedOut:
    """A key of a vendor that has no API for keys: tried there, sealed, and watched from now on; the answer holds the checklist of its
    rotation. Revoking it tells a person to delete it, and is done once the vendor refuses it."""
    secret = Secret(body.key.get_secret_value().strip())
    adoption = body.adoption(clock.now_ns())
    made = await adoptions.enter(actor, vendor=body.vendor, secret=secret, settings=body.settings, adoption=adoption)
    return AdoptedOut.told(made, remedies=adoptions.remedies(made.item))


@routes.get("/{item_id}", permission="inventory.read", responses=_ABSENT)
async def get_inventory_item(item_id: _Id, actor: _Actor, inventory: _Inventory) -> ItemOut:
    """One thing at a vendor."""
    return _told(inventory, await inventory.get(actor, item_id))


@routes.post("/{item_id}/adopt", permission="inventory.write", responses=_ABSENT | _STATE | _VENDOR)
async def adopt_inventory_item(item_id: _Id, body: AdoptIn, actor: _Actor, adoptions: _Adoptions, clock: _Clock) -> AdoptedOut:
    """A key that somebody made by hand gets an owner, an end and reminders here; from now on it is revoked with its owner."""
    made = await adoptions.adopt(actor, item_id, body.adoption(clock.now_ns()))
    return AdoptedOut.told(made, remedies=adoptions.remedies(made.item))


@routes.post("/{item_id}/disable", permission="inventory.write", responses=_ABSENT | _STATE | _VENDOR)
async def disable_inventory_item(item_id: _Id, body: DisableIn, actor: _Actor, inventory: _Inventory) -> ItemOut:
    """Switches a key off at the vendor, or ends it there for good; the answer is what the vendor then shows."""
    return _told(inventory, await inventory.disable(actor, item_id, how=body.how, reason=body.reason, insist=body.insist))


@routes.post("/{item_id}/accept", permission="inventory.write", responses=_ABSENT | _STATE)
async def accept_inventory_item(item_id: _Id, body: AcceptIn, actor: _Actor, inventory: _Inventory) -> ItemOut:
    """It is as it should be, for this reason. Terms that were changed at the vendor become the agreed ones."""
    return _told(inventory, await inventory.accept(actor, item_id, reason=body.reason))


@routes.post("/{item_id}/repair", permission="inventory.write", responses=_ABSENT | _STATE | _VENDOR)
async def repair_inventory_item(item_id: _Id, actor: _Actor, inventory: _Inventory) -> ItemOut:
    """Makes it as agreed again at the vendor, and reads it back: limits that were changed, keys that were switched off, left-overs."""
    return _told(inventory, await inventory.repair(actor, item_id))
