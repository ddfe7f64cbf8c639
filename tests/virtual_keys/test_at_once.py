"""Changes of one organisation that meet: each is done or refused by name, and none undoes what another has decided."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.virtual_keys.conftest import Bulletin

from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound, Throttled, Unauthenticated
from keygate.identities import Passwords, Role, Status
from keygate.identities.wiring import identities
from keygate.kit.secret import Secret
from keygate.policies import BudgetMode, BudgetSpec, KeyStatus, Period, Place, PolicyDraft, Scope
from keygate.virtual_keys import KeyDraft, KeyFilter

NANO = 10**9
REFUSALS = (Conflict, Forbidden, InvalidInput, NotFound, Throttled, Unauthenticated)
PASSWORD = Secret("correct horse battery")
DEV_1, DEV_2, APP, TEAM = (
    Place(scope, name)
    for scope, name in ((Scope.DEVELOPER, "dev_1"), (Scope.DEVELOPER, "dev_2"), (Scope.APP, "app_1"), (Scope.TEAM, "team_1"))
)


@pytest.fixture
async def firm(house: SimpleNamespace) -> SimpleNamespace:
    """The house, with the people of `org_1` and what listens to them."""
    people = identities(
        house.database,
        audit=house.audit,
        clock=house.clock,
        publisher=Bulletin(),
        holders=house.keys,
        outbox=house.outbox,
        policies=house.policy_repository,
        passwords=Passwords(memory_kib=8, passes=1),
    )
    boss = replace(house.admin, role=Role.OWNER)
    owners = []
    for number in range(3):
        made = await people.users.create(boss, email=f"o{number}@x.org", name="O", role=Role.OWNER, password=PASSWORD)
        owners.append(made.id)
    linked = await people.users.create(boss, email="d1@x.org", name="D", role=Role.OWNER, password=PASSWORD, developer_id="dev_1")
    return SimpleNamespace(**vars(house), people=people, boss=boss, user_ids=[*owners, linked.id])


async def _all(calls: list[Awaitable[Any]]) -> list[Any]:
    """Runs them together. What is raised must be a refusal: anything else (a deadlock, a lock not had in time) fails the test."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, REFUSALS):
            raise outcome
    return outcomes


async def test_changes_that_lock_the_same_rows_in_any_order_never_wait_for_each_other_in_a_circle(firm) -> None:
    chance, people, boss = random.Random(20261126), firm.people, firm.boss
    policy = await firm.policies.create(boss, PolicyDraft(name="p"))
    keys = [(await firm.keys.create(boss, KeyDraft(name="k", owner=owner))).view.key.id for owner in (DEV_1, DEV_2, APP, TEAM) * 3]
    spec = BudgetSpec(amount_nano=NANO, period=Period.DAY, mode=BudgetMode.HARD)

    def user() -> str:
        return chance.choice(firm.user_ids)

    def key() -> str:
        return chance.choice(keys)

    def developer() -> str:
        return chance.choice(["dev_1", "dev_2"])

    def team() -> str:
        return chance.choice(["team_1", "team_2"])

    acts: list[Callable[[], Awaitable[Any]]] = [
        lambda: people.users.update(boss, user(), {"role": chance.choice([Role.OWNER, Role.ADMIN])}),
        lambda: people.users.update(boss, user(), {"status": chance.choice(list(Status))}),
        lambda: people.users.update(boss, user(), {"developer_id": developer()}),
        lambda: people.users.set_password(boss, user(), PASSWORD),
        lambda: people.sessions.login(f"o{chance.randrange(3)}@x.org", PASSWORD, address="10.0.0.1"),
        lambda: people.developers.update(boss, developer(), {"team_id": team()}),
        lambda: people.developers.deactivate(boss, developer()),
        lambda: people.developers.activate(boss, developer()),
        lambda: people.apps.update(boss, "app_1", {"team_id": team(), "developer_id": developer()}),
        lambda: people.apps.create(boss, name=f"a{chance.random()}", team_id=team(), developer_id=developer(), policy_id=policy.id),
        lambda: people.teams.update(boss, team(), {"policy_id": policy.id}),
        lambda: people.teams.archive(boss, team()),
        lambda: firm.keys.update(boss, key(), {"budgets": [spec], "policy_id": policy.id}),
        lambda: firm.keys.rotate(boss, key(), grace_seconds=60),
        lambda: firm.keys.revoke(boss, key()),
        lambda: firm.keys.create(boss, KeyDraft(name="n", owner=chance.choice([DEV_1, DEV_2, APP, TEAM]), policy_id=policy.id)),
        lambda: firm.keys.touch({key(): firm.clock.now_ns(), key(): firm.clock.now_ns()}),
        lambda: firm.policies.update(boss, policy.id, {"description": "x"}),
    ]
    for _ in range(25):
        await _all([act() for act in chance.sample(acts, 8)])
    verdict = await firm.audit.verify("org_1")
    assert verdict.fault is None
    assert verdict.entries > 100


