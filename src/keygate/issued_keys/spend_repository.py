"""All SQL of what vendors bill."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.issued_keys.model import IssuedKey, VendorAccount
from keygate.issued_keys.repository import key_of_row
from keygate.issued_keys.spend import ImportState, SpendLine
from keygate.issued_keys.tables import issued_keys, spend_imports, vendor_accounts
from keygate.issued_keys.tables import vendor_spend as t
from keygate.kit.database import upsert

_STATE = tuple(spend_imports.c[name] for name in ImportState.__dataclass_fields__)
_GROUPS = {"key": t.c.key_id, "owner": t.c.owner_id, "vendor": t.c.vendor, "account": t.c.account_id, "item": t.c.item}
_BATCH = 500


class SpendRepository:
    async def due(self, connection: AsyncConnection, *, before_ns: int) -> list[tuple[str, str]]:
        # Across organisations: the worker serves them all.
        query = (
            sa.select(vendor_accounts.c.organization_id, vendor_accounts.c.id)
            .outerjoin(spend_imports, spend_imports.c.account_id == vendor_accounts.c.id)
            .where(sa.or_(spend_imports.c.tried_at_ns.is_(None), spend_imports.c.tried_at_ns <= before_ns))
            .order_by(vendor_accounts.c.id)
        )
        return [(row[0], row[1]) for row in await connection.execute(query)]

    async def keys_of(self, connection: AsyncConnection, organization_id: str, account_id: str) -> list[IssuedKey]:
        query = sa.select(issued_keys).where(issued_keys.c.organization_id == organization_id, issued_keys.c.account_id == account_id)
        return [key_of_row(row) for row in await connection.execute(query)]

    async def state(self, connection: AsyncConnection, organization_id: str, account_id: str) -> ImportState | None:
        query = sa.select(*_STATE).where(spend_imports.c.organization_id == organization_id, spend_imports.c.account_id == account_id)
        row = (await connection.execute(query)).first()
        return None if row is None else ImportState(*row)

    async def states(self, connection: AsyncConnection, organization_id: str) -> list[ImportState]:
        query = sa.select(*_STATE).where(spend_imports.c.organization_id == organization_id)
        return [ImportState(*row) for row in await connection.execute(query)]

    async def note(self, connection: AsyncConnection, state: ImportState) -> None:
        values = {name: getattr(state, name) for name in ImportState.__dataclass_fields__}
        await upsert(connection, spend_imports, values, key=("account_id",), update=("until_ns", "read_at_ns", "tried_at_ns", "error"))

    async def replace(
        self, connection: AsyncConnection, account: VendorAccount, records: list[dict[str, Any]], *, from_ns: int, to_ns: int
    ) -> None:
        """All of an account's rows of `[from, to)`."""
        former = sa.delete(t).where(
            t.c.organization_id == account.organization_id, t.c.account_id == account.id, t.c.start_ns >= from_ns, t.c.start_ns < to_ns
        )
        await connection.execute(former)
        for start in range(0, len(records), _BATCH):
            await connection.execute(sa.insert(t), records[start : start + _BATCH])

    async def spent(self, connection: AsyncConnection, organization_id: str, key_id: str, *, from_ns: int) -> int:
        query = sa.select(sa.func.coalesce(sa.func.sum(t.c.amount_nano), 0)).where(
            t.c.organization_id == organization_id, t.c.key_id == key_id, t.c.end_ns > from_ns
        )
        return int((await connection.execute(query)).scalar_one())

    async def report(
        self, connection: AsyncConnection, organization_id: str, *, from_ns: int, to_ns: int, group_by: str, day_ns: int
    ) -> list[SpendLine]:
        group: Any = t.c.start_ns - t.c.start_ns % day_ns if group_by == "day" else _GROUPS[group_by]
        query = (
            sa.select(group.label("grouped"), sa.func.sum(t.c.amount_nano), sa.func.sum(t.c.requests))
            .where(t.c.organization_id == organization_id, t.c.start_ns >= from_ns, t.c.start_ns < to_ns)
            .group_by(group)
            .order_by(sa.func.sum(t.c.amount_nano).desc())
        )
        return [
            SpendLine(None if row[0] is None else str(row[0]), int(row[1]), None if row[2] is None else int(row[2]))
            for row in await connection.execute(query)
        ]
