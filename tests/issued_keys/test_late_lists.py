"""Vendors whose lists are late, as IAM says of itself: what isn't shown yet is waited for, and nothing is left. Time is the test's."""

from __future__ import annotations

import pytest
from tests.issued_keys.workshop import Workshop

from keygate.issued_keys import IssuedKey, IssueDraft
from keygate.issued_keys.life import State
from keygate.kit.secret import Secret
from keygate.sandbox import Vendor
from keygate.sandbox.admin import Account, aws
from keygate.vendors.admin import Terms

MODEL = {Vendor.BEDROCK: "anthropic.claude-sonnet-4-5-20250929-v1:0", Vendor.XAI: "grok-3", Vendor.OPENROUTER: ""}
LATE = pytest.mark.parametrize("vendor", [Vendor.BEDROCK, Vendor.XAI, Vendor.OPENROUTER])


@pytest.fixture(autouse=True)
def any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox's AWS judges signatures by this machine's time, and the test's runs ahead of it."""
    monkeypatch.setattr(aws, "SKEW_SECONDS", 10**9)


class Shop:
    """A workshop with an account at one more vendor, whose lists are late by `seconds`."""

    def __init__(self, workshop: Workshop, vendor: Vendor) -> None:
        self.workshop, self.vendor = workshop, vendor

    @property
    def account(self) -> Account:
        return self.workshop.sandbox.state.admin[self.vendor]

    async def open(self) -> Shop:
        credential = self.account.create_credential(name="AKIAKEYGATE")
        address = self.workshop.sandbox.address
        settings = {
            Vendor.BEDROCK: {"base_url": f"{address}/aws/iam", "access_key_id": credential.name, "region": "us-east-1"},
            Vendor.XAI: {"base_url": f"{address}/xai"},
            Vendor.OPENROUTER: {"base_url": self.workshop.sandbox.openrouter_base_url},
        }[self.vendor]
        settings["calls_per_minute"] = "100000"
        made = await self.workshop.orders.accounts.configure(
            self.workshop.owner, vendor=self.vendor, name="default", admin_key=Secret(credential.value), settings=settings
        )
        assert made.status == "ready"
        return self

    def late(self, seconds: float) -> None:
        self.account.settings = self.account.settings.with_changes({"lists_s": seconds})

    async def provision(self) -> IssuedKey:
        ends = self.workshop.clock.now_ns() // 10**9 * 10**9 + 86_400 * 10**9
        models = (MODEL[self.vendor],) if MODEL[self.vendor] else None
        draft = IssueDraft(self.vendor, None, Terms(models=models, expires_at_ns=ends), request_id="once")
        keys, owner = self.workshop.orders.keys, self.workshop.owner
        told = await keys.provision(owner, draft, patience=0)
        key = await self.turns(told.key.id, State.ACTIVE, State.FAILED)
        if key.state is State.ACTIVE and told.secret is None:
            assert (await keys.provision(owner, draft, patience=0)).secret is not None
        return key

    async def get(self, key_id: str) -> IssuedKey:
        return await self.workshop.orders.keys.get(self.workshop.owner, key_id)

    async def turns(self, key_id: str, *states: State) -> IssuedKey:
        """Worker's turns, as time passes, until the key is in one of these states and nothing is owed or looked for at the vendor."""
        for _ in range(40):
            await self.workshop.orders.operations.tick()
            key = await self.get(key_id)
            if key.state in states and not key.owed and key.check_at_ns is None:
                return key
            self.workshop.clock.advance(max(0.0, ((key.due_at_ns or 0) - self.workshop.clock.now_ns()) / 1e9))
        raise AssertionError(key)

    def standing(self) -> list[str]:
        """What really is there, whatever the lists say."""
        with self.workshop.sandbox.state.admin.lock:
            return [each.id for name in ("users", "credentials", "keys") for each in self.account.shelves[name]]


@LATE
async def test_key_that_no_list_shows_yet_is_waited_for_used_rotated_and_revoked(workshop: Workshop, vendor: Vendor) -> None:
    shop = await Shop(workshop, vendor).open()
    shop.late(25)
    key = await shop.provision()
    assert (key.state, key.error) == (State.ACTIVE, None)
    assert set(key.enforcement.values()) == {"confirmed"}
    first = key.footprint
    await workshop.orders.keys.rotate(workshop.owner, key.id, overlap_seconds=5, quiet_seconds=0, insist=True, patience=0)
    turned = await shop.turns(key.id, State.ACTIVE)
    assert (turned.state, turned.former, turned.generation) == (State.ACTIVE, None, 2)
    assert turned.footprint != first
    await workshop.orders.keys.revoke(workshop.owner, key.id, patience=0)
    ended = await shop.turns(key.id, State.REVOKED)
    assert (ended.state, ended.error) == (State.REVOKED, None)
    actions = [entry.action for entry in await workshop.audited()]
    assert "issued_key.irrevocable" not in actions, "a list that is late is no refusal"
    assert shop.standing() == []


@pytest.mark.parametrize("vendor", [Vendor.BEDROCK, Vendor.XAI])  # OpenRouter shows a key by itself, whatever its list does
async def test_key_that_is_never_shown_is_given_up_and_nothing_is_left(workshop: Workshop, vendor: Vendor) -> None:
    shop = await Shop(workshop, vendor).open()
    shop.late(10**7)
    began = workshop.clock.now_ns()
    key = await shop.provision()
    assert key.state is State.FAILED
    assert "show it yet" in (key.error or ""), "and not: other terms than asked for"
    assert "other terms" not in (key.error or "")
    assert 60 < (workshop.clock.now_ns() - began) / 1e9 < 1_200, "waited for with backoff, and not for ever"
    assert shop.standing() == []