async def test_owners_who_leave_at_once_leave_one(firm) -> None:
    for _ in range(10):
        await _all([firm.people.users.update(firm.boss, user_id, {"status": Status.DEACTIVATED}) for user_id in firm.user_ids])
        left = [user for user in await firm.people.users.list(firm.boss, after=None, limit=10) if user.active]
        assert len(left) == 1
        for user_id in firm.user_ids:
            await firm.people.users.update(firm.boss, user_id, {"status": Status.ACTIVE})


async def test_no_key_is_made_for_a_developer_who_leaves_meanwhile(firm) -> None:
    for _ in range(15):
        draft = KeyDraft(name="late", owner=DEV_2)
        await _all([*(firm.keys.create(firm.boss, draft) for _ in range(3)), firm.people.developers.deactivate(firm.boss, "dev_2")])
        held = await firm.keys.page(firm.boss, KeyFilter(owner_id="dev_2"), after=None, limit=200)
        assert [view.key.id for view in held if view.key.revoked_at_ns is None] == []
        await firm.people.developers.activate(firm.boss, "dev_2")


async def test_no_key_is_made_with_a_policy_that_goes_meanwhile(firm) -> None:
    for number in range(15):
        policy = await firm.policies.create(firm.boss, PolicyDraft(name=f"p{number}"))
        draft = KeyDraft(name="bound", policy_id=policy.id)
        made, gone = await _all([firm.keys.create(firm.boss, draft), firm.policies.delete(firm.boss, policy.id)])
        assert isinstance(made, InvalidInput) != isinstance(gone, Conflict)


async def test_two_changes_of_a_budget_both_hold(firm) -> None:
    terms = BudgetSpec(amount_nano=10 * NANO, period=Period.DAY, mode=BudgetMode.HARD)
    for _ in range(15):
        made = await firm.budgets.create_budget(firm.boss, scope=Scope.ORGANIZATION, scope_id=None, selector=None, terms=terms)
        await _all(
            [
                firm.budgets.update_budget(firm.boss, made.rule.id, {"amount_nano": NANO}),
                firm.budgets.update_budget(firm.boss, made.rule.id, {"mode": BudgetMode.SOFT}),
            ]
        )
        after = (await firm.budgets.get_budget(firm.boss, made.rule.id)).rule
        assert (after.amount_nano, after.mode) == (NANO, BudgetMode.SOFT)


async def test_a_key_and_its_budget_that_change_at_once_both_hold(firm) -> None:
    spec = BudgetSpec(amount_nano=10 * NANO, period=Period.DAY, mode=BudgetMode.HARD)
    key = (await firm.keys.create(firm.boss, KeyDraft(name="k", budgets=[spec]))).view
    for amount in range(1, 16):
        budget_id = key.budgets[0].rule.id
        outcomes = await _all(
            [
                firm.keys.update(firm.boss, key.key.id, {"budgets": [replace(spec, amount_nano=amount)]}),
                firm.budgets.update_budget(firm.boss, budget_id, {"mode": BudgetMode.HARD}),
                firm.keys.update(firm.boss, key.key.id, {"tags": [f"t{amount}"]}),
            ]
        )
        assert [each for each in outcomes if isinstance(each, BaseException)] == []
    states = await firm.source.load_by_ids([key.key.id])
    assert [state.status for state in states] == [KeyStatus.ACTIVE]
