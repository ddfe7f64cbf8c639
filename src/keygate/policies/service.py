"""Use cases of policies and aliases. Every change is one recorded transaction; the gateway knows of it before the caller does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from keygate.errors import Conflict, InvalidInput, NotFound
from keygate.identities import Actor, Role
from keygate.kit.ids import new_id
from keygate.policies import validation
from keygate.policies.changes import RuleService, require_governor
from keygate.policies.model import BudgetSpec, Policy, Rules
from keygate.policies.ports import OwnerDirectory
from keygate.policies.records import policy_record
from keygate.policies.state import LimitKind

if TYPE_CHECKING:
    from keygate.kit.database import UnitOfWork

MAX_POLICY_BUDGETS = 20


@dataclass(frozen=True, slots=True)
class PolicyDraft:
    """The writable part of a policy."""

    name: str
    description: str = ""
    rules: Rules = field(default_factory=Rules)
    limits: Mapping[LimitKind, int] = field(default_factory=dict)
    budgets: Sequence[BudgetSpec] = ()


class PolicyService(RuleService):
    async def create(self, actor: Actor, draft: PolicyDraft) -> Policy:
        """Raises `InvalidInput` for a rule that can't be, `Conflict` where the name is taken."""
        now = self._clock.now_ns()
        async with self._change(actor, "policy.create", "policy") as work:
            require_governor(actor)
            policy = self._checked(
                Policy(
                    id=new_id("pol"),
                    organization_id=actor.organization_id,
                    name=draft.name,
                    description=draft.description,
                    rules=draft.rules,
                    limits=validation.limit_amounts(dict(draft.limits)),
                    budgets=await self._budgets(work, actor, draft.budgets, (), now),
                    version=1,
                    created_at_ns=now,
                    created_by=actor.id,
                    updated_at_ns=now,
                ),
            )
            await self._check_readers(work, actor, policy.rules.content_readers)
            await self._repository.add_policy(work.connection, policy)
            await self._audit.record(work, actor, "policy.create", policy.id, after=policy_record(policy))
            self._changed(work, actor)
        return policy

    async def update(self, actor: Actor, policy_id: str, changes: Mapping[str, Any]) -> Policy:
        """`changes` holds fields of `PolicyDraft`, and fields of `Rules` by their own names. Takes effect at once on every key that
        carries the policy. A budget keeps its account where its period stays."""
        async with self._change(actor, "policy.update", policy_id) as work:
            before = await self._repository.policy(work.connection, actor.organization_id, policy_id)
            if before is None:
                raise NotFound("There is no policy with this id")
            require_governor(actor)
            now = self._clock.now_ns()
            own = {name: changes[name] for name in ("name", "description") if name in changes}
            rules = {name: value for name, value in changes.items() if name in Rules.__dataclass_fields__}
            if "limits" in changes:
                own["limits"] = validation.limit_amounts(changes["limits"])
            if "budgets" in changes:
                own["budgets"] = await self._budgets(work, actor, changes["budgets"], before.budgets, now)
            changed = replace(before, **own, rules=replace(before.rules, **rules), version=before.version + 1, updated_at_ns=now)
            after = self._checked(changed)
            fresh = [reader for reader in after.rules.content_readers if reader not in before.rules.content_readers]
            await self._check_readers(work, actor, fresh)
            await self._repository.save_policy(work.connection, after)
            await self._audit.record(work, actor, "policy.update", policy_id, before=policy_record(before), after=policy_record(after))
            self._changed(work, actor)
        return after

    async def delete(self, actor: Actor, policy_id: str) -> None:
        """Raises `Conflict` while anything that works names the policy: removing it would widen what that may do."""
        async with self._change(actor, "policy.delete", policy_id) as work:
            before = await self._repository.policy(work.connection, actor.organization_id, policy_id)
            if before is None:
                raise NotFound("There is no policy with this id")
            require_governor(actor)
            carriers = await self._keys.keys_with_policy(work.connection, actor.organization_id, policy_id)
            holders = await self._owners.holders_with_policy(work.connection, actor.organization_id, policy_id)
            if carriers or holders:
                raise Conflict(
                    f"{carriers} keys and {holders} of organisation, teams, developers and apps carry this policy; take it from them first"
                )
            await self._repository.remove_policy(work.connection, actor.organization_id, policy_id)
            await self._audit.record(work, actor, "policy.delete", policy_id, before=policy_record(before))
            self._changed(work, actor)

    async def get(self, actor: Actor, policy_id: str) -> Policy:
        async with self._database.read() as connection:
            policy = await self._repository.policy(connection, actor.organization_id, policy_id)
        if policy is None:
            raise NotFound("There is no policy with this id")
        return policy

    async def list(self, actor: Actor, *, after: str | None, limit: int) -> Sequence[Policy]:
        async with self._database.read() as connection:
            return await self._repository.list_policies(connection, actor.organization_id, after=after, limit=limit)

    def _checked(self, policy: Policy) -> Policy:
        return replace(
            policy,
            name=validation.text(policy.name, "name"),
            description=validation.text(policy.description, "description", longest=2_000, empty=True),
            rules=validation.whole_rules(policy.rules, self._vendors),
        )

    async def _check_readers(self, work: UnitOfWork, actor: Actor, readers: Sequence[str]) -> None:
        """Raises `InvalidInput` for what is neither a role nor a user: nobody could ever read what is recorded for it."""
        named = [reader for reader in readers if reader not in set(Role)]
        known = await self._owners.users_among(work.connection, actor.organization_id, named) if named else frozenset()
        for reader in named:
            if reader not in known:
                raise InvalidInput(
                    f"content_readers: {reader[:60]!r} is neither a role ({', '.join(Role)}) nor the id of a user here",
                    field="content_readers",
                )

    async def _budgets(
        self, work: UnitOfWork, actor: Actor, wanted: Sequence[BudgetSpec], former: Sequence[BudgetSpec], now: int
    ) -> tuple[BudgetSpec, ...]:
        if len(wanted) > MAX_POLICY_BUDGETS:
            raise InvalidInput(f"budgets: at most {MAX_POLICY_BUDGETS}", field="budgets")
        return kept_accounts(wanted, former, now_ns=now, time_zone=await home_zone(self._owners, work, actor))


async def home_zone(owners: OwnerDirectory, work: UnitOfWork, actor: Actor) -> str:
    """The time zone of budgets that name none: the organisation's."""
    organization = await owners.organization(work.connection, actor.organization_id)
    return "UTC" if organization is None else organization.time_zone


def kept_accounts(wanted: Sequence[BudgetSpec], former: Sequence[BudgetSpec], *, now_ns: int, time_zone: str) -> tuple[BudgetSpec, ...]:
    """Checks each wanted budget, and gives it the id of the former one that counts the same period, so that a changed amount or mode
    forgives nothing that was spent; what has no match is new and counts from now."""
    left = list(former)
    placed = []
    for spec in wanted:
        alike = [old for old in left if (old.period, old.rolling) == (spec.period, spec.rolling) and spec.time_zone in {"", old.time_zone}]
        match = next((old for old in alike if old.mode is spec.mode), alike[0] if alike else None)
        if match is None:
            spec = replace(spec, id=new_id("bud"), starts_at_ns=now_ns, time_zone=spec.time_zone or time_zone)  # noqa: PLW2901  (completed)
        else:
            left.remove(match)
            spec = replace(spec, id=match.id, starts_at_ns=match.starts_at_ns, time_zone=match.time_zone)  # noqa: PLW2901  (completed)
        placed.append(validation.budget_terms(spec))
    return tuple(placed)
