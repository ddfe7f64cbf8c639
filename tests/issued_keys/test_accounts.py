"""Vendor accounts: whose an admin credential is, what it is said of one that is refused, and how much room there is, before anything is
made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.issued_keys.test_bulk import order_of
from tests.issued_keys.workshop import Workshop
from tests.sdks.aws_clients import MODEL
from tests.sdks.azure_clients import GROUP, SUBSCRIPTION, TENANT
from tests.vendors.admin.desks import ended_early

from keygate.errors import Conflict, InvalidInput, UpstreamFailed
from keygate.errors import Unavailable as TryLater
from keygate.issued_keys import IssuedFilter, IssuedKey, IssueDraft, State
from keygate.issued_keys.bulk.model import BulkDraft
from keygate.issued_keys.inspection import BATCH, EVERY_NS, RETRY_NS
from keygate.issued_keys.model import AccountStatus, VendorAccount
from keygate.issued_keys.tables import vendor_accounts
from keygate.kit.clock import NANOSECONDS
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret
from keygate.policies import Place, Scope
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import AdminFault, FaultKind
from keygate.vendors.admin import PROVISIONERS, Desk, Footprint, Reading, Terms, Unavailable
from keygate.vendors.admin.openai import OpenAIProvisioner

CLOUDS = pytest.mark.parametrize("vendor", [Vendor.AZURE, Vendor.BEDROCK])
TERMS = {Vendor.AZURE: Terms(models=("gpt-4o-mini",), tokens_per_minute=20_000), Vendor.BEDROCK: Terms(models=(MODEL,))}
SHELVES = {Vendor.AZURE: "accounts", Vendor.BEDROCK: "users"}


@pytest.fixture
def elsewhere() -> Iterator[SandboxServer]:
    """Another organisation's vendor."""
    with SandboxServer() as server:
        yield server


def stranger_key(elsewhere: SandboxServer) -> str:
    return elsewhere.state.admin[Vendor.OPENAI].create_credential().value


async def enter(workshop: Workshop, sandbox: SandboxServer, admin_key: str) -> VendorAccount:
    settings = {"base_url": sandbox.openai_base_url, "calls_per_minute": "100000"}
    return await workshop.orders.accounts.configure(
        workshop.owner, vendor="openai", name="default", admin_key=Secret(admin_key), settings=settings
    )


async def enter_cloud(workshop: Workshop, vendor: Vendor, sandbox: SandboxServer | None = None, **changed: str) -> VendorAccount:
    where = sandbox or workshop.sandbox
    credential = where.state.admin[vendor].create_credential(name=f"AKIA{len(where.state.admin[vendor].credentials)}")
    if vendor is Vendor.AZURE:
        settings = {"base_url": f"{where.address}/azure", "tenant": TENANT, "client_id": credential.name, "region": "eastus"}
        settings |= {"subscription": SUBSCRIPTION, "resource_group": GROUP}
    else:
        settings = {"base_url": f"{where.address}/aws/iam", "access_key_id": credential.name, "region": "us-east-1"}
    return await workshop.orders.accounts.configure(
        workshop.owner,
        vendor=vendor,
        name="default",
        admin_key=Secret(credential.value),
        settings={**settings, "calls_per_minute": "100000", **changed},
    )


async def order(workshop: Workshop, vendor: Vendor, name: str = "cloud", **options: str) -> IssuedKey:
    developer = await workshop.developer(name)
    draft = IssueDraft(vendor, Place(Scope.DEVELOPER, developer.id), TERMS[vendor], options=options)
    return (await workshop.orders.keys.provision(workshop.owner, draft)).key


async def account_of(workshop: Workshop) -> VendorAccount:
    [account] = await workshop.orders.accounts.all(workshop.owner, vendor="openai")
    return account


async def revoked(workshop: Workshop, key: IssuedKey) -> IssuedKey:
    return await workshop.orders.keys.revoke(workshop.owner, key.id, patience=20)


# Whose a credential is


async def test_a_token_of_keygates_own_is_no_admin_key(workshop: Workshop) -> None:
    for token in (f"sk-kg-{'canary0' * 7}ab", f"kgt_{'canary0' * 6}a"):
        with pytest.raises(InvalidInput, match=r"^admin_key: this is a token of KeyGate's own") as refused:
            await enter(workshop, workshop.sandbox, token)
        assert "canary" not in refused.value.detail


