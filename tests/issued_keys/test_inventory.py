"""The inventory: everything that stands at the vendor is found, named for what it is, and what is done about it is done there."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.issued_keys.workshop import Workshop, stranger

from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound, UpstreamFailed
from keygate.identities.model import App, Status
from keygate.identities.repository import OwnerRepository
from keygate.issued_keys import IssueDraft, State
from keygate.issued_keys.inventory.adopting import Adopted, Adoption
from keygate.issued_keys.inventory.judging import marked
from keygate.issued_keys.inventory.model import Finding, Kind, Scan, ScanState, Standing, Wanted
from keygate.issued_keys.inventory.service import How
from keygate.issued_keys.model import Enforcement, IssuedKey
from keygate.kit.clock import NANOSECONDS
from keygate.kit.ids import ALPHABET, base62, new_id
from keygate.kit.money import NANO
from keygate.kit.secret import Secret
from keygate.policies import Place, Scope
from keygate.sandbox import Vendor
from keygate.vendor_spend.watch import Stage, Watch
from keygate.vendor_spend.watch_repository import WatchRepository
from keygate.vendors.admin import Desk, Footprint, Mark, Presence, Terms
from keygate.vendors.admin.openai import OpenAIProvisioner

DAY = 86_400


async def events(workshop: Workshop, kind: str) -> list[str]:
    async with workshop.database.read() as connection:
        found = await workshop.outbox_rows.page(connection, workshop.owner.organization_id, before=None, type_=kind, limit=100)
    return [event.subject for event in found]


# Looking


@given(st.integers(min_value=0, max_value=2**128 - 1))
def test_an_id_is_told_from_its_mark_in_any_name(number: int) -> None:
    key_id = "ik_" + base62(number, 22)
    mark = Mark(key_id)
    for name in (mark.tag, mark.key_name(12), f"{mark.tag} priya, team search", f"adopted ({mark.tag})"):
        assert marked(name) == key_id


@given(st.text(alphabet=ALPHABET + " -_", max_size=60))
def test_a_name_without_a_mark_has_none(name: str) -> None:
    assert marked(name.replace("kg-", "")) is None


async def test_everything_is_found_and_named_for_what_it_is(workshop: Workshop) -> None:
    ours = await workshop.provision("ann", budget_nano=50 * NANO)
    bare = await workshop.provision("bo")
    hand, _ = workshop.by_hand("notebook", user="eve@example.com")
    left, _ = workshop.by_hand("old laptop", user="cy@example.com")
    cy = await workshop.developer("cy")
    await workshop.developers.deactivate(workshop.owner, cy.id)
    other = Mark(new_id("ik"))
    foreign = (await workshop.console("POST", "/projects", {"name": f"{other.tag} of another"}))["id"]

    scan = await workshop.scan()
    assert (scan.state, scan.seen) == (ScanState.DONE, 4 + 4)
    items = await workshop.items()
    assert len(items) == 8
    assert ours.footprint is not None
    assert bare.footprint is not None
    mine = items[ours.footprint.key or ""]
    assert (mine.standing, mine.findings, mine.issued_key_id) == (Standing.OURS, (), ours.id)
    assert mine.terms is not None
    assert mine.terms.budget_nano == 50 * NANO
    assert items[ours.footprint.place["project"]].standing is Standing.OURS
    assert items[bare.footprint.key or ""].findings == (Finding.NO_LIMIT,)
    assert (items[hand].standing, items[hand].owner) == (Standing.UNKNOWN, "eve@example.com")
    assert items[hand].findings == (Finding.NO_LIMIT,)
    assert items[left].findings == (Finding.LEAVER, Finding.NO_LIMIT)
    assert items[foreign].findings == (Finding.FOREIGN,)
    assert items["proj_default"].standing is Standing.UNKNOWN
    assert set(await workshop.items(attention=True)) == {bare.footprint.key, hand, left, foreign, "proj_default"}
    assert set(await workshop.items(finding=Finding.LEAVER)) == {left}
    assert set(await workshop.items(standing=Standing.UNKNOWN, kind=Kind.KEY)) == {hand, left}
    [summary] = await workshop.stock.inventory.summaries(workshop.owner)
    assert summary.standings == {Standing.OURS: 4, Standing.UNKNOWN: 4}
    assert summary.attention == 5
    assert len(await events(workshop, "inventory.found")) == 1
    await workshop.scan()
    assert len(await events(workshop, "inventory.found")) == 1  # nothing new


async def test_a_key_of_an_app_whose_developer_has_left_is_a_leavers(workshop: Workshop) -> None:
    """It goes on at the vendor: the app is not ended with its developer."""
    ann = await workshop.developer("ann")
    app = App(new_id("app"), ann.organization_id, "crawler", None, ann.id, None, Status.ACTIVE, workshop.clock.now_ns())
    async with workshop.database.unit(ann.organization_id) as work:
        assert await OwnerRepository().add_app(work.connection, app)
    draft = IssueDraft("openai", Place(Scope.APP, app.id), Terms(budget_nano=NANO))
    key = (await workshop.orders.keys.provision(workshop.owner, draft)).key
    await workshop.scan()
    assert (await workshop.item_of(key)).findings == ()
    await workshop.developers.deactivate(workshop.owner, ann.id)
    await workshop.stock.scanner.assess()
    assert (await workshop.item_of(key)).findings == (Finding.LEAVER,)


@pytest.mark.parametrize("days", [90, 30])
async def test_what_was_not_used_for_as_many_days_as_the_setting_says_is_stale(workshop: Workshop, days: int) -> None:
    await workshop.start(stale_days=days)
    used = await workshop.provision("ann", budget_nano=NANO)
    workshop.clock.advance((days - 1) * DAY)
    await workshop.scan()
    assert (await workshop.item_of(used)).findings == ()
    workshop.clock.advance(2 * DAY)
    idle, secret = workshop.by_hand("fresh")
    assert workshop.works(secret)
    await workshop.scan()
    item = await workshop.item_of(used)
    assert item.findings == (Finding.STALE,)
    assert f"{days} days" in workshop.stock.inventory.remedies(item)[0]
    assert Finding.STALE not in (await workshop.items())[idle].findings


async def test_a_scan_goes_on_where_it_was_cut_off(workshop: Workshop) -> None:
    for number in range(45):  # three pages
        await workshop.console("POST", "/projects", {"name": f"project {number}"})
    [scan] = await workshop.stock.inventory.scan(workshop.owner, None)
    life = asyncio.create_task(workshop.stock.scanner.tick())
    while (await workshop.stock.inventory.scans(workshop.owner, before=None, limit=1))[0].pages == 0:  # noqa: ASYNC110  (what the worker has saved)
        await asyncio.sleep(0.005)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    [cut] = await workshop.stock.inventory.scans(workshop.owner, before=None, limit=1)
    assert cut.state is ScanState.LISTING
    assert cut.cursor is not None
    before = len(workshop.account.calls)
    await workshop.start()
    while await workshop.stock.scanner.tick():
        workshop.clock.advance(1)
    [done] = await workshop.stock.inventory.scans(workshop.owner, before=None, limit=1)
    assert (done.id, done.state, done.pages, done.seen) == (scan.id, ScanState.DONE, 3, 46)
    first = next(call for call in list(workshop.account.calls)[before:] if call.operation == "projects.list")
    assert first is not None
    assert len(await workshop.items()) == 46


async def test_a_vendor_that_fails_is_asked_again_and_one_that_refuses_ends_the_scan(workshop: Workshop) -> None:
    workshop.account.faults.append(_fault("projects.list", 503, calls=7))
    done = await workshop.scan()
    assert done.state is not ScanState.FAILED
    while (await workshop.stock.inventory.scans(workshop.owner, before=None, limit=1))[0].state is not ScanState.DONE:
        workshop.clock.advance(30)
        await workshop.stock.scanner.tick()
    workshop.account.faults.append(_fault("projects.list", 403, calls=None))
    refused = await workshop.scan()
    assert refused.state is ScanState.FAILED
    assert "api.management.read" in (refused.error or "")


def _fault(operation: str, status: int, *, calls: int | None):
    from keygate.sandbox.admin import AdminFault

    return AdminFault(operation=operation, status=status, calls=calls)


async def test_every_account_is_looked_at_each_day(workshop: Workshop) -> None:
    await workshop.stock.scanner.plan()
    assert await workshop.stock.inventory.scans(workshop.owner, before=None, limit=9) == []
    for scans in (1, 1, 2):
        workshop.clock.advance(DAY / 2 + 60)
        await workshop.stock.scanner.plan()
        await workshop.stock.scanner.tick()
        assert len(await workshop.stock.inventory.scans(workshop.owner, before=None, limit=9)) == scans


# Drift


async def limit_in_console(workshop: Workshop, key: IssuedKey, cents: int) -> None:
    """Somebody sets another monthly limit at the vendor."""
    assert key.footprint is not None
    limit = {"threshold_amount": cents, "currency": "USD", "interval": "month"}
    await workshop.console("POST", f"/projects/{key.footprint.place['project']}/spend_limit", limit)


async def test_a_limit_that_was_changed_in_the_console_is_found_and_set_again(workshop: Workshop) -> None:
    key = await workshop.provision("ann", budget_nano=50 * NANO, requests_per_minute=60)
    assert key.footprint is not None
    project = key.footprint.place["project"]
    await limit_in_console(workshop, key, 900_000)
    await workshop.scan()
    item = await workshop.item_of(key)
    assert item.findings == (Finding.DRIFT,)
    [difference] = item.drift
    assert (difference.term, difference.agreed, difference.found) == ("budget", "$50.00 a month", "$9000.00 a month")
    await workshop.orders.inspection.tick()
    seen = await workshop.orders.keys.get(workshop.owner, key.id)
    assert seen.enforcement["budget"] is Enforcement.DIFFERS, "what a scan finds is looked at at once"
    repaired = await workshop.stock.inventory.repair(workshop.owner, item.id)
    assert (repaired.findings, repaired.drift) == ((), ())
    assert (await workshop.console("GET", f"/projects/{project}/spend_limit"))["threshold_amount"] == 5_000
    with pytest.raises(Conflict, match="nothing that could be repaired"):
        await workshop.stock.inventory.repair(workshop.owner, item.id)


async def test_a_limit_that_was_changed_on_purpose_becomes_the_agreed_one(workshop: Workshop) -> None:
    key = await workshop.provision("ann", budget_nano=50 * NANO)
    assert key.footprint is not None
    await limit_in_console(workshop, key, 7_000)
    await workshop.scan()
    item = await workshop.item_of(key)
    accepted = await workshop.stock.inventory.accept(workshop.owner, item.id, reason="agreed with finance")
    assert (accepted.findings, accepted.drift) == ((), ())
    after = await workshop.orders.keys.get(workshop.owner, key.id)
    assert after.terms.budget_nano == 70 * NANO
    assert after.enforcement["budget"] is Enforcement.CONFIRMED
    await workshop.scan()
    assert (await workshop.item_of(key)).findings == ()


async def test_after_a_change_that_was_agreed_to_the_next_one_is_told_again(workshop: Workshop) -> None:
    key = await workshop.provision("ann", budget_nano=50 * NANO)
    assert key.footprint is not None
    await limit_in_console(workshop, key, 9_900)
    await workshop.scan()
    item = await workshop.item_of(key)
    accepted = await workshop.stock.inventory.accept(workshop.owner, item.id, reason="agreed with finance")
    assert (accepted.findings, accepted.accepted) == ((), False)
    told = len(await events(workshop, "inventory.found"))
    await limit_in_console(workshop, key, 99_999_900)
    await workshop.scan()
    again = (await workshop.items(attention=True))[key.footprint.key or ""]
    assert again.findings == (Finding.DRIFT,)
    assert [(each.agreed, each.found) for each in again.drift] == [("$99.00 a month", "$999999.00 a month")]
    assert len(await events(workshop, "inventory.found")) == told + 1


async def test_a_repair_that_the_vendor_does_not_show_is_not_called_done(workshop: Workshop) -> None:
    key = await workshop.provision("ann", budget_nano=50 * NANO)
    assert key.footprint is not None
    await limit_in_console(workshop, key, 7_000)
    await workshop.scan()
    workshop.account.faults.append(_fault("spend_limits.update", 403, calls=None))
    item = await workshop.item_of(key)
    with pytest.raises(UpstreamFailed, match=r"api\.limits\.write"):
        await workshop.stock.inventory.repair(workshop.owner, item.id)
    assert (await workshop.item_of(key)).findings == (Finding.DRIFT,)


async def test_a_key_that_is_gone_at_the_vendor_is_missing_until_it_is_revoked_here(workshop: Workshop) -> None:
    key = await workshop.provision("ann", budget_nano=NANO)
    assert key.footprint is not None
    workshop.clock.advance(3_600)
    await workshop.console("DELETE", f"/projects/{key.footprint.place['project']}/api_keys/{key.footprint.key}")
    await workshop.scan()  # it was never listed before
    item = await workshop.item_of(key)
    assert (item.presence, item.findings) == (Presence.GONE, (Finding.MISSING,))
    with pytest.raises(Conflict, match="gone"):
        await workshop.stock.inventory.accept(workshop.owner, item.id, reason="whatever")
    assert (await workshop.orders.keys.revoke(workshop.owner, key.id)).state is State.REVOKED
    await workshop.stock.scanner.assess()
    assert await workshop.items(kind=Kind.KEY) == {}


async def test_what_is_left_of_an_ended_key_is_orphaned_and_removed(workshop: Workshop) -> None:
    key = await workshop.provision("ann")
    assert key.footprint is not None
    await workshop.orders.keys.revoke(workshop.owner, key.id)
    workshop.clock.advance(600)
    await workshop.orders.operations.tick()
    project = (await workshop.console("POST", "/projects", {"name": f"{key.mark.tag} again"}))["id"]
    _, secret = workshop.by_hand("in it", project_id=project)
    await workshop.scan()
    items = await workshop.items(attention=True)
    assert items[project].standing is Standing.ORPHANED
    after = await workshop.stock.inventory.repair(workshop.owner, items[project].id)
    assert after.presence is Presence.GONE
    assert not workshop.works(secret)


# Adopting


async def test_an_adopted_key_ends_with_its_owner_and_nothing_else_does(workshop: Workshop) -> None:
    hand, secret = workshop.by_hand("notebook")
    beside, other = workshop.by_hand("beside it")
    await workshop.scan()
    item = (await workshop.items())[hand]
    dev = await workshop.developer("dora")
    adopted = await workshop.stock.adoptions.adopt(workshop.owner, item.id, Adoption(Place(Scope.DEVELOPER, dev.id)))
    assert (adopted.item.standing, adopted.item.issued_key_id) == (Standing.ADOPTED, adopted.key.id)
    assert adopted.renamed is False
    assert "can't rename a key" in (adopted.note or "")
    assert adopted.key.name == "dora"
    with pytest.raises(Conflict, match="adopted already"):
        await workshop.stock.adoptions.adopt(workshop.owner, item.id, Adoption(None))
    with pytest.raises(Conflict, match="made by hand"):
        await workshop.orders.keys.rotate(workshop.owner, adopted.key.id, overlap_seconds=0, quiet_seconds=0)
    assert workshop.works(secret)
    await workshop.developers.deactivate(workshop.owner, dev.id)
    await workshop.orders.operations.tick()
    after = await workshop.orders.keys.get(workshop.owner, adopted.key.id)
    assert (after.state, after.evidence[0]["vendor_says"]) == (State.REVOKED, "gone")
    assert not workshop.works(secret)
    assert workshop.works(other)
    workshop.clock.advance(3_600)
    await workshop.orders.operations.tick()
    assert workshop.works(other)
    assert (await workshop.console("GET", "/projects/proj_default"))["status"] == "active"
    assert beside in await workshop.items()


async def test_an_adopted_key_ends_at_its_time_and_its_end_is_told_before(workshop: Workshop) -> None:
    hand, secret = workshop.by_hand("notebook")
    await workshop.scan()
    item = (await workshop.items())[hand]
    ends = workshop.clock.now_ns() + 60 * DAY * NANOSECONDS
    adopted = await workshop.stock.adoptions.adopt(workshop.owner, item.id, Adoption(None, expires_at_ns=ends, name="notebook"))
    assert adopted.key.enforcement["expiry"] is Enforcement.NOT_ENFORCED
    sent = []
    for _ in range(61):
        await workshop.stock.reminders.tick()
        sent.append(len(await events(workshop, "issued_key.ends_soon")))
        workshop.clock.advance(DAY)
    assert [sent.index(count) for count in (1, 2, 3)] == [30, 53, 59]
    await workshop.orders.operations.tick()
    assert (await workshop.orders.keys.get(workshop.owner, adopted.key.id)).state is State.EXPIRED
    assert not workshop.works(secret)


async def test_an_end_that_was_moved_is_told_again_by_the_new_end(workshop: Workshop) -> None:
    hand, _ = workshop.by_hand("notebook")
    await workshop.scan()
    item = (await workshop.items())[hand]
    ends = workshop.clock.now_ns() + 40 * DAY * NANOSECONDS
    adopted = await workshop.stock.adoptions.adopt(workshop.owner, item.id, Adoption(None, expires_at_ns=ends, remind_days=[7]))
    await workshop.orders.keys.extend(workshop.owner, adopted.key.id, expires_at_ns=ends + 100 * DAY * NANOSECONDS)
    workshop.clock.advance(35 * DAY)
    await workshop.stock.reminders.tick()
    assert await events(workshop, "issued_key.ends_soon") == []
    workshop.clock.advance(100 * DAY)
    await workshop.stock.reminders.tick()
    assert await events(workshop, "issued_key.ends_soon") == [adopted.key.id]


async def test_a_project_keeps_its_name_when_the_only_key_in_it_is_adopted(workshop: Workshop) -> None:
    project = (await workshop.console("POST", "/projects", {"name": "Production checkout"}))["id"]
    hand, secret = workshop.by_hand("notebook", project_id=project)
    default, _ = workshop.by_hand("alone in the default project")
    await workshop.scan()
    found = await workshop.items()
    adopted = await workshop.stock.adoptions.adopt(workshop.owner, found[hand].id, Adoption(None, name="notebook"))
    await workshop.stock.adoptions.adopt(workshop.owner, found[default].id, Adoption(None))
    shown = {each["id"]: each["name"] for each in (await workshop.console("GET", "/projects"))["data"]}
    assert (shown[project], shown["proj_default"]) == ("Production checkout", "Default project")
    [remedy] = workshop.stock.adoptions.remedies(adopted.item)
    assert (adopted.item.findings, "adopt" in remedy) == ((Finding.NO_LIMIT,), False), "what was adopted is not adopted again"
    await workshop.scan()
    items = await workshop.items()
    assert (items[hand].standing, items[project].standing) == (Standing.ADOPTED, Standing.UNKNOWN)
    await workshop.orders.keys.revoke(workshop.owner, adopted.key.id)
    assert not workshop.works(secret)
    assert (await workshop.console("GET", f"/projects/{project}"))["status"] == "active"


async def test_our_own_mark_is_not_called_another_keygates_whatever_carries_it_and_after_the_keys_end(workshop: Workshop) -> None:
    project = (await workshop.console("POST", "/projects", {"name": "skunkworks"}))["id"]
    hand, _ = workshop.by_hand("notebook", project_id=project)
    await workshop.scan()
    adopted = await workshop.stock.adoptions.adopt(workshop.owner, (await workshop.items())[hand].id, Adoption(None))
    await workshop.console("POST", f"/projects/{project}", {"name": f"{adopted.key.mark.tag} skunkworks"})
    await workshop.scan()
    assert (await workshop.items())[project].findings == ()
    await workshop.orders.keys.revoke(workshop.owner, adopted.key.id)
    await workshop.scan()
    after = (await workshop.items())[project]
    assert (after.standing, after.findings) == (Standing.UNKNOWN, ())


async def test_what_cannot_be_adopted_is_refused(workshop: Workshop) -> None:
    ours = await workshop.provision("ann")
    hand, _ = workshop.by_hand("notebook")
    gone = await workshop.developer("gone")
    await workshop.developers.deactivate(workshop.owner, gone.id)
    await workshop.scan()
    items = await workshop.items()
    with pytest.raises(Conflict, match="ours already"):
        await workshop.stock.adoptions.adopt(workshop.owner, (await workshop.item_of(ours)).id, Adoption(None))
    with pytest.raises(Conflict, match="Only keys"):
        await workshop.stock.adoptions.adopt(workshop.owner, items["proj_default"].id, Adoption(None))
    with pytest.raises(InvalidInput, match="no longer active"):
        await workshop.stock.adoptions.adopt(workshop.owner, items[hand].id, Adoption(Place(Scope.DEVELOPER, gone.id)))
    await workshop.console("DELETE", f"/projects/proj_default/api_keys/{hand}")
    with pytest.raises(Conflict, match="gone by now"):
        await workshop.stock.adoptions.adopt(workshop.owner, items[hand].id, Adoption(None))


async def test_the_gateways_own_key_is_not_adopted(workshop: Workshop) -> None:
    """Its spend is counted by the gateway; adopted, the vendor's bill would count it once more."""
    hand, secret = workshop.by_hand("gateway")
    other, _ = workshop.by_hand("notebook")
    await workshop.scan()
    items = await workshop.items()
    tail = "…" + secret[-4:]
    await workshop.credential(Secret(secret))
    adopt = workshop.stock.adoptions.adopt
    with pytest.raises(Conflict, match="gateway's credential main"):
        await adopt(workshop.owner, items[hand].id, Adoption(None, secret=Secret(secret)))
    with pytest.raises(Conflict, match="ends as the gateway's credential main"):
        await adopt(workshop.owner, items[hand].id, Adoption(None))
    like = replace(items[other], hint=tail)  # the letters that vendors show may be the same by chance
    async with workshop.database.unit() as work:
        await workshop.stock.adoptions.eyes.repository.save(work.connection, like)
    adopted = await adopt(workshop.owner, like.id, Adoption(None, secret=Secret(f"sk-another-one-of-these{tail[1:]}")))
    assert adopted.item.standing is Standing.ADOPTED


