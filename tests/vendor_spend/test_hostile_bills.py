"""Vendors' bills at their worst: pages without an end, other currencies, no amounts, storms of 429, clocks that jump, names that no
database holds, days and keys that are told no more."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from tests.vendor_spend.bureau import DAY_NS, DAY_S, Bureau

from keygate.errors import InvalidInput
from keygate.issued_keys import VendorAccount
from keygate.issued_keys.tables import issued_key_places as places
from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin import AdminFault
from keygate.vendor_spend import importer
from keygate.vendor_spend.model import ImportState, first_window
from keygate.vendor_spend.tables import vendor_spend, vendor_spend_imports, vendor_spend_incoming
from keygate.vendors.admin import RateLimited, SpendFacts, SpendRow, Unavailable

Desk = Any


async def imported(desk: Bureau, account: VendorAccount) -> ImportState:
    return await desk.bills.importer.run(desk.owner, account.id)


def bill(desk: Bureau, monkeypatch: pytest.MonkeyPatch, page: Any, vendor: str = "openai") -> None:
    monkeypatch.setattr(type(desk.provisioners[vendor]), "spend_page", page)


async def test_pages_without_an_end_are_given_up_and_change_nothing(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.configure()
    key = await desk.issue()
    cost = desk.spend(key)
    assert (await imported(desk, account)).error is None
    monkeypatch.setattr(importer, "MOST_PAGES", 10)
    asked: list[str | None] = []

    async def endless(self: Any, at: Desk, from_ns: int, until_ns: int, cursor: str | None) -> Any:
        asked.append(cursor)
        row = SpendRow({}, "key_x", from_ns, from_ns + DAY_NS, f"line {len(asked)}", 10**9)
        return (row,), "b" if cursor == "a" else "a"

    bill(desk, monkeypatch, endless)
    state = await imported(desk, account)
    assert len(asked) == 10
    assert (state.error_code, state.window, state.cursor) == ("vendor_rejected", None, None)
    assert await desk.billed() == cost
    await imported(desk, account)
    assert asked[10] is None  # from the beginning, and of a shorter time
    async with desk.database.read() as connection:
        waiting = (await connection.execute(sa.select(sa.func.count()).select_from(vendor_spend_incoming))).scalar_one()
    assert waiting <= 10


async def test_a_bill_in_another_currency_is_refused_and_not_taken_for_dollars(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    from keygate.sandbox.admin.openai import usage

    account = await desk.configure()
    desk.spend(await desk.issue())
    told = usage._cost_row

    def euros(*arguments: Any) -> Any:
        row = told(*arguments)
        return {**row, "amount": {**row["amount"], "currency": "eur"}}

    monkeypatch.setattr(usage, "_cost_row", euros)
    state = await imported(desk, account)
    assert state.error_code == "vendor_rejected"
    assert "eur" in state.error
    assert await desk.billed() == 0


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "1e40", "much", True, {"value": 1}, "9" * 30])
async def test_what_is_no_amount_is_refused_and_not_guessed(desk: Bureau, monkeypatch: pytest.MonkeyPatch, amount: Any) -> None:
    from keygate.sandbox.admin.openai import usage

    account = await desk.configure()
    key = await desk.issue()
    cost = desk.spend(key)
    await imported(desk, account)
    told = usage._cost_row
    monkeypatch.setattr(usage, "_cost_row", lambda *some: {**told(*some), "amount": {"value": amount, "currency": "usd"}})
    desk.spend(key)
    state = await imported(desk, account)
    assert state.error_code == "vendor_unavailable"
    assert await desk.billed() == cost


async def test_a_bill_of_an_unknown_shape_is_the_vendors_failure(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.configure()

    async def strange(self: Any, at: Desk, from_ns: int, until_ns: int, cursor: str | None) -> Any:
        return {}["results"]

    bill(desk, monkeypatch, strange)
    state = await imported(desk, account)
    assert (state.error_code, "shape" in state.error) == ("vendor_unavailable", True)
    assert state.next_at_ns > desk.clock.now_ns()


async def test_what_nobody_foresaw_is_not_tried_again_at_every_turn(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.configure()
    asked: list[int] = []

    async def broken(self: Any, at: Desk, from_ns: int, until_ns: int, cursor: str | None) -> Any:
        asked.append(from_ns)
        raise RuntimeError("a defect of ours")

    bill(desk, monkeypatch, broken)
    for _ in range(20):  # ten minutes of the worker's turns
        await desk.bills.importer.tick()
        desk.clock.advance(30)
    assert len(asked) <= 4
    async with desk.database.read() as connection:
        row = (await connection.execute(sa.select(vendor_spend_imports).where(vendor_spend_imports.c.account_id == account.id))).one()
    assert (row.error_code, row.leased_by) == ("failed", None)


async def test_a_storm_of_429_is_answered_with_fewer_calls_and_not_with_smaller_windows(
    desk: Bureau, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await desk.configure()
    cost = desk.spend(await desk.issue())
    windows: list[tuple[int, int]] = []
    whole = type(desk.provisioners["openai"]).spend_page

    async def limited(self: Any, at: Desk, from_ns: int, until_ns: int, cursor: str | None) -> Any:
        windows.append((from_ns, until_ns))
        raise RateLimited("429", retry_after=0)

    bill(desk, monkeypatch, limited)
    pauses = []
    for _ in range(5):
        state = await imported(desk, account)
        pauses.append(round((state.next_at_ns - desk.clock.now_ns()) / NANOSECONDS, -1))
    assert pauses == [60, 120, 240, 480, 960]
    assert len({until - from_ for from_, until in windows}) == 1
    bill(desk, monkeypatch, whole)
    assert (await imported(desk, account)).error is None
    assert await desk.billed() == cost


async def test_a_vendor_that_says_to_wait_for_years_is_asked_again_within_a_day(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.configure()

    async def limited(self: Any, at: Desk, from_ns: int, until_ns: int, cursor: str | None) -> Any:
        raise RateLimited("429", retry_after=9_999_999)

    bill(desk, monkeypatch, limited)
    state = await imported(desk, account)
    assert desk.clock.now_ns() + DAY_NS - 60 * NANOSECONDS < state.next_at_ns <= desk.clock.now_ns() + DAY_NS


async def test_a_clock_that_was_ahead_stops_no_import(desk: Bureau) -> None:
    account = await desk.configure()
    cost = desk.spend(await desk.issue())
    await imported(desk, account)
    far = desk.clock.now_ns() + 400 * DAY_NS
    async with desk.database.unit() as work:
        values = {"next_at_ns": far, "deep_at_ns": far, "window_began_ns": far, "read_until_ns": far}
        await work.connection.execute(sa.update(vendor_spend_imports).values(**values))
    more = desk.spend(await desk.issue())
    await desk.bills.importer.tick()
    assert await desk.billed() == cost + more


async def test_names_that_no_database_holds_are_kept_as_far_as_they_can_be(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.configure()

    async def strange(self: Any, at: Desk, from_ns: int, until_ns: int, cursor: str | None) -> Any:
        start = until_ns // DAY_NS * DAY_NS
        bad = "a\0b\ud800"
        return (SpendRow({"project": bad}, bad, start, start + DAY_NS, bad + "x" * 5_000, 10**9),), None

    bill(desk, monkeypatch, strange)
    for _ in range(2):
        assert (await imported(desk, account)).error is None
    async with desk.database.read() as connection:
        [row] = list(await connection.execute(sa.select(vendor_spend)))
    assert (row.vendor_key, row.amount_nano, len(row.item)) == ("ab?", 10**9, 500)


async def test_a_long_bill_is_read_in_turns_and_keeps_no_other_account_waiting(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account, other = await desk.configure(), await desk.configure("openrouter")
    cost = desk.spend(await desk.issue("openrouter"), vendor="openrouter", days_ago=1)
    asked: list[str | None] = []
    first: list[int] = []

    async def slow(self: Any, at: Desk, from_ns: int, until_ns: int, cursor: str | None) -> Any:
        first.append(from_ns)
        if from_ns != first[0]:
            return (), None
        asked.append(cursor)
        desk.clock.advance(60)
        number = int(cursor or 0)
        row = SpendRow({}, "key_x", from_ns, from_ns + DAY_NS, f"line {number}", 10**9)
        return (row,), str(number + 1) if number < 24 else None

    bill(desk, monkeypatch, slow)
    await desk.bills.importer.tick()
    assert len(asked) in {10, 11}  # ten minutes, and the page that was under way
    while len(asked) < 25:
        before = len(asked)
        await desk.bills.importer.tick()
        assert len(asked) > before
    assert asked == [None, *map(str, range(1, 25))]  # no page twice
    await desk.bills.importer.tick()
    assert await desk.billed(vendor=("openai",)) == 25
    assert await desk.billed(vendor=("openrouter",)) == cost
    states = {state.account_id: state async for state in _states(desk)}
    assert states[account.id].deep_at_ns > 0
    assert states[account.id].window is states[other.id].window is None


async def _states(desk: Bureau) -> Any:
    async with desk.database.read() as connection:
        for state in await desk.bills.importer.repository.states(connection, desk.owner.organization_id):
            yield state


async def test_counts_that_are_none_are_not_told(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.configure()

    async def strange(self: Any, at: Desk, from_ns: int, until_ns: int, cursor: str | None) -> Any:
        start = until_ns // DAY_NS * DAY_NS
        row = SpendRow({}, None, start, start + DAY_NS, "x", 10**9, requests="7", input_tokens=2**70, output_tokens=3)  # type: ignore[arg-type]  # hostile
        return (row,), None

    bill(desk, monkeypatch, strange)
    assert (await imported(desk, account)).error is None
    [row] = (await desk.usage(source="vendor")).rows
    assert (row.requests, row.input_tokens, row.output_tokens) == (None, None, 3)


async def test_a_key_that_becomes_known_later_gets_what_it_spent_before(desk: Bureau) -> None:
    account = await desk.configure()
    late = await desk.issue()
    cost = desk.spend(late, days_ago=20) + desk.spend(late)
    desk.spend(None, vendor_key="key_of_somebody", container="proj_other", days_ago=20)
    async with desk.database.unit() as work:
        saved = (await work.connection.execute(sa.select(places).where(places.c.key_id == late.id))).mappings().all()
        await work.connection.execute(sa.delete(places).where(places.c.key_id == late.id))
    await imported(desk, account)
    assert await desk.billed(key_id=(late.id,)) == 0
    async with desk.database.unit() as work:
        await work.connection.execute(sa.insert(places), [dict(row) for row in saved])
    await imported(desk, account)
    assert await desk.billed(key_id=(late.id,)) == cost


async def test_an_endless_cursor_is_refused(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.configure()

    async def long(self: Any, at: Desk, from_ns: int, until_ns: int, cursor: str | None) -> Any:
        return (), "x" * 1_000_000

    bill(desk, monkeypatch, long)
    assert (await imported(desk, account)).error_code == Unavailable.code


async def test_a_deleted_key_at_openrouter_keeps_what_it_spent(desk: Bureau) -> None:
    account = await desk.configure("openrouter")
    key = await desk.issue("openrouter")
    cost = desk.spend(key, vendor="openrouter", days_ago=1)
    await imported(desk, account)
    assert await desk.billed(key_id=(key.id,)) == cost
    ended = await desk.orders.keys.revoke(desk.owner, key.id)
    assert ended.state == "revoked"
    desk.clock.advance(3_600)
    assert (await imported(desk, account)).error is None
    assert await desk.billed(key_id=(key.id,)) == cost


async def test_days_that_a_vendor_tells_no_more_stay_as_they_were_told(desk: Bureau) -> None:
    account = await desk.configure("openrouter")
    key = await desk.issue("openrouter")
    cost = desk.spend(key, vendor="openrouter", days_ago=1)
    await imported(desk, account)
    desk.clock.advance(60 * DAY_S)
    with pytest.raises(InvalidInput, match="last 30 days"):
        await desk.bills.importer.run(desk.owner, account.id, since_ns=desk.clock.now_ns() - 61 * DAY_NS)
    await imported(desk, account)
    async with desk.database.read() as connection:
        told = [row.amount_nano for row in await connection.execute(sa.select(vendor_spend)) if row.amount_nano]
    assert [Decimal(nano) / 10**9 for nano in told] == [cost]


def test_no_window_begins_before_what_the_vendor_still_tells() -> None:
    facts = SpendFacts(86_400, None, 2, per_key=True, means="", reach_days=30)
    now = 20_000 * DAY_NS + 5
    for state in (ImportState("a", "o", "v"), ImportState("a", "o", "v", read_until_ns=now - 90 * DAY_NS)):
        assert first_window(state, facts, created_ns=now, now_ns=now).from_ns == now - 5 - 30 * DAY_NS


async def test_negative_lines_are_taken_as_they_are(desk: Bureau) -> None:
    account = await desk.configure()
    key = await desk.issue()
    cost = desk.spend(key, days_ago=1)
    desk.restate(key, "-13.50", days_ago=1)
    assert (await imported(desk, account)).error is None
    assert await desk.billed() == cost - Decimal("13.50") < 0
    assert (await desk.bills.watch.standing(desk.owner, key.id)).spent_nano <= 0


async def test_a_fault_in_the_middle_of_pages_loses_none_and_doubles_none(desk: Bureau) -> None:
    account = await desk.configure()
    key = await desk.issue()
    for days in range(20):
        desk.spend(key, days_ago=days)
    with desk.sandbox.state.admin.lock:
        desk.books("openai").faults.append(AdminFault(operation="costs.list", status=403, after=1, calls=1))
    await imported(desk, account)
    assert (await imported(desk, account)).error is None
    assert await desk.billed() == desk.books("openai").books.total_usd()
