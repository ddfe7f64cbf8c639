"""Rotation that nobody asked for, on the real services and against the sandbox's OpenAI; time is the test's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.drills.figures import length
from tests.issued_keys.workshop import Workshop, most_in_a_minute, stranger

from keygate.audit import AuditEntry
from keygate.errors import Conflict, InvalidInput, NotFound
from keygate.events import Event
from keygate.identities import Actor, ActorKind, Role
from keygate.identities.wiring import Identities
from keygate.issued_keys import IssuedKey, IssueDraft, State
from keygate.issued_keys.inventory.adopting import Adoption
from keygate.issued_keys.inventory.model import Finding
from keygate.issued_keys.model import Cause, Waits
from keygate.issued_keys.rotation.due import Hindrance
from keygate.issued_keys.rotation.scheduling import AT_ONCE
from keygate.issued_keys.rotation.service import PolicyDraft
from keygate.kit.money import NANO
from keygate.policies import Place, Scope
from keygate.sandbox.admin import AdminFault
from keygate.vendor_spend.watch import Stage, Watch
from keygate.vendor_spend.watch_repository import WatchRepository
from keygate.vendors.admin import PROVISIONERS, Provisioner, Terms
from keygate.vendors.admin.openai import OpenAIProvisioner

DAY, HOUR = 86_400, 3_600
MODEL = "gpt-4.1-mini"
STRIDE = length(3, 1)  # every step at full length


class Silent(OpenAIProvisioner):
    """An OpenAI that does not tell when a key was used last, as most vendors don't."""

    facts = replace(OpenAIProvisioner.facts, tells_last_use=False)


class Single:
    """An OpenAI whose containers hold one key: it has every method but not the power to add one."""

    def __init__(self) -> None:
        self._inner = OpenAIProvisioner()
        self.facts = self._inner.facts

    def __getattr__(self, name: str) -> Any:
        if name == "adds_key":
            raise AttributeError(name)
        return getattr(self._inner, name)


def with_openai(provisioner: Any) -> Mapping[str, Provisioner]:
    return {**PROVISIONERS, "openai": provisioner}


class Person:
    """A developer with a key of their own, and what they do with it."""

    def __init__(self, workshop: Workshop, key: IssuedKey, secret: str) -> None:
        self.workshop, self.id, self.secret = workshop, key.id, secret
        assert key.owner is not None
        self.developer_id = key.owner.scope_id
        organization_id = workshop.owner.organization_id
        self.actor = Actor(ActorKind.USER, "usr_dev", organization_id, Role.DEVELOPER, developer_id=self.developer_id)

    async def key(self) -> IssuedKey:
        return await self.workshop.orders.keys.get(self.workshop.owner, self.id)

    async def collect(self) -> str:
        told = await self.workshop.orders.handover.collect(self.actor, self.id)
        assert told.secret is not None
        return told.secret.open()


async def person(workshop: Workshop, name: str, *, every: int | None = 30, overlap: int | None = None, **terms: Any) -> Person:
    developer = await workshop.developer(name)
    draft = IssueDraft(
        "openai", Place(Scope.DEVELOPER, developer.id), Terms(**terms), rotate_every_days=every, rotate_overlap_seconds=overlap
    )
    told = await workshop.orders.keys.provision(workshop.owner, draft)
    assert told.secret is not None
    return Person(workshop, told.key, told.secret.open())


async def turn(workshop: Workshop, seconds: float = 0) -> int:
    """So much later, one turn of the worker. Returns how many rotations began."""
    workshop.clock.advance(seconds)
    begun = await workshop.orders.scheduler.tick()
    await workshop.orders.operations.tick()
    return begun


async def events(workshop: Workshop, kind: str) -> list[Event]:
    async with workshop.database.read() as connection:
        return await workshop.outbox_rows.page(connection, workshop.owner.organization_id, before=None, type_=kind, limit=100)


async def entries(workshop: Workshop, action: str) -> list[AuditEntry]:
    return [entry for entry in await workshop.audited() if entry.action == action]


# By schedule


