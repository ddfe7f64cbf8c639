"""All SQL of policies, budgets, limits and aliases. Every statement is scoped to an organisation."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.errors import Conflict
from keygate.kit.database import insert_or_ignore
from keygate.policies.model import Alias, Budget, Governance, Limit, Policy
from keygate.policies.ports import OwnerDirectory
from keygate.policies.records import rules_from_json, rules_to_json, spec_from_json, spec_to_json
from keygate.policies.state import BudgetMode, BudgetRule, LimitKind, LimitRule, Period, Scope
from keygate.policies.tables import aliases, budgets, limits, policies

CHUNK = 500  # ids in one statement


class PolicyRepository:
    # Policies

    async def add_policy(self, connection: AsyncConnection, policy: Policy) -> None:
        """Raises `Conflict` where the name is taken."""
        if not await insert_or_ignore(connection, policies, _policy_row(policy)):
            raise Conflict(f"There is a policy named '{policy.name}' already", field="name")

    async def save_policy(self, connection: AsyncConnection, policy: Policy) -> None:
        taken = sa.select(policies.c.id).where(
            policies.c.organization_id == policy.organization_id, policies.c.name == policy.name, policies.c.id != policy.id
        )
        if (await connection.execute(taken)).first() is not None:
            raise Conflict(f"There is a policy named '{policy.name}' already", field="name")
        mine = (policies.c.organization_id == policy.organization_id, policies.c.id == policy.id)
        await connection.execute(sa.update(policies).where(*mine).values(_policy_row(policy)))

    async def remove_policy(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> None:
        await connection.execute(sa.delete(policies).where(policies.c.organization_id == organization_id, policies.c.id == policy_id))

    async def policy(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> Policy | None:
        found = await self._policies(connection, organization_id, policies.c.id == policy_id)
        return found[0] if found else None

    async def list_policies(self, connection: AsyncConnection, organization_id: str, *, after: str | None, limit: int) -> list[Policy]:
        return await self._policies(connection, organization_id, policies.c.id > (after or ""), limit=limit)

    async def _policies(
        self, connection: AsyncConnection, organization_id: str, condition: Any, *, limit: int | None = None
    ) -> list[Policy]:
        query = sa.select(policies).where(policies.c.organization_id == organization_id, condition).order_by(policies.c.id).limit(limit)
        rows = (await connection.execute(query)).all()
        return [_policy(row) for row in rows]

    async def policy_exists(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> bool:
        """`PolicyDirectory` of identities."""
        query = sa.select(policies.c.id).where(policies.c.organization_id == organization_id, policies.c.id == policy_id)
        return (await connection.execute(query)).first() is not None

    # Budgets

    async def add_budgets(self, connection: AsyncConnection, several: Sequence[Budget]) -> None:
        if several:
            await connection.execute(sa.insert(budgets), [_budget_row(budget) for budget in several])

    async def save_budget(self, connection: AsyncConnection, budget: Budget) -> None:
        mine = (budgets.c.organization_id == budget.organization_id, budgets.c.id == budget.rule.id)
        await connection.execute(sa.update(budgets).where(*mine).values(_budget_row(budget)))

    async def remove_budgets(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> None:
        if ids:
            await connection.execute(sa.delete(budgets).where(budgets.c.organization_id == organization_id, budgets.c.id.in_(ids)))

    async def budget(self, connection: AsyncConnection, organization_id: str, budget_id: str) -> Budget | None:
        query = sa.select(budgets).where(budgets.c.organization_id == organization_id, budgets.c.id == budget_id)
        row = (await connection.execute(query)).first()
        return None if row is None else _budget(row)

    async def list_budgets(
        self,
        connection: AsyncConnection,
        organization_id: str,
        *,
        scope: Scope | None = None,
        scope_ids: Sequence[str] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Budget]:
        return [_budget(row) for row in await _placed(connection, budgets, organization_id, scope, scope_ids, after, limit)]

    # Limits

    async def add_limits(self, connection: AsyncConnection, several: Sequence[Limit]) -> None:
        if several:
            await connection.execute(sa.insert(limits), [_limit_row(limit) for limit in several])

    async def save_limit(self, connection: AsyncConnection, limit: Limit) -> None:
        mine = (limits.c.organization_id == limit.organization_id, limits.c.id == limit.rule.id)
        await connection.execute(sa.update(limits).where(*mine).values(_limit_row(limit)))

    async def remove_limits(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> None:
        if ids:
            await connection.execute(sa.delete(limits).where(limits.c.organization_id == organization_id, limits.c.id.in_(ids)))

    async def limit(self, connection: AsyncConnection, organization_id: str, limit_id: str) -> Limit | None:
        query = sa.select(limits).where(limits.c.organization_id == organization_id, limits.c.id == limit_id)
        row = (await connection.execute(query)).first()
        return None if row is None else _limit(row)

    async def list_limits(
        self,
        connection: AsyncConnection,
        organization_id: str,
        *,
        scope: Scope | None = None,
        scope_ids: Sequence[str] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Limit]:
        return [_limit(row) for row in await _placed(connection, limits, organization_id, scope, scope_ids, after, limit)]

    # Aliases

    async def add_alias(self, connection: AsyncConnection, alias: Alias) -> None:
        if not await insert_or_ignore(connection, aliases, _alias_row(alias)):
            raise Conflict(f"There is an alias '{alias.alias}' already", field="alias")

    async def save_alias(self, connection: AsyncConnection, alias: Alias) -> None:
        mine = (aliases.c.organization_id == alias.organization_id, aliases.c.id == alias.id)
        await connection.execute(sa.update(aliases).where(*mine).values(target=alias.target))

    async def remove_alias(self, connection: AsyncConnection, organization_id: str, alias_id: str) -> None:
        await connection.execute(sa.delete(aliases).where(aliases.c.organization_id == organization_id, aliases.c.id == alias_id))

    async def alias(self, connection: AsyncConnection, organization_id: str, alias_id: str) -> Alias | None:
        query = sa.select(aliases).where(aliases.c.organization_id == organization_id, aliases.c.id == alias_id)
        row = (await connection.execute(query)).first()
        return None if row is None else _alias(row)

    async def list_aliases(
        self, connection: AsyncConnection, organization_id: str, *, after: str | None = None, limit: int | None = None
    ) -> list[Alias]:
        where = (aliases.c.organization_id == organization_id, aliases.c.id > (after or ""))
        rows = await connection.execute(sa.select(aliases).where(*where).order_by(aliases.c.id).limit(limit))
        return [_alias(row) for row in rows]

    async def count_aliases(self, connection: AsyncConnection, organization_id: str) -> int:
        query = sa.select(sa.func.count()).select_from(aliases).where(aliases.c.organization_id == organization_id)
        return int((await connection.execute(query)).scalar_one())

    # What stands above keys

    async def governance(
        self,
        connection: AsyncConnection,
        organization_id: str,
        owners: OwnerDirectory,
        *,
        owner_ids: Iterable[str],
        policy_ids: Iterable[str],
        key_ids: Sequence[str],
    ) -> Governance | None:
        """Everything above these keys, with their own budgets and limits. A fixed number of statements for up to `CHUNK` keys."""
        organization = await owners.organization(connection, organization_id)
        if organization is None:
            return None
        holders = dict(await owners.holders(connection, organization_id, sorted(set(owner_ids)))) if owner_ids else {}
        named = {*policy_ids, organization.policy_id, *(holder.policy_id for holder in holders.values())} - {None}
        known = await self._policies(connection, organization_id, policies.c.id.in_(sorted(map(str, named)))) if named else []
        found_budgets: dict[str, list[BudgetRule]] = defaultdict(list)
        found_limits: dict[str, list[LimitRule]] = defaultdict(list)
        aliases_there: list[tuple[str, str]] = []
        places = [organization_id, *holders, *key_ids]
        for start in range(0, len(places), CHUNK):
            values = {"organization_id": organization_id, "places": places[start : start + CHUNK], "first": start == 0}
            for row in await connection.execute(_ABOVE, values):
                if row.sort == "alias":
                    aliases_there.append((row.word, row.selector))
                elif row.sort == "limit":
                    found_limits[row.scope_id].append(_limit_rule(row, row.word))
                else:
                    found_budgets[row.scope_id].append(_budget_rule(row, row.word, json.loads(row.thresholds)))
        return Governance(
            organization=organization,
            holders=holders,
            policies={policy.id: policy for policy in known},
            budgets={scope_id: tuple(rules) for scope_id, rules in found_budgets.items()},
            limits={scope_id: tuple(rules) for scope_id, rules in found_limits.items()},
            aliases=tuple(sorted(aliases_there)),
        )


def _above() -> sa.Select[Any]:
    """Budgets and limits at some places, and with the first of them the aliases, in one statement: a gateway waits for it when it sees
    a key for the first time."""
    here = sa.bindparam("organization_id", type_=sa.String)
    places = sa.bindparam("places", expanding=True, type_=sa.String)
    number, word = sa.cast(sa.null(), sa.BigInteger), sa.cast(sa.null(), sa.Text)
    rest = (number.label("starts_at_ns"), word.label("mode"), number.label("rolling"), word.label("time_zone"), word.label("thresholds"))
    every = sa.union_all(
        sa.select(
            sa.literal("budget").label("sort"),
            budgets.c.id,
            budgets.c.scope,
            budgets.c.scope_id,
            budgets.c.selector,
            budgets.c.period.label("word"),
            budgets.c.amount_nano.label("amount"),
            budgets.c.starts_at_ns,
            budgets.c.mode,
            sa.cast(sa.cast(budgets.c.rolling, sa.Integer), sa.BigInteger).label("rolling"),
            budgets.c.time_zone,
            sa.cast(budgets.c.thresholds, sa.Text).label("thresholds"),
        ).where(budgets.c.organization_id == here, budgets.c.scope_id.in_(places)),
        sa.select(
            sa.literal("limit").label("sort"),
            limits.c.id,
            limits.c.scope,
            limits.c.scope_id,
            limits.c.selector,
            limits.c.kind.label("word"),
            limits.c.amount,
            *rest,
        ).where(limits.c.organization_id == here, limits.c.scope_id.in_(places)),
        sa.select(
            sa.literal("alias").label("sort"),
            aliases.c.id,
            word.label("scope"),
            word.label("scope_id"),
            aliases.c.target.label("selector"),
            aliases.c.alias.label("word"),
            number.label("amount"),
            *rest,
        ).where(aliases.c.organization_id == here, sa.bindparam("first", type_=sa.Boolean)),
    ).subquery()
    return sa.select(every).order_by(every.c.id)


_ABOVE = _above()


async def _placed(
    connection: AsyncConnection,
    table: sa.Table,
    organization_id: str,
    scope: Scope | None,
    scope_ids: Sequence[str] | None,
    after: str | None,
    limit: int | None,
) -> Sequence[sa.Row[Any]]:
    query = sa.select(table).where(table.c.organization_id == organization_id).order_by(table.c.id).limit(limit)
    if scope is not None:
        query = query.where(table.c.scope == scope)
    if scope_ids is not None:
        query = query.where(table.c.scope_id.in_(scope_ids))
    if after is not None:
        query = query.where(table.c.id > after)
    return (await connection.execute(query)).all()


def _policy_row(policy: Policy) -> dict[str, Any]:
    return {
        "id": policy.id,
        "organization_id": policy.organization_id,
        "name": policy.name,
        "description": policy.description,
        "rules": rules_to_json(policy.rules),
        "limits": {str(kind): amount for kind, amount in policy.limits},
        "budgets": [spec_to_json(spec) for spec in policy.budgets],
        "version": policy.version,
        "created_at_ns": policy.created_at_ns,
        "created_by": policy.created_by,
        "updated_at_ns": policy.updated_at_ns,
    }


def _policy(row: sa.Row[Any]) -> Policy:
    return Policy(
        id=row.id,
        organization_id=row.organization_id,
        name=row.name,
        description=row.description,
        rules=rules_from_json(row.rules),
        limits=tuple(sorted((LimitKind(kind), amount) for kind, amount in row.limits.items())),
        budgets=tuple(spec_from_json(value) for value in row.budgets),
        version=row.version,
        created_at_ns=row.created_at_ns,
        created_by=row.created_by,
        updated_at_ns=row.updated_at_ns,
    )


def _budget_row(budget: Budget) -> dict[str, Any]:
    rule = budget.rule
    values = {name: getattr(rule, name) for name in BudgetRule.__dataclass_fields__} | {"thresholds": list(rule.thresholds)}
    return values | {
        "organization_id": budget.organization_id,
        "created_at_ns": budget.created_at_ns,
        "created_by": budget.created_by,
    }


def _budget(row: sa.Row[Any]) -> Budget:
    rule = _budget_rule(row, row.period, row.thresholds, amount_nano=row.amount_nano)
    return Budget(rule=rule, organization_id=row.organization_id, created_at_ns=row.created_at_ns, created_by=row.created_by)


def _budget_rule(row: sa.Row[Any], period: str, thresholds: Sequence[int], *, amount_nano: int | None = None) -> BudgetRule:
    return BudgetRule(
        id=row.id,
        scope=Scope(row.scope),
        scope_id=row.scope_id,
        selector=row.selector,
        period=Period(period),
        mode=BudgetMode(row.mode),
        amount_nano=row.amount if amount_nano is None else amount_nano,
        time_zone=row.time_zone,
        rolling=bool(row.rolling),
        starts_at_ns=row.starts_at_ns,
        thresholds=tuple(thresholds),
    )


def _limit_row(limit: Limit) -> dict[str, Any]:
    return {name: getattr(limit.rule, name) for name in LimitRule.__dataclass_fields__} | {
        "organization_id": limit.organization_id,
        "created_at_ns": limit.created_at_ns,
        "created_by": limit.created_by,
    }


def _limit(row: sa.Row[Any]) -> Limit:
    return Limit(
        rule=_limit_rule(row, row.kind),
        organization_id=row.organization_id,
        created_at_ns=row.created_at_ns,
        created_by=row.created_by,
    )


def _limit_rule(row: sa.Row[Any], kind: str) -> LimitRule:
    return LimitRule(
        id=row.id, scope=Scope(row.scope), scope_id=row.scope_id, selector=row.selector, kind=LimitKind(kind), amount=row.amount
    )


def _alias_row(alias: Alias) -> dict[str, Any]:
    return {name: getattr(alias, name) for name in Alias.__dataclass_fields__}


def _alias(row: sa.Row[Any]) -> Alias:
    return Alias(**{name: getattr(row, name) for name in Alias.__dataclass_fields__})
