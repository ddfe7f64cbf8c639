"""All SQL of the inventory. Scoped to an organisation, but for what the worker asks: it serves all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.issued_keys.inventory.model import (
    Acceptance,
    Difference,
    Finding,
    Item,
    Kind,
    Scan,
    ScanState,
    Standing,
    Summary,
    Wanted,
)
from keygate.issued_keys.inventory.tables import inventory_items as items
from keygate.issued_keys.inventory.tables import inventory_scans as scans
from keygate.issued_keys.inventory.tables import key_reminders as reminders
from keygate.issued_keys.records import footprint_from_json, footprint_to_json, terms_from_json, terms_to_json
from keygate.issued_keys.tables import vendor_accounts
from keygate.vendors.admin import Footprint, Presence

_OWN = {"kind", "footprint", "presence", "terms", "standing", "findings", "drift", "acceptance"}
_ITEM = tuple(name for name in Item.__dataclass_fields__ if name not in _OWN)
_SCAN = tuple(name for name in Scan.__dataclass_fields__ if name != "state")
_ALIVE = (str(Presence.LIVE), str(Presence.DISABLED))
_BATCH = 500


class InventoryRepository:
    # Items

    async def add(self, connection: AsyncConnection, item: Item) -> None:
        await connection.execute(sa.insert(items).values(_values(item)))

    async def save(self, connection: AsyncConnection, item: Item) -> None:
        change = sa.update(items).where(items.c.organization_id == item.organization_id, items.c.id == item.id)
        await connection.execute(change.values(_values(item)))

    async def get(self, connection: AsyncConnection, organization_id: str, item_id: str, *, lock: bool = False) -> Item | None:
        query = sa.select(items).where(items.c.organization_id == organization_id, items.c.id == item_id)
        row = (await connection.execute(query.with_for_update() if lock else query)).first()
        return None if row is None else _item(row)

    async def page(self, connection: AsyncConnection, organization_id: str, wanted: Wanted, *, after: str | None, limit: int) -> list[Item]:
        query = sa.select(items).where(items.c.organization_id == organization_id, items.c.id > (after or ""))
        # What is gone is shown only where it should not be.
        query = query.where(sa.or_(items.c.presence.in_(_ALIVE), items.c.findings != ""))
        for column, value in (
            (items.c.account_id, wanted.account_id),
            (items.c.vendor, wanted.vendor),
            (items.c.kind, wanted.kind),
            (items.c.standing, wanted.standing),
        ):
            if value is not None:
                query = query.where(column == value)
        if wanted.finding is not None:
            query = query.where(items.c.findings.contains(f",{wanted.finding},", autoescape=True))
        if wanted.attention:
            query = query.where(items.c.attention.is_(True))
        return [_item(row) for row in await connection.execute(query.order_by(items.c.id).limit(limit))]

    async def of_account(self, connection: AsyncConnection, organization_id: str, account_id: str) -> list[Item]:
        query = sa.select(items).where(items.c.organization_id == organization_id, items.c.account_id == account_id)
        return [_item(row) for row in await connection.execute(query.order_by(items.c.id))]

    async def with_identities(
        self, connection: AsyncConnection, organization_id: str, account_id: str, identities: Sequence[str]
    ) -> dict[str, Item]:
        found: dict[str, Item] = {}
        for start in range(0, len(identities), _BATCH):
            query = sa.select(items).where(
                items.c.organization_id == organization_id,
                items.c.account_id == account_id,
                items.c.identity.in_(identities[start : start + _BATCH]),
            )
            found |= {row.identity: _item(row) for row in await connection.execute(query)}
        return found

    async def unread(self, connection: AsyncConnection, scan: Scan, *, kinds: Collection[Kind], limit: int) -> list[Item]:
        """What this scan has seen alive and not read yet, those first that wait longest."""
        query = sa.select(items).where(
            items.c.organization_id == scan.organization_id,
            items.c.account_id == scan.account_id,
            items.c.scan_id == scan.id,
            items.c.kind.in_(sorted(kinds)),
            items.c.presence.in_(_ALIVE),
            sa.or_(items.c.read_at_ns.is_(None), items.c.read_at_ns < scan.began_at_ns),
        )
        return [
            _item(row) for row in await connection.execute(query.order_by(items.c.read_at_ns.asc().nulls_first(), items.c.id).limit(limit))
        ]

    async def unseen(self, connection: AsyncConnection, scan: Scan) -> list[Item]:
        """What earlier scans saw alive and this one did not."""
        query = sa.select(items).where(
            items.c.organization_id == scan.organization_id,
            items.c.account_id == scan.account_id,
            items.c.scan_id != scan.id,
            items.c.presence.in_(_ALIVE),
        )
        return [_item(row) for row in await connection.execute(query.order_by(items.c.id))]

    async def others(self, connection: AsyncConnection, organization_id: str, account_id: str) -> int:
        """Containers at the vendor that no living key of ours has."""
        query = sa.select(sa.func.count()).where(
            items.c.organization_id == organization_id,
            items.c.account_id == account_id,
            items.c.kind == Kind.CONTAINER,
            items.c.presence.in_(_ALIVE),
            items.c.standing.in_((Standing.UNKNOWN, Standing.ORPHANED)),
        )
        return int((await connection.execute(query)).scalar_one())

    async def summaries(self, connection: AsyncConnection, organization_id: str) -> list[Summary]:
        """Of every account that something was found in or that was looked at."""
        shown = (items.c.organization_id == organization_id, sa.or_(items.c.presence.in_(_ALIVE), items.c.findings != ""))
        query = sa.select(items.c.account_id, items.c.vendor, items.c.standing, items.c.findings, items.c.attention, sa.func.count())
        groups = (items.c.account_id, items.c.vendor, items.c.standing, items.c.findings, items.c.attention)
        found: dict[str, Summary] = {}
        for account_id, vendor, standing, findings, attention, count in await connection.execute(query.where(*shown).group_by(*groups)):
            before = found.get(account_id) or Summary(account_id, vendor)
            standings = {**before.standings, standing: before.standings.get(standing, 0) + count}
            told = dict(before.findings)
            for finding in _split(findings):
                told[finding] = told.get(finding, 0) + count
            found[account_id] = Summary(account_id, vendor, standings, told, before.attention + (count if attention else 0))
        latest = sa.select(sa.func.max(scans.c.id)).where(scans.c.organization_id == organization_id).group_by(scans.c.account_id)
        rows = await connection.execute(sa.select(scans).where(scans.c.organization_id == organization_id, scans.c.id.in_(latest)))
        for scan in map(_scan, rows):
            known = found.get(scan.account_id) or Summary(scan.account_id, scan.vendor)
            found[scan.account_id] = Summary(known.account_id, known.vendor, known.standings, known.findings, known.attention, scan)
        return [found[account_id] for account_id in sorted(found)]

    # Scans

    async def add_scan(self, connection: AsyncConnection, scan: Scan) -> None:
        await connection.execute(sa.insert(scans).values(_scan_values(scan)))

    async def save_scan(self, connection: AsyncConnection, scan: Scan, *, by: str) -> bool:
        """False: another process works on it by now."""
        change = sa.update(scans).where(scans.c.organization_id == scan.organization_id, scans.c.id == scan.id, scans.c.claimed_by == by)
        return (await connection.execute(change.values(_scan_values(scan)))).rowcount == 1

    async def hurry(self, connection: AsyncConnection, scan: Scan, *, asked_by: str, now_ns: int) -> None:
        """A scan that waits for its next try has it now, and is somebody's own."""
        change = sa.update(scans).where(scans.c.organization_id == scan.organization_id, scans.c.id == scan.id, scans.c.due_at_ns > now_ns)
        await connection.execute(change.values(due_at_ns=now_ns, attempts=0, asked_by=asked_by))

    async def scan(self, connection: AsyncConnection, organization_id: str, scan_id: str) -> Scan | None:
        query = sa.select(scans).where(scans.c.organization_id == organization_id, scans.c.id == scan_id)
        row = (await connection.execute(query)).first()
        return None if row is None else _scan(row)

    async def scans(self, connection: AsyncConnection, organization_id: str, *, before: str | None, limit: int) -> list[Scan]:
        """Newest first."""
        query = sa.select(scans).where(scans.c.organization_id == organization_id)
        if before is not None:
            query = query.where(scans.c.id < before)
        return [_scan(row) for row in await connection.execute(query.order_by(scans.c.id.desc()).limit(limit))]

    async def open_scan(self, connection: AsyncConnection, organization_id: str, account_id: str) -> Scan | None:
        query = sa.select(scans).where(
            scans.c.organization_id == organization_id, scans.c.account_id == account_id, scans.c.due_at_ns.is_not(None)
        )
        row = (await connection.execute(query.limit(1))).first()
        return None if row is None else _scan(row)

    # Reminders

    async def set_reminders(self, connection: AsyncConnection, organization_id: str, key_id: str, days_before: Collection[int]) -> None:
        """Those that stood before are forgotten."""
        await connection.execute(sa.delete(reminders).where(reminders.c.organization_id == organization_id, reminders.c.key_id == key_id))
        rows = [{"organization_id": organization_id, "key_id": key_id, "days_before": days} for days in sorted(set(days_before))]
        if rows:
            await connection.execute(sa.insert(reminders), rows)

    async def reminder_sent(self, connection: AsyncConnection, organization_id: str, key_id: str, days_before: int, *, at_ns: int) -> bool:
        """False: it was sent by another process."""
        change = sa.update(reminders).where(
            reminders.c.organization_id == organization_id,
            reminders.c.key_id == key_id,
            reminders.c.days_before == days_before,
            reminders.c.sent_at_ns.is_(None),
        )
        return (await connection.execute(change.values(sent_at_ns=at_ns))).rowcount == 1

    # For the worker, across organisations

    async def open_reminders(self, connection: AsyncConnection) -> list[tuple[str, str, int]]:
        """`(organisation, key, days before its end)` that were not sent yet, of all that may have an end."""
        query = sa.select(reminders.c.organization_id, reminders.c.key_id, reminders.c.days_before).where(reminders.c.sent_at_ns.is_(None))
        return [(row[0], row[1], row[2]) for row in await connection.execute(query.order_by(reminders.c.key_id, reminders.c.days_before))]

    async def due_scans(self, connection: AsyncConnection, *, now_ns: int, limit: int) -> list[Scan]:
        query = sa.select(scans).where(
            scans.c.due_at_ns <= now_ns, sa.or_(scans.c.claimed_until_ns.is_(None), scans.c.claimed_until_ns < now_ns)
        )
        return [_scan(row) for row in await connection.execute(query.order_by(scans.c.due_at_ns).limit(limit))]

    async def claim_scan(self, connection: AsyncConnection, scan: Scan, *, by: str, until_ns: int, now_ns: int) -> bool:
        change = sa.update(scans).where(
            scans.c.organization_id == scan.organization_id,
            scans.c.id == scan.id,
            scans.c.due_at_ns.is_not(None),
            sa.or_(scans.c.claimed_until_ns.is_(None), scans.c.claimed_until_ns < now_ns),
        )
        return (await connection.execute(change.values(claimed_by=by, claimed_until_ns=until_ns))).rowcount == 1

    async def give_back(self, connection: AsyncConnection, *, node: str) -> None:
        """At a start: scans that a former process of this node was at are free at once."""
        change = sa.update(scans).where(scans.c.claimed_by == node)
        await connection.execute(change.values(claimed_by=None, claimed_until_ns=None))

    async def accounts_with_items(self, connection: AsyncConnection) -> list[tuple[str, str, str]]:
        query = sa.select(items.c.organization_id, items.c.account_id, items.c.vendor).distinct()
        return [(row[0], row[1], row[2]) for row in await connection.execute(query)]

    async def accounts_to_scan(self, connection: AsyncConnection, *, before_ns: int, made_before_ns: int) -> list[tuple[str, str, str]]:
        """`(organisation, account, vendor)` whose last scan began before then, or that have none and are not brand-new."""
        last = sa.select(scans.c.account_id, sa.func.max(scans.c.began_at_ns).label("began")).group_by(scans.c.account_id).subquery()
        query = (
            sa.select(vendor_accounts.c.organization_id, vendor_accounts.c.id, vendor_accounts.c.vendor)
            .outerjoin(last, last.c.account_id == vendor_accounts.c.id)
            .where(sa.or_(last.c.began.is_(None), last.c.began < before_ns), vendor_accounts.c.created_at_ns < made_before_ns)
        )
        return [(row[0], row[1], row[2]) for row in await connection.execute(query.order_by(vendor_accounts.c.id))]


