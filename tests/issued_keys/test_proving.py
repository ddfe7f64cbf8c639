"""Proof by the key itself, over hours that pass in moments and over deaths in between; on both databases."""

from __future__ import annotations

import pytest
from tests.issued_keys.workshop import Workshop

from keygate.errors import Conflict
from keygate.issued_keys import IssuedFilter, IssuedKey, IssueDraft, State
from keygate.issued_keys.model import Delivery
from keygate.kit.clock import NANOSECONDS
from keygate.policies import Place, Scope
from keygate.sandbox.admin import AdminFault
from keygate.vendors.admin import Terms


def delay(workshop: Workshop, **seconds: float) -> None:
    workshop.account.settings = workshop.account.settings.with_changes(seconds)


async def ordered(workshop: Workshop) -> IssuedKey:
    """A key that nobody waits for."""
    developer = await workshop.developer("dev")
    draft = IssueDraft("openai", Place(Scope.DEVELOPER, developer.id), Terms(models=("gpt-4.1-mini",)))
    return (await workshop.orders.keys.provision(workshop.owner, draft, patience=0)).key


async def pass_time(workshop: Workshop, key: IssuedKey, seconds: int, *, until: State | None = None) -> IssuedKey:
    for _ in range(0, seconds, 5):
        workshop.clock.advance(5)
        await workshop.orders.operations.tick()
        key = await workshop.orders.keys.get(workshop.owner, key.id)
        if key.state is until:
            break
    return key


async def events(workshop: Workshop) -> list[str]:
    async with workshop.database.read() as connection:
        kept = await workshop.outbox_rows.page(connection, workshop.owner.organization_id, type_=None, before=None, limit=100)
    return [str(each.type) for each in kept]


async def test_a_key_that_the_vendor_does_not_take_yet_is_not_handed_out_and_survives_a_death(workshop: Workshop) -> None:
    delay(workshop, new_key_s=40)
    key = await pass_time(workshop, await ordered(workshop), 5)
    assert (key.state, key.error_code) == (State.CREATING, "not_known_yet")
    token, _ = await workshop.orders.handover.make_link(workshop.owner, key.id, expires_in_seconds=600)
    with pytest.raises(Conflict, match="still being made"):
        await workshop.orders.handover.open_link(token, address=None, request_id=None)
    await workshop.start()
    key = await pass_time(workshop, key, 60, until=State.ACTIVE)
    assert (key.state, key.error, key.generation) == (State.ACTIVE, None, 1)
    assert key.delivery(workshop.clock.now_ns()) is Delivery.WAITING
    told = await workshop.orders.handover.open_link(token, address=None, request_id=None)
    assert told.secret is not None
    assert workshop.works(told.secret.open())
    assert workshop.standing() == (1, 1)


async def test_a_key_that_the_vendor_never_takes_is_given_up_and_removed(workshop: Workshop) -> None:
    delay(workshop, new_key_s=100_000)
    key = await pass_time(workshop, await ordered(workshop), 1_200, until=State.FAILED)
    assert key.state is State.FAILED
    assert "does not take it" in (key.error or "")
    assert key.probe is None
    assert workshop.standing() == (0, 0)


async def test_the_next_key_of_a_rotation_that_the_vendor_never_takes_leaves_the_former_as_it_was(workshop: Workshop) -> None:
    made = await ordered(workshop)
    told = await workshop.orders.handover.tell(workshop.owner, await pass_time(workshop, made, 5))
    assert told.secret is not None
    delay(workshop, new_key_s=100_000, revoked_key_s=30)
    await workshop.orders.keys.rotate(workshop.owner, made.id, overlap_seconds=0, quiet_seconds=0, patience=0)
    key = await pass_time(workshop, made, 5)
    assert (key.state, key.error_code, key.settled) == (State.ROTATING, "not_known_yet", False)
    key = await pass_time(workshop, key, 1_200, until=State.ACTIVE)
    assert (key.state, key.former, key.former_probe) == (State.ACTIVE, None, None)
    assert workshop.works(told.secret.open())
    delay(workshop, new_key_s=0)
    await workshop.orders.keys.revoke(workshop.owner, made.id, patience=0)
    key = await pass_time(workshop, key, 10)
    assert (key.state, key.error_code) == (State.REVOKING, "still_answers"), "asked with the copy of the key that went on"
    assert (await pass_time(workshop, key, 60, until=State.REVOKED)).state is State.REVOKED
    assert not workshop.works(told.secret.open())


