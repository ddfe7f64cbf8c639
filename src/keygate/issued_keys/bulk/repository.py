"""All SQL of bulk orders. Scoped to an organisation, but for what the worker asks: it serves all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.issued_keys.bulk.model import Order, OrderState, Row, RowState
from keygate.issued_keys.bulk.tables import bulk_orders as orders
from keygate.issued_keys.bulk.tables import bulk_rows as rows
from keygate.issued_keys.life import ENDED, State
from keygate.issued_keys.records import terms_from_json, terms_to_json
from keygate.issued_keys.tables import issued_keys
from keygate.kit.database import insert_or_ignore

_ORDER = tuple(name for name in Order.__dataclass_fields__ if name != "state")
_ROW = tuple(name for name in Row.__dataclass_fields__ if name not in {"state", "terms"})
_BATCH = 500
_ALIVE = tuple(state for state in State if state not in ENDED)


class BulkRepository:
    async def add(self, connection: AsyncConnection, order: Order, lines: Sequence[Row]) -> bool:
        """False where the request id is taken."""
        if not await insert_or_ignore(connection, orders, _order_values(order)):
            return False
        values = [_row_values(row) for row in lines]
        for start in range(0, len(values), _BATCH):
            await connection.execute(sa.insert(rows), values[start : start + _BATCH])
        return True

    async def save(self, connection: AsyncConnection, order: Order) -> None:
        change = sa.update(orders).where(orders.c.organization_id == order.organization_id, orders.c.id == order.id)
        await connection.execute(change.values(_order_values(order)))

    async def get(self, connection: AsyncConnection, organization_id: str, order_id: str, *, lock: bool = False) -> Order | None:
        query = sa.select(orders).where(orders.c.organization_id == organization_id, orders.c.id == order_id)
        row = (await connection.execute(query.with_for_update() if lock else query)).first()
        return None if row is None else _order(row)

    async def requested(self, connection: AsyncConnection, organization_id: str, request_id: str) -> Order | None:
        query = sa.select(orders).where(orders.c.organization_id == organization_id, orders.c.request_id == request_id)
        row = (await connection.execute(query)).first()
        return None if row is None else _order(row)

    async def page(self, connection: AsyncConnection, organization_id: str, *, before: str | None, limit: int) -> list[Order]:
        """Newest first."""
        query = sa.select(orders).where(orders.c.organization_id == organization_id)
        if before is not None:
            query = query.where(orders.c.id < before)
        return [_order(row) for row in await connection.execute(query.order_by(orders.c.id.desc()).limit(limit))]

    async def counts(self, connection: AsyncConnection, organization_id: str, order_ids: Sequence[str]) -> dict[str, dict[RowState, int]]:
        """How many rows of each order are in each state."""
        query = (
            sa.select(rows.c.order_id, rows.c.state, sa.func.count())
            .where(rows.c.organization_id == organization_id, rows.c.order_id.in_(order_ids))
            .group_by(rows.c.order_id, rows.c.state)
        )
        found: dict[str, dict[RowState, int]] = {order_id: dict.fromkeys(RowState, 0) for order_id in order_ids}
        for order_id, state, count in await connection.execute(query):
            found[order_id][RowState(state)] = count
        return found

    async def rows(
        self, connection: AsyncConnection, organization_id: str, order_id: str, *, state: RowState | None, after: int = 0, limit: int
    ) -> list[Row]:
        query = sa.select(rows).where(rows.c.organization_id == organization_id, rows.c.order_id == order_id, rows.c.line > after)
        if state is not None:
            query = query.where(rows.c.state == state)
        return [_row(row) for row in await connection.execute(query.order_by(rows.c.line).limit(limit))]

    async def save_row(self, connection: AsyncConnection, row: Row, *, was: RowState) -> bool:
        """False: it was in another state by now."""
        change = sa.update(rows).where(
            rows.c.organization_id == row.organization_id,
            rows.c.order_id == row.order_id,
            rows.c.line == row.line,
            rows.c.state == was,
            rows.c.attempt == row.attempt,
        )
        return (await connection.execute(change.values(_row_values(row)))).rowcount == 1

    async def turn_rows(
        self, connection: AsyncConnection, organization_id: str, order_id: str, *, was: RowState, values: Mapping[str, Any]
    ) -> int:
        """Turns every row of one state into another. Returns how many."""
        change = sa.update(rows).where(rows.c.organization_id == organization_id, rows.c.order_id == order_id, rows.c.state == was)
        return (await connection.execute(change.values(values))).rowcount

    async def try_failed_again(self, connection: AsyncConnection, organization_id: str, order_id: str) -> int:
        """Failed rows wait once more, under a request id of their own."""
        fresh: dict[str, Any] = {"state": str(RowState.WAITING), "attempt": rows.c.attempt + 1, "error": None, "error_code": None}
        cleared: dict[str, Any] = {"key_id": None, "claimed_at_ns": None, "claimed_by": None}
        return await self.turn_rows(connection, organization_id, order_id, was=RowState.FAILED, values=fresh | cleared)

    async def rows_of_account(
        self, connection: AsyncConnection, organization_id: str, account_id: str, *, batch: str | None
    ) -> dict[str, str | None]:
        """Who stands in a bulk order for this account that is not over; with a batch, whoever got or gets a key of it: id and e-mail
        address → key's id, where there is one by now."""
        states = (RowState.WAITING, RowState.ORDERED) if batch is None else (RowState.WAITING, RowState.ORDERED, RowState.MADE)
        query = (
            sa.select(rows.c.developer_id, rows.c.email, rows.c.key_id)
            .join(orders, orders.c.id == rows.c.order_id)
            .where(orders.c.organization_id == organization_id, orders.c.account_id == account_id, rows.c.state.in_(states))
        )
        if batch is not None:
            query = query.where(orders.c.batch == batch)
        found: dict[str, str | None] = {}
        for developer_id, email, key_id in await connection.execute(query):
            found |= {name: key_id for name in (developer_id, email) if name}
        return found

    async def holders_of_account(self, connection: AsyncConnection, organization_id: str, account_id: str) -> dict[str, str]:
        """Who has a key in this account that is not ended: owner's id → key's id."""
        query = sa.select(issued_keys.c.owner_id, issued_keys.c.id).where(
            issued_keys.c.organization_id == organization_id,
            issued_keys.c.account_id == account_id,
            issued_keys.c.state.in_(_ALIVE),
            issued_keys.c.owner_id.is_not(None),
        )
        return {row[0]: row[1] for row in await connection.execute(query)}

    # For the worker, across organisations

    async def busy(self, connection: AsyncConnection) -> list[Order]:
        return [_order(row) for row in await connection.execute(sa.select(orders).where(orders.c.busy.is_(True)).order_by(orders.c.id))]

    async def give_back(self, connection: AsyncConnection, *, node: str) -> None:
        """At a start: rows that a former process of this node had just taken up are free at once."""
        await connection.execute(sa.update(rows).where(rows.c.claimed_by == node, rows.c.key_id.is_(None)).values(claimed_at_ns=0))


def _order_values(order: Order) -> dict[str, Any]:
    return {name: getattr(order, name) for name in _ORDER} | {"state": str(order.state), "options": dict(order.options)}


def _order(row: sa.Row[Any]) -> Order:
    return Order(**{name: getattr(row, name) for name in _ORDER}, state=OrderState(row.state))


def _row_values(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _ROW} | {"state": str(row.state), "terms": terms_to_json(row.terms)}


def _row(row: sa.Row[Any]) -> Row:
    return Row(**{name: getattr(row, name) for name in _ROW}, state=RowState(row.state), terms=terms_from_json(row.terms))