async def test_a_credential_that_does_not_show_what_was_made_is_not_taken_while_keys_live(
    workshop: Workshop, elsewhere: SandboxServer
) -> None:
    made = await workshop.provision("priya")
    with pytest.raises(Conflict, match=r"does not show what was made .*another name"):
        await enter(workshop, elsewhere, stranger_key(elsewhere))
    ended = await revoked(workshop, made)
    assert ended.state is State.REVOKED
    assert workshop.standing() == (0, 0)  # at the vendor that it was made at
    assert (await enter(workshop, elsewhere, stranger_key(elsewhere))).status is AccountStatus.READY  # nothing lives any more


async def test_a_fresh_credential_of_the_same_organisation_is_taken_and_ends_what_the_former_made(workshop: Workshop) -> None:
    made = await workshop.provision("priya")
    former = (await account_of(workshop)).same_since_ns
    workshop.clock.advance(60)
    fresh = workshop.account.create_credential().value
    del workshop.account.credentials[workshop.admin_key]
    after = await enter(workshop, workshop.sandbox, fresh)
    assert after.same_since_ns == former
    assert (await revoked(workshop, made)).state is State.REVOKED


async def test_a_key_that_was_removed_by_hand_does_not_stand_in_the_way_of_a_fresh_credential(workshop: Workshop) -> None:
    made = await workshop.provision("priya")
    assert made.footprint is not None
    project = made.footprint.place["project"]
    with workshop.sandbox.state.admin.lock:
        workshop.account.remove("keys", made.footprint.key or "")
    assert (await enter(workshop, workshop.sandbox, workshop.account.create_credential().value)).status is AccountStatus.READY
    assert (await revoked(workshop, made)).state is State.REVOKED
    assert workshop.account.shelves["projects"].get(project).body["status"] == "archived"  # type: ignore[union-attr]  # it is there


async def test_what_another_organisation_does_not_show_is_not_called_revoked(workshop: Workshop, elsewhere: SandboxServer) -> None:
    """The project was made, the answer got lost, and nobody knows its id yet: so nothing can be looked for when the credential changes."""
    workshop.account.faults.append(AdminFault("projects.create", kind=FaultKind.RESET, performed=True))
    workshop.account.faults.append(AdminFault("*", kind=FaultKind.STATUS, status=503, calls=None))
    developer = await workshop.developer("priya")
    draft = IssueDraft("openai", Place(Scope.DEVELOPER, developer.id), Terms())
    key = (await workshop.orders.keys.provision(workshop.owner, draft, patience=0)).key
    await workshop.orders.operations.start(key.organization_id, key.id)
    key = await workshop.orders.keys.get(workshop.owner, key.id)
    assert (key.state, key.footprint) == (State.CREATING, None)
    workshop.account.faults.clear()
    workshop.clock.advance(1)
    await enter(workshop, elsewhere, stranger_key(elsewhere))
    await workshop.orders.operations.stop()

    told = await revoked(workshop, key)
    assert told.state is State.IRREVOCABLE
    assert "may be of another organisation" in (told.error or "")
    assert workshop.standing()[0] == 1  # and so it is

    await enter(workshop, workshop.sandbox, workshop.admin_key)
    ended = await revoked(workshop, key)
    assert ended.state is State.REVOKED
    assert workshop.standing() == (0, 0)


@pytest.mark.parametrize("next_is_there", [True, False])
async def test_a_former_key_that_is_not_there_is_called_cut_only_where_its_vendor_shows_the_next(
    workshop: Workshop, *, next_is_there: bool
) -> None:
    """The credential may be of another organisation, and nothing else of ours is there to tell by."""
    made = await workshop.provision("priya")
    turned = (await workshop.orders.keys.rotate(workshop.owner, made.id, overlap_seconds=60, quiet_seconds=0, insist=True)).key
    assert made.footprint is not None
    assert turned.footprint is not None
    async with workshop.database.unit() as work:
        await work.connection.execute(vendor_accounts.update().values(same_since_ns=workshop.clock.now_ns() + 1))
    with workshop.sandbox.state.admin.lock:
        workshop.account.remove("keys", made.footprint.key or "")
        if not next_is_there:
            for shelf in ("keys", "service_accounts", "projects"):
                for entry in list(workshop.account.shelves[shelf]):
                    workshop.account.remove(shelf, entry.id)
    workshop.clock.advance(61)
    await workshop.orders.operations.start(made.organization_id, made.id)
    after = await workshop.orders.keys.get(workshop.owner, made.id)
    if next_is_there:
        assert (after.state, after.former) == (State.ACTIVE, None)
    else:
        assert after.state is State.ROTATING
        assert "may be of another organisation" in (after.error or "")