async def test_a_key_that_works_on_is_irrevocable_in_the_end_and_revoked_once_it_is_refused(workshop: Workshop) -> None:
    made = await ordered(workshop)
    told = await workshop.orders.handover.tell(workshop.owner, await pass_time(workshop, made, 5))
    assert told.secret is not None
    delay(workshop, revoked_key_s=3_600)
    await workshop.orders.keys.revoke(workshop.owner, made.id, patience=0)
    key = await pass_time(workshop, made, 30)
    assert (key.state, key.error_code) == (State.REVOKING, "still_answers")
    assert key.gone_at_ns is not None
    assert key.probe is not None, "what the vendor is asked with"
    assert told.secret.open().encode() not in key.probe, "sealed"
    await workshop.start()
    key = await pass_time(workshop, key, 1_200, until=State.IRREVOCABLE)
    assert key.state is State.IRREVOCABLE
    assert (await events(workshop)).count("issued_key.irrevocable") == 1
    assert workshop.works(told.secret.open())
    key = await pass_time(workshop, key, 7_200, until=State.REVOKED)
    assert key.state is State.REVOKED
    assert not workshop.works(told.secret.open())
    assert key.evidence[0]["the_key_itself"] == "refused"
    assert (key.probe, key.former_probe, key.secret) == (None, None, None), "erased"


@pytest.mark.parametrize("asks", [None, "9999999"])
async def test_a_vendor_that_only_says_wait_has_refused_in_a_few_minutes_and_is_asked_again_within_the_hour(
    workshop: Workshop, asks: str | None
) -> None:
    made = await pass_time(workshop, await ordered(workshop), 5)
    workshop.account.faults.append(AdminFault("*", status=429, retry_after=asks, calls=None))
    await workshop.orders.keys.revoke(workshop.owner, made.id, patience=0)
    if asks is None:
        workshop.clock.advance(600)  # its turn comes late
        await workshop.orders.operations.tick()
        assert (await workshop.orders.keys.get(workshop.owner, made.id)).state is State.REVOKING, "one wait is no refusal"
    key = await pass_time(workshop, made, 300, until=State.IRREVOCABLE)
    assert (key.state, key.error_code) == (State.IRREVOCABLE, "vendor_rate_limited")
    assert 0 < (key.due_at_ns or 0) - workshop.clock.now_ns() <= 3_600 * NANOSECONDS
    workshop.clock.advance(3_600)
    await pass_time(workshop, key, 5)
    assert (await events(workshop)).count("issued_key.irrevocable") == 1, "told once"
    workshop.account.faults.clear()
    workshop.clock.advance(3_600)
    assert (await pass_time(workshop, key, 60, until=State.REVOKED)).state is State.REVOKED


async def test_everybody_is_told_once_of_a_former_key_that_the_vendor_only_says_wait_about(workshop: Workshop) -> None:
    made = await ordered(workshop)
    await workshop.orders.handover.tell(workshop.owner, await pass_time(workshop, made, 5))
    await workshop.orders.keys.rotate(workshop.owner, made.id, overlap_seconds=600, insist=True)
    workshop.account.faults.append(AdminFault("*", status=429, calls=None))
    for passed, told in ((600, 0), (300, 1), (3_600, 1)):  # one wait is no refusal
        workshop.clock.advance(passed)
        key = await pass_time(workshop, made, 5)
        assert (key.state, key.error_code) == (State.ROTATING, "vendor_rate_limited")
        assert (await events(workshop)).count("issued_key.irrevocable") == told
    workshop.account.faults.clear()
    workshop.clock.advance(3_600)
    key = await pass_time(workshop, key, 60, until=State.ACTIVE)
    assert (key.state, key.former) == (State.ACTIVE, None)


async def test_what_was_left_at_the_vendor_is_not_told_of_once_it_is_gone(workshop: Workshop) -> None:
    developer = await workshop.developer("dev")
    workshop.account.faults.append(AdminFault("spend_limits.update", status=403, message="no", calls=None))
    workshop.account.faults.append(AdminFault("projects.archive", status=500, calls=None))
    draft = IssueDraft("openai", Place(Scope.DEVELOPER, developer.id), Terms(budget_nano=10**9))
    with pytest.raises(Conflict, match=r"api\.limits\.write.* · still at the vendor: "):
        await workshop.orders.keys.provision(workshop.owner, draft)
    [key] = await workshop.orders.keys.page(workshop.owner, IssuedFilter(), after=None, limit=10)
    cause, _, left = (key.error or "").partition(" · still at the vendor: ")
    assert (key.state, key.owed, "500" in left) == (State.FAILED, True, True)
    key = await pass_time(workshop, key, 120)
    assert (key.owed, (key.error or "").startswith(cause), (key.error or "").count("still at the vendor")) == (True, True, 1)
    workshop.account.faults.clear()
    key = await pass_time(workshop, key, 1_200)
    assert (key.owed, key.error, workshop.standing()) == (False, cause, (0, 0))


async def test_without_a_copy_the_admin_api_has_the_last_word_and_the_evidence_says_so(workshop: Workshop) -> None:
    await workshop.configure(proof="off")
    made = await pass_time(workshop, await ordered(workshop), 5)
    assert made.probe is None
    delay(workshop, revoked_key_s=3_600)
    await workshop.orders.keys.revoke(workshop.owner, made.id, patience=0)
    key = await pass_time(workshop, made, 10)
    assert key.state is State.REVOKED
    assert key.evidence[0]["the_key_itself"].startswith("not asked")
