"""The life of a virtual key on a real database."""

import json
from dataclasses import replace

import pytest
import sqlalchemy as sa

from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from keygate.identities.tables import apps, developers, teams
from keygate.kit.money import NANO
from keygate.kit.secret import Secret
from keygate.policies import BudgetMode, BudgetSpec, KeyStatus, LimitKind, Period, Place, Rules, Scope
from keygate.virtual_keys import KeyDraft, KeyFilter, Standing, digest, mint, parse
from keygate.virtual_keys.tables import virtual_keys

DAY = BudgetSpec(amount_nano=5 * NANO, period=Period.DAY)
DEV = Place(Scope.DEVELOPER, "dev_1")


async def test_a_new_key_is_compiled_with_its_owner_chain_limits_and_budgets(house) -> None:
    made = await house.keys.create(
        house.admin,
        KeyDraft(
            name="ci",
            owner=DEV,
            rules=Rules(models_allow=("openai/gpt-4.1*", "gpt-4o-mini")),
            limits={LimitKind.REQUESTS_PER_MINUTE: 60},
            budgets=[DAY],
            tags=["project=x"],
        ),
    )
    state = await house.source.load(made.token.public_id)
    assert state is not None
    assert (state.organization_id, state.team_id, state.developer_id, state.app_id) == ("org_1", "team_1", "dev_1", None)
    assert state.status is KeyStatus.ACTIVE
    assert state.rules[0].models_allow == ("openai/gpt-4.1*", "openai/gpt-4o-mini")
    assert [(limit.kind, limit.amount, limit.scope_id) for limit in state.limits] == [(LimitKind.REQUESTS_PER_MINUTE, 60, state.id)]
    assert [(b.amount_nano, b.period, b.scope, b.time_zone) for b in state.budgets] == [(5 * NANO, Period.DAY, Scope.KEY, "Europe/Berlin")]
    assert state.tags == ("project=x",)
    assert house.publisher.keys == [state.id]