# Vendors without an API for keys


async def entered(workshop: Workshop, **adoption: object) -> tuple[str, Adopted]:
    value = workshop.sandbox.state.create_key(Vendor.OPENAI).value
    settings = {"base_url": workshop.sandbox.openai_base_url}
    wanted = Adoption(**{"owner": None, **adoption})
    made = await workshop.stock.adoptions.enter(workshop.owner, vendor="groq", secret=Secret(value), settings=settings, adoption=wanted)
    return value, made


async def test_a_key_of_a_vendor_without_an_api_is_watched_and_its_rotation_is_a_checklist(workshop: Workshop) -> None:
    value, made = await entered(workshop, name="groq of search")
    assert (made.item.standing, made.item.presence, made.key.name) == (Standing.ADOPTED, Presence.LIVE, "groq of search")
    assert any("console.groq.com" in step for step in made.checklist)
    with pytest.raises(Conflict, match="here already"):
        await workshop.stock.adoptions.enter(workshop.owner, vendor="groq", secret=Secret(value), settings={}, adoption=Adoption(None))
    settings = {"base_url": workshop.sandbox.openai_base_url}
    with pytest.raises(InvalidInput, match=r"^key: .*does not take this key"):
        await workshop.stock.adoptions.enter(
            workshop.owner, vendor="groq", secret=Secret("gsk_unknown0000000"), settings=settings, adoption=Adoption(None)
        )
    with pytest.raises(Conflict, match="found in the inventory"):
        await workshop.stock.adoptions.enter(workshop.owner, vendor="openai", secret=Secret("x"), settings={}, adoption=Adoption(None))
    workshop.sandbox.state.revoke_key(value)
    workshop.clock.advance(DAY)
    await workshop.stock.inventory.scan(workshop.owner, made.item.account_id)
    await workshop.stock.scanner.tick()
    item = await workshop.stock.inventory.get(workshop.owner, made.item.id)
    assert (item.presence, item.findings) == (Presence.GONE, (Finding.MISSING,))