async def test_a_key_that_is_gone_is_called_revoked_where_its_vendor_still_knows_us(workshop: Workshop) -> None:
    """No call can end it any more: a person has archived the project."""
    made = await workshop.provision("priya")
    assert made.footprint is not None
    await workshop.console("POST", f"/projects/{made.footprint.place['project']}/archive")
    assert (await revoked(workshop, made)).state is State.REVOKED


@CLOUDS
async def test_the_vendors_own_id_tells_another_organisation(workshop: Workshop, elsewhere: SandboxServer, vendor: Vendor) -> None:
    before = await enter_cloud(workshop, vendor)
    assert before.identity
    key = await order(workshop, vendor)
    if vendor is Vendor.AZURE:
        with pytest.raises((Conflict, InvalidInput)):
            await enter_cloud(workshop, vendor, resource_group="other")
    with pytest.raises(Conflict, match="does not show what was made"):  # the same id, at another address
        await enter_cloud(workshop, vendor, elsewhere)
    assert (await enter_cloud(workshop, vendor)).same_since_ns == before.same_since_ns
    assert (await revoked(workshop, key)).state is State.REVOKED
    assert not list(workshop.sandbox.state.admin[vendor].shelves[SHELVES[vendor]])


# Room


@CLOUDS
async def test_a_ceiling_that_the_vendor_tells_is_asked_for_before_anything_is_made(workshop: Workshop, vendor: Vendor) -> None:
    account = workshop.sandbox.state.admin[vendor]
    await enter_cloud(workshop, vendor)
    await order(workshop, vendor, "first")  # there was plenty of room
    account.settings = account.settings.with_changes({"ceilings": {SHELVES[vendor]: 4}})
    workshop.clock.advance(1)
    rows = order_of(8).lines
    draft = BulkDraft(vendor, None, rows, terms=TERMS[vendor], create_developers=True)
    plan = await workshop.stock.bulk.check(workshop.owner, draft)
    assert (plan.room.counted, plan.room.standing, plan.room.ceiling, plan.left, plan.fits) == (True, 1, 4, 3, False)
    with pytest.raises(Conflict, match="8 keys are wanted and 3 fit: the vendor allows 4"):
        await workshop.order(draft)

    account.settings = account.settings.with_changes({"ceilings": {SHELVES[vendor]: 1}})
    workshop.clock.advance(40)
    calls = len(account.calls)
    with pytest.raises(Conflict, match=r"No key was made: the vendor allows 1 .*, and 1 stand there; .*raise the quota"):
        await order(workshop, vendor, "second")
    asked = list(account.calls)[calls:]
    assert asked
    assert not [call for call in asked if "create" in call.operation.lower() or call.method == "PUT"]
    assert (
        len(await workshop.orders.keys.page(workshop.owner, IssuedFilter(), after=None, limit=10)) == 1
    )  # no order was written down either


async def test_the_room_of_another_region_is_its_own(workshop: Workshop) -> None:
    account = workshop.sandbox.state.admin[Vendor.AZURE]
    await enter_cloud(workshop, Vendor.AZURE, ceiling="1")
    await order(workshop, Vendor.AZURE, "first")
    with pytest.raises(Conflict, match="in eastus"):
        await order(workshop, Vendor.AZURE, "second")
    assert (await order(workshop, Vendor.AZURE, "third", region="swedencentral")).state is State.ACTIVE
    assert len(list(account.shelves["accounts"])) == 2


async def test_projects_of_others_count_before_the_first_scan_and_a_count_is_kept_for_a_while(workshop: Workshop) -> None:
    await workshop.configure(ceiling="12")
    for number in range(8):
        await workshop.console("POST", "/projects", {"name": f"theirs {number}"})
    plan = await workshop.stock.bulk.check(workshop.owner, order_of(8))
    assert (plan.room.standing, plan.left, plan.fits) == (9, 3, False)
    for number in range(3):
        await workshop.provision(f"fits{number}")
    with pytest.raises(Conflict, match="the vendor allows 12 projects, and 12 stand there"):
        await workshop.provision("too-many")

    workshop.clock.advance(1)
    await workshop.configure(ceiling="2000")
    calls = len(workshop.account.calls)
    await workshop.order(order_of(5))
    await workshop.turns()
    counted = [call for call in list(workshop.account.calls)[calls:] if call.operation == "projects.list"]
    assert len(counted) == 1