def _values(item: Item) -> dict[str, Any]:
    values = {name: getattr(item, name) for name in _ITEM}
    acceptance = item.acceptance
    return values | {
        "kind": str(item.kind),
        "footprint": footprint_to_json(item.footprint),
        "presence": str(item.presence),
        "terms": None if item.terms is None else terms_to_json(item.terms),
        "standing": str(item.standing),
        "findings": "".join(["," if item.findings else "", *(f"{finding}," for finding in item.findings)]),
        "drift": [[each.term, each.agreed, each.found] for each in item.drift],
        "attention": bool(item.matters) and not item.accepted,
        "acceptance": None
        if acceptance is None
        else {"reason": acceptance.reason, "by": acceptance.by, "at_ns": acceptance.at_ns, "findings": list(acceptance.findings)},
    }


def _item(row: sa.Row[Any]) -> Item:
    acceptance = row.acceptance
    return Item(
        **{name: getattr(row, name) for name in _ITEM},
        kind=Kind(row.kind),
        footprint=footprint_from_json(row.footprint) or Footprint(),
        presence=Presence(row.presence),
        terms=None if row.terms is None else terms_from_json(row.terms),
        standing=Standing(row.standing),
        findings=tuple(Finding(each) for each in _split(row.findings)),
        drift=tuple(Difference(*each) for each in row.drift),
        acceptance=None if acceptance is None else Acceptance(**{**acceptance, "findings": tuple(acceptance["findings"])}),
    )


def _split(findings: str) -> list[str]:
    return [each for each in findings.split(",") if each]


def _scan_values(scan: Scan) -> dict[str, Any]:
    return {name: getattr(scan, name) for name in _SCAN} | {"state": str(scan.state)}


def _scan(row: sa.Row[Any]) -> Scan:
    return Scan(**{name: getattr(row, name) for name in _SCAN}, state=ScanState(row.state))
