"""All SQL of rotation that begins by itself. Scoped to an organisation, but for what the worker asks: it serves all of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.issued_keys.life import LIVE, State
from keygate.issued_keys.model import AccountStatus, IssuedKey
from keygate.issued_keys.repository import key_of_row
from keygate.issued_keys.rotation.model import DAY_NS, RotationPolicy
from keygate.issued_keys.rotation.tables import rotation_policies as policies
from keygate.issued_keys.tables import issued_keys as t
from keygate.issued_keys.tables import vendor_accounts as accounts

_POLICY = tuple(policies.c[name] for name in RotationPolicy.__dataclass_fields__)


class RotationRepository:
    # Policies

    async def add(self, connection: AsyncConnection, policy: RotationPolicy) -> None:
        await connection.execute(sa.insert(policies).values(_values(policy)))

    async def save(self, connection: AsyncConnection, policy: RotationPolicy) -> None:
        change = sa.update(policies).where(policies.c.organization_id == policy.organization_id, policies.c.id == policy.id)
        await connection.execute(change.values(_values(policy)))

    async def delete(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> None:
        await connection.execute(sa.delete(policies).where(policies.c.organization_id == organization_id, policies.c.id == policy_id))

    async def get(self, connection: AsyncConnection, organization_id: str, policy_id: str, *, lock: bool = False) -> RotationPolicy | None:
        query = sa.select(*_POLICY).where(policies.c.organization_id == organization_id, policies.c.id == policy_id)
        row = (await connection.execute(query.with_for_update() if lock else query)).first()
        return None if row is None else RotationPolicy(*row)

    async def of_organization(self, connection: AsyncConnection, organization_id: str) -> list[RotationPolicy]:
        query = sa.select(*_POLICY).where(policies.c.organization_id == organization_id)
        return [RotationPolicy(*row) for row in await connection.execute(query.order_by(policies.c.id))]

    async def living(
        self, connection: AsyncConnection, organization_id: str, *, vendor: str | None, after: str, limit: int
    ) -> list[IssuedKey]:
        """Keys that work, in pages by id."""
        query = sa.select(t).where(t.c.organization_id == organization_id, t.c.state.in_(list(LIVE)), t.c.id > after)
        if vendor is not None:
            query = query.where(t.c.vendor == vendor)
        return [key_of_row(row) for row in await connection.execute(query.order_by(t.c.id).limit(limit))]

    # For the worker, across organisations

    async def everywhere(self, connection: AsyncConnection) -> list[RotationPolicy]:
        return [RotationPolicy(*row) for row in await connection.execute(sa.select(*_POLICY).order_by(policies.c.id))]

    async def scheduled(self, connection: AsyncConnection, *, now_ns: int, after: str, limit: int) -> list[IssuedKey]:
        """Active keys whose own schedule is due, in pages by id."""
        age_ns = sa.cast(t.c.rotate_every_days, sa.BigInteger) * DAY_NS
        query = _waiting(now_ns, after).where(t.c.rotate_every_days.is_not(None), t.c.made_at_ns + age_ns <= now_ns)
        return [key_of_row(row) for row in await connection.execute(query.order_by(t.c.id).limit(limit))]

    async def aged(self, connection: AsyncConnection, rule: RotationPolicy, *, now_ns: int, after: str, limit: int) -> list[IssuedKey]:
        """Active keys whose age begins to matter to a policy, in pages by id. Whom a team's policy covers is not looked at here."""
        age_ns = min(rule.begin_age_ns, rule.remind_age_ns)
        query = _waiting(now_ns, after).where(t.c.organization_id == rule.organization_id, t.c.made_at_ns <= now_ns - age_ns)
        if rule.vendor is not None:
            query = query.where(t.c.vendor == rule.vendor)
        return [key_of_row(row) for row in await connection.execute(query.order_by(t.c.id).limit(limit))]

    async def making(self, connection: AsyncConnection) -> dict[str, int]:
        """How many rotations of each vendor account have begun and not yet made the next key."""
        query = (
            sa.select(t.c.account_id, sa.func.count())
            .where(t.c.state == str(State.ROTATING), t.c.former["cut_at_ns"].as_string().is_(None))
            .group_by(t.c.account_id)
        )
        return {row[0]: int(row[1]) for row in await connection.execute(query)}

    async def not_ready(self, connection: AsyncConnection, *, codes: Collection[str], now_ns: int) -> frozenset[str]:
        """Vendor accounts at which no rotation is begun: their admin credential lacks something, or a rotation has just failed there of
        what every other one would fail of too (`codes`)."""
        unfit = sa.select(accounts.c.id).where(accounts.c.status != str(AccountStatus.READY))
        failing = sa.select(t.c.account_id).where(
            t.c.state == str(State.ACTIVE), t.c.rotate_after_ns > now_ns, t.c.rotate_tries > 0, t.c.error_code.in_(sorted(codes))
        )
        found = [*(await connection.execute(unfit)), *(await connection.execute(failing.distinct()))]
        return frozenset(row[0] for row in found)


def _waiting(now_ns: int, after: str) -> sa.Select[Any]:
    due = sa.or_(t.c.rotate_after_ns.is_(None), t.c.rotate_after_ns <= now_ns)
    return sa.select(t).where(t.c.state == str(State.ACTIVE), due, t.c.id > after)


def _values(policy: RotationPolicy) -> dict[str, object]:
    return {name: getattr(policy, name) for name in RotationPolicy.__dataclass_fields__}
