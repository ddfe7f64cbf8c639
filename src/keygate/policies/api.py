"""`/policies`, `/budgets`, `/limits`, `/aliases`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Query

from keygate.identities import Actor
from keygate.kit.routes import Page, PageQuery, Routes, current_actor, service
from keygate.kit.secret import Secret
from keygate.policies.aliases import AliasService
from keygate.policies.budgets import BudgetService
from keygate.policies.explanation import ExplainService
from keygate.policies.model import Rules
from keygate.policies.schemas import (
    AliasCreate,
    AliasUpdate,
    AliasView,
    BudgetCreate,
    BudgetUpdate,
    BudgetView,
    ExplainRequest,
    ExplainView,
    LimitCreate,
    LimitUpdate,
    LimitView,
    PolicyCreate,
    PolicyUpdate,
    PolicyView,
    rule_changes,
)
from keygate.policies.service import PolicyDraft, PolicyService
from keygate.policies.state import Scope

policies = Routes("/policies", tag="policies")
budgets = Routes("/budgets", tag="budgets")
limits = Routes("/limits", tag="limits")
aliases = Routes("/aliases", tag="aliases")
ALL = (policies, budgets, limits, aliases)

_Actor = Annotated[Actor, Depends(current_actor)]
_Page = Annotated[PageQuery, Depends()]
_Id = Annotated[str, Path(max_length=100)]
_Policies = Annotated[PolicyService, service(PolicyService)]
_Budgets = Annotated[BudgetService, service(BudgetService)]
_Aliases = Annotated[AliasService, service(AliasService)]
_Scope = Annotated[Scope | None, Query()]
_ScopeId = Annotated[str | None, Query(max_length=100)]

_ABSENT: dict[int | str, dict[str, Any]] = {404: {"description": "Absent, or not visible to this actor"}}
_TAKEN: dict[int | str, dict[str, Any]] = {409: {"description": "The name is taken, or the state does not allow it"}}


@policies.post("", permission="policies.write", status_code=201, responses=_TAKEN)
async def create_policy(body: PolicyCreate, actor: _Actor, found: _Policies) -> PolicyView:
    """Makes a reusable named set of rules. Its limits and budgets apply to each key that carries it, on that key's own account."""
    named = {name: getattr(body, name) for name in type(body).model_fields}
    draft = PolicyDraft(
        name=body.name,
        description=body.description,
        rules=Rules(**rule_changes(named), record_content=body.record_content),
        limits=body.limits.amounts(),
        budgets=[terms.spec() for terms in body.budgets],
    )
    return PolicyView.of(await found.create(actor, draft))


@policies.get("", permission="policies.read")
async def list_policies(actor: _Actor, page: _Page, found: _Policies) -> Page[PolicyView]:
    """Policies, oldest first."""
    rows, cursor = page.page(await found.list(actor, after=page.after, limit=page.limit + 1), key=lambda policy: policy.id)
    return Page(items=[PolicyView.of(policy) for policy in rows], next_cursor=cursor)


@policies.post("/explain", permission="policies.explain", responses=_ABSENT)
async def explain(body: ExplainRequest, actor: _Actor, found: Annotated[ExplainService, service(ExplainService)]) -> ExplainView:
    """What would happen to a call, and why: layer by layer, with budgets and limits as they stand. Nothing is called or reserved.

    The call is one under `/v1`, of the size that is given. `status` and `code` are those of the gateway's answer."""
    told = await found.explain(
        actor,
        key=None if body.key is None else Secret(body.key),
        key_id=body.key_id,
        model=body.model,
        endpoint=body.endpoint,
        input_tokens=body.input_tokens,
        output_tokens=body.max_output_tokens,
    )
    return ExplainView.of(told)


@policies.get("/{policy_id}", permission="policies.read", responses=_ABSENT)
async def get_policy(policy_id: _Id, actor: _Actor, found: _Policies) -> PolicyView:
    """One policy."""
    return PolicyView.of(await found.get(actor, policy_id))


@policies.patch("/{policy_id}", permission="policies.write", responses=_ABSENT | _TAKEN)
async def update_policy(policy_id: _Id, body: PolicyUpdate, actor: _Actor, found: _Policies) -> PolicyView:
    """Changes what is named; `limits` and `budgets` are replaced whole. Takes effect on the next request of every key concerned."""
    return PolicyView.of(await found.update(actor, policy_id, body.changes()))


@policies.delete("/{policy_id}", permission="policies.write", status_code=204, responses=_ABSENT | _TAKEN)
async def delete_policy(policy_id: _Id, actor: _Actor, found: _Policies) -> None:
    """Removes a policy that nothing carries any more."""
    await found.delete(actor, policy_id)


@budgets.post("", permission="budgets.write", status_code=201)
async def create_budget(body: BudgetCreate, actor: _Actor, found: _Budgets) -> BudgetView:
    """Money over a period, shared by all keys below its scope. Counts from now on."""
    made = await found.create_budget(actor, scope=body.scope, scope_id=body.scope_id, selector=body.selector, terms=body.spec())
    return BudgetView.at(made)