async def test_scheduled_key_is_rotated_by_itself_and_cut_only_after_its_owner_has_the_next(workshop: Workshop) -> None:
    ann = await person(workshop, "ann", budget_nano=20 * NANO, requests_per_minute=1_000)
    assert await turn(workshop, 29 * DAY) == 0
    assert workshop.works(ann.secret)
    assert await turn(workshop, DAY) == 1
    key = await ann.key()
    assert (key.state, key.generation, key.terms.budget_nano) == (State.ROTATING, 2, 20 * NANO)
    assert set(key.enforcement.values()) == {"confirmed"}, "limits carry over"
    assert key.former is not None
    assert (key.former.cause, key.former.overlap_seconds) == (Cause.SCHEDULE, 7 * DAY)
    [begun] = await entries(workshop, "issued_key.rotate")
    assert (begun.actor_kind, begun.actor_id) == ("system", "schedule")
    [waits] = await events(workshop, "issued_key.secret_waits")
    said = json.loads(waits.payload)
    assert (waits.subject, said["owner"], said["cause"]) == (key.id, ann.developer_id, "schedule")

    assert await turn(workshop, 2 * DAY) == 0
    fresh = await ann.collect()
    assert workshop.works(fresh)
    assert workshop.works(ann.secret)
    for text in (fresh, ann.secret):
        told = [event.payload for event in await events(workshop, "issued_key.secret_waits")]
        assert text not in json.dumps([told, [str(entry) for entry in await workshop.audited()]])

    await turn(workshop, 7 * DAY - HOUR)
    assert workshop.works(ann.secret), "the overlap counts from when the new secret was fetched"
    await turn(workshop, DAY - HOUR)
    assert (await ann.key()).state is State.ROTATING, "used a day ago: the vendor's proof is not there yet"
    await turn(workshop, DAY)
    key = await ann.key()
    assert (key.state, key.former) == (State.ACTIVE, None)
    assert key.evidence[-1]["vendor_says"] == "gone"
    assert not workshop.works(ann.secret)
    assert workshop.works(fresh)
    assert [event.subject for event in await events(workshop, "issued_key.rotated")] == [key.id]
    assert await turn(workshop, 19 * DAY) == 0
    assert await turn(workshop, 2 * DAY) == 1, "and again, thirty days after the next was made"


async def test_months_without_a_worker_are_made_up_for_by_one_rotation(workshop: Workshop) -> None:
    ann = await person(workshop, "ann", every=1, overlap=0)
    workshop.clock.advance(100 * DAY)
    await workshop.start()
    assert await turn(workshop) == 1
    assert [await turn(workshop, 60) for _ in range(3)] == [0, 0, 0]
    assert (await ann.key()).generation == 2


async def test_two_workers_begin_one_rotation(workshop: Workshop) -> None:
    ann = await person(workshop, "ann")
    workshop.clock.advance(31 * DAY)
    first = workshop.orders.scheduler
    await workshop.start()
    begun = await asyncio.gather(first.tick(), workshop.orders.scheduler.tick())
    assert sum(begun) == 1
    await workshop.orders.operations.tick()
    assert (await ann.key()).generation == 2
    assert len(await entries(workshop, "issued_key.rotate")) == 1


async def test_schedule_is_changed_and_ended_later(workshop: Workshop) -> None:
    ann, rotation = await person(workshop, "ann", every=None), workshop.orders.rotation
    assert await turn(workshop, 400 * DAY) == 0
    key = await rotation.schedule(workshop.owner, ann.id, {"rotate_every_days": 500, "rotate_overlap_seconds": HOUR})
    assert (key.rotate_every_days, key.rotate_overlap_seconds) == (500, HOUR)
    assert await turn(workshop) == 0
    await rotation.schedule(workshop.owner, ann.id, {"rotate_every_days": None})
    assert (await ann.key()).rotate_overlap_seconds is None
    assert await turn(workshop, 400 * DAY) == 0
    await rotation.schedule(workshop.owner, ann.id, {"rotate_every_days": 90})
    assert await turn(workshop) == 1, "older than its new schedule"
    last = (await entries(workshop, "issued_key.schedule"))[0]
    assert json.loads(last.after or "{}")["rotate_every_days"] == 90


