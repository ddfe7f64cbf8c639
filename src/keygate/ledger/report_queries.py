"""SQL of the reports. Whole days come from the daily roll-ups, whole hours from the hourly ones, and the entries give the edges of the
range and what has not been rolled up yet; so a sum is exact to the nanosecond and cheap over years. Edges older than the retention of
entries are gone: ask for whole hours there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.kit.turns import gathered
from keygate.ledger.posting import DAY_NS, HOUR_NS, ROLLED_SEQ
from keygate.ledger.reports import MEASURES, Selection
from keygate.ledger.repository import ENTRY_DIMENSIONS, ENTRY_MEASURES
from keygate.ledger.tables import DIMENSIONS, entries, ledger_counters

# Groups that only entries know; asking for one reads entries throughout.
ENTRY_ONLY = {"endpoint": "e.endpoint", "credential_id": "coalesce(e.credential_id, '')", "status": "e.status", "outcome": "e.outcome"}
_PART = 500  # rows
STEPS = {"hour": HOUR_NS, "day": DAY_NS}
LATE_NS = 10 * 60 * 1_000_000_000  # a request that begins so late in a day may end, and be billed, in the next one


class ReportQueries:
    async def sums(
        self, connection: AsyncConnection, selection: Selection, columns: Sequence[str], *, step: str | None, limit: int
    ) -> Sequence[Any]:
        """Sums per combination of `columns`, and per `step` of time (column `bucket_ns`). Most expensive first; with a step, in order
        of time."""
        rolled = await connection.scalar(sa.select(ledger_counters.c.value).where(ledger_counters.c.name == ROLLED_SEQ)) or 0
        values: dict[str, Any] = {"org": selection.organization_id, "rolled": rolled, "limit": limit}
        parts = _parts(selection, columns, step, values)
        names = [*columns, *(("bucket_ns",) if step else ())]
        sums = ", ".join(f"CAST(sum({measure}) AS BIGINT) AS {measure}" for measure in MEASURES)
        chosen = ", ".join([*names, sums])
        group = f"GROUP BY {', '.join(names)}" if names else ""
        order = f"ORDER BY {'bucket_ns, ' if step else ''}cost_nano DESC, requests DESC{''.join(f', {name}' for name in columns)}"
        statement = f"SELECT {chosen} FROM ({' UNION ALL '.join(parts)}) AS u {group} {order} LIMIT :limit"  # noqa: S608  (names of ours; values are bound)
        return await gathered((await connection.execute(sa.text(statement), values)).partitions(_PART))

    async def by_credential(self, connection: AsyncConnection, organization_id: str, *, from_ns: int, to_ns: int) -> Sequence[Any]:
        """Rows of `CredentialDay`."""
        t = entries
        cost = sa.func.coalesce(t.c.cost_nano, 0)
        day = (t.c.at_ns - t.c.at_ns % DAY_NS).label("day_ns")
        query = (
            sa.select(
                t.c.vendor,
                t.c.credential_id,
                day,
                sa.func.count(),
                _sum(sa.case((t.c.cost_nano.is_(None), 1), else_=0)),
                _sum(cost),
                _sum(sa.case((t.c.in_doubt == 1, cost), else_=0)),
                _sum(sa.case((t.c.at_ns % DAY_NS >= DAY_NS - LATE_NS, cost), else_=0)),
            )
            .where(t.c.organization_id == organization_id, t.c.at_ns >= from_ns, t.c.at_ns < to_ns)
            .group_by(t.c.vendor, t.c.credential_id, day)
            .order_by(day, t.c.vendor, t.c.credential_id)
        )
        return (await connection.execute(query)).all()

    async def entries(
        self, connection: AsyncConnection, selection: Selection, *, before: tuple[int, int] | None, limit: int
    ) -> Sequence[Any]:
        """Newest first. `before` is (at_ns, seq) of the last entry of the page before."""
        table = entries
        query = sa.select(table).where(
            table.c.organization_id == selection.organization_id, table.c.at_ns >= selection.from_ns, table.c.at_ns < selection.to_ns
        )
        for name, allowed in selection.filters.items():
            query = query.where(table.c[name].in_(list(allowed)))
        if selection.tag is not None:
            query = query.where(table.c.tags.like(_tag_pattern(selection.tag), escape="\\"))
        if selection.in_doubt:
            query = query.where(sa.text("in_doubt = 1"))  # as text, so that the partial index serves
        if before is not None:
            query = query.where(sa.tuple_(table.c.at_ns, table.c.seq) < sa.tuple_(*(sa.literal(value, sa.BigInteger) for value in before)))
        return (await connection.execute(query.order_by(table.c.at_ns.desc(), table.c.seq.desc()).limit(limit))).all()


def _sum(value: sa.ColumnElement[Any]) -> sa.Cast[int]:
    return sa.cast(sa.func.sum(value), sa.BigInteger)


def _tag_pattern(tag: str) -> str:
    escaped = json.dumps(tag).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _parts(selection: Selection, columns: Sequence[str], step: str | None, values: dict[str, Any]) -> list[str]:
    """Selects that together see every entry of the range once."""
    start, end = selection.from_ns, selection.to_ns
    entry_only = selection.tag is not None or selection.in_doubt or any(name in ENTRY_ONLY for name in (*columns, *selection.filters))
    if entry_only:
        return [_from_entries(selection, columns, step, values, start, end, "")]
    parts = [_from_entries(selection, columns, step, values, start, end, "AND e.seq > :rolled")]
    first_hour, last_hour = -(-start // HOUR_NS) * HOUR_NS, end // HOUR_NS * HOUR_NS
    if first_hour >= last_hour:
        parts.append(_from_entries(selection, columns, step, values, start, end, "AND e.seq <= :rolled"))
        return parts
    if start < first_hour:
        parts.append(_from_entries(selection, columns, step, values, start, first_hour, "AND e.seq <= :rolled"))
    if last_hour < end:
        parts.append(_from_entries(selection, columns, step, values, last_hour, end, "AND e.seq <= :rolled"))
    first_day, last_day = -(-first_hour // DAY_NS) * DAY_NS, last_hour // DAY_NS * DAY_NS
    if step == "hour" or first_day >= last_day:
        parts.append(_from_rollup("usage_hourly", selection, columns, step, values, first_hour, last_hour))
        return parts
    parts.append(_from_rollup("usage_daily", selection, columns, step, values, first_day, last_day))
    if first_hour < first_day:
        parts.append(_from_rollup("usage_hourly", selection, columns, step, values, first_hour, first_day))
    if last_day < last_hour:
        parts.append(_from_rollup("usage_hourly", selection, columns, step, values, last_day, last_hour))
    return parts


def _from_entries(
    selection: Selection, columns: Sequence[str], step: str | None, values: dict[str, Any], start: int, end: int, also: str
) -> str:
    expressions = {**ENTRY_DIMENSIONS, **ENTRY_ONLY}
    chosen = [f"{expressions[name]} AS {name}" for name in columns]
    if step:
        chosen.append(f"e.at_ns - e.at_ns % {STEPS[step]} AS bucket_ns")
    chosen += [f"{ENTRY_MEASURES[measure]} AS {measure}" for measure in MEASURES]
    conditions = _filters(selection, values, expressions)
    if selection.tag is not None:
        values["tag"] = _tag_pattern(selection.tag)
        conditions += " AND e.tags LIKE :tag ESCAPE '\\'"
    if selection.in_doubt:
        conditions += " AND e.in_doubt = 1"
    number = len(values)
    values[f"from{number}"], values[f"to{number}"] = start, end
    return (
        f"SELECT {', '.join(chosen)} FROM ledger_entries AS e "  # noqa: S608  (names of ours; values are bound)
        f"WHERE e.organization_id = :org AND e.at_ns >= :from{number} AND e.at_ns < :to{number}{conditions} {also}"
    )


def _from_rollup(
    table: str, selection: Selection, columns: Sequence[str], step: str | None, values: dict[str, Any], start: int, end: int
) -> str:
    chosen = [f"e.{name}" for name in columns]
    if step:
        chosen.append(f"e.bucket_ns - e.bucket_ns % {STEPS[step]} AS bucket_ns")
    chosen += [f"e.{measure}" for measure in MEASURES]
    conditions = _filters(selection, values, {name: f"e.{name}" for name in DIMENSIONS})
    number = len(values)
    values[f"from{number}"], values[f"to{number}"] = start, end
    return (
        f"SELECT {', '.join(chosen)} FROM {table} AS e "  # noqa: S608  (as above)
        f"WHERE e.organization_id = :org AND e.bucket_ns >= :from{number} AND e.bucket_ns < :to{number}{conditions}"
    )


def _filters(selection: Selection, values: dict[str, Any], expressions: Mapping[str, str]) -> str:
    text = ""
    for name, allowed in selection.filters.items():
        keys = [f"{name}_{index}" for index in range(len(allowed))]
        values.update(zip(keys, allowed, strict=True))
        text += f" AND {expressions[name]} IN ({', '.join(':' + key for key in keys)})"
    return text
