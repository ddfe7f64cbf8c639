"""Teams, developers and apps: who keys belong to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.conftest import OWNER_PASSWORD

from keygate.audit import EntryFilter
from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from keygate.events import EventOutbox
from keygate.events.repository import EventRepository
from keygate.identities import Passwords, Role, Status
from keygate.identities.directory import OwnerDirectory
from keygate.identities.model import Members
from keygate.identities.repository import OwnerRepository
from keygate.identities.wiring import identities
from keygate.kit.secret import Secret


class Recorder:
    """A listener and a publisher that note what they are told, and when."""

    def __init__(self) -> None:
        self.told = []
        self.fails = False

    async def developer_deactivated(self, work, actor, developer_id):
        self.told.append(("developer", developer_id))
        if self.fails:
            raise Conflict("not now")

    async def app_deactivated(self, work, actor, app_id):
        self.told.append(("app", app_id))

    async def team_archived(self, work, actor, team_id, *, ended):
        self.told.append(("team", team_id, *ended))
        return "rcp_all"

    async def keys_changed(self, key_ids):
        self.told.append(("keys", tuple(key_ids)))

    async def organization_changed(self, organization_id):
        self.told.append(("organization", organization_id))


class Policies:
    async def policy_exists(self, connection, organization_id, policy_id):
        return policy_id == "pol_known"


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def outbox(database, clock):
    return EventOutbox(database=database, repository=EventRepository(), clock=clock)


@pytest.fixture
def wired(database, audit, clock, recorder, outbox):
    return identities(
        database,
        audit=audit,
        clock=clock,
        publisher=recorder,
        holders=recorder,
        outbox=outbox,
        policies=Policies(),
        passwords=Passwords(memory_kib=8, passes=1),
    )


async def _actions(audit, owner, action):
    entries = await audit.find(owner.organization_id, EntryFilter(action=action), before=None, limit=10)
    return [(entry.target, entry.actor_id) for entry in entries]


async def test_team_names_are_unique_among_teams_that_are_not_archived(people, owner):
    first = await people.teams.create(owner, name="research")
    with pytest.raises(Conflict):
        await people.teams.create(owner, name="research")
    other = await people.teams.create(owner, name="ops")
    with pytest.raises(Conflict):
        await people.teams.update(owner, other.id, {"name": "research"})
    await people.teams.archive(owner, first.id)
    await people.teams.archive(owner, first.id)
    assert (await people.teams.create(owner, name="research")).id != first.id
    assert [team.name for team in await people.teams.list(owner, after=None, limit=10)] == ["ops", "research"]
    assert len(await people.teams.list(owner, after=None, limit=10, archived=True)) == 3


async def test_every_change_is_recorded_with_its_actor(people, audit, owner):
    team = await people.teams.create(owner, name="research")
    await people.teams.update(owner, team.id, {"name": "science"})
    await people.teams.archive(owner, team.id)
    for action in ("team.create", "team.update", "team.archive"):
        assert await _actions(audit, owner, action) == [(team.id, owner.id)]
    assert (await audit.verify(owner.organization_id)).ok


async def test_a_team_with_active_members_is_not_archived(people, owner):
    team = await people.teams.create(owner, name="research")
    developer = await people.developers.create(owner, name="Ada", email="ada@example.com", team_id=team.id)
    with pytest.raises(Conflict, match="1 active developers"):
        await people.teams.archive(owner, team.id)
    await people.developers.deactivate(owner, developer.id)
    await people.teams.archive(owner, team.id)
    with pytest.raises(InvalidInput):
        await people.developers.create(owner, name="Eve", email="eve@example.com", team_id=team.id)
    with pytest.raises(InvalidInput):
        await people.developers.activate(owner, developer.id)


async def _crowd(wired, owner):
    """A team with two developers; apps of the team itself, of a developer in it, and of one who is elsewhere; and what only looks alike."""
    team, other = [await wired.teams.create(owner, name=name) for name in ("research", "ops")]
    ada, ben = [
        await wired.developers.create(owner, name=name, email=f"{name}@example.com", team_id=team.id, policy_id="pol_known")
        for name in ("ada", "ben")
    ]
    eve = await wired.developers.create(owner, name="eve", email="eve@example.com", team_id=other.id)
    apps = {
        name: await wired.apps.create(owner, name=name, team_id=of, developer_id=whose)
        for name, of, whose in (
            ("teams", team.id, None),
            ("adas", None, ada.id),
            ("bens", team.id, ben.id),
            ("eves", team.id, eve.id),
            ("bens-elsewhere", other.id, ben.id),
        )
    }
    return team, (ada, ben, eve), apps


async def _standing(wired, owner, developers, apps):
    people = [await wired.developers.get(owner, each.id) for each in developers]
    programs = [await wired.apps.get(owner, each.id) for each in apps.values()]
    return {each.name: (each.active, each.team_id) for each in (*people, *programs)}


async def test_a_team_with_members_is_archived_only_once_it_is_said_what_becomes_of_them(wired, owner, recorder, audit):
    team, developers, apps = await _crowd(wired, owner)
    before = await _standing(wired, owner, developers, apps)
    with pytest.raises(Conflict, match=r"2 active developers and 4 active apps.*developers=deactivate.*developers=detach"):
        await wired.teams.archive(owner, team.id)
    for scopes in ({"teams.write", "developers.write"}, {"teams.write", "apps.write"}):
        token = replace(owner, scopes=frozenset(scopes))
        for members in Members:
            with pytest.raises(Forbidden, match="needs the permission"):
                await wired.teams.archive(token, team.id, developers=members)
    assert await _standing(wired, owner, developers, apps) == before
    assert [told for told in recorder.told if told[0] == "team"] == []
    assert await _actions(audit, owner, "developer.deactivate") == []


async def test_a_team_that_is_archived_takes_its_developers_and_apps_along_in_one_receipt(wired, owner, recorder, audit, outbox):
    team, developers, apps = await _crowd(wired, owner)
    (ada, ben, _), other = developers, apps["bens-elsewhere"].team_id
    password = Secret("a long enough password")
    await wired.users.create(owner, email="ada@example.com", name="Ada", role=Role.DEVELOPER, password=password, developer_id=ada.id)
    assert await wired.teams.archive(owner, team.id, developers=Members.DEACTIVATE) == "rcp_all"
    assert await _standing(wired, owner, developers, apps) == {
        "ada": (False, team.id),
        "ben": (False, team.id),
        "eve": (True, other),
        "teams": (False, team.id),
        "adas": (False, None),
        "bens": (False, team.id),
        "eves": (False, team.id),
        "bens-elsewhere": (True, other),
    }
    ended = [ada.id, ben.id, *(apps[name].id for name in ("teams", "adas", "bens", "eves"))]
    assert recorder.told[-2:] == [("team", team.id, *ended), ("organization", owner.organization_id)], "nobody is told of apart"
    assert {target for target, _ in await _actions(audit, owner, "developer.deactivate")} == {ada.id, ben.id}
    assert len(await _actions(audit, owner, "app.deactivate")) == 4
    found = await outbox.page(owner.organization_id, before=None, type_="developer.deactivated", limit=9)
    assert {event.subject: json.loads(event.payload)["receipt_id"] for event in found} == {ada.id: "rcp_all", ben.id: "rcp_all"}
    with pytest.raises(Unauthenticated):
        await wired.sessions.login("ada@example.com", password, address=None)
    assert await wired.teams.archive(owner, team.id, developers=Members.DEACTIVATE) is None


async def test_developers_of_an_archived_team_stay_without_one_and_apps_that_nobody_answers_for_end(wired, owner, recorder, audit):
    team, developers, apps = await _crowd(wired, owner)
    other = apps["bens-elsewhere"].team_id
    await wired.teams.archive(owner, team.id, developers=Members.DETACH)
    assert await _standing(wired, owner, developers, apps) == {
        "ada": (True, None),
        "ben": (True, None),
        "eve": (True, other),
        "teams": (False, team.id),
        "adas": (True, None),
        "bens": (True, None),
        "eves": (True, None),
        "bens-elsewhere": (True, other),
    }
    assert recorder.told[-2:] == [("team", team.id, apps["teams"].id), ("organization", owner.organization_id)]
    changed = await audit.find(owner.organization_id, EntryFilter(action="developer.update"), before=None, limit=10)
    assert {entry.target for entry in changed} == {developers[0].id, developers[1].id}
    assert (await wired.developers.get(owner, developers[0].id)).policy_id == "pol_known", "their own policy stays"


async def test_a_team_with_the_last_owner_or_a_greater_user_in_it_is_not_archived_with_them(wired, owner, started):
    team = await wired.teams.create(owner, name="research")
    ada = await wired.developers.create(owner, name="Ada", email="ada@example.com", team_id=team.id)
    boss = await wired.developers.create(owner, name="Boss", email="owner@example.com", team_id=team.id)
    await wired.users.update(owner, started.owner.id, {"developer_id": boss.id})
    with pytest.raises(Forbidden, match="Boss"):
        await wired.teams.archive(replace(owner, role=Role.ADMIN), team.id, developers=Members.DEACTIVATE)
    with pytest.raises(Conflict, match="Boss is the last owner"):
        await wired.teams.archive(owner, team.id, developers=Members.DEACTIVATE)
    assert (await wired.developers.get(owner, ada.id)).active, "all of it or nothing"
    assert (await wired.teams.get(owner, team.id)).active


async def test_an_email_address_belongs_to_one_developer(people, owner):
    await people.developers.create(owner, name="Ada", email="Ada@Example.com")
    with pytest.raises(Conflict):
        await people.developers.create(owner, name="Ada 2", email="ada@example.com")


async def test_another_organisation_is_as_if_it_were_not_there(people, owner):
    team = await people.teams.create(owner, name="research")
    developer = await people.developers.create(owner, name="Ada", email="ada@example.com")
    app = await people.apps.create(owner, name="ci")
    stranger = replace(owner, organization_id="org_other")
    for call in (
        people.teams.get(stranger, team.id),
        people.teams.update(stranger, team.id, {"name": "mine"}),
        people.teams.archive(stranger, team.id),
        people.developers.get(stranger, developer.id),
        people.developers.deactivate(stranger, developer.id),
        people.apps.get(stranger, app.id),
        people.apps.deactivate(stranger, app.id),
        people.users.get(stranger, owner.id),
    ):
        with pytest.raises(NotFound):
            await call
    assert await people.developers.list(stranger, after=None, limit=10) == []


async def test_a_developer_sees_themselves_their_team_and_their_apps_only(people, owner):
    team = await people.teams.create(owner, name="research")
    other_team = await people.teams.create(owner, name="ops")
    ada = await people.developers.create(owner, name="Ada", email="ada@example.com", team_id=team.id)
    eve = await people.developers.create(owner, name="Eve", email="eve@example.com", team_id=other_team.id)
    mine = await people.apps.create(owner, name="mine", developer_id=ada.id)
    other = await people.apps.create(owner, name="other", developer_id=eve.id)
    actor = replace(owner, role=Role.DEVELOPER, developer_id=ada.id)
    assert [each.id for each in await people.developers.list(actor, after=None, limit=10)] == [ada.id]
    assert [each.id for each in await people.teams.list(actor, after=None, limit=10)] == [team.id]
    assert [each.id for each in await people.apps.list(actor, after=None, limit=10)] == [mine.id]
    for call in (people.developers.get(actor, eve.id), people.teams.get(actor, other_team.id), people.apps.get(actor, other.id)):
        with pytest.raises(NotFound):
            await call
    nobody = replace(actor, developer_id=None)
    assert not await people.developers.list(nobody, after=None, limit=10)
    assert not await people.teams.list(nobody, after=None, limit=10)
    assert not await people.apps.list(nobody, after=None, limit=10)


async def test_policies_must_exist(wired, started, people, owner):
    await wired.teams.create(owner, name="research", policy_id="pol_known")
    with pytest.raises(InvalidInput):
        await wired.teams.create(owner, name="ops", policy_id="pol_unknown")
    with pytest.raises(InvalidInput):
        await wired.organizations.update(owner, {"policy_id": "pol_unknown"})


async def test_lists_go_on_where_the_page_before_ended(people, owner):
    made = [(await people.teams.create(owner, name=f"team {number}")).id for number in range(5)]
    first = await people.teams.list(owner, after=None, limit=3)
    rest = await people.teams.list(owner, after=first[-1].id, limit=3)
    assert sorted([team.id for team in (*first, *rest)]) == sorted(made)


async def test_deactivating_a_developer_ends_sign_ins_tokens_and_tells_who_hands_out_access(wired, owner, recorder, people):
    ada = await wired.developers.create(owner, name="Ada", email="ada@example.com")
    password = Secret("a long enough password")
    user = await wired.users.create(owner, email="ada@example.com", name="Ada", role=Role.DEVELOPER, password=password, developer_id=ada.id)
    _, session = await wired.sessions.login("ada@example.com", password, address="10.0.0.1")
    actor = await wired.sessions.authenticate(session.token.open(), address=None, request_id=None)
    _, token = await wired.api_tokens.create(actor, name="ci", scopes={"virtual_keys.read"})
    await wired.sessions.authenticate(token.open(), address=None, request_id=None)
    await wired.developers.deactivate(owner, ada.id)
    assert recorder.told == [("developer", ada.id), ("organization", owner.organization_id)]
    for ended in (session.token, token):
        with pytest.raises(Unauthenticated):
            await wired.sessions.authenticate(ended.open(), address=None, request_id=None)
    with pytest.raises(Unauthenticated):
        await wired.sessions.login("ada@example.com", password, address="10.0.0.1")
    assert (await wired.users.get(owner, user.id)).status is Status.DEACTIVATED
    await wired.developers.deactivate(owner, ada.id)
    assert len(recorder.told) == 2


async def test_a_deactivated_developer_is_told_of_once_and_a_refused_deactivation_is_not(wired, owner, recorder, outbox):
    ada = await wired.developers.create(owner, name="Ada", email="ada@example.com")
    recorder.fails = True
    with pytest.raises(Conflict):
        await wired.developers.deactivate(owner, ada.id)
    recorder.fails = False
    for _ in range(2):
        await wired.developers.deactivate(owner, ada.id)
    (event,) = await outbox.page(owner.organization_id, before=None, type_="developer.deactivated", limit=9)
    told = {"name": "Ada", "email": "ada@example.com", "team_id": None, "by": owner.id, "receipt_id": None}
    assert (event.subject, json.loads(event.payload)) == (ada.id, told)


async def test_a_developer_whose_keys_can_not_be_revoked_stays_active(wired, owner, recorder):
    ada = await wired.developers.create(owner, name="Ada", email="ada@example.com")
    recorder.fails = True
    with pytest.raises(Conflict):
        await wired.developers.deactivate(owner, ada.id)
    assert (await wired.developers.get(owner, ada.id)).active


async def test_deactivating_a_developer_never_ends_a_greater_user_or_the_last_owner(wired, owner, started):
    boss = await wired.developers.create(owner, name="Boss", email="owner@example.com")
    await wired.users.update(owner, started.owner.id, {"developer_id": boss.id})
    admin = replace(owner, role=Role.ADMIN)
    with pytest.raises(Forbidden):
        await wired.developers.deactivate(admin, boss.id)
    with pytest.raises(Conflict, match="last owner"):
        await wired.developers.deactivate(owner, boss.id)
    await wired.sessions.login("owner@example.com", Secret(OWNER_PASSWORD), address=None)


async def test_apps_and_teams_that_end_tell_who_hands_out_access(wired, owner, recorder):
    team = await wired.teams.create(owner, name="research")
    app = await wired.apps.create(owner, name="ci")
    await wired.apps.deactivate(owner, app.id)
    await wired.teams.archive(owner, team.id)
    assert [told for told in recorder.told if told[0] != "organization"] == [("app", app.id), ("team", team.id)]


async def test_a_change_of_an_owner_is_published_after_it_is_stored(wired, owner, recorder):
    team = await wired.teams.create(owner, name="research")
    await wired.teams.update(owner, team.id, {"policy_id": "pol_known"})
    assert recorder.told == [("organization", owner.organization_id)]


async def test_time_zones_are_real_ones(people, owner):
    assert (await people.organizations.update(owner, {"time_zone": "Europe/Berlin"})).time_zone == "Europe/Berlin"
    with pytest.raises(InvalidInput):
        await people.organizations.update(owner, {"time_zone": "Mars/Olympus"})


async def test_the_directory_knows_an_owner_with_everything_above_it(wired, owner, database):
    team = await wired.teams.create(owner, name="research", policy_id="pol_known")
    ada = await wired.developers.create(owner, name="Ada", email="ada@example.com", team_id=team.id)
    app = await wired.apps.create(owner, name="ci", developer_id=ada.id)
    directory = OwnerDirectory(OwnerRepository())
    async with database.read() as connection:
        found = await directory.holders(connection, owner.organization_id, [app.id, "app_unknown", "nonsense"])
        assert {key: (holder.scope, holder.active) for key, holder in found.items()} == {
            app.id: ("app", True),
            ada.id: ("developer", True),
            team.id: ("team", True),
        }
        assert not await directory.holders(connection, "org_other", [app.id])
        assert await directory.holders_with_policy(connection, owner.organization_id, "pol_known") == 1
        organization = await directory.organization(connection, owner.organization_id)
        assert organization is not None
        assert organization.name == "Example"
