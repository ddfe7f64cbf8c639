"""Vendors' bills, imported: to the cent what the vendor's books say, however late, restated, paged or cut off they come."""

from __future__ import annotations

from decimal import Decimal

import pytest
import sqlalchemy as sa
from tests.vendor_spend.bureau import DAY_NS, DAY_S, Bureau

from keygate.errors import Conflict, NotFound
from keygate.issued_keys import VendorAccount
from keygate.sandbox.admin import AdminFault
from keygate.vendor_spend.model import ImportState
from keygate.vendor_spend.tables import vendor_spend, vendor_spend_incoming


async def imported(desk: Bureau, account: VendorAccount, **options: int) -> ImportState:
    state = await desk.bills.importer.run(desk.owner, account.id, **options)
    assert state.error is None, state.error
    return state


async def rows(desk: Bureau) -> list[sa.Row]:
    async with desk.database.read() as connection:
        return list(await connection.execute(sa.select(vendor_spend).order_by(vendor_spend.c.start_ns, vendor_spend.c.row_id)))


async def waiting(desk: Bureau) -> int:
    async with desk.database.read() as connection:
        return (await connection.execute(sa.select(sa.func.count()).select_from(vendor_spend_incoming))).scalar_one()


async def test_the_report_equals_the_vendors_books_by_key_owner_and_day(desk: Bureau) -> None:
    team = await desk.people.teams.create(desk.owner, name="Search")
    ada, bob = await desk.developer("ada", team.id), await desk.developer("bob")
    account = await desk.configure()
    keys = [await desk.issue(developer=ada), await desk.issue(developer=bob)]
    spent = {key.id: desk.spend(key) + desk.spend(key, days_ago=1, tokens=333_333) + desk.spend(key, days_ago=2) for key in keys}
    await imported(desk, account)
    assert await desk.billed() == desk.books("openai").books.total_usd()
    by_key = await desk.usage(source="vendor", group_by=["key"])
    assert {row.group["key"]: Decimal(row.cost_nano) / 10**9 for row in by_key.rows} == spent
    by_owner = await desk.usage(source="vendor", group_by=["developer", "team"])
    assert {(row.group["developer"], row.group["team"]) for row in by_owner.rows} == {(ada, team.id), (bob, None)}
    by_day = await desk.usage(source="vendor", group_by=["day"])
    assert len(by_day.rows) == 3
    assert await desk.billed(developer_id=(bob,)) == spent[keys[1].id]


async def test_importing_again_counts_nothing_twice(desk: Bureau) -> None:
    account = await desk.configure()
    key = await desk.issue()
    desk.spend(key)
    desk.spend(key, days_ago=1)
    await imported(desk, account)
    before = await rows(desk)
    for _ in range(3):
        desk.clock.advance(3_600)
        await imported(desk, account)
    assert await rows(desk) == before
    assert await desk.billed() == desk.books("openai").books.total_usd()


async def test_late_numbers_come_with_a_later_import(desk: Bureau) -> None:
    desk.behave(costs_late_s=6 * 3_600)
    account = await desk.configure()
    key = await desk.issue()
    cost = desk.spend(key)
    await imported(desk, account)
    assert await desk.billed() == 0
    desk.clock.advance(7 * 3_600)
    await imported(desk, account)
    assert await desk.billed() == cost


async def test_restated_numbers_replace_what_was_told_before(desk: Bureau) -> None:
    desk.behave(costs_first_share=0.4, costs_restated_s=12 * 3_600)
    account = await desk.configure()
    key = await desk.issue()
    cost = desk.spend(key)
    await imported(desk, account)
    assert await desk.billed() == cost * Decimal("0.4")
    desk.clock.advance(13 * 3_600)
    await imported(desk, account)
    assert await desk.billed() == cost
    [row] = (await desk.usage(source="vendor")).rows
    assert row.restated_nano == int(cost * Decimal("0.6") * 10**9)


