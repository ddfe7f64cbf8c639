"""Policies, budgets, limits and aliases on a real database, and how they reach keys."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound
from keygate.identities.tables import organizations, teams, users
from keygate.kit.money import NANO
from keygate.policies import BudgetMode, BudgetSpec, Deny, LimitKind, Period, Place, PolicyDraft, Rules, Scope, evaluate
from keygate.virtual_keys import KeyDraft

DAY = BudgetSpec(amount_nano=5 * NANO, period=Period.DAY)
DEV = Place(Scope.DEVELOPER, "dev_1")


async def test_a_policy_gives_each_key_that_carries_it_an_account_of_its_own(house) -> None:
    policy = await house.policies.create(
        house.admin,
        PolicyDraft(name="standard", rules=Rules(models_deny=("*opus*",)), limits={LimitKind.TOKENS_PER_DAY: 9}, budgets=[DAY]),
    )
    a = (await house.keys.create(house.admin, KeyDraft(name="a", policy_id=policy.id))).state
    b = (await house.keys.create(house.admin, KeyDraft(name="b", policy_id=policy.id))).state
    assert (a.budgets[0].scope, a.budgets[0].scope_id) == (Scope.KEY, a.id)
    assert a.budgets[0].id != b.budgets[0].id
    assert a.limits[0].id != b.limits[0].id
    assert all(len(rule.id) <= 64 for rule in (*a.budgets, *a.limits))
    decision = evaluate(a, vendor="anthropic", model="claude-opus-4-5", endpoint="chat", now_ns=0)
    assert isinstance(decision, Deny)
    assert "'standard'" in decision.detail


async def test_readers_of_recorded_content_are_roles_or_users_of_the_organisation(house) -> None:
    async with house.database.unit() as work:
        for organization in ("org_1", "org_2"):
            row = {"id": f"usr_of_{organization}", "organization_id": organization, "email": f"{organization}@x.org", "name": "Ada"}
            more = {"role": "viewer", "status": "deactivated", "password_hash": "x", "created_at_ns": 1}
            await work.connection.execute(sa.insert(users).values(row | more))
    named = Rules(record_content=True, content_readers=("viewer", "usr_of_org_1"))
    policy = await house.policies.create(house.admin, PolicyDraft(name="recorded", rules=named))
    for reader in ("ownr", "usr_nobody", "usr_of_org_2", "tok_1"):
        with pytest.raises(InvalidInput, match=rf"content_readers: '{reader}' is neither a role \(owner, .*\) nor") as refused:
            await house.policies.create(house.admin, PolicyDraft(name=reader, rules=replace(named, content_readers=("owner", reader))))
        assert refused.value.field == "content_readers"
        with pytest.raises(InvalidInput, match=reader):
            await house.policies.update(house.admin, policy.id, {"content_readers": ("owner", reader)})
    after = await house.policies.update(house.admin, policy.id, {"content_readers": ("usr_of_org_1", "owner")})
    assert after.rules.content_readers == ("usr_of_org_1", "owner")


async def test_a_policy_of_an_owner_reaches_every_key_below_once(house) -> None:
    policy = await house.policies.create(house.admin, PolicyDraft(name="standard", rules=Rules(vendors=("openai",)), budgets=[DAY]))
    await house.set_row(organizations, "org_1", policy_id=policy.id)
    await house.set_row(teams, "team_1", policy_id=policy.id)
    state = (await house.keys.create(house.admin, KeyDraft(name="a", owner=DEV, policy_id=policy.id))).state
    assert [(rules.scope, rules.vendors) for rules in state.rules] == [(Scope.ORGANIZATION, frozenset({"openai"}))]
    assert len(state.budgets) == 1


async def test_a_policy_that_is_gone_allows_nothing(house) -> None:
    await house.set_row(teams, "team_1", policy_id="pol_gone")
    state = (await house.keys.create(house.admin, KeyDraft(name="a", owner=DEV))).state
    assert isinstance(evaluate(state, vendor="openai", model="gpt-4.1", endpoint="chat", now_ns=0), Deny)


async def test_changing_a_policy_reaches_its_keys_and_keeps_their_accounts(house) -> None:
    policy = await house.policies.create(house.admin, PolicyDraft(name="standard", budgets=[DAY]))
    key = await house.keys.create(house.admin, KeyDraft(name="a", policy_id=policy.id))
    changed = await house.policies.update(
        house.admin, policy.id, {"models_allow": ("gpt-4.1",), "budgets": [replace(DAY, amount_nano=1, mode=BudgetMode.SOFT)]}
    )
    assert changed.rules.models_allow == ("openai/gpt-4.1",)
    after = (await house.source.load_by_ids([key.view.key.id]))[0]
    assert after.budgets[0].id == key.state.budgets[0].id
    assert (after.budgets[0].amount_nano, after.budgets[0].mode) == (1, BudgetMode.SOFT)
    assert house.publisher.organizations[-1] == "org_1"


async def test_a_policy_in_use_can_not_be_deleted_and_an_unused_one_can(house) -> None:
    policy = await house.policies.create(house.admin, PolicyDraft(name="standard"))
    key = await house.keys.create(house.admin, KeyDraft(name="a", policy_id=policy.id))
    await house.set_row(teams, "team_1", policy_id=policy.id)
    for release in (lambda: house.keys.revoke(house.admin, key.view.key.id), lambda: house.set_row(teams, "team_1", policy_id=None)):
        with pytest.raises(Conflict):
            await house.policies.delete(house.admin, policy.id)
        await release()
    await house.policies.delete(house.admin, policy.id)
    with pytest.raises(NotFound):
        await house.policies.get(house.admin, policy.id)
    assert sorted(entry.outcome for entry in await house.entries("policy.delete")) == ["done", "refused", "refused"]


async def test_names_of_policies_and_aliases_are_taken_once(house) -> None:
    first = await house.policies.create(house.admin, PolicyDraft(name="standard"))
    other = await house.policies.create(house.admin, PolicyDraft(name="other"))
    await house.aliases.create(house.admin, alias="fast", target="gpt-4.1-mini")
    for attempt in (
        house.policies.create(house.admin, PolicyDraft(name="standard")),
        house.policies.update(house.admin, other.id, {"name": "standard"}),
        house.aliases.create(house.admin, alias="fast", target="openai/gpt-4.1"),
    ):
        with pytest.raises(Conflict):
            await attempt
    assert (await house.policies.update(house.admin, first.id, {"name": "standard"})).version == 2


async def test_budgets_of_every_scope_above_a_key_reach_it(house) -> None:
    places = [
        (Scope.ORGANIZATION, None, None),
        (Scope.TEAM, "team_1", None),
        (Scope.DEVELOPER, "dev_1", None),
        (Scope.VENDOR, None, "openai"),
        (Scope.MODEL, None, "anthropic/claude-opus-*"),
        (Scope.TAG, None, "project=x"),
        (Scope.TEAM, "team_2", None),
    ]
    for scope, scope_id, selector in places:
        await house.budgets.create_budget(house.admin, scope=scope, scope_id=scope_id, selector=selector, terms=DAY)
    state = (await house.keys.create(house.admin, KeyDraft(name="a", owner=DEV))).state
    found = [(b.scope, b.scope_id, b.selector) for b in state.budgets]
    assert found == [
        (Scope.ORGANIZATION, "org_1", None),
        (Scope.VENDOR, "org_1", "openai"),
        (Scope.MODEL, "org_1", "anthropic/claude-opus-*"),
        (Scope.TAG, "org_1", "project=x"),
        (Scope.TEAM, "team_1", None),
        (Scope.DEVELOPER, "dev_1", None),
    ]


@pytest.mark.parametrize(
    ("scope", "scope_id", "selector"),
    [
        (Scope.TEAM, None, None),
        (Scope.TEAM, "dev_1", None),
        (Scope.KEY, "vk_none", None),
        (Scope.VENDOR, None, None),
        (Scope.VENDOR, None, "nobody"),
        (Scope.VENDOR, "team_1", "openai"),
        (Scope.TEAM, "team_1", "openai"),
        (Scope.ORGANIZATION, "org_2", None),
    ],
)
async def test_a_budget_needs_a_scope_that_exists_and_a_selector_that_fits(house, scope, scope_id, selector) -> None:
    with pytest.raises(InvalidInput):
        await house.budgets.create_budget(house.admin, scope=scope, scope_id=scope_id, selector=selector, terms=DAY)
    with pytest.raises(InvalidInput):
        await house.budgets.create_limit(
            house.admin, scope=scope, scope_id=scope_id, selector=selector, kind=LimitKind.REQUESTS_PER_DAY, amount=1
        )


async def test_a_budget_and_a_limit_change_and_go_and_the_gateway_is_told_whom_it_concerns(house) -> None:
    key_id = (await house.keys.create(house.admin, KeyDraft(name="a"))).view.key.id
    house.publisher.keys.clear()
    budget = await house.budgets.create_budget(house.admin, scope=Scope.KEY, scope_id=key_id, selector=None, terms=DAY)
    limit = await house.budgets.create_limit(
        house.admin, scope=Scope.ORGANIZATION, scope_id=None, selector=None, kind=LimitKind.REQUESTS_PER_DAY, amount=5
    )
    assert (house.publisher.keys, house.publisher.organizations) == ([key_id], ["org_1"])
    await house.budgets.update_budget(house.admin, budget.rule.id, {"amount_nano": 1})
    await house.budgets.update_limit(house.admin, limit.rule.id, amount=1)
    state = (await house.source.load_by_ids([key_id]))[0]
    assert [(b.id, b.amount_nano) for b in state.budgets] == [(budget.rule.id, 1)]
    assert [(rule.id, rule.amount) for rule in state.limits] == [(limit.rule.id, 1)]
    await house.budgets.delete_budget(house.admin, budget.rule.id)
    await house.budgets.delete_limit(house.admin, limit.rule.id)
    state = (await house.source.load_by_ids([key_id]))[0]
    assert (state.budgets, state.limits) == ((), ())


async def test_aliases_stand_sorted_in_every_state_of_their_organisation(house) -> None:
    for alias, target in (("smart", "anthropic/claude-opus-4-5"), ("fast", "gpt-4.1-mini")):
        await house.aliases.create(house.admin, alias=alias, target=target)
    state = (await house.keys.create(house.admin, KeyDraft(name="a"))).state
    assert state.aliases == (("fast", "openai/gpt-4.1-mini"), ("smart", "anthropic/claude-opus-4-5"))


@pytest.mark.parametrize("alias", ["gpt-4.1", "openai/x", "a b", "", "a*"])
async def test_an_alias_never_hides_a_vendors_own_name(house, alias) -> None:
    with pytest.raises(InvalidInput):
        await house.aliases.create(house.admin, alias=alias, target="openai/gpt-4.1")


async def test_developers_change_nothing_above_their_keys_and_each_attempt_is_recorded(house) -> None:
    for attempt in (
        house.policies.create(house.developer, PolicyDraft(name="mine")),
        house.budgets.create_budget(house.developer, scope=Scope.ORGANIZATION, scope_id=None, selector=None, terms=DAY),
        house.aliases.create(house.developer, alias="fast", target="openai/gpt-4.1"),
        house.budgets.list_budgets(house.developer, scope=None, scope_id=None, after=None, limit=10),
    ):
        with pytest.raises(Forbidden):
            await attempt
    for action in ("policy.create", "budget.create", "alias.create"):
        assert [entry.outcome for entry in await house.entries(action)] == ["refused"]


async def test_another_organisation_finds_nothing_to_change(house) -> None:
    policy = await house.policies.create(house.admin, PolicyDraft(name="standard"))
    budget = await house.budgets.create_budget(house.admin, scope=Scope.ORGANIZATION, scope_id=None, selector=None, terms=DAY)
    for attempt in (
        house.policies.get(house.stranger, policy.id),
        house.policies.delete(house.stranger, policy.id),
        house.budgets.delete_budget(house.stranger, budget.rule.id),
        house.budgets.get_budget(house.stranger, budget.rule.id),
    ):
        with pytest.raises(NotFound):
            await attempt
