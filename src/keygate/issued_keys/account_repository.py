"""All SQL of vendor accounts."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.issued_keys.model import AccountStatus, VendorAccount
from keygate.issued_keys.records import rights_from_json, rights_to_json
from keygate.issued_keys.tables import vendor_accounts as t
from keygate.kit.database import insert_or_ignore
from keygate.vendors.admin import Term

_PLAIN = tuple(name for name in VendorAccount.__dataclass_fields__ if name not in {"status", "rights", "notes", "also_confirms"})


class VendorAccountRepository:
    async def add(self, connection: AsyncConnection, account: VendorAccount) -> bool:
        """False where the name is taken for this vendor."""
        return await insert_or_ignore(connection, t, _row(account))

    async def save(self, connection: AsyncConnection, account: VendorAccount) -> None:
        change = sa.update(t).where(t.c.organization_id == account.organization_id, t.c.id == account.id)
        await connection.execute(change.values(_row(account)))

    async def get(self, connection: AsyncConnection, organization_id: str, account_id: str) -> VendorAccount | None:
        row = (await connection.execute(sa.select(t).where(t.c.organization_id == organization_id, t.c.id == account_id))).first()
        return None if row is None else _account(row)

    async def all(self, connection: AsyncConnection, organization_id: str, *, vendor: str | None = None) -> list[VendorAccount]:
        query = sa.select(t).where(t.c.organization_id == organization_id).order_by(t.c.vendor, t.c.name)
        if vendor is not None:
            query = query.where(t.c.vendor == vendor)
        return [_account(row) for row in await connection.execute(query)]

    async def everywhere(self, connection: AsyncConnection) -> list[VendorAccount]:
        # Across organisations, for the worker: it serves all of them.
        return [_account(row) for row in await connection.execute(sa.select(t).order_by(t.c.id))]

    async def delete(self, connection: AsyncConnection, organization_id: str, account_id: str) -> None:
        await connection.execute(sa.delete(t).where(t.c.organization_id == organization_id, t.c.id == account_id))


def _row(account: VendorAccount) -> dict[str, Any]:
    values = {name: getattr(account, name) for name in _PLAIN}
    return values | {
        "settings": dict(account.settings),
        "status": str(account.status),
        "rights": rights_to_json(account.rights),
        "notes": list(account.notes),
        "also_confirms": sorted(account.also_confirms),
    }


def _account(row: sa.Row[Any]) -> VendorAccount:
    values = {name: getattr(row, name) for name in _PLAIN}
    return VendorAccount(
        **values,
        status=AccountStatus(row.status),
        rights=rights_from_json(row.rights),
        notes=tuple(row.notes),
        also_confirms=frozenset(Term(each) for each in row.also_confirms),
    )
