"""SQL of reports over vendors' bills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.kit.turns import gathered
from keygate.ledger import Selection
from keygate.vendor_spend.model import DAY_NS, Attribution
from keygate.vendor_spend.tables import vendor_spend as t

COLUMNS = {
    "key": t.c.issued_key_id,
    "team": t.c.team_id,
    "developer": t.c.developer_id,
    "app": t.c.app_id,
    "vendor": t.c.vendor,
    "model": t.c.model,
    "account": t.c.account_id,
    "vendor_key": t.c.vendor_key,
    "item": t.c.item,
}
_PART = 500  # rows
_FILTERS = {"key_id": "key", "team_id": "team", "developer_id": "developer", "app_id": "app", "vendor": "vendor", "model": "model"}


class VendorSpendQueries:
    async def sums(
        self, connection: AsyncConnection, selection: Selection, groups: Sequence[str], *, by_day: bool, only_issued: bool, limit: int
    ) -> Sequence[Any]:
        """Sums per group, most expensive first, with `by_day` in order of time (`bucket_ns`). Requests and tokens are null where a vendor
        tells none for a part of them: a sum that leaves some out would be wrong."""
        chosen: list[sa.ColumnElement[Any]] = [COLUMNS[name].label(name) for name in groups]
        if by_day:
            chosen.append((t.c.start_ns - t.c.start_ns % DAY_NS).label("bucket_ns"))
        numbers = [_whole(t.c[name]).label(name) for name in ("requests", "input_tokens", "output_tokens")]
        amount = _big(sa.func.sum(t.c.amount_nano)).label("cost_nano")
        restated = _big(sa.func.sum(t.c.amount_nano - t.c.first_nano)).label("restated_nano")
        query = sa.select(*chosen, *numbers, amount, restated, _big(sa.func.count()).label("rows")).where(*_conditions(selection))
        if only_issued:
            query = query.where(t.c.attribution != Attribution.UNKNOWN.value)
        query = query.group_by(*chosen).order_by(*([sa.text("bucket_ns")] if by_day else []), sa.text("cost_nano DESC"), *chosen)
        return await gathered((await connection.execute(query.limit(limit))).partitions(_PART))

    async def days(self, connection: AsyncConnection, organization_id: str, *, from_ns: int, to_ns: int) -> Sequence[Any]:
        """What each account was billed by day: of issued keys, and of what else there is."""
        bucket = (t.c.start_ns - t.c.start_ns % DAY_NS).label("bucket_ns")
        issued = t.c.attribution != Attribution.UNKNOWN.value
        query = (
            sa.select(
                t.c.account_id,
                bucket,
                _big(sa.func.sum(t.c.amount_nano)).label("bill_nano"),
                _big(sa.func.sum(sa.case((issued, t.c.amount_nano), else_=0))).label("issued_nano"),
                _big(sa.func.sum(t.c.amount_nano - t.c.first_nano)).label("restated_nano"),
                _big(sa.func.count()).label("rows"),
            )
            .where(t.c.organization_id == organization_id, t.c.start_ns >= from_ns, t.c.start_ns < to_ns)
            .group_by(t.c.account_id, bucket)
        )
        return (await connection.execute(query)).all()

    async def unknown(self, connection: AsyncConnection, organization_id: str, *, from_ns: int, to_ns: int) -> Sequence[Any]:
        """What is billed to keys and places that are not of KeyGate's making, by account and day, the most expensive first."""
        bucket = (t.c.start_ns - t.c.start_ns % DAY_NS).label("bucket_ns")
        amount = _big(sa.func.sum(t.c.amount_nano)).label("amount_nano")
        query = (
            sa.select(t.c.account_id, bucket, t.c.vendor_key, t.c.place, amount)
            .where(
                t.c.organization_id == organization_id,
                t.c.start_ns >= from_ns,
                t.c.start_ns < to_ns,
                t.c.attribution == Attribution.UNKNOWN.value,
            )
            .group_by(t.c.account_id, bucket, t.c.vendor_key, t.c.place)
            .order_by(t.c.account_id, sa.text("bucket_ns"), sa.text("amount_nano DESC"), t.c.vendor_key, t.c.place)
        )
        return (await connection.execute(query)).all()


def _big(value: sa.ColumnElement[Any]) -> sa.Cast[int]:
    return sa.cast(value, sa.BigInteger)


def _whole(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.case((sa.func.count(column) == sa.func.count(), _big(sa.func.sum(column))), else_=None)


def _conditions(selection: Selection) -> list[sa.ColumnElement[bool]]:
    where = [t.c.organization_id == selection.organization_id, t.c.start_ns >= selection.from_ns, t.c.start_ns < selection.to_ns]
    where += [COLUMNS[_FILTERS[name]].in_(list(allowed)) for name, allowed in selection.filters.items()]
    return where
