"""All SQL of watched budgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.issued_keys import Restraint
from keygate.kit.database import upsert
from keygate.vendor_spend.tables import budget_watches as t
from keygate.vendor_spend.tables import vendor_spend
from keygate.vendor_spend.watch import AtEnd, Stage, Watch, WatchRule

_OWN = {"rule", "wanted", "stage"}
_PLAIN = tuple(name for name in Watch.__dataclass_fields__ if name not in _OWN)
_CHUNK = 500


class WatchRepository:
    async def get(self, connection: AsyncConnection, organization_id: str, key_id: str, *, lock: bool = False) -> Watch | None:
        query = sa.select(t).where(t.c.organization_id == organization_id, t.c.key_id == key_id)
        row = (await connection.execute(query.with_for_update() if lock else query)).first()
        return None if row is None else _watch(row)

    async def all(self, connection: AsyncConnection) -> dict[str, Watch]:
        # Across organisations, for the worker: it serves all of them.
        return {row.key_id: _watch(row) for row in await connection.execute(sa.select(t))}

    async def restrained(self, connection: AsyncConnection, organization_id: str) -> frozenset[str]:
        """Keys whose limits are lowered, or that are switched off, for their budget; or that are just being."""
        stages = (Stage.LOWERED.value, Stage.DISABLED.value)
        query = sa.select(t.c.key_id).where(t.c.organization_id == organization_id, sa.or_(t.c.stage.in_(stages), t.c.wanted.in_(stages)))
        return frozenset(row[0] for row in await connection.execute(query))

    async def stages(self, connection: AsyncConnection, organization_id: str, key_ids: Sequence[str]) -> dict[str, Stage]:
        """Of these keys those whose limits are lowered, or that are switched off, as the vendor has confirmed."""
        found: dict[str, Stage] = {}
        for start in range(0, len(key_ids), _CHUNK):
            query = sa.select(t.c.key_id, t.c.stage).where(
                t.c.organization_id == organization_id,
                t.c.key_id.in_(list(key_ids[start : start + _CHUNK])),
                t.c.stage.in_((Stage.LOWERED.value, Stage.DISABLED.value)),
            )
            found |= {row[0]: Stage(row[1]) for row in await connection.execute(query)}
        return found

    async def restraints(self, connection: AsyncConnection, organization_id: str, key_ids: Sequence[str]) -> dict[str, Restraint]:
        """The `Restraints` of issued keys."""
        found: dict[str, Restraint] = {}
        stages = lowered, disabled = Stage.LOWERED.value, Stage.DISABLED.value
        for start in range(0, len(key_ids), _CHUNK):
            query = sa.select(t.c.key_id, t.c.lower_to, t.c.stage, t.c.wanted).where(
                t.c.organization_id == organization_id,
                t.c.key_id.in_(list(key_ids[start : start + _CHUNK])),
                sa.or_(t.c.stage.in_(stages), t.c.wanted.in_(stages)),
            )
            for row in await connection.execute(query):
                is_lowered = row.stage == row.wanted == lowered
                found[row.key_id] = Restraint(disabled=disabled in {row.stage, row.wanted}, percent=row.lower_to if is_lowered else 100)
        return found

    async def save(self, connection: AsyncConnection, watch: Watch) -> None:
        row = _row(watch)
        await upsert(connection, t, row, key=("key_id",), update=tuple(name for name in row if name not in {"key_id", "organization_id"}))

    async def spent(self, connection: AsyncConnection, organization_id: str, key_ids: Sequence[str], *, since_ns: int) -> dict[str, int]:
        """What the vendor has billed for each key since then, in nano-dollars; keys without spend are left out."""
        found: dict[str, int] = {}
        s = vendor_spend
        for start in range(0, len(key_ids), _CHUNK):
            query = (
                sa.select(s.c.issued_key_id, sa.cast(sa.func.sum(s.c.amount_nano), sa.BigInteger))
                .where(
                    s.c.organization_id == organization_id,
                    s.c.issued_key_id.in_(list(key_ids[start : start + _CHUNK])),
                    s.c.start_ns >= since_ns,
                )
                .group_by(s.c.issued_key_id)
            )
            found |= {row[0]: int(row[1]) for row in await connection.execute(query)}
        return found


def _row(watch: Watch) -> dict[str, Any]:
    rule = watch.rule
    return {name: getattr(watch, name) for name in _PLAIN} | {
        "warn_at": list(rule.warn_at),
        "lower_at": rule.lower_at,
        "lower_to": rule.lower_to,
        "at_end": rule.at_end.value,
        "wanted": watch.wanted.value,
        "stage": watch.stage.value,
    }


def _watch(row: sa.Row[Any]) -> Watch:
    rule = WatchRule(tuple(row.warn_at), row.lower_at, row.lower_to, AtEnd(row.at_end))
    return Watch(**{name: getattr(row, name) for name in _PLAIN}, rule=rule, wanted=Stage(row.wanted), stage=Stage(row.stage))