async def test_a_correction_of_a_day_that_was_read_is_found_and_a_lower_one_too(desk: Bureau) -> None:
    account = await desk.configure()
    key = await desk.issue()
    cost = desk.spend(key, days_ago=2)
    await imported(desk, account)
    desk.restate(key, "1.25", days_ago=2)
    await imported(desk, account)
    assert await desk.billed() == cost + Decimal("1.25")
    desk.restate(key, "-2.00", days_ago=2)
    await imported(desk, account)
    assert await desk.billed() == cost - Decimal("0.75")


async def test_a_line_that_the_vendor_takes_back_is_gone(desk: Bureau) -> None:
    account = await desk.configure()
    key = await desk.issue()
    desk.spend(key)
    cost = desk.spend(key, days_ago=1)
    await imported(desk, account)
    books = desk.books("openai").books
    with desk.sandbox.state.admin.lock:
        today = [at for at, cell in books._cells.items() if cell.minute_s > desk.clock.now_ns() // 10**9 - DAY_S // 2]
        for at in today:
            del books._cells[at]
    await imported(desk, account)
    assert await desk.billed() == cost


async def test_a_long_history_is_read_in_windows_and_pages(desk: Bureau) -> None:
    account = await desk.configure()
    keys = [await desk.issue() for _ in range(2)]
    for days in range(30):
        for key in keys:
            desk.spend(key, days_ago=days, tokens=1_000 * (days + 1))
    state = await imported(desk, account)
    assert await desk.billed() == desk.books("openai").books.total_usd()
    assert state.read_until_ns is not None
    assert state.read_until_ns >= desk.clock.now_ns() - DAY_NS // 2
    calls = [call for call in desk.books("openai").calls if call.operation == "costs.list"]
    assert len(calls) >= 5


async def test_an_import_that_was_cut_off_goes_on_and_shows_nothing_half(desk: Bureau) -> None:
    account = await desk.configure()
    key = await desk.issue()
    for days in range(30):
        desk.spend(key, days_ago=days)
    with desk.sandbox.state.admin.lock:  # from the third call on, for longer than is waited
        desk.books("openai").faults.append(AdminFault(operation="costs.list", status=403, after=2, calls=1))
    state = await desk.bills.importer.run(desk.owner, account.id)
    assert state.error_code == "missing_right"
    seen = await desk.billed()
    assert 0 < seen < desk.books("openai").books.total_usd()
    state = await imported(desk, account)
    assert await desk.billed() == desk.books("openai").books.total_usd()
    assert await waiting(desk) == 0


async def test_pages_that_wait_are_in_no_sum_until_the_last_has_come(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.configure()
    key = await desk.issue()
    costs = [desk.spend(key, days_ago=days) for days in range(4)]
    await imported(desk, account)
    real = desk.provisioners["openai"]
    told = await real.spend_page(await desk.orders.access.desk(account), desk.clock.now_ns() - 5 * DAY_NS, desk.clock.now_ns(), None)
    everything = list(told[0])
    asked: list[str | None] = []

    async def paged(self, at, from_ns, until_ns, cursor):  # a page a row; the third page fails at first
        asked.append(cursor)
        if cursor == "2" and asked.count("2") == 1:
            raise RuntimeError("the process ends here")
        number = int(cursor or 0)
        return (everything[number],), str(number + 1) if number + 1 < len(everything) else None

    monkeypatch.setattr(type(real), "spend_page", paged)
    with pytest.raises(RuntimeError):
        await desk.bills.importer.run(desk.owner, account.id)
    assert await desk.billed() == sum(costs)
    assert await waiting(desk) == 2
    desk.clock.advance(60)
    await imported(desk, account)
    assert asked[:5] == [None, "1", "2", "2", "3"]  # and then the minute that has passed since
    assert await desk.billed() == sum(costs)


async def test_a_page_from_which_the_vendor_will_not_go_on_is_read_anew(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    from keygate.vendors.admin import Rejected

    account = await desk.configure()
    key = await desk.issue()
    cost = desk.spend(key)
    real = type(desk.provisioners["openai"])
    whole = real.spend_page
    asked: list[str | None] = []

    async def forgetful(self, at, from_ns, until_ns, cursor):
        asked.append(cursor)
        if cursor is not None:
            raise Rejected("Invalid 'page'")
        found, _ = await whole(self, at, from_ns, until_ns, None)
        return found, "page_gone" if len(asked) == 1 else None

    monkeypatch.setattr(real, "spend_page", forgetful)
    state = await desk.bills.importer.run(desk.owner, account.id)
    assert state.error == "Invalid 'page'"
    assert state.window is None
    await imported(desk, account)
    assert asked[2] is None
    assert await desk.billed() == cost


async def test_a_bill_too_large_for_one_answer_is_read_day_by_day(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    from keygate.vendors.admin import Unavailable

    account = await desk.configure()
    key = await desk.issue()
    for days in range(10):
        desk.spend(key, days_ago=days)
    real = type(desk.provisioners["openai"])
    whole = real.spend_page

    async def small(self, at, from_ns, until_ns, cursor):
        if until_ns - from_ns > DAY_NS:
            raise Unavailable("answered with more than 8388608 bytes")
        return await whole(self, at, from_ns, until_ns, cursor)

    monkeypatch.setattr(real, "spend_page", small)
    state = await desk.bills.importer.run(desk.owner, account.id)
    assert state.error_code == "vendor_unavailable"
    await imported(desk, account)
    assert await desk.billed() == desk.books("openai").books.total_usd()


async def test_a_key_that_keygate_did_not_make_is_kept_as_unknown(desk: Bureau) -> None:
    account = await desk.configure()
    ours = await desk.issue()
    desk.spend(ours)
    foreign = desk.spend(None, vendor_key="key_of_somebody", container="proj_other")
    await imported(desk, account)
    found = await desk.usage(source="vendor", group_by=["key", "vendor_key"])
    assert {(row.group["key"], row.group["vendor_key"]) for row in found.rows} == {
        (ours.id, ours.footprint.key),
        (None, "key_of_somebody"),
    }
    assert [Decimal(bill.unknown_nano) / 10**9 for bill in found.bills] == [foreign]


async def test_a_foreign_key_in_a_container_of_ours_counts_for_the_container(desk: Bureau) -> None:
    account = await desk.configure()
    ours = await desk.issue(developer=await desk.developer("ada"))
    desk.spend(None, vendor_key="key_made_in_the_console", container=ours.footprint.place["project"])
    await imported(desk, account)
    [row] = await rows(desk)
    assert (row.issued_key_id, row.attribution, row.vendor_key) == (ours.id, "container", "key_made_in_the_console")


async def test_former_keys_of_rotations_stay_their_holders(desk: Bureau) -> None:
    account = await desk.configure()
    first = await desk.issue(developer=await desk.developer("ada"))
    turned = (await desk.orders.keys.rotate(desk.owner, first.id, overlap_seconds=0, quiet_seconds=0, insist=True)).key
    if turned.state != "active":
        turned = await desk.orders.keys.cut(desk.owner, first.id)
    assert turned.footprint.key != first.footprint.key
    cost = desk.spend(first, days_ago=0.01) + desk.spend(turned)
    await desk.orders.keys.revoke(desk.owner, first.id)
    await imported(desk, account)
    found = await desk.usage(source="vendor", group_by=["key"])
    assert {row.group["key"]: Decimal(row.cost_nano) / 10**9 for row in found.rows} == {first.id: cost}
    assert {row.attribution for row in await rows(desk)} == {"key"}


async def test_what_a_vendor_refuses_is_told_and_tried_again_later(desk: Bureau) -> None:
    account = await desk.configure()
    with desk.sandbox.state.admin.lock:
        for credential in desk.books("openai").credentials.values():
            object.__setattr__(credential, "without", frozenset({"api.usage.read"}))
    state = await desk.bills.importer.run(desk.owner, account.id)
    assert state.error_code == "missing_right"
    assert "api.usage.read" in state.error
    assert state.next_at_ns > desk.clock.now_ns()
    calls = len(desk.books("openai").calls)
    await desk.bills.importer.tick()
    assert len(desk.books("openai").calls) == calls


async def test_the_worker_imports_what_is_due_and_nothing_before(desk: Bureau) -> None:
    await desk.configure()
    key = await desk.issue()
    first = desk.spend(key)
    await desk.bills.importer.tick()
    assert await desk.billed() == first
    second = desk.spend(key)
    await desk.bills.importer.tick()
    assert await desk.billed() == first
    desk.clock.advance(901)
    await desk.bills.importer.tick()
    assert await desk.billed() == first + second


class _Killed(BaseException):
    """The process ends here: nothing is given back."""


async def test_a_node_that_was_killed_in_an_import_reads_the_bill_right_after_its_start(
    desk: Bureau, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await desk.configure()
    spent = desk.spend(await desk.issue())
    real = type(desk.provisioners["openai"])
    with monkeypatch.context() as patch:

        async def killed(*_: object, **__: object) -> None:
            raise _Killed

        patch.setattr(real, "spend_page", killed)
        patch.setattr(desk.bills.importer._repository, "release", nothing)
        with pytest.raises(_Killed):
            await desk.bills.importer.run(desk.owner, account.id)

    other = await desk.process("node_2")
    with pytest.raises(Conflict, match=r"if that process is gone, it is free at 20\d\d-"):
        await other.importer.run(desk.owner, account.id)

    again = await desk.process("node_1")
    await again.importer.run(desk.owner, account.id)
    assert await desk.billed() == spent


async def nothing(*_: object, **__: object) -> None: ...


async def test_two_processes_do_not_import_the_same_account_at_once(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.configure()
    real = type(desk.provisioners["openai"])
    whole = real.spend_page
    refused: list[str] = []

    async def meanwhile(self, at, from_ns, until_ns, cursor):
        if not refused:
            refused.append("asked")
            with pytest.raises(Conflict, match="right now"):
                await desk.bills.importer.run(desk.owner, account.id)
        return await whole(self, at, from_ns, until_ns, cursor)

    monkeypatch.setattr(real, "spend_page", meanwhile)
    await imported(desk, account)
    assert refused == ["asked"]


async def test_other_organisations_accounts_are_not_there(desk: Bureau) -> None:
    from dataclasses import replace

    account = await desk.configure()
    with pytest.raises(NotFound):
        await desk.bills.importer.run(replace(desk.owner, organization_id="org_other"), account.id)


@pytest.mark.parametrize("vendor", ["anthropic", "openrouter", "azure", "xai", "google"])
async def test_other_vendors_bills_equal_their_books(desk: Bureau, vendor: str) -> None:
    account = await desk.configure(vendor)
    key = await desk.issue(vendor, models=("gpt-4.1-mini",)) if vendor == "azure" else await desk.issue(vendor)
    model = {"anthropic": "claude-sonnet-4-5", "xai": "grok-3", "google": "gemini-2.5-flash"}.get(vendor, "gpt-4.1-mini")
    for days in (0, 1, 3):
        desk.spend(key, vendor=vendor, model=model, days_ago=days)
    desk.clock.advance(2 * DAY_S)
    await imported(desk, account)
    assert await desk.billed(key_id=(key.id,)) == desk.books(vendor).books.total_usd()
    desk.clock.advance(DAY_S)
    await imported(desk, account)
    assert await desk.billed(key_id=(key.id,)) == desk.books(vendor).books.total_usd()