async def test_only_the_keyed_digest_of_a_token_is_stored_and_recorded(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci"))
    text = made.token.text.open()
    state = await house.source.load(parse(text))
    assert state.digests[0].digest == digest(bytes(range(32)), text)
    secret = text[18:]
    async with house.database.read() as connection:
        rows = (await connection.execute(virtual_keys.select())).all()
    assert secret not in repr(rows)
    (entry,) = await house.entries("virtual_key.create")
    assert secret not in repr(entry)
    assert entry.after is not None
    assert "sha256:" in repr(entry.after) or "hmac" in repr(entry.after)


async def test_a_key_without_owner_belongs_to_the_organisation(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci"))
    assert (made.state.team_id, made.state.developer_id, made.state.app_id) == (None, None, None)
    assert made.state.rules == ()


async def test_an_apps_key_has_the_developer_and_team_behind_the_app(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="bot", owner=Place(Scope.APP, "app_1")))
    assert (made.state.team_id, made.state.developer_id, made.state.app_id) == ("team_1", "dev_2", "app_1")


async def test_the_environment_names_only_vendors_that_the_key_may_use(house) -> None:
    both = await house.keys.create(house.admin, KeyDraft(name="a"))
    one = await house.keys.create(house.admin, KeyDraft(name="b", rules=Rules(models_allow=("anthropic/*",))))
    env = house.keys.environment(both)
    assert env["OPENAI_BASE_URL"] == "https://keys.example.com/openai/v1"
    assert env["OPENAI_API_KEY"] == env["ANTHROPIC_API_KEY"] == both.token.text.open()
    assert env["ANTHROPIC_BASE_URL"] == "https://keys.example.com/anthropic"
    assert not [name for name in house.keys.environment(one) if name.startswith("OPENAI")]


async def test_rotation_keeps_identity_and_ends_the_former_token_after_the_grace(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci", budgets=[DAY]))
    turned = await house.keys.rotate(house.admin, made.view.key.id, grace_seconds=60)
    assert turned.view.key.id == made.view.key.id
    assert turned.token.text.open() != made.token.text.open()
    assert turned.state.budgets == made.state.budgets
    for token in (made.token.text, turned.token.text):
        assert (await house.keys.quota(token))[0].id == made.view.key.id
    house.clock.advance(60)
    with pytest.raises(Unauthenticated):
        await house.keys.quota(made.token.text)
    assert (await house.keys.quota(turned.token.text))[0].id == made.view.key.id


async def test_rotation_without_grace_ends_the_former_token_at_once_and_a_second_one_ends_the_first(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci"))
    second = await house.keys.rotate(house.admin, made.view.key.id)
    assert await house.source.authenticated(made.token.text) is None
    third = await house.keys.rotate(house.admin, made.view.key.id, grace_seconds=100)
    fourth = await house.keys.rotate(house.admin, made.view.key.id, grace_seconds=100)
    assert await house.source.authenticated(second.token.text) is None
    assert await house.source.authenticated(third.token.text) is not None
    assert await house.source.authenticated(fourth.token.text) is not None


async def test_each_revoked_key_is_told_of_once_with_what_its_user_needs_to_know(house) -> None:
    made = (await house.keys.create(house.admin, KeyDraft(name="laptop", owner=DEV, tags=["project=x"]))).view.key
    for reason in ("left", "other"):
        await house.keys.revoke(house.admin, made.id, reason=reason)
    bots = [(await house.keys.create(house.admin, KeyDraft(name=name, owner=Place(Scope.APP, "app_1")))).view.key for name in "ab"]
    with pytest.raises(LookupError):
        async with house.database.unit("org_1") as work:
            await house.keys.app_deactivated(work, house.admin, "app_1")
            raise LookupError  # undone, so it is not told
    async with house.database.unit("org_1") as work:
        await house.keys.app_deactivated(work, house.admin, "app_1")
    *ended, first = await house.outbox.page("org_1", before=None, type_="virtual_key.revoked", limit=9)
    assert {event.subject for event in ended} == {key.id for key in bots}
    assert len(ended) == 2
    assert first.subject == made.id
    assert json.loads(first.payload) == {
        "name": "laptop",
        "hint": made.hint,
        "owner": "dev_1",
        "owner_scope": "developer",
        "tags": ["project=x"],
        "reason": "left",
        "by": "usr_admin",
        "last_used_at": None,
    }


async def test_revoking_is_for_good_idempotent_and_told_to_the_gateway_each_time(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci"))
    key_id = made.view.key.id
    first = await house.keys.revoke(house.admin, key_id, reason="left")
    again = await house.keys.revoke(house.admin, key_id, reason="other")
    assert (first.standing, again.key.revoked_reason) == (Standing.REVOKED, "left")
    assert house.publisher.keys == [key_id] * 3
    assert (await house.source.load(made.token.public_id)).status is KeyStatus.REVOKED
    assert len(await house.entries("virtual_key.revoke")) == 1
    for forbidden in (house.keys.rotate(house.admin, key_id), house.keys.update(house.admin, key_id, {"name": "x"})):
        with pytest.raises(Conflict):
            await forbidden


async def test_changing_a_budgets_amount_keeps_its_account(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci", budgets=[DAY, replace(DAY, period=Period.MONTH)]))
    before = {b.rule.period: b.rule.id for b in made.view.budgets}
    view = await house.keys.update(
        house.admin, made.view.key.id, {"budgets": [replace(DAY, amount_nano=NANO, mode=BudgetMode.SOFT), replace(DAY, period=Period.YEAR)]}
    )
    after = {b.rule.period: b.rule for b in view.budgets}
    assert after[Period.DAY].id == before[Period.DAY]
    assert after[Period.DAY].amount_nano == NANO
    assert set(after) == {Period.DAY, Period.YEAR}


async def test_limits_are_merged_by_kind_and_null_removes(house) -> None:
    made = await house.keys.create(
        house.admin, KeyDraft(name="ci", limits={LimitKind.REQUESTS_PER_MINUTE: 60, LimitKind.TOKENS_PER_DAY: 1000})
    )
    view = await house.keys.update(
        house.admin,
        made.view.key.id,
        {"limits": {LimitKind.REQUESTS_PER_MINUTE: 30, LimitKind.TOKENS_PER_DAY: None, LimitKind.CONCURRENT_REQUESTS: 2}},
    )
    assert {limit.rule.kind: limit.rule.amount for limit in view.limits} == {
        LimitKind.REQUESTS_PER_MINUTE: 30,
        LimitKind.CONCURRENT_REQUESTS: 2,
    }
    old = {limit.rule.kind: limit.rule.id for limit in made.view.limits}
    assert {limit.rule.kind: limit.rule.id for limit in view.limits}[LimitKind.REQUESTS_PER_MINUTE] == old[LimitKind.REQUESTS_PER_MINUTE]


async def test_a_developer_sees_and_touches_only_their_own_keys(house) -> None:
    other = await house.keys.create(house.admin, KeyDraft(name="theirs", owner=Place(Scope.DEVELOPER, "dev_2")))
    mine = await house.keys.create(house.developer, KeyDraft(name="mine"))
    assert mine.view.key.owner == DEV
    listed = await house.keys.page(house.developer, KeyFilter(), after=None, limit=10)
    assert [view.key.name for view in listed] == ["mine"]
    assert await house.keys.page(house.developer, KeyFilter(owner_id="dev_2"), after=None, limit=10) == []
    key_id = other.view.key.id
    for attempt in (
        house.keys.get(house.developer, key_id),
        house.keys.usage(house.developer, key_id),
        house.keys.rotate(house.developer, key_id),
        house.keys.revoke(house.developer, key_id),
        house.keys.update(house.developer, key_id, {"name": "x"}),
    ):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(Forbidden):
        await house.keys.create(house.developer, KeyDraft(name="x", owner=Place(Scope.DEVELOPER, "dev_2")))
    assert [entry.outcome for entry in await house.entries("virtual_key.revoke")] == ["refused"]


@pytest.mark.parametrize(
    "changes",
    [
        {"models_allow": None},
        {"models_allow": ("openai/*",)},
        {"vendors": None},
        {"budgets": []},
        {"budgets": [replace(DAY, amount_nano=6 * NANO)]},
        {"budgets": [replace(DAY, mode=BudgetMode.SOFT)]},
        {"limits": {LimitKind.REQUESTS_PER_MINUTE: 61}},
        {"limits": {LimitKind.REQUESTS_PER_MINUTE: None}},
        {"tags": []},
        {"expires_at_ns": None},
    ],
)
async def test_a_developer_never_widens_a_key(house, changes) -> None:
    made = await house.keys.create(
        house.developer,
        KeyDraft(
            name="mine",
            rules=Rules(models_allow=("openai/gpt-4.1*",), vendors=("openai",)),
            budgets=[DAY],
            limits={LimitKind.REQUESTS_PER_MINUTE: 60},
            tags=["a"],
            expires_at_ns=house.clock.now_ns() + 10**12,
        ),
    )
    before = await house.source.load_by_ids([made.view.key.id])
    with pytest.raises(Forbidden):
        await house.keys.update(house.developer, made.view.key.id, changes)
    after = await house.source.load_by_ids([made.view.key.id])
    assert [replace(s, version=0) for s in after] == [replace(s, version=0) for s in before]
    narrowed = {
        "models_allow": ("openai/gpt-4.1-mini",),
        "budgets": [replace(DAY, amount_nano=NANO)],
        "limits": {LimitKind.REQUESTS_PER_MINUTE: 1},
        "tags": ["a", "b"],
    }
    assert (await house.keys.update(house.developer, made.view.key.id, narrowed)).key.tags == ("a", "b")


async def test_another_organisation_sees_nothing(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci"))
    with pytest.raises(NotFound):
        await house.keys.get(house.stranger, made.view.key.id)
    assert await house.keys.page(house.stranger, KeyFilter(), after=None, limit=10) == []
    with pytest.raises(InvalidInput):
        await house.keys.create(house.stranger, KeyDraft(name="x", owner=DEV))


async def test_a_deactivated_holder_loses_every_key_in_the_same_transaction(house) -> None:
    made = [await house.keys.create(house.admin, KeyDraft(name=f"k{i}", owner=DEV)) for i in range(3)]
    other = await house.keys.create(house.admin, KeyDraft(name="o", owner=Place(Scope.DEVELOPER, "dev_2")))
    house.publisher.keys.clear()
    with pytest.raises(RuntimeError, match="undone"):
        async with house.database.unit("org_1") as work:
            await house.keys.developer_deactivated(work, house.admin, "dev_1")
            raise RuntimeError("undone")
    assert house.publisher.keys == []
    async with house.database.unit("org_1") as work:
        await house.keys.developer_deactivated(work, house.admin, "dev_1")
    assert sorted(house.publisher.keys) == sorted(k.view.key.id for k in made)
    states = await house.source.load_by_ids([k.view.key.id for k in (*made, other)])
    assert [s.status for s in sorted(states, key=lambda s: s.id)] == [KeyStatus.REVOKED] * 3 + [KeyStatus.ACTIVE]


async def test_a_key_stands_still_while_anyone_above_it_is_inactive(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci", owner=DEV))
    app = await house.keys.create(house.admin, KeyDraft(name="bot", owner=Place(Scope.APP, "app_1")))
    await house.set_row(teams, "team_1", archived_at_ns=1)
    for token in (made.token, app.token):
        assert (await house.source.load(token.public_id)).status is KeyStatus.OWNER_INACTIVE
    await house.set_row(teams, "team_1", archived_at_ns=None)
    await house.set_row(developers, "dev_2", status="deactivated", deactivated_at_ns=1)
    assert (await house.source.load(made.token.public_id)).status is KeyStatus.ACTIVE
    assert (await house.source.load(app.token.public_id)).status is KeyStatus.OWNER_INACTIVE


async def test_a_moved_developer_takes_their_keys_to_the_new_team(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci", owner=DEV))
    before = await house.source.load(made.token.public_id)
    await house.set_row(developers, "dev_1", team_id="team_2")
    after = await house.source.load(made.token.public_id)
    assert (before.team_id, after.team_id) == ("team_1", "team_2")
    assert after.version > before.version


async def test_lists_filter_by_owner_status_tag_and_text_and_page_in_order(house) -> None:
    a = await house.keys.create(house.admin, KeyDraft(name="Alpha ci", owner=DEV, tags=["env=prod", "x"]))
    b = await house.keys.create(house.admin, KeyDraft(name="beta", tags=["env=prod-2"], expires_at_ns=house.clock.now_ns() + 1))
    c = await house.keys.create(house.admin, KeyDraft(name="100%_odd"))
    await house.keys.revoke(house.admin, c.view.key.id)
    house.clock.advance(1)

    async def names(**wanted: object) -> list[str]:
        return [v.key.name for v in await house.keys.page(house.admin, KeyFilter(**wanted), after=None, limit=10)]

    assert await names() == ["Alpha ci", "beta", "100%_odd"]
    assert await names(owner_id="dev_1") == ["Alpha ci"]
    assert await names(tag="env=prod") == ["Alpha ci"]
    assert await names(tag="ENV=prod") == []
    assert await names(text="ALPHA") == ["Alpha ci"]
    assert await names(text="%_") == ["100%_odd"]
    assert await names(text=b.view.key.public_id[:6]) == ["beta"]
    assert await names(status=Standing.ACTIVE) == ["Alpha ci"]
    assert await names(status=Standing.EXPIRED) == ["beta"]
    assert await names(status=Standing.REVOKED) == ["100%_odd"]
    second = await house.keys.page(house.admin, KeyFilter(), after=a.view.key.id, limit=1)
    assert [v.key.name for v in second] == ["beta"]


async def test_last_use_is_noted_in_batches_and_never_moves_back(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci"))
    key_id = made.view.key.id
    await house.keys.touch({key_id: 200, "vk_unknown": 5})
    await house.keys.touch({key_id: 100})
    await house.keys.update(house.admin, key_id, {"name": "ci2"})
    assert (await house.keys.get(house.admin, key_id)).key.last_used_at_ns == 200


async def test_a_reported_leak_ends_the_key_and_an_unknown_token_is_not_found(house) -> None:
    made = await house.keys.create(house.admin, KeyDraft(name="ci"))
    for wrong in (Secret("sk-kg-nonsense"), mint(public_id=made.token.public_id).text):
        with pytest.raises(NotFound):
            await house.keys.report_leak(wrong)
    await house.keys.report_leak(made.token.text, address="192.0.2.1")
    view = await house.keys.get(house.admin, made.view.key.id)
    assert (view.standing, view.key.revoked_by) == (Standing.REVOKED, "leak-report")


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        (KeyDraft(name=" "), "name"),
        (KeyDraft(name="x", policy_id="pol_x"), "policy_id"),
        (KeyDraft(name="x", owner=Place(Scope.TEAM, "dev_1")), "owner.team_id"),
        (KeyDraft(name="x", owner=Place(Scope.TEAM, "team_9")), "owner.team_id"),
        (KeyDraft(name="x", expires_at_ns=1), "expires_at"),
        (KeyDraft(name="x", rules=Rules(vendors=("nobody",))), "vendors"),
        (KeyDraft(name="x", rules=Rules(endpoints=("nothing",))), "endpoints"),
        (KeyDraft(name="x", rules=Rules(models_allow=("nobody/model",))), "models"),
        (KeyDraft(name="x", rules=Rules(models_allow=("open ai/*",))), "models"),
        (KeyDraft(name="x", budgets=[replace(DAY, amount_nano=-1)]), "budgets"),
        (KeyDraft(name="x", budgets=[replace(DAY, time_zone="Mars/Base")]), "budgets"),
        (KeyDraft(name="x", budgets=[replace(DAY, period=Period.LIFETIME, rolling=True)]), "budgets"),
        (KeyDraft(name="x", limits={LimitKind.REQUESTS_PER_DAY: 0}), "limits.requests_per_day"),
        (KeyDraft(name="x", tags=["\x00"]), "tags"),
    ],
)
async def test_what_cannot_be_is_refused_with_the_field_named(house, draft, field) -> None:
    with pytest.raises(InvalidInput) as refused:
        await house.keys.create(house.admin, draft)
    assert refused.value.field == field
    assert await house.source.load_active_page() == ([], None)


async def test_every_key_comes_once_when_preloading_in_pages(house) -> None:
    made = {(await house.keys.create(house.admin, KeyDraft(name=f"k{i}", owner=DEV, budgets=[DAY]))).view.key.id for i in range(7)}
    revoked = await house.keys.create(house.admin, KeyDraft(name="gone"))
    await house.keys.revoke(house.admin, revoked.view.key.id)
    seen, after = [], None
    while True:
        states, after = await house.source.load_active_page(after=after, limit=3)
        seen += [s.id for s in states]
        if after is None:
            break
    assert len(seen) == len(set(seen))
    assert set(seen) == made


async def test_a_list_shows_the_keys_that_stand_still_as_such_and_filters_by_it(house) -> None:
    """Every place that a key can hang on, with each part of it ended in turn: lists, filters and the gateway agree."""
    async with house.database.unit() as work:
        for app, team, dev in (("app_2", "team_2", None), ("app_3", "team_2", "dev_1"), ("app_4", None, None)):
            row = {"id": app, "organization_id": "org_1", "name": app, "team_id": team, "developer_id": dev, "status": "active"}
            await work.connection.execute(sa.insert(apps).values(row | {"created_at_ns": 1}))
    places = [
        *(Place(Scope.TEAM, team) for team in ("team_1", "team_2")),
        *(Place(Scope.DEVELOPER, dev) for dev in ("dev_1", "dev_2")),
        *(Place(Scope.APP, f"app_{number}") for number in (1, 2, 3, 4)),
        None,
    ]
    ids = [(await house.keys.create(house.admin, KeyDraft(name="k", owner=place))).view.key.id for place in places]
    gone = await house.keys.create(house.admin, KeyDraft(name="gone", owner=DEV))
    await house.keys.revoke(house.admin, gone.view.key.id)
    seen = set()
    for table, row_id, ended in (
        (teams, "team_1", {"archived_at_ns": 1}),
        (teams, "team_2", {"archived_at_ns": 1}),
        *((developers, dev, {"status": "deactivated", "deactivated_at_ns": 1}) for dev in ("dev_1", "dev_2")),
        *((apps, f"app_{number}", {"status": "deactivated", "deactivated_at_ns": 1}) for number in (1, 2, 3, 4)),
    ):
        await house.set_row(table, row_id, **ended)
        serving = {state.id for state in await house.source.load_by_ids(ids) if state.status is KeyStatus.ACTIVE}
        found = {
            status: {view.key.id for view in await house.keys.page(house.admin, KeyFilter(status=status), after=None, limit=50)}
            for status in Standing
        }
        assert found[Standing.ACTIVE] == serving
        assert found[Standing.OWNER_INACTIVE] == set(ids) - serving
        assert found[Standing.REVOKED] == {gone.view.key.id}
        shown = {view.key.id: view.standing for view in await house.keys.page(house.admin, KeyFilter(), after=None, limit=50)}
        assert {key_id for key_id, standing in shown.items() if standing is Standing.ACTIVE} == serving
        assert {key_id for key_id, standing in shown.items() if standing is Standing.OWNER_INACTIVE} == set(ids) - serving
        seen.add(frozenset(serving))
        still = next(iter(set(ids) - serving))
        assert (await house.keys.get(house.admin, still)).standing is Standing.OWNER_INACTIVE
        assert (await house.keys.update(house.admin, still, {"name": "n"})).standing is Standing.OWNER_INACTIVE
        await house.set_row(
            table, row_id, **({"archived_at_ns": None} if table is teams else {"status": "active", "deactivated_at_ns": None})
        )
    assert len(seen) == 8


async def test_no_key_is_made_for_an_app_whose_developer_has_left(house) -> None:
    await house.set_row(developers, "dev_2", status="deactivated", deactivated_at_ns=1)
    with pytest.raises(InvalidInput, match="no longer active"):
        await house.keys.create(house.admin, KeyDraft(name="late", owner=Place(Scope.APP, "app_1")))
