"""Our ledger against the vendors' bills: agreement to the cent, what explains a difference, and traffic that bypassed KeyGate."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.vendor_spend.bureau import DAY_NS, DAY_S, MODEL, Bureau

from keygate.errors import Forbidden, InvalidInput
from keygate.identities import Actor, ActorKind, Role
from keygate.issued_keys import VendorAccount
from keygate.vendor_spend import BillReconciliation
from keygate.vendor_spend.balance import CENT_NANO, AccountDay, Verdict
from keygate.vendor_spend.reconciliation import Balance

GATEWAY_KEY = "key_of_the_gateway"
_PER_DOLLAR = 125_000  # output tokens of gpt-4.1: 8 dollars a million


def through_gateway(desk: Bureau, usd: str, *, days_ago: float = 0, **changes: Any) -> None:
    """Spent through KeyGate, and so on both sides."""
    desk.ledger(usd, days_ago=days_ago, **changes)
    past_it(desk, usd, days_ago=days_ago, key=GATEWAY_KEY)


def past_it(desk: Bureau, usd: str, *, days_ago: float = 0, key: str = "key_of_somebody") -> None:
    desk.spend(None, vendor_key=key, tokens=int(Decimal(usd) * _PER_DOLLAR), model=MODEL, days_ago=days_ago)


async def balance(desk: Bureau, imported: VendorAccount | None = None, **options: Any) -> Balance:
    if imported is not None:
        state = await desk.bills.importer.run(desk.owner, imported.id)
        assert state.error is None, state.error
    reconciliation = desk.bills.services[BillReconciliation]
    return await reconciliation.balance(desk.owner, **options)


async def only(desk: Bureau, account: VendorAccount) -> AccountDay:
    [(day, _)] = (await balance(desk, account)).days
    return day


def usd(nano: int | None) -> Decimal:
    assert nano is not None
    return Decimal(nano) / 10**9


async def test_gateway_and_issued_traffic_agree_with_the_bill_to_the_cent(desk: Bureau) -> None:
    account = await desk.configure()
    await desk.credential("cred_1")
    key = await desk.issue()
    for days in (1, 2, 3):
        through_gateway(desk, "1.50", days_ago=days)
        through_gateway(desk, "0.25", days_ago=days)
        desk.spend(key, days_ago=days, tokens=_PER_DOLLAR * 4)
    found = await balance(desk, account)
    assert len(found.days) == 3
    for day, _ in found.days:
        assert day.verdict is Verdict.AGREES
        assert (usd(day.ledger_nano), usd(day.bill_nano), usd(day.issued_nano)) == (Decimal("1.75"), Decimal("5.75"), Decimal(4))
        assert (day.difference_nano, day.bypassed_nano, day.missing_nano) == (0, 0, 0)
    assert sum(usd(day.bill_nano) for day, _ in found.days) == desk.books("openai").books.total_usd()


async def test_traffic_that_bypassed_keygate_shows_with_its_key_and_amount(desk: Bureau) -> None:
    account = await desk.configure()
    await desk.credential("cred_1")
    through_gateway(desk, "1.00", days_ago=1)
    past_it(desk, "3.20", days_ago=1)
    [(day, keys)] = (await balance(desk, account)).days
    assert day.verdict is Verdict.BYPASSED
    assert usd(day.bypassed_nano) == Decimal("3.20")
    assert {(key.vendor_key, usd(key.amount_nano)) for key in keys} == {("key_of_somebody", Decimal("3.20")), (GATEWAY_KEY, Decimal(1))}


async def test_a_day_without_any_traffic_of_ours_shows_what_bypassed(desk: Bureau) -> None:
    account = await desk.configure()
    past_it(desk, "0.50", days_ago=2)
    assert usd((await only(desk, account)).bypassed_nano) == Decimal("0.50")


async def test_a_bill_that_comes_late_is_pending_and_not_missing(desk: Bureau) -> None:
    desk.behave(costs_late_s=8 * 3_600)
    account = await desk.configure()
    await desk.credential("cred_1")
    through_gateway(desk, "2.00")
    day = await only(desk, account)
    assert (usd(day.other_nano), usd(day.pending_nano), day.verdict, day.final) == (0, Decimal(2), Verdict.AGREES, False)
    desk.clock.advance(9 * 3_600)
    day = await only(desk, account)
    assert (usd(day.other_nano), day.verdict) == (Decimal(2), Verdict.AGREES)


async def test_a_bill_that_stays_below_the_ledger_is_told_once_it_should_be_there(desk: Bureau) -> None:
    account = await desk.configure()
    await desk.credential("cred_1")
    desk.ledger("2.00", days_ago=3)
    through_gateway(desk, "1.00", days_ago=3)
    day = await only(desk, account)
    assert (day.verdict, usd(day.missing_nano)) == (Verdict.BELOW, Decimal(2))


async def test_charges_in_doubt_are_in_the_range_and_not_held_against_the_bill(desk: Bureau) -> None:
    account = await desk.configure()
    await desk.credential("cred_1")
    through_gateway(desk, "1.00", days_ago=2)
    desk.ledger("0.40", days_ago=2, in_doubt=True, outcome="upstream_lost", usage=None)
    day = await only(desk, account)
    assert (usd(day.low_nano), usd(day.high_nano), day.verdict) == (Decimal(1), Decimal("1.40"), Verdict.AGREES)


async def test_a_surplus_beside_requests_without_a_price_is_unclear(desk: Bureau) -> None:
    account = await desk.configure()
    await desk.credential("cred_1")
    through_gateway(desk, "1.00", days_ago=2)
    desk.ledger("0", days_ago=2, cost_nano=None, price_id=None)
    past_it(desk, "0.30", days_ago=2, key=GATEWAY_KEY)
    day = await only(desk, account)
    assert (day.verdict, day.unpriced, usd(day.bypassed_nano)) == (Verdict.UNCLEAR, 1, Decimal("0.30"))


async def test_a_request_over_midnight_may_stand_in_either_days_bill(desk: Bureau) -> None:
    account = await desk.configure()
    await desk.credential("cred_1")
    midnight = desk.clock.now_ns() // DAY_NS * DAY_NS - 2 * DAY_NS
    ago = (desk.clock.now_ns() - midnight) / DAY_NS
    desk.ledger("1.00", days_ago=ago + 120 / DAY_S)  # begins two minutes before
    past_it(desk, "1.00", days_ago=ago - 120 / DAY_S, key=GATEWAY_KEY)  # is billed two minutes after
    found = await balance(desk, account)
    assert [(usd(day.ledger_nano), usd(day.other_nano), day.verdict) for day, _ in found.days] == [
        (Decimal(1), Decimal(0), Verdict.AGREES),
        (Decimal(0), Decimal(1), Verdict.AGREES),
    ]


async def test_restated_days_are_not_final_and_say_what_was_added(desk: Bureau) -> None:
    account = await desk.configure()
    key = await desk.issue()
    desk.spend(key, days_ago=2, tokens=_PER_DOLLAR)
    desk.spend(key, days_ago=9, tokens=_PER_DOLLAR)
    await balance(desk, account)
    desk.restate(key, "0.75", days_ago=2)
    (old, _), (new, _) = (await balance(desk, account)).days
    assert (old.final, new.final) == (True, False)
    assert (usd(new.restated_nano), usd(new.bill_nano)) == (0, Decimal("1.75"))  # a line of its own: added, not restated


async def test_days_are_not_read_before_the_first_import_and_never_where_no_bill_is_told(desk: Bureau) -> None:
    await desk.configure()
    await desk.credential("cred_1")
    desk.ledger("1.00", days_ago=1)
    [(day, _)] = (await balance(desk)).days
    assert (day.verdict, day.bill_nano, day.difference_nano) == (Verdict.NOT_READ, None, None)


async def test_a_credential_of_another_account_is_not_held_against_this_one(desk: Bureau) -> None:
    account = await desk.configure()
    await desk.credential("cred_1", account=account.name)
    await desk.credential("cred_2", account="org-of-another-company")
    await desk.credential("cred_3", base_url="http://127.0.0.1:9/v1")  # another server that speaks OpenAI's dialect
    through_gateway(desk, "1.00", days_ago=1)
    desk.ledger("7.00", days_ago=1, credential="cred_2")
    desk.ledger("9.00", days_ago=1, credential="cred_3")
    found = await balance(desk, account)
    [(day, _)] = found.days
    assert (usd(day.ledger_nano), day.verdict) == (Decimal(1), Verdict.AGREES)
    assert {(each.credential_id, usd(each.cost_nano)) for each in found.unassigned} == {("cred_2", Decimal(7)), ("cred_3", Decimal(9))}


async def test_only_those_who_see_everything_see_bills(desk: Bureau) -> None:
    developer = Actor(ActorKind.USER, "usr_x", desk.owner.organization_id, Role.DEVELOPER, developer_id="dev_x")
    with pytest.raises(Forbidden):
        await desk.bills.services[BillReconciliation].balance(developer)
    other = replace(desk.owner, organization_id="org_other")
    await desk.configure()
    assert (await desk.bills.services[BillReconciliation].balance(other)).bills == ()


async def test_ranges_have_bounds(desk: Bureau) -> None:
    now = desk.clock.now_ns()
    for start, end in ((now, now - DAY_NS), (now - 94 * DAY_NS, now)):
        with pytest.raises(InvalidInput):
            await balance(desk, from_ns=start, to_ns=end)
    with pytest.raises(InvalidInput, match="account"):
        await balance(desk, account="nobody")


async def test_one_report_over_gateway_and_issued_keys_counts_gateway_traffic_once(desk: Bureau) -> None:
    account = await desk.configure()
    await desk.credential("cred_1")
    ada = await desk.developer("ada")
    key = await desk.issue(developer=ada)
    through_gateway(desk, "1.50", days_ago=1, developer_id=ada, team_id=None)
    past_it(desk, "9.00", days_ago=1)
    cost = desk.spend(key, days_ago=1, tokens=_PER_DOLLAR * 2)
    await desk.bills.importer.run(desk.owner, account.id)
    found = await desk.usage(source="all", group_by=["developer", "source"])
    assert {(row.group["developer"], row.group["source"]): usd(row.cost_nano) for row in found.rows} == {
        (ada, "gateway"): Decimal("1.50"),
        (ada, "vendor"): cost,
    }
    [whole] = (await desk.usage(source="all", group_by=["developer"])).rows
    assert (usd(whole.cost_nano), whole.requests) == (Decimal("1.50") + cost, None)  # OpenAI's costs tell no requests
    assert [usd(bill.unknown_nano) for bill in found.bills] == [Decimal("10.50")]


async def test_a_developer_sees_what_is_their_own_of_the_bills(desk: Bureau) -> None:
    account = await desk.configure()
    ada, bob = await desk.developer("ada"), await desk.developer("bob")
    costs = {who: desk.spend(await desk.issue(developer=who), tokens=1_000 * number) for number, who in enumerate((ada, bob), 1)}
    past_it(desk, "5.00")
    await desk.bills.importer.run(desk.owner, account.id)
    for who in (ada, bob):
        actor = Actor(ActorKind.USER, "usr_x", desk.owner.organization_id, Role.DEVELOPER, developer_id=who)
        for source in ("vendor", "all"):
            found = await desk.usage(source=source, group_by=["developer"], actor=actor)
            assert {row.group["developer"]: usd(row.cost_nano) for row in found.rows} == {who: costs[who]}
            assert [bill.unknown_nano for bill in found.bills] == [0]


@pytest.mark.parametrize("groups", [["endpoint"], ["hour"], ["day", "month"], ["key", "key"], ["nonsense"]])
async def test_groups_that_bills_do_not_know_are_refused(desk: Bureau, groups: list[str]) -> None:
    with pytest.raises(InvalidInput, match="group_by"):
        await desk.usage(source="vendor", group_by=groups)


_NANO = st.integers(0, 10**12)


@given(ledger=_NANO, in_doubt=_NANO, pending=_NANO, late=_NANO, early=_NANO, bill=_NANO, issued=_NANO)
def test_what_lies_within_the_range_is_neither_bypassed_nor_missing(
    ledger: int, in_doubt: int, pending: int, late: int, early: int, bill: int, issued: int
) -> None:
    day = AccountDay(
        "va_1",
        "default",
        "openai",
        0,
        ledger_nano=ledger,
        in_doubt_nano=min(in_doubt, ledger),
        pending_nano=pending,
        late_nano=late,
        early_nano=early,
        bill_nano=bill + issued,
        issued_nano=issued,
    )
    assert day.low_nano <= day.high_nano
    if day.low_nano <= bill <= day.high_nano:
        assert (day.bypassed_nano, day.missing_nano, day.verdict) == (0, 0, Verdict.AGREES)
    else:
        assert (day.bypassed_nano > 0) != (day.missing_nano > 0)
    assert (day.verdict is Verdict.BYPASSED) == (bill - day.high_nano >= CENT_NANO)
