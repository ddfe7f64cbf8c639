"""Use cases of budgets and limits that stand at a scope: organisation, team, developer, app, key, vendor, model, tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keygate.errors import Forbidden, InvalidInput, NotFound
from keygate.identities import Actor, Role
from keygate.kit.ids import new_id
from keygate.policies import validation
from keygate.policies.changes import RuleService, require_governor
from keygate.policies.model import BESIDE, Budget, BudgetSpec, Limit
from keygate.policies.records import budget_record, limit_record
from keygate.policies.service import home_zone
from keygate.policies.state import BudgetRule, LimitKind, LimitRule, Scope

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.kit.database import UnitOfWork


def placed_budget(spec: BudgetSpec, scope: Scope, scope_id: str, selector: str | None = None) -> BudgetRule:
    return BudgetRule(
        id=spec.id,
        scope=scope,
        scope_id=scope_id,
        selector=selector,
        period=spec.period,
        mode=spec.mode,
        amount_nano=spec.amount_nano,
        time_zone=spec.time_zone,
        rolling=spec.rolling,
        starts_at_ns=spec.starts_at_ns,
        thresholds=spec.thresholds,
    )


def terms_of(rule: BudgetRule) -> BudgetSpec:
    return BudgetSpec(
        id=rule.id,
        amount_nano=rule.amount_nano,
        period=rule.period,
        mode=rule.mode,
        rolling=rule.rolling,
        time_zone=rule.time_zone,
        thresholds=rule.thresholds,
        starts_at_ns=rule.starts_at_ns,
    )


class BudgetService(RuleService):
    """Budgets and limits. Owners and admins change them; developers see none but their keys' own, on the keys."""

    async def create_budget(self, actor: Actor, *, scope: Scope, scope_id: str | None, selector: str | None, terms: BudgetSpec) -> Budget:
        """Counts from now on. Raises `InvalidInput` where the scope, its id or its selector don't fit together."""
        now = self._clock.now_ns()
        async with self._change(actor, "budget.create", "budget") as work:
            require_governor(actor)
            scope_id, selector = _named(scope, scope_id, selector)
            place = await self._place(work.connection, actor, scope, scope_id)
            zone = terms.time_zone or await home_zone(self._owners, work, actor)
            spec = replace(terms, id=new_id("bud"), starts_at_ns=now, time_zone=zone)
            validation.budget_terms(spec, "amount_usd")
            rule = placed_budget(spec, scope, place, validation.selector(scope, selector, self._vendors))
            budget = Budget(rule=rule, organization_id=actor.organization_id, created_at_ns=now, created_by=actor.id)
            await self._repository.add_budgets(work.connection, [budget])
            await self._audit.record(work, actor, "budget.create", rule.id, after=budget_record(budget))
            self._changed_at(work, actor, rule)
        return budget

    async def update_budget(self, actor: Actor, budget_id: str, changes: Mapping[str, Any]) -> Budget:
        """`changes`: amount_nano, mode, thresholds. What is spent stays counted. Lowering an amount takes effect at once."""
        async with self._change(actor, "budget.update", budget_id) as work:
            before = await self._budget(work.connection, actor, budget_id)
            require_governor(actor)
            spec = validation.budget_terms(replace(terms_of(before.rule), **changes), "amount_usd")
            rule = placed_budget(spec, before.rule.scope, before.rule.scope_id, before.rule.selector)
            after = replace(before, rule=rule)
            await self._repository.save_budget(work.connection, after)
            await self._audit.record(work, actor, "budget.update", budget_id, before=budget_record(before), after=budget_record(after))
            self._changed_at(work, actor, after.rule)
        return after

    async def delete_budget(self, actor: Actor, budget_id: str) -> None:
        async with self._change(actor, "budget.delete", budget_id) as work:
            before = await self._budget(work.connection, actor, budget_id)
            require_governor(actor)
            await self._repository.remove_budgets(work.connection, actor.organization_id, [budget_id])
            await self._audit.record(work, actor, "budget.delete", budget_id, before=budget_record(before))
            self._changed_at(work, actor, before.rule)

    async def get_budget(self, actor: Actor, budget_id: str) -> Budget:
        _require_overview(actor)
        async with self._database.read() as connection:
            return await self._budget(connection, actor, budget_id)

    async def list_budgets(
        self, actor: Actor, *, scope: Scope | None, scope_id: str | None, after: str | None, limit: int
    ) -> Sequence[Budget]:
        _require_overview(actor)
        ids = None if scope_id is None else [scope_id]
        async with self._database.read() as connection:
            return await self._repository.list_budgets(
                connection, actor.organization_id, scope=scope, scope_ids=ids, after=after, limit=limit
            )

    async def create_limit(
        self, actor: Actor, *, scope: Scope, scope_id: str | None, selector: str | None, kind: LimitKind, amount: int
    ) -> Limit:
        async with self._change(actor, "limit.create", "limit") as work:
            require_governor(actor)
            validation.limit_amounts({kind: amount}, "amount")
            scope_id, selector = _named(scope, scope_id, selector)
            rule = LimitRule(
                id=new_id("lim"),
                scope=scope,
                scope_id=await self._place(work.connection, actor, scope, scope_id),
                selector=validation.selector(scope, selector, self._vendors),
                kind=kind,
                amount=amount,
            )
            limit = Limit(rule=rule, organization_id=actor.organization_id, created_at_ns=self._clock.now_ns(), created_by=actor.id)
            await self._repository.add_limits(work.connection, [limit])
            await self._audit.record(work, actor, "limit.create", rule.id, after=limit_record(limit))
            self._changed_at(work, actor, rule)
        return limit

    async def update_limit(self, actor: Actor, limit_id: str, *, amount: int) -> Limit:
        async with self._change(actor, "limit.update", limit_id) as work:
            before = await self._limit(work.connection, actor, limit_id)
            require_governor(actor)
            validation.limit_amounts({before.rule.kind: amount}, "amount")
            after = replace(before, rule=replace(before.rule, amount=amount))
            await self._repository.save_limit(work.connection, after)
            await self._audit.record(work, actor, "limit.update", limit_id, before=limit_record(before), after=limit_record(after))
            self._changed_at(work, actor, after.rule)
        return after

    async def delete_limit(self, actor: Actor, limit_id: str) -> None:
        async with self._change(actor, "limit.delete", limit_id) as work:
            before = await self._limit(work.connection, actor, limit_id)
            require_governor(actor)
            await self._repository.remove_limits(work.connection, actor.organization_id, [limit_id])
            await self._audit.record(work, actor, "limit.delete", limit_id, before=limit_record(before))
            self._changed_at(work, actor, before.rule)

    async def get_limit(self, actor: Actor, limit_id: str) -> Limit:
        _require_overview(actor)
        async with self._database.read() as connection:
            return await self._limit(connection, actor, limit_id)

    async def list_limits(
        self, actor: Actor, *, scope: Scope | None, scope_id: str | None, after: str | None, limit: int
    ) -> Sequence[Limit]:
        _require_overview(actor)
        ids = None if scope_id is None else [scope_id]
        async with self._database.read() as connection:
            return await self._repository.list_limits(
                connection, actor.organization_id, scope=scope, scope_ids=ids, after=after, limit=limit
            )

    async def _place(self, connection: AsyncConnection, actor: Actor, scope: Scope, scope_id: str | None) -> str:
        """The id that the rule hangs on: the organisation's for itself and for what stands beside the nesting scopes."""
        if scope is Scope.ORGANIZATION or scope in BESIDE:
            if scope_id not in {None, actor.organization_id}:
                raise InvalidInput(f"scope_id: leave it out for the scope {scope}", field="scope_id")
            return actor.organization_id
        if not scope_id:
            raise InvalidInput(f"scope_id: the scope {scope} needs the id of the {scope}", field="scope_id")
        if scope is Scope.KEY:
            known = await self._keys.key_exists(connection, actor.organization_id, scope_id)
        else:
            holder = (await self._owners.holders(connection, actor.organization_id, [scope_id])).get(scope_id)
            known = holder is not None and holder.scope is scope
        if not known:
            raise InvalidInput(f"scope_id: there is no {scope} with the id {scope_id[:60]!r}", field="scope_id")
        return scope_id

    async def _budget(self, connection: AsyncConnection, actor: Actor, budget_id: str) -> Budget:
        budget = await self._repository.budget(connection, actor.organization_id, budget_id)
        if budget is None:
            raise NotFound("There is no budget with this id")
        return budget

    async def _limit(self, connection: AsyncConnection, actor: Actor, limit_id: str) -> Limit:
        limit = await self._repository.limit(connection, actor.organization_id, limit_id)
        if limit is None:
            raise NotFound("There is no limit with this id")
        return limit

    def _changed_at(self, work: UnitOfWork, actor: Actor, rule: BudgetRule | LimitRule) -> None:
        if rule.scope is Scope.KEY:
            work.after_commit(lambda: self._publisher.keys_changed([rule.scope_id]))
        else:
            self._changed(work, actor)


def _require_overview(actor: Actor) -> None:
    if actor.role is Role.DEVELOPER:
        raise Forbidden("Developers see the budgets and limits of their own keys, on those keys")


def _named(scope: Scope, scope_id: str | None, selector: str | None) -> tuple[str | None, str | None]:
    """What a rule hangs on. A vendor, model or tag has no id but its name, so that `scope_id` names it as well as `selector` does."""
    return (None, scope_id) if scope in BESIDE and selector is None else (scope_id, selector)