async def test_it_is_revoked_only_once_the_vendor_refuses_it(workshop: Workshop) -> None:
    dev = await workshop.developer("dora")
    value, made = await entered(workshop, owner=Place(Scope.DEVELOPER, dev.id))
    await workshop.developers.deactivate(workshop.owner, dev.id)
    await workshop.orders.operations.tick()
    stuck = await workshop.orders.keys.get(workshop.owner, made.key.id)
    assert stuck.state is State.IRREVOCABLE
    assert "only a person can end it" in (stuck.error or "")
    workshop.sandbox.state.revoke_key(value)
    workshop.clock.advance(3_600)
    await workshop.orders.operations.tick()
    done = await workshop.orders.keys.get(workshop.owner, made.key.id)
    assert (done.state, done.evidence[0]["vendor_says"]) == (State.REVOKED, "gone")


# Disabling and accepting


class Switching(OpenAIProvisioner):
    """As if OpenAI's API could switch keys off."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    async def set_enabled(self, desk: Desk, footprint: Footprint, *, enabled: bool) -> None:
        self._workshop.switch(footprint.place["service_account"], enabled=enabled)


async def test_an_unknown_key_is_revoked_at_the_vendor(workshop: Workshop) -> None:
    hand, secret = workshop.by_hand("notebook")
    await workshop.scan()
    item = (await workshop.items())[hand]
    with pytest.raises(Conflict, match="can't switch a key off"):
        await workshop.stock.inventory.disable(workshop.owner, item.id, how=How.DISABLE, reason="nobody knows it")
    done = await workshop.stock.inventory.disable(workshop.owner, item.id, how=How.REVOKE, reason="nobody knows it")
    assert done.presence is Presence.GONE
    assert not workshop.works(secret)
    assert hand not in await workshop.items()
    with pytest.raises(Conflict, match="gone already"):
        await workshop.stock.inventory.disable(workshop.owner, item.id, how=How.REVOKE, reason="again")


async def test_one_that_was_switched_off_in_the_console_is_found_and_switched_on(workshop: Workshop) -> None:
    await workshop.start(provisioners={"openai": Switching(workshop)})
    key = await workshop.provision("ann", budget_nano=NANO)
    assert key.footprint is not None
    workshop.switch(key.footprint.place["service_account"], enabled=False)
    await workshop.scan()
    item = await workshop.item_of(key)
    assert item.findings == (Finding.DISABLED,)
    assert (await workshop.stock.inventory.repair(workshop.owner, item.id)).findings == ()
    off = await workshop.stock.inventory.disable(workshop.owner, item.id, how=How.DISABLE, reason="on holiday")
    assert (off.presence, off.findings, off.accepted) == (Presence.DISABLED, (Finding.DISABLED,), True)
    assert await workshop.items(attention=True, kind=Kind.KEY) == {}


async def test_a_key_that_was_switched_on_and_off_again_is_found_again(workshop: Workshop) -> None:
    await workshop.start(provisioners={"openai": Switching(workshop)})
    key = await workshop.provision("ann", budget_nano=NANO)
    assert key.footprint is not None
    await workshop.scan()
    item = await workshop.item_of(key)
    await workshop.stock.inventory.disable(workshop.owner, item.id, how=How.DISABLE, reason="on holiday")
    back = await workshop.stock.inventory.repair(workshop.owner, item.id)
    assert (back.findings, back.acceptance) == ((), None)
    workshop.switch(key.footprint.place["service_account"], enabled=False)
    await workshop.scan()
    assert (await workshop.items(attention=True))[key.footprint.key or ""].findings == (Finding.DISABLED,)


async def test_switching_a_key_off_agrees_to_nothing_that_the_vendor_shows(workshop: Workshop) -> None:
    await workshop.start(provisioners={"openai": Switching(workshop)})
    key = await workshop.provision("ann", budget_nano=50 * NANO)
    assert key.footprint is not None
    await limit_in_console(workshop, key, 900_000)
    await workshop.scan()
    item = await workshop.item_of(key)
    off = await workshop.stock.inventory.disable(workshop.owner, item.id, how=How.DISABLE, reason="somebody raised its limit")
    assert off.findings == (Finding.DISABLED, Finding.DRIFT)
    assert off.acceptance is not None
    assert (off.acceptance.findings, off.acceptance.reason) == (("disabled",), "somebody raised its limit")
    assert (await workshop.items(attention=True))[key.footprint.key or ""].id == item.id, "the drift is still the matter"
    after = await workshop.orders.keys.get(workshop.owner, key.id)
    assert after.terms.budget_nano == 50 * NANO
    workshop.account.faults.append(_fault("spend_limits.update", 403, calls=1))
    with pytest.raises(UpstreamFailed):
        await workshop.stock.inventory.repair(workshop.owner, item.id)
    assert (await workshop.stock.inventory.looked_again(item)).presence is Presence.DISABLED, "not switched on with the raised limit"
    await workshop.stock.inventory.repair(workshop.owner, item.id)
    shown = await workshop.console("GET", f"/projects/{key.footprint.place['project']}/spend_limit")
    assert shown["threshold_amount"] == 5_000


async def test_what_holds_keys_is_not_switched_off_where_keys_are(workshop: Workshop) -> None:
    await workshop.start(provisioners={"openai": Switching(workshop)})
    key = await workshop.provision("ann", budget_nano=NANO)
    assert key.footprint is not None
    await workshop.scan()
    project = (await workshop.items())[key.footprint.place["project"]]
    before, entries = workshop.changes(), len(await workshop.audited())
    with pytest.raises(Conflict, match="not what holds them"):
        await workshop.stock.inventory.disable(workshop.owner, project.id, how=How.DISABLE, reason="the whole project")
    assert (workshop.changes(), len(await workshop.audited())) == (before, entries)


async def test_the_same_organisation_under_a_second_name_shows_our_own_keys_as_ours(workshop: Workshop) -> None:
    key = await workshop.provision("ann", budget_nano=NANO)
    assert key.footprint is not None
    hand, _ = workshop.by_hand("notebook")
    second = await workshop.orders.accounts.configure(
        workshop.owner,
        vendor="openai",
        name="second",
        admin_key=Secret(workshop.account.create_credential().value),
        settings={"base_url": workshop.sandbox.openai_base_url, "calls_per_minute": "100000"},
    )
    await workshop.stock.inventory.scan(workshop.owner, "second")
    while await workshop.stock.scanner.tick():
        workshop.clock.advance(1)
    items = await workshop.items(account_id=second.id)
    ours = items[key.footprint.key or ""]
    assert (ours.standing, ours.findings, ours.issued_key_id) == (Standing.OURS, (), key.id)
    assert items[key.footprint.place["project"]].standing is Standing.OURS
    assert items[hand].standing is Standing.UNKNOWN
    gone = await workshop.stock.inventory.disable(workshop.owner, ours.id, how=How.REVOKE, reason="left")
    assert gone.presence is Presence.GONE
    assert (await workshop.orders.keys.get(workshop.owner, key.id)).state is State.REVOKED


async def test_a_key_that_keygate_holds_back_for_its_budget_is_nothing_to_look_at(workshop: Workshop) -> None:
    key = await workshop.provision("ann", budget_nano=NANO, requests_per_minute=600)
    assert key.footprint is not None
    await workshop.scan()
    workshop.switch(key.footprint.place["service_account"], enabled=False)
    with workshop.sandbox.state.admin.lock:
        entry = workshop.account.shelves["projects"].get(key.footprint.place["project"])
        assert entry is not None
        for limits in entry.more["rate_limits"].values():
            limits.set({**limits.last(), "max_requests_per_1_minute": 150}, at_ns=workshop.account.now_ns())
    await workshop.scan()
    assert (await workshop.item_of(key)).findings == (Finding.DISABLED, Finding.DRIFT)
    async with workshop.database.unit(key.organization_id) as work:
        await WatchRepository().save(work.connection, Watch(key.id, key.organization_id, stage=Stage.DISABLED))
    await workshop.stock.scanner.assess()
    assert (await workshop.item_of(key)).findings == ()


async def test_what_was_accepted_is_quiet_until_something_new_is_the_matter(workshop: Workshop) -> None:
    hand, _ = workshop.by_hand("notebook", user="eve@example.com")
    eve = await workshop.developer("eve")
    await workshop.scan()
    item = (await workshop.items(attention=True))[hand]
    accepted = await workshop.stock.inventory.accept(workshop.owner, item.id, reason="the finance team's own")
    assert accepted.accepted
    assert accepted.acceptance is not None
    assert accepted.acceptance.findings == ("no_limit", "unknown")
    await workshop.scan()
    assert hand not in await workshop.items(attention=True)
    await workshop.developers.deactivate(workshop.owner, eve.id)
    await workshop.stock.scanner.assess()
    again = (await workshop.items(attention=True))[hand]
    assert Finding.LEAVER in again.findings


async def test_everything_done_is_in_the_audit_log_before_it_is_done(workshop: Workshop) -> None:
    hand, _ = workshop.by_hand("notebook")
    await workshop.scan()
    item = (await workshop.items())[hand]
    workshop.account.faults.append(_fault("keys.delete", 500, calls=None))
    with pytest.raises(UpstreamFailed):
        await workshop.stock.inventory.disable(workshop.owner, item.id, how=How.REVOKE, reason="unknown")
    entries = await workshop.audited()
    assert [entry.action for entry in entries if entry.target == item.id] == ["inventory.disable"]
    assert workshop.owner.id in {entry.actor_id for entry in entries}


async def test_another_organisation_sees_and_does_nothing(workshop: Workshop) -> None:
    hand, secret = workshop.by_hand("notebook")
    await workshop.scan()
    item = (await workshop.items())[hand]
    other, inventory = stranger(workshop.owner), workshop.stock.inventory
    assert await inventory.page(other, Wanted(), after=None, limit=9) == []
    assert await inventory.summaries(other) == []
    assert await inventory.scans(other, before=None, limit=9) == []
    for call in (
        inventory.get(other, item.id),
        workshop.stock.adoptions.adopt(other, item.id, Adoption(None)),
        inventory.disable(other, item.id, how=How.REVOKE, reason="x"),
        inventory.accept(other, item.id, reason="x"),
        inventory.repair(other, item.id),
        inventory.scan(other, None),
    ):
        with pytest.raises(NotFound):
            await call
    assert workshop.works(secret)


async def test_a_token_for_the_inventory_alone_changes_no_keys(workshop: Workshop) -> None:
    hand, secret = workshop.by_hand("notebook")
    await workshop.scan()
    item = (await workshop.items())[hand]
    token = replace(workshop.owner, id="tok_1", scopes=frozenset({"inventory.read", "inventory.write"}))
    inventory, adoptions = workshop.stock.inventory, workshop.stock.adoptions
    assert await inventory.get(token, item.id) == item
    for call in (
        adoptions.adopt(token, item.id, Adoption(None)),
        adoptions.enter(token, vendor="groq", secret=Secret(secret), settings={}, adoption=Adoption(None)),
        inventory.disable(token, item.id, how=How.REVOKE, reason="x"),
        inventory.accept(token, item.id, reason="x"),
        inventory.repair(token, item.id),
    ):
        with pytest.raises(Forbidden, match=r"issued_keys\.write"):
            await call
    assert workshop.works(secret)


async def test_containers_that_are_not_ours_leave_less_room_for_a_bulk_order(workshop: Workshop) -> None:
    from tests.issued_keys.test_bulk import order_of

    await workshop.configure(ceiling="10")
    for number in range(6):
        await workshop.console("POST", "/projects", {"name": f"project {number}"})
    plan = await workshop.stock.bulk.check(workshop.owner, order_of(5))
    assert (plan.room.counted, plan.room.standing, plan.left, plan.fits) == (True, 7, 3, False)  # by the vendor, before any scan
    await workshop.scan()
    workshop.clock.advance(60)
    workshop.account.faults.append(_fault("projects.list", 403, calls=None))
    plan = await workshop.stock.bulk.check(workshop.owner, order_of(5))
    assert (plan.room.counted, plan.room.standing, plan.left, plan.fits) == (False, 7, 3, False)  # as the scan saw it


# Scans that can't be


async def _asked(workshop: Workshop) -> Scan:
    """A scan that somebody asks for, once it is over."""
    await workshop.stock.inventory.scan(workshop.owner, None)
    for _ in range(300):
        await workshop.stock.scanner.tick()
        [scan] = await workshop.stock.inventory.scans(workshop.owner, before=None, limit=1)
        if scan.ended_at_ns is not None:
            return scan
        workshop.clock.advance(1)
    raise AssertionError(scan)


async def test_a_scan_of_an_address_without_such_an_api_ends_soon_and_says_so(workshop: Workshop) -> None:
    workshop.account.faults.append(_fault("projects.list", 404, calls=None))
    began = workshop.clock.now_ns()
    ended = await _asked(workshop)
    assert (ended.state, ended.attempts) == (ScanState.FAILED, 3)
    assert "see the account's base_url" in (ended.error or "")
    assert workshop.clock.now_ns() - began < 30 * NANOSECONDS


async def test_a_scan_that_somebody_waits_for_ends_soon_where_nobody_answers(workshop: Workshop) -> None:
    workshop.sandbox.stop()
    began = workshop.clock.now_ns()
    ended = await _asked(workshop)
    assert ended.state is ScanState.FAILED
    assert "127.0.0.1" in (ended.error or "")
    assert workshop.clock.now_ns() - began < 120 * NANOSECONDS


async def test_whoever_asks_does_not_wait_for_the_next_try_of_a_scan_that_is_in_trouble(workshop: Workshop) -> None:
    workshop.account.faults.append(_fault("projects.list", 500, calls=18))
    workshop.clock.advance(3_601)
    await workshop.stock.scanner.plan()
    for _ in range(3):
        await workshop.stock.scanner.tick()
        workshop.clock.advance(5)
    [stuck] = await workshop.stock.inventory.scans(workshop.owner, before=None, limit=1)
    assert stuck.state is ScanState.LISTING
    assert (await _asked(workshop)).state is ScanState.DONE


async def test_one_key_that_cannot_be_read_fails_no_scan(workshop: Workshop) -> None:
    made = [await workshop.provision(name) for name in ("priya", "sam", "kim")]
    workshop.account.faults.append(_fault("keys.get", 500, calls=6))  # every try of one call
    done = await _asked(workshop)
    assert done.state is ScanState.DONE
    assert "1 could not be read, the others were" in (done.error or "")
    read = [await workshop.item_of(key) for key in made]
    assert sum(item.read_at_ns is None for item in read) == 1


async def test_a_vendor_that_cannot_be_read_at_all_fails_the_scan(workshop: Workshop) -> None:
    for number in range(6):
        await workshop.provision(f"dev{number}")
    workshop.account.faults.append(_fault("keys.get", 500, calls=None))
    assert (await _asked(workshop)).state is ScanState.FAILED
