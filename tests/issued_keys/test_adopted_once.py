"""One key at a vendor is one key here, whoever enters it at the same moment: two processes on one database, and the database itself."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.issued_keys.workshop import Workshop

from keygate.errors import Conflict
from keygate.identities import Actor
from keygate.issued_keys import IssuedFilter, IssuedKey, State
from keygate.issued_keys.inventory.adopting import Adopted, Adoption
from keygate.issued_keys.inventory.model import Wanted
from keygate.kit.clock import ManualClock
from keygate.kit.database import open_database
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret
from keygate.sandbox import SandboxServer, Vendor


@pytest.fixture
async def beside(
    workshop: Workshop, database_url: str, clock: ManualClock, tmp_path: Path, sandbox: SandboxServer, owner: Actor
) -> AsyncIterator[Workshop]:
    """A second process, with connections of its own and the same master key."""
    opened = open_database(database_url)
    folder = tmp_path / "beside"
    shutil.copytree(workshop.folder / "data", folder / "data")
    made = Workshop(opened, clock, folder, sandbox, owner)
    await made.start()
    yield made
    await made.close()
    await opened.close()


async def standing(workshop: Workshop) -> list[IssuedKey]:
    return list(await workshop.orders.keys.page(workshop.owner, IssuedFilter(), after=None, limit=100))


async def at_once(calls: list[Awaitable[Adopted]]) -> list[Adopted]:
    """What succeeded; all others must have been told that the key is here already."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, Conflict), outcome
    return [outcome for outcome in outcomes if isinstance(outcome, Adopted)]


async def test_a_key_entered_at_the_same_moment_by_many_is_one(workshop: Workshop, beside: Workshop) -> None:
    for _ in range(3):
        secret = Secret(workshop.sandbox.state.create_key(Vendor.OPENAI).value)
        settings = {"base_url": workshop.sandbox.openai_base_url}
        enter = [
            each.stock.adoptions.enter(workshop.owner, vendor="groq", secret=secret, settings=settings, adoption=Adoption(None))
            for each in (workshop, beside) * 3
        ]
        before = len(await standing(workshop))
        [made] = await at_once(enter)
        assert len(await standing(workshop)) == before + 1
        accounts = await workshop.orders.accounts.all(workshop.owner, vendor="groq")
        assert made.key.account_id in {account.id for account in accounts}
        assert len(accounts) == before + 1  # no credential lies there for nothing


async def test_a_key_that_two_accounts_show_is_adopted_once(workshop: Workshop, beside: Workshop) -> None:
    hand, _ = workshop.by_hand("notebook")
    await workshop.orders.accounts.configure(
        workshop.owner,
        vendor="openai",
        name="second",
        admin_key=Secret(workshop.account.create_credential().value),
        settings={"base_url": workshop.sandbox.openai_base_url, "calls_per_minute": "100000"},
    )
    await workshop.stock.inventory.scan(workshop.owner, None)
    while await workshop.stock.scanner.tick():
        workshop.clock.advance(1)
    found = await workshop.stock.inventory.page(workshop.owner, Wanted(), after=None, limit=500)
    items = [item for item in found if item.footprint.key == hand]
    assert len({item.account_id for item in items}) == 2
    adopt = [each.stock.adoptions.adopt(workshop.owner, item.id, Adoption(None)) for each in (workshop, beside) for item in items]
    [made] = await at_once(adopt)
    assert [key.id for key in await standing(workshop)] == [made.key.id]


async def test_a_key_that_has_ended_may_be_entered_again(workshop: Workshop) -> None:
    value = workshop.sandbox.state.create_key(Vendor.OPENAI).value
    settings = {"base_url": workshop.sandbox.openai_base_url}

    async def enter() -> Adopted:
        return await workshop.stock.adoptions.enter(
            workshop.owner, vendor="groq", secret=Secret(value), settings=settings, adoption=Adoption(None)
        )

    first = await enter()
    workshop.sandbox.state.revoke_key(value)
    await workshop.orders.keys.revoke(workshop.owner, first.key.id)
    ended = await workshop.orders.keys.get(workshop.owner, first.key.id)
    assert ended.state is State.REVOKED
    assert ended.evidence[0]["the_key_itself"] == "refused", "that vendor has no other word than what it says to the key"
    workshop.sandbox.state.create_key(Vendor.OPENAI, value=value)
    assert (await enter()).key.id != first.key.id


async def test_the_database_itself_holds_a_key_at_the_vendor_once(workshop: Workshop) -> None:
    made = await workshop.provision("priya")
    one = replace(made, id=new_id("ik"), request_id=None, claim="openai:key_1")
    async with workshop.database.unit() as work:
        await workshop.orders.rows.add(work.connection, one)
    with pytest.raises(Conflict):
        async with workshop.database.unit() as work:
            await workshop.orders.rows.add(work.connection, replace(one, id=new_id("ik")))
    async with workshop.database.unit() as work:  # in another organisation it is another's business
        await workshop.orders.rows.add(work.connection, replace(one, id=new_id("ik"), organization_id="org_other"))
