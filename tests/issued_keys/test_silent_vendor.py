"""A vendor that does not answer: its own keys wait and say so, and nobody else's do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from tests.issued_keys.workshop import Workshop

from keygate.issued_keys import IssuedKey, IssueDraft, State
from keygate.issued_keys.operations import AT_ONCE
from keygate.kit.clock import NANOSECONDS
from keygate.kit.outbound import Answer, Unreached
from keygate.kit.secret import Secret
from keygate.policies import Place, Scope
from keygate.sandbox import Vendor
from keygate.vendors.admin import Terms


class Deaf:
    """The way out, with OpenAI gone deaf: calls there get no answer, for ever or, on the test's clock, until they time out."""

    def __init__(self, workshop: Workshop, *, forever: bool) -> None:
        self._workshop, self._forever = workshop, forever
        self._real = workshop.orders.desks._sender
        self._asked = 0
        self.all_at_it = asyncio.Event()
        workshop.orders.desks._sender = self

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, timeout: float | None = None
    ) -> Answer:
        if not url.startswith(self._workshop.sandbox.openai_base_url):
            return await self._real.send(method, url, headers=headers, body=body, timeout=timeout)
        self._asked += 1
        if self._asked >= AT_ONCE:
            self.all_at_it.set()
        if self._forever:
            await asyncio.Event().wait()
        assert timeout is not None
        self._workshop.clock.advance(timeout)
        raise Unreached(f"did not answer within {timeout:g} seconds", sent=True)


@pytest.fixture
async def two(workshop: Workshop) -> AsyncIterator[Workshop]:
    """With OpenRouter beside OpenAI."""
    credential = workshop.sandbox.state.admin[Vendor.OPENROUTER].create_credential()
    settings = {"base_url": f"{workshop.sandbox.address}/openrouter/api/v1", "calls_per_minute": "100000"}
    await workshop.orders.accounts.configure(
        workshop.owner, vendor="openrouter", name="default", admin_key=Secret(credential.value), settings=settings
    )
    yield workshop
    await workshop.orders.operations.stop()


async def key_with_end(workshop: Workshop, vendor: str, seconds: float) -> IssuedKey:
    developer = await workshop.developer(vendor)
    ends = (workshop.clock.now_ns() // NANOSECONDS + round(seconds)) * NANOSECONDS
    draft = IssueDraft(vendor, Place(Scope.DEVELOPER, developer.id), Terms(expires_at_ns=ends), allow_unenforced=True)
    made = (await workshop.orders.keys.provision(workshop.owner, draft)).key
    assert made.state is State.ACTIVE
    return made


async def reaches(workshop: Workshop, key: IssuedKey, state: State) -> None:
    async with asyncio.timeout(20):
        while (await workshop.orders.keys.get(workshop.owner, key.id)).state is not state:  # noqa: ASYNC110  (a row in the database rings no bell)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("asked_for", ["before a restart", "just now"])
async def test_a_vendor_that_does_not_answer_keeps_no_other_vendors_key_from_its_end(two: Workshop, asked_for: str) -> None:
    ours = [await two.provision(f"dev{number}") for number in range(AT_ONCE + 2)]
    own = await key_with_end(two, "openai", 3_600)
    other = await key_with_end(two, "openrouter", 3_600)
    deaf = Deaf(two, forever=True)
    for key in ours:
        await two.orders.keys.revoke(two.owner, key.id, patience=0)
    if asked_for == "before a restart":
        await two.orders.operations.stop()
        await two.start()
        deaf = Deaf(two, forever=True)
    sweep = asyncio.create_task(two.orders.operations.tick())
    async with asyncio.timeout(20):
        await deaf.all_at_it.wait()
    two.clock.advance(3_601)

    await reaches(two, other, State.EXPIRED)
    await reaches(two, own, State.REVOKING)  # told to end, though all that may work on keys of its account wait
    at_work = list(two.orders.operations._accounts_of.values()).count(own.account_id)
    assert at_work == (AT_ONCE if asked_for == "before a restart" else len(ours))
    sweep.cancel()
    await asyncio.gather(sweep, return_exceptions=True)


async def test_a_revoke_that_gets_no_answer_says_so_within_two_minutes(workshop: Workshop) -> None:
    key = await workshop.provision("priya")
    Deaf(workshop, forever=False)
    began = workshop.clock.now_ns()
    told = await workshop.orders.keys.revoke(workshop.owner, key.id)
    assert (told.state, told.attempts, told.error_code) == (State.REVOKING, 1, "vendor_unavailable")
    assert "did not answer" in (told.error or "")
    assert workshop.clock.now_ns() - began < 120 * NANOSECONDS
