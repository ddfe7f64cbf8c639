"""All SQL that writes the ledger, and what the engine reads of it at a start. Reports have their own queries in `reports.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.kit.database import lock, upsert
from keygate.ledger.bulk import Bulk
from keygate.ledger.journal import START, Position
from keygate.ledger.ports import BudgetQuery, LimitUse, WindowSpend
from keygate.ledger.posting import DAY_NS, HOUR_NS, ROLLED_SEQ, AlreadyPosted, Postings
from keygate.ledger.reports import MEASURES
from keygate.ledger.tables import (
    DIMENSIONS,
    POSTED,
    budget_slices,
    budget_spend,
    entries,
    journal_checkpoints,
    ledger_counters,
    limit_use,
    price_overrides,
    usage_daily,
    usage_hourly,
)

WHOLE = "*"  # the grant of every budget to one gateway

_FAILED = "(e.status >= 400 OR e.status = 0 OR e.outcome IN ('upstream_error', 'upstream_lost', 'not_sent'))"
# What an entry adds to each dimension and measure; the same text serves the roll-ups and the reports over entries.
ENTRY_DIMENSIONS = {
    "key_id": "e.key_id",
    "team_id": "coalesce(e.team_id, '')",
    "developer_id": "coalesce(e.developer_id, '')",
    "app_id": "coalesce(e.app_id, '')",
    "vendor": "e.vendor",
    "model": "e.model",
}
ENTRY_MEASURES = {
    "requests": "1",
    "errors": f"CASE WHEN {_FAILED} THEN 1 ELSE 0 END",
    "unpriced": "CASE WHEN e.cost_nano IS NULL THEN 1 ELSE 0 END",
    "input_tokens": "e.input_tokens",
    "cache_read_tokens": "e.cache_read_tokens",
    "cache_write_tokens": "e.cache_write_tokens + e.cache_write_1h_tokens",
    "output_tokens": "e.output_tokens",
    "reasoning_tokens": "e.reasoning_tokens",
    "web_searches": "e.web_searches",
    "cost_nano": "coalesce(e.cost_nano, 0)",
    "in_doubt_nano": "CASE WHEN e.in_doubt = 1 THEN coalesce(e.cost_nano, 0) ELSE 0 END",
}


def _postgresql_type(column: sa.Column[Any]) -> str:
    if isinstance(column.type, sa.String):
        return "text"
    return {"SmallInteger": "smallint", "Integer": "integer"}.get(type(column.type).__name__, "bigint")


_ENTRIES = Bulk("ledger_entries", POSTED, [_postgresql_type(entries.c[name]) for name in POSTED])
_SPEND = Bulk(
    "budget_spend",
    ("budget_id", "window_start_ns", "organization_id", "spent_nano", "in_doubt_nano"),
    ("text", "bigint", "text", "bigint", "bigint"),
    conflict="ON CONFLICT (budget_id, window_start_ns) DO UPDATE SET spent_nano = budget_spend.spent_nano + excluded.spent_nano, "
    "in_doubt_nano = budget_spend.in_doubt_nano + excluded.in_doubt_nano",
)
_USE = Bulk(
    "limit_use",
    ("limit_id", "bucket_ns", "organization_id", "amount"),
    ("text", "bigint", "text", "bigint"),
    conflict="ON CONFLICT (limit_id, bucket_ns) DO UPDATE SET amount = limit_use.amount + excluded.amount",
)


_ROLLING = "ledger_rolling"  # what is being rolled up, per hour, for the length of one transaction


def _gather() -> sa.TextClause:
    """Sums per hour of the entries that the roll-ups do not contain yet: they are read once for both."""
    sums = ", ".join(f"CAST(sum({ENTRY_MEASURES[measure]}) AS BIGINT) AS {measure}" for measure in MEASURES)
    values = ", ".join(f"{ENTRY_DIMENSIONS[dimension]} AS {dimension}" for dimension in DIMENSIONS)
    groups = ", ".join(str(number) for number in range(1, 3 + len(DIMENSIONS)))
    return sa.text(
        f"CREATE TEMPORARY TABLE {_ROLLING} AS "  # noqa: S608  (names of ours; values are bound)
        f"SELECT e.organization_id, e.at_ns - e.at_ns % {HOUR_NS} AS bucket_ns, {values}, {sums} FROM ledger_entries AS e "
        f"WHERE e.seq > :after AND e.seq <= :until GROUP BY {groups}"
    )


def _rollup(table: str, bucket_ns: int) -> sa.TextClause:
    dimensions = ", ".join(DIMENSIONS)
    sums = ", ".join(f"CAST(sum({measure}) AS BIGINT)" for measure in MEASURES)
    groups = ", ".join(str(number) for number in range(1, 3 + len(DIMENSIONS)))
    added = ", ".join(f"{measure} = {table}.{measure} + excluded.{measure}" for measure in MEASURES)
    return sa.text(
        f"INSERT INTO {table} (organization_id, bucket_ns, {dimensions}, {', '.join(MEASURES)}) "  # noqa: S608  (as above)
        f"SELECT organization_id, bucket_ns - bucket_ns % {bucket_ns}, {dimensions}, {sums} FROM {_ROLLING} WHERE true GROUP BY {groups} "
        f"ON CONFLICT (organization_id, bucket_ns, {dimensions}) DO UPDATE SET {added}"
    )


_GATHER = _gather()
_ROLLUPS = (_rollup("usage_hourly", HOUR_NS), _rollup("usage_daily", DAY_NS))


_QUERIES = 100  # budgets or limits asked for in one statement


def _spend_query(budgets: Sequence[BudgetQuery]) -> sa.Select[Any]:
    table = budget_spend
    ids: dict[int, list[str]] = {}
    for budget in budgets:  # most have one of a few periods, so the statement has one of a few forms, and SQLAlchemy knows it already
        ids.setdefault(budget.since_ns, []).append(budget.budget_id)
    windows = (sa.and_(table.c.budget_id.in_(several), table.c.window_start_ns >= since_ns) for since_ns, several in ids.items())
    return (
        sa.select(table.c.budget_id, table.c.window_start_ns, table.c.spent_nano, table.c.in_doubt_nano)
        .where(sa.or_(*windows))
        .order_by(table.c.budget_id, table.c.window_start_ns)
    )


class LedgerRepository:
    async def lock_fold(self, connection: AsyncConnection) -> None:
        """One fold at a time, so that `seq` rises in the order of commits."""
        await lock(connection, "ledger.fold")

    async def checkpoint(self, connection: AsyncConnection, journal_id: str) -> Position:
        table = journal_checkpoints
        row = (await connection.execute(sa.select(table.c.segment, table.c.offset).where(table.c.journal_id == journal_id))).one_or_none()
        return START if row is None else Position(row.segment, row.offset)

    async def move_checkpoint(self, connection: AsyncConnection, journal_id: str, position: Position, *, now_ns: int) -> None:
        await upsert(
            connection,
            journal_checkpoints,
            {"journal_id": journal_id, "segment": position.segment, "offset": position.offset, "folded_at_ns": now_ns},
            key=("journal_id",),
            update=("segment", "offset", "folded_at_ns"),
        )

    async def counter(self, connection: AsyncConnection, name: str) -> int:
        found = await connection.scalar(sa.select(ledger_counters.c.value).where(ledger_counters.c.name == name))
        return found or 0

    async def set_counter(self, connection: AsyncConnection, name: str, value: int) -> None:
        await upsert(connection, ledger_counters, {"name": name, "value": value}, key=("name",), update=("value",))

    async def known_requests(self, connection: AsyncConnection, request_ids: Sequence[str]) -> set[str]:
        known: set[str] = set()
        for start in range(0, len(request_ids), 500):
            chunk = request_ids[start : start + 500]
            known.update((await connection.scalars(sa.select(entries.c.request_id).where(entries.c.request_id.in_(chunk)))).all())
        return known

    async def post(self, connection: AsyncConnection, batch: Postings) -> None:
        """Raises `AlreadyPosted` where a request stands in the ledger already; the caller rolls back."""
        try:
            await _ENTRIES.insert(connection, batch.rows)
        except sa.exc.IntegrityError as error:
            raise AlreadyPosted from error
        await _SPEND.insert(connection, [(*window, *sums) for window, sums in batch.spend.items()])
        await _USE.insert(connection, [(*bucket, *sums) for bucket, sums in batch.use.items()])

    async def roll_up(self, connection: AsyncConnection, *, after: int, until: int) -> None:
        await connection.execute(_GATHER, {"after": after, "until": until})
        for statement in (*_ROLLUPS, sa.text(f"DROP TABLE {_ROLLING}")):
            await connection.execute(statement)

    # Spend, as the engine and reports read it.

    async def spend(self, connection: AsyncConnection, budgets: Sequence[BudgetQuery]) -> dict[str, list[WindowSpend]]:
        """Per budget its windows that start at `since_ns` or later, oldest first; budgets without spend are left out.
        Ids of budgets are unique across organisations and come from a key's own compiled state, never from a caller."""
        found: dict[str, list[WindowSpend]] = {}
        for start in range(0, len(budgets), _QUERIES):
            rows = await connection.execute(_spend_query(budgets[start : start + _QUERIES]))
            for row in rows:
                found.setdefault(row.budget_id, []).append(WindowSpend(row.window_start_ns, row.spent_nano, row.in_doubt_nano))
        return found

    async def limit_use(self, connection: AsyncConnection, limit_ids: Sequence[str], since_ns: int) -> dict[str, list[LimitUse]]:
        """As `spend`, for limits per day."""
        table = limit_use
        found: dict[str, list[LimitUse]] = {}
        for start in range(0, len(limit_ids), _QUERIES):
            chunk = limit_ids[start : start + _QUERIES]
            rows = await connection.execute(
                sa.select(table.c.limit_id, table.c.bucket_ns, table.c.amount)
                .where(table.c.limit_id.in_(chunk), table.c.bucket_ns >= since_ns)
                .order_by(table.c.limit_id, table.c.bucket_ns)
            )
            for row in rows:
                found.setdefault(row.limit_id, []).append(LimitUse(row.bucket_ns, row.amount))
        return found

    async def organizations_of(self, connection: AsyncConnection, budget_ids: Sequence[str]) -> dict[str, str]:
        """The organisation of each budget in which something was spent."""
        table = budget_spend
        rows = await connection.execute(
            sa.select(table.c.budget_id, table.c.organization_id).where(table.c.budget_id.in_(list(budget_ids))).distinct()
        )
        return {row[0]: row[1] for row in rows}

    async def forget_limit_use(self, connection: AsyncConnection, before_ns: int) -> int:
        return (await connection.execute(limit_use.delete().where(limit_use.c.bucket_ns < before_ns))).rowcount

    # In doubt.

    async def entry(self, connection: AsyncConnection, organization_id: str, request_id: str, *, for_update: bool = False) -> Any:
        query = sa.select(entries).where(entries.c.request_id == request_id, entries.c.organization_id == organization_id)
        return (await connection.execute(query.with_for_update() if for_update else query)).one_or_none()

    async def reconcile(
        self, connection: AsyncConnection, entry: Any, *, cost_nano: int, now_ns: int, actor_id: str
    ) -> list[tuple[str, int]]:
        """Replaces an in-doubt charge by the true cost, in the entry, in what its budgets spent and in the roll-ups that contain it.
        Returns the budget windows that were corrected."""
        charged = entry.cost_nano or 0
        delta = cost_nano - charged
        await connection.execute(
            entries.update()
            .where(entries.c.seq == entry.seq, entries.c.organization_id == entry.organization_id)
            .values(cost_nano=cost_nano, in_doubt=0, charges=None, reconciled_at_ns=now_ns, reconciled_by=actor_id)
        )
        windows = [(str(budget_id), int(start)) for budget_id, start in json.loads(entry.charges or "[]")]
        await _SPEND.insert(connection, [(*window, entry.organization_id, delta, -charged) for window in windows])
        if entry.seq <= await self.counter(connection, ROLLED_SEQ):
            for table, size in ((usage_hourly, HOUR_NS), (usage_daily, DAY_NS)):
                values = {name: getattr(entry, name) or "" for name in DIMENSIONS}
                await connection.execute(
                    table.update()
                    .where(
                        table.c.organization_id == entry.organization_id,
                        table.c.bucket_ns == entry.at_ns - entry.at_ns % size,
                        *(table.c[name] == value for name, value in values.items()),
                    )
                    .values(
                        cost_nano=table.c.cost_nano + delta,
                        in_doubt_nano=table.c.in_doubt_nano - charged,
                        unpriced=table.c.unpriced - (1 if entry.cost_nano is None else 0),
                    )
                )
        return windows

    # The grant of budgets to this gateway.

    async def grant_whole(self, connection: AsyncConnection, node_id: str, *, now_ns: int, until_ns: int) -> bool:
        """Grants or renews, in one conditional statement; False while another node's grant lasts."""
        table = budget_slices
        await lock(connection, "ledger.slices")
        row = (await connection.execute(sa.select(table).where(table.c.budget_id == WHOLE).with_for_update())).one_or_none()
        if row is not None and row.node_id != node_id and row.expires_at_ns > now_ns:
            return False
        await upsert(
            connection,
            table,
            {"budget_id": WHOLE, "node_id": node_id, "granted_at_ns": now_ns, "expires_at_ns": until_ns},
            key=("budget_id",),
            update=("node_id", "granted_at_ns", "expires_at_ns"),
        )
        return True

    async def give_back(self, connection: AsyncConnection, node_id: str) -> None:
        await connection.execute(budget_slices.delete().where(budget_slices.c.node_id == node_id))

    # Retention.

    async def oldest_entries(self, connection: AsyncConnection, *, before_ns: int, limit: int) -> int | None:
        """The last `seq` of the next portion to delete: at most `limit` numbers above the oldest, all rolled up."""
        first = (await connection.execute(sa.select(entries.c.seq, entries.c.at_ns).order_by(entries.c.seq).limit(1))).one_or_none()
        if first is None or first.at_ns >= before_ns:
            return None
        rolled = await self.counter(connection, ROLLED_SEQ)
        return min(first.seq + limit - 1, rolled) if first.seq <= rolled else None

    async def delete_entries(self, connection: AsyncConnection, *, until_seq: int, before_ns: int) -> int:
        return (await connection.execute(entries.delete().where(entries.c.seq <= until_seq, entries.c.at_ns < before_ns))).rowcount

    # The operator's prices.

    async def prices(self, connection: AsyncConnection, organization_id: str) -> Sequence[Any]:
        table = price_overrides
        return (
            await connection.execute(
                sa.select(table).where(table.c.organization_id == organization_id).order_by(table.c.vendor, table.c.model)
            )
        ).all()

    async def all_prices(self, connection: AsyncConnection) -> Sequence[Any]:
        return (await connection.execute(sa.select(price_overrides))).all()  # the engine compiles every organisation's

    async def price(self, connection: AsyncConnection, organization_id: str, vendor: str, model: str) -> Any:
        table = price_overrides
        return (
            await connection.execute(
                sa.select(table).where(table.c.organization_id == organization_id, table.c.vendor == vendor, table.c.model == model)
            )
        ).one_or_none()

    async def put_price(self, connection: AsyncConnection, values: dict[str, Any]) -> None:
        await upsert(
            connection,
            price_overrides,
            values,
            key=("organization_id", "vendor", "model"),
            update=("id", "rates", "updated_at_ns", "updated_by"),
        )

    async def delete_price(self, connection: AsyncConnection, organization_id: str, vendor: str, model: str) -> None:
        table = price_overrides
        await connection.execute(
            table.delete().where(table.c.organization_id == organization_id, table.c.vendor == vendor, table.c.model == model)
        )
