"""Which keys are to be read at their vendors."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.issued_keys.life import State
from keygate.issued_keys.tables import issued_keys as t


class InspectionRepository:
    async def accounts(self, connection: AsyncConnection, *, now_ns: int, before_ns: int) -> list[tuple[str, str]]:
        """`(organisation, account)` with active keys whose time has come."""
        # Across organisations: the worker serves them all.
        query = sa.select(t.c.organization_id, t.c.account_id).where(_due(now_ns, before_ns)).distinct()
        return [(row[0], row[1]) for row in await connection.execute(query.order_by(t.c.account_id))]

    async def claim(
        self, connection: AsyncConnection, organization_id: str, account_id: str, *, now_ns: int, before_ns: int, until_ns: int, limit: int
    ) -> list[str]:
        """Takes keys of an account whose time has come, those first that wait longest. Nobody takes them again before `until_ns`, whatever
        comes of it."""
        own = sa.and_(t.c.organization_id == organization_id, t.c.account_id == account_id, _due(now_ns, before_ns))
        first = sa.select(t.c.id).where(own).order_by(sa.func.coalesce(t.c.inspect_at_ns, t.c.read_at_ns).asc().nulls_first(), t.c.id)
        ids = [row[0] for row in await connection.execute(first.limit(limit))]
        change = sa.update(t).where(own, t.c.id.in_(ids)).values(inspect_at_ns=until_ns)
        return [row[0] for row in await connection.execute(change.returning(t.c.id))] if ids else []

    async def put_off(
        self, connection: AsyncConnection, organization_id: str, account_id: str, *, now_ns: int, before_ns: int, until_ns: int
    ) -> None:
        """All that wait at an account that can't be read now."""
        own = sa.and_(t.c.organization_id == organization_id, t.c.account_id == account_id, _due(now_ns, before_ns))
        await connection.execute(sa.update(t).where(own).values(inspect_at_ns=until_ns))


def _due(now_ns: int, before_ns: int) -> sa.ColumnElement[bool]:
    """Read last before `before_ns` or never; or put off, or asked for, until now."""
    old = sa.and_(t.c.inspect_at_ns.is_(None), sa.or_(t.c.read_at_ns.is_(None), t.c.read_at_ns < before_ns))
    return sa.and_(t.c.state == State.ACTIVE, sa.or_(old, t.c.inspect_at_ns <= now_ns))
