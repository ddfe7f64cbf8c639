"""All SQL of the audit log. Entries are inserted and read, never updated or deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.audit.model import AuditEntry, SignedHead
from keygate.audit.ports import EntryFilter
from keygate.audit.tables import audit_entries, audit_heads
from keygate.kit.database import upsert

_ENTRY = tuple(audit_entries.c[name] for name in AuditEntry.__slots__)
_HEAD = tuple(audit_heads.c[name] for name in SignedHead.__slots__)


class AuditRepository:
    async def append(self, connection: AsyncConnection, entry: AuditEntry, head: SignedHead) -> None:
        await connection.execute(audit_entries.insert().values(asdict(entry)))
        changed = tuple(name for name in SignedHead.__slots__ if name != "organization_id")
        await upsert(connection, audit_heads, asdict(head), key=("organization_id",), update=changed)

    async def head(self, connection: AsyncConnection, organization_id: str) -> SignedHead | None:
        row = (await connection.execute(sa.select(*_HEAD).where(audit_heads.c.organization_id == organization_id))).one_or_none()
        return SignedHead(*row) if row else None

    async def last(self, connection: AsyncConnection, organization_id: str) -> AuditEntry | None:
        query = _entries(organization_id).order_by(audit_entries.c.sequence.desc()).limit(1)
        row = (await connection.execute(query)).one_or_none()
        return AuditEntry(*row) if row else None

    async def organizations(self, connection: AsyncConnection) -> list[str]:
        """Every organisation that has entries or a head."""
        entries = sa.select(audit_entries.c.organization_id).distinct()
        heads = sa.select(audit_heads.c.organization_id)
        return sorted((await connection.execute(entries.union(heads))).scalars())

    async def batch(self, connection: AsyncConnection, organization_id: str, *, after: int, until: int, limit: int) -> list[AuditEntry]:
        """Entries in the order of the chain, `after < sequence ≤ until`."""
        column = audit_entries.c.sequence
        query = _entries(organization_id).where(column > after, column <= until).order_by(column).limit(limit)
        return [AuditEntry(*row) for row in await connection.execute(query)]

    async def hashes(self, connection: AsyncConnection, organization_id: str, sequences: Sequence[int]) -> dict[int, tuple[str, str]]:
        """`sequence → (id, hash)` of those of `sequences` that exist."""
        columns = audit_entries.c
        query = sa.select(columns.sequence, columns.id, columns.hash).where(
            columns.organization_id == organization_id, columns.sequence.in_(sequences)
        )
        return {row.sequence: (row.id, row.hash) for row in await connection.execute(query)}

    async def find(
        self, connection: AsyncConnection, organization_id: str, wanted: EntryFilter, *, before: int | None, limit: int
    ) -> list[AuditEntry]:
        """Newest first; `before` is the sequence that the page before ended with."""
        columns = audit_entries.c
        query = _entries(organization_id)
        equal: dict[sa.Column[Any], str | None] = {
            columns.actor_id: wanted.actor,
            columns.action: wanted.action,
            columns.target: wanted.target,
            columns.outcome: wanted.outcome,
        }
        query = query.where(*(column == value for column, value in equal.items() if value is not None))
        if wanted.from_ns is not None:
            query = query.where(columns.at_ns >= wanted.from_ns)
        if wanted.to_ns is not None:
            query = query.where(columns.at_ns < wanted.to_ns)
        if before is not None:
            query = query.where(columns.sequence < before)
        query = query.order_by(columns.sequence.desc()).limit(limit)
        return [AuditEntry(*row) for row in await connection.execute(query)]

    async def span(
        self, connection: AsyncConnection, organization_id: str, *, from_ns: int | None, to_ns: int | None
    ) -> tuple[int, int] | None:
        """First and last sequence of the entries with `from ≤ time < to`; None where there are none."""
        columns = audit_entries.c
        query = sa.select(sa.func.min(columns.sequence), sa.func.max(columns.sequence)).where(columns.organization_id == organization_id)
        if from_ns is not None:
            query = query.where(columns.at_ns >= from_ns)
        if to_ns is not None:
            query = query.where(columns.at_ns < to_ns)
        first, last = (await connection.execute(query)).one()
        return None if first is None else (first, last)


def _entries(organization_id: str) -> sa.Select[Any]:
    return sa.select(*_ENTRY).where(audit_entries.c.organization_id == organization_id)
