"""Secrets that somebody has found: what they open is ended, and nothing else; what is dead is told as dead."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.issued_keys.workshop import Workshop

from keygate.audit import Signer
from keygate.errors import NotFound
from keygate.events import EventType
from keygate.issued_keys import IssuedKey, IssueDraft, State, Told, verify
from keygate.issued_keys.leaks import LeakAnswer, Plight, plight
from keygate.issued_keys.model import Former, KnownSecret
from keygate.kit.clock import NANOSECONDS
from keygate.kit.secret import Secret
from keygate.policies import Place, Scope
from keygate.sandbox.admin import AdminFault
from keygate.vendors.admin import Footprint, Terms

HOUR = 3_600


class Finder:
    """A key of a developer, and whoever finds secrets of it."""

    def __init__(self, workshop: Workshop, made: Told) -> None:
        self.workshop, self.id = workshop, made.key.id
        self.secrets = [_open(made)]

    @classmethod
    async def of(cls, workshop: Workshop) -> Finder:
        developer = await workshop.developer("priya")
        draft = IssueDraft("openai", Place(Scope.DEVELOPER, developer.id), Terms())
        return cls(workshop, await workshop.orders.keys.provision(workshop.owner, draft))

    async def rotate(self) -> None:
        """The next secret beside the last one, for an hour."""
        turned = await self.workshop.orders.keys.rotate(self.workshop.owner, self.id, overlap_seconds=HOUR, quiet_seconds=0)
        self.secrets.append(_open(turned))

    async def report(self, secret: str) -> LeakAnswer:
        answer = await self.workshop.orders.leaks.report(Secret(secret), address="192.0.2.1")
        await self.workshop.orders.operations.tick()
        return answer

    async def key(self) -> IssuedKey:
        return await self.workshop.orders.keys.get(self.workshop.owner, self.id)

    def working(self) -> list[bool]:
        """Each secret in turn, straight at the vendor."""
        return [self.workshop.works(secret) for secret in self.secrets]

    async def told(self) -> list[dict[str, Any]]:
        """The organisation, of leaks."""
        organization = self.workshop.owner.organization_id
        async with self.workshop.database.read() as connection:
            events = await self.workshop.outbox_rows.page(
                connection, organization, before=None, type_=EventType.ISSUED_KEY_LEAKED, limit=100
            )
        return [json.loads(event.payload) for event in reversed(events)]

    async def entries(self) -> list[str]:
        return [entry.action for entry in await self.workshop.audited() if entry.target == self.id]


def _open(told: Told) -> str:
    assert told.secret is not None
    return told.secret.open()


@pytest.fixture
async def finder(workshop: Workshop) -> Finder:
    return await Finder.of(workshop)


async def test_a_leaked_key_is_revoked_and_its_organisation_is_told_whose_it_was(finder: Finder) -> None:
    answer = await finder.report(finder.secrets[0])
    assert (answer.vendor, answer.ended_at_ns) == ("openai", None)
    key = await finder.key()
    assert (key.state, key.end_reason) == (State.REVOKED, "reported as leaked")
    assert finder.working() == [False]
    [told] = await finder.told()
    assert key.owner is not None
    assert (told["owner"], told["found"], told["generation"]) == (key.owner.scope_id, "key", 1)
    assert finder.secrets[0] not in json.dumps(told)


async def test_during_an_overlap_a_leaked_former_secret_is_cut_at_once_and_the_next_one_goes_on(finder: Finder) -> None:
    await finder.rotate()
    assert finder.working() == [True, True]
    assert (await finder.report(finder.secrets[0])).ended_at_ns is None
    key = await finder.key()
    assert (key.state, key.former) == (State.ACTIVE, None)
    assert finder.working() == [False, True]
    assert [each["found"] for each in await finder.told()] == ["former"]


async def test_during_an_overlap_a_leaked_new_secret_ends_the_key_with_both(finder: Finder) -> None:
    await finder.rotate()
    await finder.report(finder.secrets[1])
    assert (await finder.key()).state is State.REVOKED
    assert finder.working() == [False, False]


async def test_after_a_rotation_the_old_secret_is_told_as_dead_since_then_and_nothing_is_done(finder: Finder) -> None:
    await finder.rotate()
    finder.workshop.clock.advance(HOUR)
    await finder.workshop.orders.operations.tick()
    cut_at = finder.workshop.clock.now_ns()
    assert finder.working() == [False, True]
    finder.workshop.clock.advance(5 * HOUR)
    await finder.rotate()  # and once more: every generation is remembered
    finder.workshop.clock.advance(HOUR)
    await finder.workshop.orders.operations.tick()
    before = await finder.key()
    first = await finder.report(finder.secrets[0])
    assert first.ended_at_ns is not None
    assert abs(first.ended_at_ns - cut_at) < 60 * NANOSECONDS
    second = await finder.report(finder.secrets[1])
    assert second.ended_at_ns is not None
    assert second.ended_at_ns > first.ended_at_ns + 5 * HOUR * NANOSECONDS
    assert replace(await finder.key(), version=before.version) == before
    assert finder.working() == [False, False, True]


async def test_a_secret_of_a_revoked_key_is_told_as_dead_since_the_vendor_confirmed(finder: Finder) -> None:
    await finder.workshop.orders.keys.revoke(finder.workshop.owner, finder.id)
    ended_at = (await finder.key()).ended_at_ns
    finder.workshop.clock.advance(HOUR)
    answer = await finder.report(finder.secrets[0])
    assert answer.ended_at_ns is not None
    assert ended_at is not None
    assert abs(answer.ended_at_ns - ended_at) < NANOSECONDS


async def test_reporting_the_same_secret_again_and_again_fills_no_log(finder: Finder) -> None:
    await finder.rotate()
    await finder.report(finder.secrets[0])
    entries, events = await finder.entries(), await finder.told()
    assert "issued_key.report_leak" in entries
    for _ in range(3):
        assert (await finder.report(finder.secrets[0])).ended_at_ns is not None
    assert (await finder.entries(), await finder.told()) == (entries, events)


async def test_a_key_that_the_vendor_does_not_end_is_told_as_ending(finder: Finder) -> None:
    account = finder.workshop.account
    account.faults += [AdminFault("keys.delete", status=403, calls=None), AdminFault("projects.archive", status=403, calls=None)]
    for _ in range(2):
        assert (await finder.report(finder.secrets[0])).ended_at_ns is None
    assert (await finder.key()).state is State.IRREVOCABLE


async def test_a_rotation_that_came_to_nothing_leaves_the_secret_known_as_the_keys_own(finder: Finder) -> None:
    account = finder.workshop.account
    account.faults.append(AdminFault("keys.get", status=403, calls=None))  # the next key is made, and then can't be read back
    with pytest.raises(Exception, match="not rotated"):
        await finder.rotate()
    account.faults.clear()
    finder.workshop.clock.advance(HOUR)
    await finder.workshop.orders.operations.tick()
    await finder.rotate()
    assert finder.working() == [True, True]
    await finder.report(finder.secrets[0])
    assert (await finder.key()).state is State.ACTIVE
    assert finder.working() == [False, True]
    assert [each["found"] for each in await finder.told()] == ["former"]


async def test_a_report_gives_one_receipt_that_says_what_the_vendor_confirmed(finder: Finder) -> None:
    workshop = finder.workshop
    await finder.report(finder.secrets[0])
    await finder.report(finder.secrets[0])
    [receipt] = await workshop.orders.receipts.page(workshop.owner, subject=finder.id, before=None, limit=10)
    assert (receipt.cause, receipt.issued_keys, receipt.created_by) == ("issued_key.report_leak", [finder.id], "leak-report")
    document = await workshop.orders.receipts.document(workshop.owner, receipt.id)
    found = verify(json.dumps(document).encode(), trusted=Signer(b"s" * 32).checker)
    assert (found.ok, found.complete) == (True, True)
    [entry] = document["issued_keys"]
    assert (entry["state"], entry["confirmed_by_vendor"][0]["vendor_says"]) == ("revoked", "gone")
    assert finder.secrets[0] not in json.dumps(document)


async def test_the_receipt_of_a_former_secret_is_complete_once_that_one_is_cut(finder: Finder) -> None:
    workshop = finder.workshop
    await finder.rotate()
    former = (await finder.key()).former
    assert former is not None
    await workshop.orders.leaks.report(Secret(finder.secrets[0]), address=None)
    [receipt] = await workshop.orders.receipts.page(workshop.owner, subject=finder.id, before=None, limit=10)
    assert receipt.issued_keys == [f"{finder.id}#{former.footprint.key}"]
    await workshop.orders.operations.tick()
    document = await workshop.orders.receipts.document(workshop.owner, receipt.id)
    assert (document["complete"], document["issued_keys"][0]["state"]) == (True, "revoked")
    assert document["issued_keys"][0]["at_vendor"]["key"] == former.footprint.key
    assert (await finder.key()).state is State.ACTIVE
    assert finder.working() == [False, True]
    await workshop.orders.keys.revoke(workshop.owner, finder.id)
    ended = await finder.key()
    assert [each["key"] for each in ended.evidence] == [former.footprint.key, ended.footprint and ended.footprint.key]
    later = await workshop.orders.receipts.document(workshop.owner, receipt.id)
    assert later["issued_keys"][0]["confirmed_by_vendor"] == document["issued_keys"][0]["confirmed_by_vendor"], "it stays confirmed"


async def test_a_strangers_secret_is_not_known(finder: Finder) -> None:
    with pytest.raises(NotFound):
        await finder.report("sk-of-nobody")


# Pure


def _key(**changes: Any) -> IssuedKey:
    key = IssuedKey(
        id="ik_1",
        organization_id="org_1",
        vendor="anthropic",
        account_id="va_1",
        name="k",
        owner=None,
        state=State.ACTIVE,
        generation=1,
        terms=Terms(),
        options={},
        created_at_ns=0,
        created_by="usr_1",
        secret_generation=1,
    )
    return replace(key, **changes)


_FORMER = Former(footprint=Footprint({}, "f"), generation=1, overlap_seconds=1, quiet_seconds=0)


@pytest.mark.parametrize(
    ("key", "secret", "expected"),
    [
        ({}, {}, Plight.KEY),
        ({}, {"expires_at_ns": 100}, Plight.KEY),  # over since 0, and what it was traded for lives until 110
        ({}, {"expires_at_ns": 90}, Plight.DEAD),
        ({}, {"expires_at_ns": 91}, Plight.KEY),
        ({}, {"ended_at_ns": 5}, Plight.DEAD),
        ({}, {"generation": 2}, Plight.DEAD),
        ({"former": _FORMER, "secret_generation": 1}, {}, Plight.KEY),  # the next one is not made yet: nothing would be left to cut it for
        ({"former": replace(_FORMER, cut_at_ns=200), "secret_generation": 2}, {}, Plight.FORMER),
        ({"former": replace(_FORMER, cut_at_ns=200), "secret_generation": 2}, {"generation": 2}, Plight.KEY),
        ({"state": State.REVOKING}, {}, Plight.ENDING),
        ({"state": State.IRREVOCABLE}, {}, Plight.ENDING),
        ({"state": State.REVOKED}, {}, Plight.DEAD),
        ({"state": State.FAILED, "owed": True}, {}, Plight.ENDING),
    ],
)
def test_what_a_found_secret_is(key: dict[str, Any], secret: dict[str, Any], expected: Plight) -> None:
    known = KnownSecret(**{"digest": "d", "key_id": "ik_1", "organization_id": "org_1", "generation": 1, "known_at_ns": 0, **secret})
    assert plight(_key(**key), known, 100, lag_ns=10) is expected
