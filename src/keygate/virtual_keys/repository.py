"""All SQL of virtual keys. Scoped to an organisation, but for what the gateway asks: there the public id is all that is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.policies import Place, Scope, rules_from_json, rules_to_json
from keygate.virtual_keys.model import KeyFilter, Standing, VirtualKey
from keygate.virtual_keys.tables import virtual_keys as t

_BY_PUBLIC_IDS = sa.select(t).where(t.c.public_id.in_(sa.bindparam("wanted", expanding=True)))


class VirtualKeyRepository:
    async def add(self, connection: AsyncConnection, key: VirtualKey) -> None:
        await connection.execute(sa.insert(t).values(_row(key)))

    async def save(self, connection: AsyncConnection, key: VirtualKey) -> None:
        """Everything but when it was last used."""
        values = _row(key)
        del values["last_used_at_ns"]
        await connection.execute(sa.update(t).where(t.c.organization_id == key.organization_id, t.c.id == key.id).values(values))

    async def get(self, connection: AsyncConnection, organization_id: str, key_id: str) -> VirtualKey | None:
        query = sa.select(t).where(t.c.organization_id == organization_id, t.c.id == key_id)
        row = (await connection.execute(query)).first()
        return None if row is None else _key(row)

    async def page(
        self,
        connection: AsyncConnection,
        organization_id: str,
        wanted: KeyFilter,
        *,
        ended: sa.Select[tuple[str]],
        now_ns: int,
        after: str | None,
        limit: int,
    ) -> list[VirtualKey]:
        """`ended` finds the owners whose keys stand still."""
        query = sa.select(t).where(t.c.organization_id == organization_id, t.c.id > (after or "")).order_by(t.c.id).limit(limit)
        if wanted.owner_id is not None:
            query = query.where(t.c.owner_id == wanted.owner_id)
        if wanted.status is Standing.REVOKED:
            query = query.where(t.c.revoked_at_ns.is_not(None))
        elif wanted.status is Standing.EXPIRED:
            query = query.where(t.c.revoked_at_ns.is_(None), t.c.expires_at_ns <= now_ns)
        elif wanted.status is not None:
            query = query.where(t.c.revoked_at_ns.is_(None), sa.or_(t.c.expires_at_ns.is_(None), t.c.expires_at_ns > now_ns))
            still = t.c.owner_id.in_(ended)
            query = query.where(still if wanted.status is Standing.OWNER_INACTIVE else sa.or_(t.c.owner_id.is_(None), sa.not_(still)))
        if wanted.tag is not None:
            # LIKE tells cases apart on one database only; taking the tag out and comparing does on both
            query = query.where(sa.func.replace(t.c.tags, json.dumps(wanted.tag, ensure_ascii=False), "") != t.c.tags)
        if wanted.text is not None:
            query = query.where(
                sa.or_(
                    sa.func.lower(t.c.name).contains(wanted.text.lower(), autoescape=True),
                    t.c.id.startswith(wanted.text, autoescape=True),
                    t.c.public_id.startswith(wanted.text, autoescape=True),
                )
            )
        return [_key(row) for row in await connection.execute(query)]

    async def held_by(self, connection: AsyncConnection, organization_id: str, owner_ids: Sequence[str]) -> list[VirtualKey]:
        """Every key of these owners that is not revoked."""
        found: list[VirtualKey] = []
        for start in range(0, len(owner_ids), 500):
            held = t.c.owner_id.in_(owner_ids[start : start + 500])
            query = sa.select(t).where(t.c.organization_id == organization_id, held, t.c.revoked_at_ns.is_(None))
            found += [_key(row) for row in await connection.execute(query.order_by(t.c.id))]
        return found

    async def revoke_all(
        self, connection: AsyncConnection, organization_id: str, key_ids: Sequence[str], *, at_ns: int, by: str, reason: str
    ) -> None:
        for start in range(0, len(key_ids), 500):
            part = key_ids[start : start + 500]
            await connection.execute(
                sa.update(t)
                .where(t.c.organization_id == organization_id, t.c.id.in_(part), t.c.revoked_at_ns.is_(None))
                .values(
                    revoked_at_ns=at_ns,
                    revoked_by=by,
                    revoked_reason=reason,
                    previous_digest=None,
                    previous_expires_at_ns=None,
                    version=t.c.version + 1,
                )
            )

    async def count_with_policy(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> int:
        query = sa.select(sa.func.count()).where(
            t.c.organization_id == organization_id, t.c.policy_id == policy_id, t.c.revoked_at_ns.is_(None)
        )
        return int((await connection.execute(query)).scalar_one())

    async def touch(self, connection: AsyncConnection, used: Mapping[str, int]) -> None:
        """`used`: key id → when it was last used, in nanoseconds. Never moves a time back."""
        if not used:
            return
        at = sa.bindparam("at", type_=sa.BigInteger)
        statement = (
            sa.update(t)
            .where(t.c.id == sa.bindparam("key_id"), sa.or_(t.c.last_used_at_ns.is_(None), t.c.last_used_at_ns < at))
            .values(last_used_at_ns=at)
        )
        await connection.execute(statement, [{"key_id": key_id, "at": moment} for key_id, moment in sorted(used.items())])

    # For the gateway, across organisations

    async def by_public_ids(self, connection: AsyncConnection, public_ids: Sequence[str]) -> list[VirtualKey]:
        return [_key(row) for row in await connection.execute(_BY_PUBLIC_IDS, {"wanted": public_ids})]

    async def by_ids(self, connection: AsyncConnection, key_ids: Sequence[str]) -> list[VirtualKey]:
        return [_key(row) for row in await connection.execute(sa.select(t).where(t.c.id.in_(key_ids)))]

    async def active_page(self, connection: AsyncConnection, *, now_ns: int, after: str | None, limit: int) -> list[VirtualKey]:
        usable = (t.c.revoked_at_ns.is_(None), sa.or_(t.c.expires_at_ns.is_(None), t.c.expires_at_ns > now_ns))
        query = sa.select(t).where(t.c.id > (after or ""), *usable).order_by(t.c.id).limit(limit)
        return [_key(row) for row in await connection.execute(query)]


def _row(key: VirtualKey) -> dict[str, Any]:
    values = {name: getattr(key, name) for name in VirtualKey.__dataclass_fields__ if name != "owner"}
    return values | {
        "owner_scope": None if key.owner is None else key.owner.scope,
        "owner_id": None if key.owner is None else key.owner.scope_id,
        "rules": rules_to_json(key.rules),
        "tags": json.dumps(key.tags, ensure_ascii=False),
    }


def _key(row: sa.Row[Any]) -> VirtualKey:
    values = {name: getattr(row, name) for name in VirtualKey.__dataclass_fields__ if name not in {"owner", "rules", "tags"}}
    return VirtualKey(
        **values,
        owner=None if row.owner_id is None else Place(Scope(row.owner_scope), row.owner_id),
        rules=rules_from_json(row.rules),
        tags=tuple(json.loads(row.tags)),
    )