async def test_what_was_made_without_an_answer_is_counted_once(workshop: Workshop) -> None:
    """Else an order that fits exactly would be halted for want of room after a crash."""
    workshop.account.faults.append(AdminFault("projects.create", kind=FaultKind.RESET, performed=True))
    workshop.account.faults.append(AdminFault("service_accounts.*", status=503, calls=None))
    developer = await workshop.developer("priya")
    draft = IssueDraft("openai", Place(Scope.DEVELOPER, developer.id), Terms())
    key = (await workshop.orders.keys.provision(workshop.owner, draft, patience=0)).key
    await workshop.orders.operations.start(key.organization_id, key.id)
    assert (await workshop.orders.keys.get(workshop.owner, key.id)).footprint is None
    workshop.clock.advance(700)  # the count that was kept is too old
    room = await workshop.orders.accounts.room(await account_of(workshop), {})
    assert (room.counted, room.standing) == (True, 2)  # the default project and this one


async def test_a_vendor_that_cannot_be_counted_keeps_nobody_from_ordering(workshop: Workshop) -> None:
    workshop.account.faults.append(AdminFault("projects.list", status=403, calls=None))
    assert (await workshop.provision("priya")).state is State.ACTIVE


# Credentials that are refused


async def test_a_credential_that_is_refused_at_work_is_shown_and_a_good_one_wakes_what_waited(workshop: Workshop) -> None:
    made, other = await workshop.provision("priya"), await workshop.provision("sam")
    former = workshop.admin_key
    workshop.account.credentials.pop(former)
    told = await revoked(workshop, made)
    assert (told.state, told.error_code) == (State.IRREVOCABLE, "admin_key_refused")
    account = await account_of(workshop)
    assert account.status is AccountStatus.REFUSED
    assert "401" in account.notes[0]
    assert (await revoked(workshop, other)).state is State.IRREVOCABLE
    async with workshop.database.read() as connection:
        events = await workshop.outbox_rows.page(connection, workshop.owner.organization_id, before=None, type_="vendor.refused", limit=10)
    assert [event.subject for event in events] == [account.id]
    assert [entry.action for entry in await workshop.audited() if entry.action == "vendor.refused"] == ["vendor.refused"]
    with pytest.raises(Conflict, match="not known to the vendor"):
        await workshop.provision("late")

    workshop.admin_key = workshop.account.create_credential().value
    await workshop.configure()  # and no time passes
    for key in (made, other):
        await workshop.orders.operations.start(key.organization_id, key.id)
        assert (await workshop.orders.keys.get(workshop.owner, key.id)).state is State.REVOKED
    assert (await account_of(workshop)).status is AccountStatus.READY


async def test_one_stray_refusal_is_asked_about_and_does_not_count(workshop: Workshop) -> None:
    made = await workshop.provision("priya")
    workshop.account.faults.append(AdminFault("*", status=401, calls=1))
    await revoked(workshop, made)
    assert (await account_of(workshop)).status is AccountStatus.READY


async def test_no_token_from_before_a_verification_is_used_after_it(workshop: Workshop) -> None:
    account = await account_of(workshop)
    at = await workshop.orders.desks.open(account)
    former = await at.token("sign-in", ended_early)
    await workshop.orders.accounts.verify(workshop.owner, account.id)
    assert await at.token("sign-in", ended_early) is not former


async def test_a_credential_that_is_known_again_is_found_so(workshop: Workshop) -> None:
    made = await workshop.provision("priya")
    kept = workshop.account.credentials.pop(workshop.admin_key)
    await revoked(workshop, made)
    workshop.account.credentials[kept.value] = kept
    await workshop.orders.accounts.retry()
    assert (await account_of(workshop)).status is AccountStatus.REFUSED  # not asked all the time
    workshop.clock.advance(1_000)
    await workshop.orders.accounts.retry()
    assert (await account_of(workshop)).status is AccountStatus.READY
    await workshop.orders.operations.start(made.organization_id, made.id)
    assert (await workshop.orders.keys.get(workshop.owner, made.id)).state is State.REVOKED


ADDRESSES: dict[Vendor, dict[str, str]] = {
    Vendor.OPENAI: {},
    Vendor.ANTHROPIC: {},
    Vendor.OPENROUTER: {},
    Vendor.XAI: {},
    Vendor.AZURE: {
        "tenant": TENANT,
        "client_id": "admin",
        "subscription": SUBSCRIPTION,
        "resource_group": GROUP,
        "region": "eastus",
    },
    Vendor.BEDROCK: {"access_key_id": "admin", "region": "us-east-1"},
    Vendor.GOOGLE: {"project": "sandbox-project"},
}


