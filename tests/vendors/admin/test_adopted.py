"""Vendors without an API for keys: what KeyGate says, and that it calls nothing revoked that still works."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.vendors.admin.desks import NoIssuer, Script, admin_http, answer, desk

from keygate.kit.clock import ManualClock, SystemClock
from keygate.kit.ids import new_id
from keygate.kit.outbound import Outbound
from keygate.kit.secret import Secret
from keygate.sandbox import SandboxServer, Vendor
from keygate.vendors.admin import (
    PROVISIONERS,
    AdminDesk,
    AdminKeyRefused,
    Footprint,
    Mark,
    Order,
    Presence,
    Rejected,
    Terms,
    TokenShelf,
    Unavailable,
)
from keygate.vendors.admin.adopted import ADOPTED, ADOPTIONS, AdoptOnly

KEY = "hand-made-key-000000000000"


def scripted(vendor: AdoptOnly, *statuses: int) -> tuple[AdminDesk, Script]:
    clock = ManualClock()
    script = Script([answer(status, {}) for status in statuses])
    http = admin_http(script, clock=clock, conceal=(Secret(KEY),))
    return AdminDesk(vendor.facts, Secret(KEY), {}, http, clock, NoIssuer(), TokenShelf(clock)), script


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    sender = Outbound(timeout=5)
    yield sender
    await sender.close()


@pytest.mark.parametrize("vendor", ADOPTED, ids=lambda vendor: vendor.facts.vendor)
def test_each_says_why_and_what_instead(vendor: AdoptOnly) -> None:
    facts, adoption = vendor.facts, vendor.adoption
    assert facts.adopt_only
    assert adoption.why in facts.cannot["create"]
    assert adoption.console in facts.cannot["create"]
    assert "virtual key" in facts.cannot["create"]
    assert not facts.confirms
    assert facts.sources, "a fact has a source"
    assert adoption.console.startswith("https://")
    assert any(adoption.console in step for step in adoption.checklist)
    assert PROVISIONERS[facts.vendor] is vendor


def test_vendor_with_an_api_of_its_own_is_not_adopted_only() -> None:
    assert not ADOPTIONS.keys() & {"openai", "google", "xai"}


@pytest.mark.parametrize("vendor", ADOPTED, ids=lambda vendor: vendor.facts.vendor)
async def test_nothing_is_made(vendor: AdoptOnly) -> None:
    at, script = scripted(vendor)
    order = Order(Mark(new_id("ik")), 1, "priya", Terms())
    with pytest.raises(Rejected, match="virtual key"):
        await vendor.create(at, order)
    assert await vendor.find(at, order.mark) == ()
    assert script.asked == []


@pytest.mark.parametrize("vendor", ADOPTED, ids=lambda vendor: vendor.facts.vendor)
async def test_key_is_asked_with_itself_at_the_vendors_own_address(vendor: AdoptOnly) -> None:
    at, script = scripted(vendor, 200)
    assert (await vendor.verify(at)).missing == ()
    [(method, url, headers, body)] = script.asked
    assert (method, body, headers["authorization"]) == ("GET", None, f"Bearer {KEY}")
    assert url == f"{vendor.adoption.api}{vendor.adoption.probe}"


async def test_key_that_works_is_not_called_revoked() -> None:
    vendor = ADOPTED[0]
    at, _ = scripted(vendor, 200, 403, 401, 401)
    for _ in range(2):
        with pytest.raises(Rejected, match=r"delete it at https://console\.groq\.com/keys"):
            await vendor.revoke(at, Footprint())
    await vendor.revoke(at, Footprint())
    assert (await vendor.read(at, Footprint())).presence is Presence.GONE


async def test_vendor_that_does_not_answer_proves_nothing() -> None:
    vendor = ADOPTED[0]
    at, _ = scripted(vendor, *[500] * 12)
    with pytest.raises(Unavailable):
        await vendor.read(at, Footprint())
    with pytest.raises(Unavailable):
        await vendor.revoke(at, Footprint())


async def test_refused_key_is_not_taken_and_not_shown() -> None:
    at, _ = scripted(ADOPTED[0], 401)
    with pytest.raises(AdminKeyRefused) as caught:
        await ADOPTED[0].verify(at)
    assert KEY not in str(caught.value)


async def test_life_of_an_adopted_key_at_a_vendor_that_answers(sandbox: SandboxServer, outbound: Outbound) -> None:
    groq = next(vendor for vendor in ADOPTED if vendor.facts.vendor == "groq")
    key = sandbox.state.create_key(Vendor.OPENAI)  # Groq's inference API is OpenAI's
    at = desk(groq.facts, outbound, key.value, clock=SystemClock(), settings={"base_url": sandbox.openai_base_url})
    assert (await groq.verify(at)).missing == ()
    assert (await groq.read(at, Footprint())).presence is Presence.LIVE
    with pytest.raises(Rejected):
        await groq.revoke(at, Footprint())
    sandbox.state.revoke_key(key.value)  # as a person does in the console
    await groq.revoke(at, Footprint())
    assert (await groq.read(at, Footprint())).presence is Presence.GONE