@budgets.get("", permission="budgets.read")
async def list_budgets(actor: _Actor, page: _Page, found: _Budgets, scope: _Scope = None, scope_id: _ScopeId = None) -> Page[BudgetView]:
    """Budgets, those of keys included; those inside policies stand there."""
    listed = await found.list_budgets(actor, scope=scope, scope_id=scope_id, after=page.after, limit=page.limit + 1)
    rows, cursor = page.page(listed, key=lambda budget: budget.rule.id)
    return Page(items=[BudgetView.at(budget) for budget in rows], next_cursor=cursor)


@budgets.get("/{budget_id}", permission="budgets.read", responses=_ABSENT)
async def get_budget(budget_id: _Id, actor: _Actor, found: _Budgets) -> BudgetView:
    """One budget."""
    return BudgetView.at(await found.get_budget(actor, budget_id))


@budgets.patch("/{budget_id}", permission="budgets.write", responses=_ABSENT)
async def update_budget(budget_id: _Id, body: BudgetUpdate, actor: _Actor, found: _Budgets) -> BudgetView:
    """Changes the amount, mode or thresholds. What is spent stays counted."""
    return BudgetView.at(await found.update_budget(actor, budget_id, body.changes()))


@budgets.delete("/{budget_id}", permission="budgets.write", status_code=204, responses=_ABSENT)
async def delete_budget(budget_id: _Id, actor: _Actor, found: _Budgets) -> None:
    """Removes a budget; its history stays in the ledger."""
    await found.delete_budget(actor, budget_id)


@limits.post("", permission="limits.write", status_code=201)
async def create_limit(body: LimitCreate, actor: _Actor, found: _Budgets) -> LimitView:
    """Requests, tokens or concurrency, shared by all keys below its scope."""
    made = await found.create_limit(
        actor, scope=body.scope, scope_id=body.scope_id, selector=body.selector, kind=body.kind, amount=body.amount
    )
    return LimitView.at(made)


@limits.get("", permission="limits.read")
async def list_limits(actor: _Actor, page: _Page, found: _Budgets, scope: _Scope = None, scope_id: _ScopeId = None) -> Page[LimitView]:
    """Limits, those of keys included."""
    listed = await found.list_limits(actor, scope=scope, scope_id=scope_id, after=page.after, limit=page.limit + 1)
    rows, cursor = page.page(listed, key=lambda limit: limit.rule.id)
    return Page(items=[LimitView.at(limit) for limit in rows], next_cursor=cursor)


@limits.get("/{limit_id}", permission="limits.read", responses=_ABSENT)
async def get_limit(limit_id: _Id, actor: _Actor, found: _Budgets) -> LimitView:
    """One limit."""
    return LimitView.at(await found.get_limit(actor, limit_id))


@limits.patch("/{limit_id}", permission="limits.write", responses=_ABSENT)
async def update_limit(limit_id: _Id, body: LimitUpdate, actor: _Actor, found: _Budgets) -> LimitView:
    """Changes the amount."""
    return LimitView.at(await found.update_limit(actor, limit_id, amount=body.amount))


@limits.delete("/{limit_id}", permission="limits.write", status_code=204, responses=_ABSENT)
async def delete_limit(limit_id: _Id, actor: _Actor, found: _Budgets) -> None:
    """Removes a limit."""
    await found.delete_limit(actor, limit_id)


@aliases.post("", permission="models.write", status_code=201, responses=_TAKEN)
async def create_alias(body: AliasCreate, actor: _Actor, found: _Aliases) -> AliasView:
    """Gives a model a name of the organisation's own."""
    return AliasView.of(await found.create(actor, alias=body.alias, target=body.target))


@aliases.get("", permission="models.read")
async def list_aliases(actor: _Actor, page: _Page, found: _Aliases) -> Page[AliasView]:
    """Aliases, oldest first."""
    rows, cursor = page.page(await found.list(actor, after=page.after, limit=page.limit + 1), key=lambda alias: alias.id)
    return Page(items=[AliasView.of(alias) for alias in rows], next_cursor=cursor)


@aliases.get("/{alias_id}", permission="models.read", responses=_ABSENT)
async def get_alias(alias_id: _Id, actor: _Actor, found: _Aliases) -> AliasView:
    """One alias."""
    return AliasView.of(await found.get(actor, alias_id))


@aliases.patch("/{alias_id}", permission="models.write", responses=_ABSENT)
async def update_alias(alias_id: _Id, body: AliasUpdate, actor: _Actor, found: _Aliases) -> AliasView:
    """Points an alias at another model, at once."""
    return AliasView.of(await found.update(actor, alias_id, target=body.target))


@aliases.delete("/{alias_id}", permission="models.write", status_code=204, responses=_ABSENT)
async def delete_alias(alias_id: _Id, actor: _Actor, found: _Aliases) -> None:
    """Removes an alias."""
    await found.delete(actor, alias_id)