async def test_schedule_that_can_not_be_kept_is_refused_when_it_is_asked_for(workshop: Workshop) -> None:
    ann, rotation = await person(workshop, "ann", every=None), workshop.orders.rotation
    for changes, field in (
        ({"rotate_overlap_seconds": 60}, "rotate_overlap_seconds"),
        ({"rotate_every_days": 1, "rotate_overlap_seconds": DAY}, "rotate_overlap_seconds"),
        ({"rotate_every_days": 0}, "rotate_every_days"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await rotation.schedule(workshop.owner, ann.id, changes)
        assert refused.value.field == field
    with pytest.raises(NotFound):
        await rotation.schedule(stranger(workshop.owner), ann.id, {"rotate_every_days": 30})
    await workshop.orders.keys.revoke(workshop.owner, ann.id)
    with pytest.raises(Conflict, match="only keys that live"):
        await rotation.schedule(workshop.owner, ann.id, {"rotate_every_days": 30})

    await workshop.start(provisioners=with_openai(Single()))
    with pytest.raises(InvalidInput, match="can't hold a second key") as refused:
        await person(workshop, "bo", every=30)
    assert refused.value.field == "rotate_every_days"
    bo = await person(workshop, "cy", every=None)
    with pytest.raises(InvalidInput, match="can't hold a second key"):
        await workshop.orders.rotation.schedule(workshop.owner, bo.id, {"rotate_every_days": 30})


# Nobody fetches the new secret


async def test_app_that_runs_is_never_broken_by_a_rotation_that_nobody_noticed(workshop: Workshop) -> None:
    ann = await person(workshop, "ann")
    await turn(workshop, 30 * DAY)
    for _ in range(40):  # more than a year, used every ten days
        assert workshop.works(ann.secret)
        assert await turn(workshop, 10 * DAY) == 0, "never two at once"
    key = await ann.key()
    assert key.former is not None
    assert (key.state, key.generation, key.former.waits_for) == (State.ROTATING, 2, Waits.HANDOVER)
    assert key.former.last_used_at_ns is not None
    waits = await events(workshop, "issued_key.secret_waits")
    assert 30 < len(waits) < 45, "reminded all the time, never more than once a turn"
    fresh = await ann.collect()
    assert workshop.works(fresh), "its secret waited for as long as it took"
    await turn(workshop)
    assert (await ann.key()).former is not None
    await turn(workshop, 8 * DAY + 1)
    assert (await ann.key()).state is State.ACTIVE
    assert not workshop.works(ann.secret)


async def test_reminders_come_after_a_day_two_four_and_then_every_week(workshop: Workshop) -> None:
    await workshop.start(provisioners=with_openai(Silent()))
    await person(workshop, "ann", every=30, overlap=0)
    workshop.clock.advance(30 * DAY)
    days = []
    for day in range(40):
        before = len(await events(workshop, "issued_key.secret_waits"))
        await turn(workshop)
        if len(await events(workshop, "issued_key.secret_waits")) > before:
            days.append(day)
        workshop.clock.advance(DAY + 60)
    assert days == [0, 1, 3, 7, 14, 21, 28, 35]


async def test_key_that_nobody_uses_is_cut_once_the_vendor_shows_it_unused_for_a_month(workshop: Workshop) -> None:
    ann = await person(workshop, "ann", every=10)
    await turn(workshop, 5 * DAY)
    assert workshop.works(ann.secret)
    await turn(workshop, 5 * DAY)
    for _ in range(24):  # up to day 34
        await turn(workshop, DAY)
        assert (await ann.key()).state is State.ROTATING
    await turn(workshop, 2 * DAY)
    key = await ann.key()
    assert key.state is State.ACTIVE
    assert not workshop.works(ann.secret)
    assert key.secret_until_ns is not None, "a secret that nobody fetched does not stay for ever"
    assert await turn(workshop) == 0, "nor is the next one made before"
    assert workshop.works(await ann.collect())


async def test_vendor_that_never_tells_a_last_use_is_no_proof(workshop: Workshop) -> None:
    await workshop.start(provisioners=with_openai(Silent()))
    ann = await person(workshop, "ann")
    await turn(workshop, 30 * DAY)
    for _ in range(12):
        await turn(workshop, 30 * DAY)
    assert workshop.works(ann.secret), "unused as far as anybody knows, and it works on"
    fresh = await ann.collect()
    await turn(workshop, 7 * DAY - 60)
    assert workshop.works(ann.secret)
    await turn(workshop, 120)
    assert not workshop.works(ann.secret), "somebody took over the new one, and the overlap is over"
    assert workshop.works(fresh)


async def test_former_key_that_is_used_on_after_the_handover_is_told_of_and_not_cut(workshop: Workshop) -> None:
    ann = await person(workshop, "ann", overlap=HOUR)
    await turn(workshop, 30 * DAY)
    await ann.collect()
    for _ in range(5):
        assert workshop.works(ann.secret)
        await turn(workshop, 2 * HOUR)
    key = await ann.key()
    assert key.former is not None
    assert key.former.waits_for is Waits.QUIET
    assert [event.subject for event in await events(workshop, "issued_key.former_in_use")] == [ann.id]
    cut = await workshop.orders.keys.cut(workshop.owner, ann.id)
    assert cut.state is State.ACTIVE
    assert not workshop.works(ann.secret)


async def test_new_secret_is_for_its_owner_once_and_for_nobody_else(workshop: Workshop) -> None:
    ann, bo = await person(workshop, "ann"), await person(workshop, "bo", every=None)
    with pytest.raises(Conflict, match="No secret of this key waits"):
        await ann.collect()
    await turn(workshop, 30 * DAY)
    with pytest.raises(NotFound):
        await workshop.orders.handover.collect(bo.actor, ann.id)
    with pytest.raises(NotFound):
        await workshop.orders.handover.collect(stranger(workshop.owner), ann.id)
    with pytest.raises(Conflict, match="open already"):
        await workshop.orders.keys.rotate(workshop.owner, ann.id, overlap_seconds=60, quiet_seconds=60)
    token, _ = await workshop.orders.handover.make_link(workshop.owner, ann.id, expires_in_seconds=3_600)
    fresh = await ann.collect()
    with pytest.raises(NotFound):
        await workshop.orders.handover.open_link(token, address=None, request_id=None)
    assert workshop.works(fresh)
    [told] = [entry for entry in await entries(workshop, "issued_key.deliver") if (entry.actor_id, entry.outcome) == ("usr_dev", "done")]
    assert fresh not in str(told)


# Ends


async def test_key_ends_in_the_middle_of_a_rotation_that_nobody_finishes(workshop: Workshop) -> None:
    await workshop.start(provisioners=with_openai(Silent()))
    ann = await person(workshop, "ann", expires_at_ns=workshop.clock.now_ns() + 60 * DAY * 10**9)
    await turn(workshop, 30 * DAY)
    assert (await ann.key()).state is State.ROTATING
    await turn(workshop, 30 * DAY + 1)
    assert (await ann.key()).state is State.EXPIRED
    assert not workshop.works(ann.secret)
    assert workshop.standing() == (0, 0)


async def test_leaver_loses_both_keys_of_a_rotation_that_is_open(workshop: Workshop) -> None:
    ann = await person(workshop, "ann")
    await turn(workshop, 30 * DAY)
    fresh = await ann.collect()
    await workshop.developers.deactivate(workshop.owner, ann.developer_id)
    await workshop.orders.operations.tick()
    assert (await ann.key()).state is State.REVOKED
    assert not workshop.works(ann.secret)
    assert not workshop.works(fresh)


async def test_key_near_its_end_is_left_alone(workshop: Workshop) -> None:
    ann = await person(workshop, "ann", expires_at_ns=workshop.clock.now_ns() + 32 * DAY * 10**9)
    assert await turn(workshop, 30 * DAY) == 0
    assert (await workshop.orders.outlooks.of([await ann.key()]))[ann.id].hindrance is Hindrance.ENDS_FIRST
    await turn(workshop, 2 * DAY)
    assert (await ann.key()).state is State.EXPIRED


async def test_key_that_is_disabled_for_its_budget_waits_for_its_rotation_and_says_so(workshop: Workshop) -> None:
    ann = await person(workshop, "ann", budget_nano=20 * NANO)
    key = await ann.key()
    watches, watch = WatchRepository(), Watch(key.id, key.organization_id, wanted=Stage.DISABLED, stage=Stage.DISABLED)
    for stage, begun, hindrance in ((Stage.DISABLED, 0, Hindrance.BUDGET), (Stage.NONE, 1, Hindrance.OPEN)):
        async with workshop.database.unit() as work:
            await watches.save(work.connection, replace(watch, wanted=stage, stage=stage))
        assert await turn(workshop, 31 * DAY) == begun
        key = await ann.key()
        assert (await workshop.orders.outlooks.of([key]))[ann.id].hindrance is hindrance
        assert (key.error, key.rotate_tries) == (None, 0)
    assert await events(workshop, "issued_key.failed") == []


# What goes wrong


def _fault(operation: str, status: int, *, calls: int | None = None) -> Any:
    return AdminFault(operation, status=status, message="no", calls=calls)


async def test_vendor_that_refuses_leaves_the_key_as_it_was_and_is_asked_again_later(workshop: Workshop) -> None:
    ann, bo = await person(workshop, "ann"), await person(workshop, "bo")
    workshop.clock.advance(30 * DAY)
    workshop.account.faults.append(_fault("service_accounts.create", 403))
    workshop.account.faults.append(_fault("keys.create", 403))
    begun = await turn(workshop)
    for _ in range(3):
        begun += await turn(workshop, 60)
    assert begun <= 2, "one refusal stands for all keys of the account: the others are not tried"
    tried = [key for key in (await ann.key(), await bo.key()) if key.rotate_tries]
    assert tried
    for key in tried:
        assert (key.state, key.generation, key.former, key.rotate_tries) == (State.ACTIVE, 2, None, 1)
        assert key.rotate_error is not None
        assert (await workshop.orders.outlooks.of([key]))[key.id].hindrance is Hindrance.FAILED
    assert workshop.works(ann.secret)
    assert workshop.works(bo.secret)
    assert workshop.standing() == (2, 2)
    workshop.account.faults.clear()
    assert await turn(workshop, HOUR) >= 1
    await turn(workshop, HOUR)
    for each in (ann, bo):
        key = await each.key()
        assert (key.state, key.rotate_tries, key.rotate_error) == (State.ROTATING, 0, None)
        assert workshop.works(await each.collect())


async def test_rotation_sets_again_what_somebody_changed_at_the_vendor_and_says_so(workshop: Workshop) -> None:
    """By hand and by itself."""
    keys = [await person(workshop, name, budget_nano=20 * NANO, models=(MODEL,), requests_per_minute=600) for name in ("ann", "bo")]
    for each in keys:
        project = (await each.key()).footprint.place["project"]
        await workshop.console("DELETE", f"/projects/{project}/spend_limit")
        await workshop.console("POST", f"/projects/{project}/model_permissions", {"mode": "allow_list", "model_ids": [MODEL, "gpt-4.1"]})
    told = await workshop.orders.keys.rotate(workshop.owner, keys[0].id, overlap_seconds=0)
    assert told.secret is not None
    assert await turn(workshop, 31 * DAY) >= 1
    for each in keys:
        key = await each.key()
        assert {key.enforcement[term] for term in ("budget", "models", "requests_per_minute")} == {"confirmed"}
        project = key.footprint.place["project"]
        assert (await workshop.console("GET", f"/projects/{project}/spend_limit"))["threshold_amount"] == 2_000
        assert (await workshop.console("GET", f"/projects/{project}/model_permissions"))["model_ids"] == [MODEL]
    drifted = [json.loads(event.payload)["detail"] for event in await events(workshop, "issued_key.drifted")]
    assert drifted == ["Somebody changed budget, models, requests_per_minute at the vendor: set again, as the key is rotated"] * 2
    assert len(await entries(workshop, "issued_key.repair")) == 2


async def test_rotation_of_a_key_whose_terms_can_not_be_set_again_names_the_remedy(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await person(workshop, "ann", budget_nano=20 * NANO)
    project = (await ann.key()).footprint.place["project"]
    await workshop.console("DELETE", f"/projects/{project}/spend_limit")

    async def taken(*_: Any) -> None:
        """Answered with success, and nothing changes."""

    with monkeypatch.context() as patch:
        patch.setattr(OpenAIProvisioner, "set_budget", taken)
        with pytest.raises(Conflict, match=f"budget.*keygate inventory check {ann.id} --repair"):
            await workshop.orders.keys.rotate(workshop.owner, ann.id, overlap_seconds=0)
    workshop.account.faults.append(_fault("spend_limits.update", 403))
    with pytest.raises(Conflict, match=r"api\.limits\.write"):
        await workshop.orders.keys.rotate(workshop.owner, ann.id, overlap_seconds=0)
    workshop.account.faults.clear()
    key = await ann.key()
    assert (key.state, key.former, workshop.standing(), workshop.works(ann.secret)) == (State.ACTIVE, None, (1, 1), True)
    assert (await workshop.orders.inspection.check(workshop.owner, ann.id, repair=True)).error is None
    assert (await workshop.orders.keys.rotate(workshop.owner, ann.id, overlap_seconds=0)).secret is not None


async def test_key_that_somebody_switched_off_at_the_vendor_gets_no_next_one(workshop: Workshop) -> None:
    ann = await person(workshop, "ann")
    workshop.switch((await ann.key()).footprint.place["service_account"], enabled=False)
    with pytest.raises(Conflict, match=r"shows the key as disabled.*inventory repair"):
        await workshop.orders.keys.rotate(workshop.owner, ann.id, overlap_seconds=0)
    assert ((await ann.key()).state, workshop.standing()) == (State.ACTIVE, (1, 1))
    workshop.switch((await ann.key()).footprint.place["service_account"], enabled=True)
    assert (await workshop.orders.keys.rotate(workshop.owner, ann.id, overlap_seconds=0)).secret is not None


async def test_vendor_that_can_not_show_the_former_key_is_not_asked_for_ever(workshop: Workshop) -> None:
    ann = await person(workshop, "ann")
    workshop.account.faults.append(_fault("projects.get", 500))
    told = await workshop.orders.keys.rotate(workshop.owner, ann.id, overlap_seconds=0, patience=0)
    assert told.secret is None
    for _ in range(40):
        await turn(workshop, 60)
    key = await ann.key()
    assert (key.state, key.former, workshop.standing()) == (State.ACTIVE, None, (1, 1))


async def test_many_keys_due_at_once_begin_a_few_at_a_time_at_the_vendors_pace(workshop: Workshop) -> None:
    people = [await person(workshop, f"dev{number}") for number in range(12)]
    workshop.account.settings = workshop.account.settings.with_changes({"requests_per_minute": 60})
    await workshop.configure(calls_per_minute="60")
    workshop.clock.advance(31 * DAY)
    before = len(workshop.account.calls)
    assert await workshop.orders.scheduler.tick() == AT_ONCE
    assert await workshop.orders.scheduler.tick() == 0, "no more until those are made"
    await workshop.orders.operations.tick()
    begun = AT_ONCE
    for _ in range(10):
        begun += await turn(workshop, 15)
    assert begun == len(people)
    for each in people:
        assert (await each.key()).generation == 2
        assert workshop.works(each.secret)
        assert workshop.works(await each.collect())
    assert workshop.standing() == (12, 24)
    assert most_in_a_minute(list(workshop.account.calls)[before:]) <= 66, "calls that the vendor refused count too"


@pytest.mark.timeout(300)
async def test_rotation_by_itself_converges_from_a_death_at_every_step(workshop: Workshop) -> None:
    """From the turn that begins it, over the handover, to the one that cuts the former key."""
    ann = await person(workshop, "ann", every=30, overlap=HOUR)
    current, deaths = ann.secret, 0
    fresh: list[str] = []

    async def life() -> None:
        await turn(workshop)
        fresh.append(await ann.collect())
        await turn(workshop)
        await turn(workshop, HOUR)
        await turn(workshop, DAY + HOUR)

    for number in range(1, 60, STRIDE):
        workshop.clock.advance(31 * DAY)
        fresh.clear()
        workshop.life.end_at = workshop.life.steps + number
        died = not await outlived(workshop, life())
        deaths += died
        await workshop.start()
        for _ in range(6):
            await turn(workshop, 60)
        key = await ann.key()
        assert key.error is None
        if key.state is State.ROTATING:
            assert workshop.works(current), "the app goes on"
            assert workshop.standing() == (1, 2), "an orphan at the vendor"
        if not fresh:
            fresh.append(await ann.collect())  # again, where the answer got lost
        assert workshop.works(fresh[0])
        for _ in range(3):
            await turn(workshop, DAY + HOUR)
        assert (await ann.key()).state is State.ACTIVE
        assert not workshop.works(current)
        assert workshop.standing() == (1, 1)
        current = fresh[0]
        if not died:
            break
    assert not died
    assert deaths >= 10 // STRIDE


async def outlived(workshop: Workshop, acting: Coroutine[Any, Any, None]) -> bool:
    """Whether the process lives until it is done."""
    ended, working = asyncio.create_task(workshop.life.ended.wait()), asyncio.create_task(acting)
    await asyncio.wait({ended, working}, return_when=asyncio.FIRST_COMPLETED)
    lived = working.done()
    ended.cancel()
    working.cancel()
    await asyncio.wait({ended, working}, timeout=0.2)  # one that died after a commit never ends: the commit's steps are waited for
    if lived:
        working.result()
    return lived


async def test_answer_that_got_lost_is_told_again_to_whoever_fetched_it(workshop: Workshop) -> None:
    ann = await person(workshop, "ann")
    await turn(workshop, 30 * DAY)
    fresh = await ann.collect()
    workshop.clock.advance(9 * 60)
    assert await ann.collect() == fresh
    with pytest.raises(Conflict, match="No secret of this key waits"):
        await workshop.orders.handover.collect(workshop.owner, ann.id)
    workshop.clock.advance(2 * 60)
    with pytest.raises(Conflict, match="No secret of this key waits"):
        await ann.collect()


# By policy


async def test_policy_rotates_what_it_covers_and_nothing_else(workshop: Workshop, people: Identities) -> None:
    team = (await people.teams.create(workshop.owner, name="search")).id
    ann, bo = await person(workshop, "ann", every=None), await person(workshop, "bo", every=None)
    await workshop.developers.update(workshop.owner, ann.developer_id, {"team_id": team})
    workshop.clock.advance(80 * DAY)
    draft = PolicyDraft(90, team_id=team)
    told = await workshop.orders.rotation.check(workshop.owner, draft)
    assert (told.keys, told.due, told.too_old, told.by_person) == (1, 0, 0, 0)
    policy = await workshop.orders.rotation.create(workshop.owner, draft)
    assert await turn(workshop) == 0
    assert await turn(workshop, 3 * DAY) == 1, "a week before it is too old"
    key = await ann.key()
    assert key.former is not None
    assert (key.former.cause, key.former.policy_id) == (Cause.POLICY, policy.id)
    [begun] = await entries(workshop, "issued_key.rotate")
    assert (begun.actor_id, begun.target) == ("policy", ann.id)
    assert (await bo.key()).state is State.ACTIVE
    await workshop.orders.rotation.create(workshop.owner, PolicyDraft(60, vendor="google"))
    assert await turn(workshop) == 0
    await workshop.orders.rotation.create(workshop.owner, PolicyDraft(365))
    await workshop.orders.rotation.create(workshop.owner, PolicyDraft(30, vendor="openai"))
    assert await turn(workshop) == 1, "the strictest holds"
    assert (await bo.key()).state is State.ROTATING
    _, coverage = await workshop.orders.rotation.get(workshop.owner, policy.id)
    assert coverage.keys == 1


async def test_key_whose_rotation_nobody_finishes_is_overdue_in_the_inventory_until_it_is_cut(workshop: Workshop) -> None:
    ann = await person(workshop, "ann", every=None, budget_nano=NANO)
    await workshop.orders.rotation.create(workshop.owner, PolicyDraft(30, overlap_seconds=DAY))
    await turn(workshop, 29 * DAY)
    old = (await ann.key()).former
    assert old is not None
    assert workshop.works(ann.secret)
    await workshop.scan()
    assert Finding.OVERDUE not in (await workshop.items())[old.footprint.key or ""].findings
    await turn(workshop, 2 * DAY)
    assert workshop.works(ann.secret)
    await workshop.stock.scanner.assess()
    items = await workshop.items()
    assert Finding.OVERDUE in items[old.footprint.key or ""].findings
    assert Finding.OVERDUE not in (await workshop.item_of(await ann.key())).findings, "the next one is young"
    assert (await workshop.orders.outlooks.of([await ann.key()]))[ann.id].overdue(workshop.clock.now_ns())
    await ann.collect()
    await turn(workshop, 3 * DAY)
    await workshop.scan()
    assert set(await workshop.items(finding=Finding.OVERDUE)) == set()


async def test_hand_made_key_is_reminded_of_shown_as_overdue_and_never_touched(workshop: Workshop) -> None:
    hand, secret = workshop.by_hand("notebook")
    await workshop.scan()
    eve = await workshop.developer("eve")
    item = (await workshop.items())[hand]
    workshop.clock.advance(40 * DAY)  # it was made long before it was adopted: its age at the vendor counts
    adopted = await workshop.stock.adoptions.adopt(workshop.owner, item.id, Adoption(Place(Scope.DEVELOPER, eve.id)))
    with pytest.raises(InvalidInput, match="made by hand") as refused:
        await workshop.orders.rotation.schedule(workshop.owner, adopted.key.id, {"rotate_every_days": 30})
    assert refused.value.field == "rotate_every_days"
    policy = await workshop.orders.rotation.create(workshop.owner, PolicyDraft(60))
    told = await workshop.orders.rotation.check(workshop.owner, PolicyDraft(60))
    assert (told.keys, told.by_person, told.due) == (1, 1, 0)
    assert await turn(workshop, 5 * DAY) == 0
    assert await events(workshop, "issued_key.rotation_due") == []
    for _ in range(16):  # days 46 to 61
        assert await turn(workshop, DAY) == 0
    sent = [json.loads(event.payload) for event in await events(workshop, "issued_key.rotation_due")]
    assert [(each["age_days"], each["overdue"]) for each in reversed(sent)] == [(46, False), (53, False), (60, True)]
    assert {(each["owner"], each["policy_id"], each["max_age_days"]) for each in sent} == {(eve.id, policy.id, 60)}
    await workshop.stock.scanner.assess()
    found = (await workshop.items())[hand]
    assert Finding.OVERDUE in found.findings
    assert workshop.works(secret)
    await workshop.stock.inventory.accept(workshop.owner, found.id, reason="replaced next week")
    assert not set(await workshop.items(attention=True)) & {hand}
    await workshop.orders.rotation.delete(workshop.owner, policy.id)
    await workshop.stock.scanner.assess()
    assert Finding.OVERDUE not in (await workshop.items())[hand].findings


async def test_policies_are_checked_kept_apart_by_organisation_and_audited(workshop: Workshop) -> None:
    rotation, owner = workshop.orders.rotation, workshop.owner
    for draft, field in (
        (PolicyDraft(0), "max_age_days"),
        (PolicyDraft(1, overlap_seconds=DAY), "overlap_seconds"),
        (PolicyDraft(90, team_id="team_none"), "team_id"),
        (PolicyDraft(90, vendor="nobody"), "vendor"),
    ):
        for attempt in (rotation.check, rotation.create):
            with pytest.raises(InvalidInput) as refused:
                await attempt(owner, draft)
            assert refused.value.field == field
    policy = await rotation.create(owner, PolicyDraft(90))
    with pytest.raises(Conflict, match=policy.id):
        await rotation.create(owner, PolicyDraft(30))
    changed = await rotation.update(owner, policy.id, {"max_age_days": 30})
    assert (changed.max_age_days, changed.overlap) == (30, 7 * DAY)
    with pytest.raises(InvalidInput):
        await rotation.update(owner, policy.id, {"overlap_seconds": 30 * DAY})
    other = stranger(owner)
    assert await rotation.all(other) == []
    for call in (rotation.get(other, policy.id), rotation.delete(other, policy.id), rotation.update(other, policy.id, {})):
        with pytest.raises(NotFound):
            await call
    await rotation.delete(owner, policy.id)
    assert await rotation.all(owner) == []
    done = [
        entry.action for entry in await workshop.audited() if entry.target == policy.id and entry.organization_id == owner.organization_id
    ]
    assert done[::-1].count("rotation_policy.update") == 1