@pytest.mark.parametrize("vendor", ADDRESSES)
@pytest.mark.parametrize("path", ["/openrouter", "/nowhere"])
async def test_a_wrong_address_is_no_missing_right(workshop: Workshop, vendor: Vendor, path: str) -> None:
    account = workshop.sandbox.state.admin[vendor]
    if vendor is Vendor.GOOGLE:
        with workshop.sandbox.state.admin.lock:
            key = workshop.sandbox.state.admin.api(vendor).console(account, "admin_key", {})["credentials"]
    else:
        key = account.create_credential().value
    with pytest.raises((InvalidInput, UpstreamFailed)) as told:
        await workshop.orders.accounts.configure(
            workshop.owner,
            vendor=vendor,
            name="astray",
            admin_key=Secret(key),
            settings={"base_url": f"{workshop.sandbox.address}{path}", **ADDRESSES[vendor]},
        )
    assert "lacks" not in told.value.detail
    assert "astray" not in {account.name for account in await workshop.orders.accounts.all(workshop.owner)}


async def test_a_wrong_address_is_told_as_such(workshop: Workshop) -> None:
    with pytest.raises(InvalidInput, match="base_url is the API's root"):
        await workshop.configure(base_url=f"{workshop.sandbox.address}/openrouter")


# Looking after what is active


async def copies(workshop: Workshop, key: IssuedKey, many: int, **changes: Any) -> list[IssuedKey]:
    """Rows of further keys that stand where this one does."""
    made = [replace(key, id=new_id("ik"), request_id=None, **changes) for _ in range(many)]
    async with workshop.database.unit(key.organization_id) as work:
        for each in made:
            await workshop.orders.rows.add(work.connection, each)
    return made


async def unread(workshop: Workshop) -> int:
    """Active keys that were not read for six hours."""
    before = workshop.clock.now_ns() - EVERY_NS
    keys = await workshop.orders.keys.page(workshop.owner, IssuedFilter(state=State.ACTIVE), after=None, limit=500)
    return sum((key.read_at_ns or 0) < before for key in keys)


async def test_keys_of_a_dead_account_keep_no_other_key_from_being_read(workshop: Workshop) -> None:
    made = await workshop.provision("priya")
    dead = await workshop.orders.accounts.configure(
        workshop.owner,
        vendor="openai",
        name="dead",
        admin_key=Secret(workshop.account.create_credential(value="sandbox-dead").value),
        settings={"base_url": workshop.sandbox.openai_base_url},
    )
    workshop.account.credentials.pop("sandbox-dead")
    await copies(workshop, made, 45, account_id=dead.id, read_at_ns=None)  # they wait longest
    await copies(workshop, made, 44)
    workshop.clock.advance(EVERY_NS / NANOSECONDS + 1)
    await workshop.orders.inspection.tick()
    assert await unread(workshop) == 45  # those of the dead one: everything else was read in one turn
    calls = len(workshop.account.calls)
    await workshop.orders.inspection.tick()
    assert len(workshop.account.calls) == calls  # nothing is due, the dead ones neither


class Moody(OpenAIProvisioner):
    """Can't read some keys."""

    def __init__(self) -> None:
        self.unreadable: set[str] = set()

    async def read(self, desk: Desk, footprint: Footprint) -> Reading:
        if footprint.key in self.unreadable:
            raise Unavailable("read the key: the vendor failed (500)")
        return await super().read(desk, footprint)


async def test_keys_that_cannot_be_read_do_not_keep_the_others_of_their_account_waiting(workshop: Workshop) -> None:
    moody = Moody()
    await workshop.start(provisioners={**PROVISIONERS, "openai": moody})
    bad, good = await workshop.provision("bad"), await workshop.provision("good")
    assert bad.footprint is not None
    moody.unreadable = {str(bad.footprint.key)}
    await copies(workshop, bad, BATCH, read_at_ns=None)  # they wait longest, and are all that the first turn takes
    await copies(workshop, good, 9)
    workshop.clock.advance(EVERY_NS / NANOSECONDS + 1)
    await workshop.orders.inspection.tick()
    workshop.clock.advance(RETRY_NS / NANOSECONDS / 2 + 1)
    await workshop.orders.inspection.tick()
    assert await unread(workshop) == BATCH + 1


async def test_a_vendor_that_limits_calls_is_no_failure_of_the_admin_credential(workshop: Workshop) -> None:
    key = workshop.account.create_credential().value
    workshop.account.faults.append(AdminFault("*", status=429, retry_after="100", calls=None))
    with pytest.raises(TryLater, match="the vendor limits calls now"):
        await enter(workshop, workshop.sandbox, key)
