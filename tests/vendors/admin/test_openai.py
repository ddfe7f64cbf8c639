"""OpenAI's provisioner against the sandbox's organization API: what is made, what is read back, what ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from tests.vendors.admin.desks import Script, Steps, answer, desk

from keygate.kit.clock import NANOSECONDS, SystemClock
from keygate.kit.ids import new_id
from keygate.kit.money import NANO
from keygate.kit.outbound import Outbound
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account
from keygate.vendors.admin import (
    AddsKey,
    AdminDesk,
    AdminKeyRefused,
    CeilingReached,
    Lists,
    Mark,
    MissingRight,
    Order,
    Period,
    Presence,
    Rejected,
    Renames,
    ReportsSpend,
    Retires,
    SetsBudget,
    SetsExpiry,
    SetsLimits,
    SetsModels,
    Terms,
    Unavailable,
)
from keygate.vendors.admin.openai import OPENAI_ADMIN

MODEL = "gpt-4.1-mini"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.OPENAI]


@pytest.fixture
def office(sandbox: SandboxServer, account: Account, outbound: Outbound) -> Callable[..., AdminDesk]:
    def open_desk(admin: str | None = None, **options: object) -> AdminDesk:
        value = account.create_credential().value if admin is None else admin
        settings = {"base_url": sandbox.openai_base_url}
        return desk(OPENAI_ADMIN.facts, outbound, value, clock=SystemClock(), settings=settings, **options)

    return open_desk


ANY = Terms()


def order(terms: Terms = ANY, generation: int = 1, mark: Mark | None = None) -> Order:
    return Order(mark=mark or Mark(new_id("ik")), generation=generation, title="priya", terms=terms)


async def status_of(sandbox: SandboxServer, key: str, model: str = MODEL) -> int:
    async with httpx.AsyncClient(timeout=10) as client:
        headers = {"authorization": f"Bearer {key}"}
        return (await client.post(f"{sandbox.openai_base_url}/chat/completions", json=CHAT | {"model": model}, headers=headers)).status_code


async def test_what_is_asked_for_is_read_back_from_the_vendor(sandbox, office) -> None:
    here = office()
    end = (SystemClock().now_ns() // NANOSECONDS + 3_600) * NANOSECONDS
    terms = Terms(
        budget_nano=50 * NANO,
        models=(MODEL,),
        requests_per_minute=60,
        tokens_per_minute=9_000,
        scopes=("model.request",),
        expires_at_ns=end,
    )
    made = await OPENAI_ADMIN.create(here, order(terms))
    assert await status_of(sandbox, made.secret.open()) == 200
    assert await status_of(sandbox, made.secret.open(), "gpt-4.1") == 403
    told = (await OPENAI_ADMIN.read(here, made.footprint)).terms
    assert abs(told.expires_at_ns - end) <= 2 * NANOSECONDS
    assert replace(told, expires_at_ns=end, scopes=terms.scopes) == terms


async def test_a_key_ends_alone_and_its_project_with_all_keys(sandbox, office) -> None:
    here, wanted = office(), order()
    first = await OPENAI_ADMIN.create(here, wanted)
    second = await OPENAI_ADMIN.create(here, replace(wanted, generation=2, footprint=replace(first.footprint, key=None)))
    assert second.footprint.place == first.footprint.place
    assert [await status_of(sandbox, made.secret.open()) for made in (first, second)] == [200, 200]
    await OPENAI_ADMIN.revoke(here, first.footprint)
    await OPENAI_ADMIN.revoke(here, first.footprint)
    assert (await OPENAI_ADMIN.read(here, first.footprint)).presence is Presence.GONE
    assert [await status_of(sandbox, made.secret.open()) for made in (first, second)] == [401, 200]
    await OPENAI_ADMIN.retire(here, second.footprint)
    await OPENAI_ADMIN.retire(here, second.footprint)
    assert (await OPENAI_ADMIN.read(here, second.footprint)).presence is Presence.GONE
    assert await status_of(sandbox, second.secret.open()) == 401
    assert await OPENAI_ADMIN.find(here, wanted.mark) == ()


async def test_what_carries_the_mark_is_found_and_nothing_else(sandbox, office) -> None:
    here, wanted = office(), order()
    made = await OPENAI_ADMIN.create(here, wanted)
    await OPENAI_ADMIN.create(here, order())
    container, key = await OPENAI_ADMIN.find(here, wanted.mark)
    assert container.footprint.place == {"project": made.footprint.place["project"]}
    assert (key.footprint, key.generation) == (made.footprint, 1)


async def test_creating_again_after_a_crash_uses_what_is_there(sandbox, office, account) -> None:
    steps, wanted = Steps(), order()
    here = office(watcher=steps)
    await OPENAI_ADMIN.create(here, wanted)
    await OPENAI_ADMIN.create(here, wanted)
    assert steps.told.count("> create the project") == 1
    assert steps.told.count("> create the service account") == 1
    assert len([key for key in await OPENAI_ADMIN.find(here, wanted.mark) if key.footprint.key]) == 2


async def test_each_missing_right_is_named(office, account) -> None:
    some = account.create_credential(without=("api.limits.write", "api.usage.read")).value
    found = await OPENAI_ADMIN.verify(office(some))
    assert [right.name for right in found.missing] == ["api.usage.read", "api.limits.write"]
    whole = await OPENAI_ADMIN.verify(office())
    assert all(right.held for right in whole.rights)
    with pytest.raises(AdminKeyRefused):
        await OPENAI_ADMIN.verify(office("sk-unknown-admin-key"))


async def test_verifying_makes_nothing(office, account) -> None:
    before = {name: len(list(shelf)) for name, shelf in account.shelves.items()}
    await OPENAI_ADMIN.verify(office())
    assert {name: len(list(shelf)) for name, shelf in account.shelves.items() if list(shelf)} == {k: v for k, v in before.items() if v}


async def test_a_right_that_is_missing_half_way_is_named(office, account) -> None:
    here = office(account.create_credential(without=("api.limits.write",)).value)
    with pytest.raises(MissingRight) as refused:
        await OPENAI_ADMIN.create(here, order(Terms(budget_nano=NANO)))
    assert refused.value.right == "api.limits.write"


async def test_the_ceiling_of_projects_is_told_as_such(office, account) -> None:
    account.settings = account.settings.with_changes({"ceilings": {"projects": 1}})
    with pytest.raises(CeilingReached):
        await OPENAI_ADMIN.create(office(), order())


@pytest.mark.parametrize("terms", [Terms(budget_nano=NANO // 1000), Terms(budget_nano=NANO, budget_period=Period.DAY)])
async def test_a_budget_that_the_vendor_does_not_have_is_refused(office, terms) -> None:
    with pytest.raises(Rejected):
        await OPENAI_ADMIN.create(office(), order(terms))


async def test_an_end_can_be_moved(office) -> None:
    here = office()
    end = (SystemClock().now_ns() // NANOSECONDS + 3_600) * NANOSECONDS
    made = await OPENAI_ADMIN.create(here, order(Terms(expires_at_ns=end)))
    later = end + 86_400 * NANOSECONDS
    await OPENAI_ADMIN.set_expiry(here, made.footprint, later)
    told = (await OPENAI_ADMIN.read(here, made.footprint)).terms.expires_at_ns
    assert told is not None
    assert abs(told - later) <= 2 * NANOSECONDS


async def test_costs_are_told_by_key_and_add_up_to_the_vendors_books(sandbox, office, account) -> None:
    here = office()
    made = [await OPENAI_ADMIN.create(here, order()) for _ in range(2)]
    for each in made:
        assert await status_of(sandbox, each.secret.open()) == 200
    now = SystemClock().now_ns()
    rows, cursor = await OPENAI_ADMIN.spend_page(here, now - 86_400 * NANOSECONDS, now + 60 * NANOSECONDS, None)
    assert cursor is None
    assert {row.key for row in rows} == {each.footprint.key for each in made}
    assert sum(row.amount_nano for row in rows) == pytest.approx(int(account.books.total_usd() * NANO), abs=len(rows))


async def test_everything_at_the_vendor_can_be_listed(office, account) -> None:
    here = office()
    made = await OPENAI_ADMIN.create(here, order())
    found, cursor = [], None
    for _ in range(10):
        page, cursor = await OPENAI_ADMIN.list_page(here, cursor)
        found += page
        if cursor is None:
            break
    assert made.footprint in [each.footprint for each in found]
    assert "Default project" in [each.name for each in found]


def test_what_it_says_it_can_do_it_has_methods_for() -> None:
    for power in (AddsKey, Retires, SetsBudget, SetsLimits, SetsModels, SetsExpiry, Lists, ReportsSpend):
        assert isinstance(OPENAI_ADMIN, power)
    assert not isinstance(OPENAI_ADMIN, Renames), "only projects have names there that could be changed"


async def test_a_page_that_promises_more_and_does_not_say_where_is_not_the_last() -> None:
    here = desk(
        OPENAI_ADMIN.facts, Script([answer(200, {"data": [], "has_more": True, "next_page": None})]), "sk-admin", clock=SystemClock()
    )
    with pytest.raises(Unavailable, match="not where"):
        await OPENAI_ADMIN.spend_page(here, 0, 86_400 * 10**9, None)
