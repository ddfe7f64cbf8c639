"""Bills that are read only where somebody has switched that on: AWS's Cost Explorer, Google's export to BigQuery."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.vendor_spend.bureau import DAY_S, Bureau

from keygate.errors import Conflict
from keygate.issued_keys import VendorAccount
from keygate.sandbox.admin import AdminFault
from keygate.sandbox.admin.aws import ce
from keygate.sandbox.admin.google import bigquery
from keygate.vendor_spend import BillReconciliation
from keygate.vendor_spend.model import ImportState
from keygate.vendor_spend.schemas import BalanceOut, WatchOut

BEDROCK, HAIKU = "bedrock", "anthropic.claude-haiku-4-5-20251001-v1:0"
GOOGLE, FLASH = "google", "gemini-2.5-flash"
TAG = "iamPrincipal/keygate-id"


async def imported(desk: Bureau, account: VendorAccount) -> ImportState:
    state = await desk.bills.importer.run(desk.owner, account.id)
    assert state.error is None, state.error
    return state


def activate(desk: Bureau) -> None:
    """What somebody does in AWS's Billing console."""
    body = {"CostAllocationTagsStatus": [{"TagKey": TAG, "Status": "Active"}]}
    with desk.sandbox.state.admin.lock:
        ce.update_cost_allocation_tags_status(desk.books(BEDROCK), body)


def calls(desk: Bureau, vendor: str, operation: str) -> int:
    return len([call for call in desk.books(vendor).calls if call.operation == operation])


async def costs(desk: Bureau, **filters: Any) -> dict[str | None, Decimal]:
    report = await desk.usage(source="vendor", group_by=["key"], **filters)
    return {row.group["key"]: Decimal(row.cost_nano) / 10**9 for row in report.rows}


async def test_bedrock_costs_are_told_by_the_keys_iam_user_to_the_cent(desk: Bureau) -> None:
    account = await desk.configure(BEDROCK, cost_explorer="on")
    keys = [await desk.issue(BEDROCK, developer=await desk.developer(name)) for name in ("ada", "bob")]
    activate(desk)
    desk.clock.advance(3 * DAY_S)
    spent = {
        key.id: desk.spend(key, vendor=BEDROCK, model=HAIKU) + desk.spend(key, vendor=BEDROCK, model=HAIKU, days_ago=2) for key in keys
    }
    foreign = desk.spend(None, vendor=BEDROCK, model=HAIKU, vendor_key="ACCA1", container="arn:aws:iam::123456789012:user/other")
    await imported(desk, account)
    assert await costs(desk) == {**spent, None: foreign}
    by_day = await desk.usage(source="vendor", group_by=["developer", "day", "model"])
    assert len(by_day.rows) == 5
    assert {row.group["model"] for row in by_day.rows} == {HAIKU}


async def test_both_keys_of_a_rotation_are_one_holders_at_bedrock(desk: Bureau) -> None:
    account = await desk.configure(BEDROCK, cost_explorer="on")
    first = await desk.issue(BEDROCK)
    activate(desk)
    turned = (await desk.orders.keys.rotate(desk.owner, first.id, overlap_seconds=3_600, quiet_seconds=0, insist=True)).key
    assert turned.footprint.key != first.footprint.key
    cost = desk.spend(first, vendor=BEDROCK, model=HAIKU) + desk.spend(turned, vendor=BEDROCK, model=HAIKU)
    await imported(desk, account)
    assert await costs(desk) == {first.id: cost}


async def test_what_bedrock_served_before_the_tag_was_active_is_nobodys_and_not_lost(desk: Bureau) -> None:
    account = await desk.configure(BEDROCK, cost_explorer="on")
    assert "Billing console" in account.notes[-1]
    key = await desk.issue(BEDROCK)
    before = desk.spend(key, vendor=BEDROCK, model=HAIKU, days_ago=1)
    activate(desk)
    after = desk.spend(key, vendor=BEDROCK, model=HAIKU)
    await imported(desk, account)
    assert await costs(desk) == {None: before, key.id: after}
    assert not [note for note in (await desk.orders.accounts.verify(desk.owner, account.id)).notes if "Billing console" in note]


async def test_late_and_restated_costs_of_bedrock_count_once_and_cost_few_calls(desk: Bureau) -> None:
    desk.behave(BEDROCK, costs_late_s=36 * 3_600, costs_first_share=0.3, costs_restated_s=48 * 3_600)
    account = await desk.configure(BEDROCK, cost_explorer="on")
    key = await desk.issue(BEDROCK)
    activate(desk)
    cost = desk.spend(key, vendor=BEDROCK, model=HAIKU)
    await desk.bills.importer.tick()
    assert await desk.billed() == 0
    desk.clock.advance(37 * 3_600)
    await desk.bills.importer.tick()
    assert await desk.billed() == cost * Decimal("0.3")
    desk.clock.advance(50 * 3_600)
    await desk.bills.importer.tick()
    assert await desk.billed() == cost == desk.books(BEDROCK).books.total_usd()
    assert calls(desk, BEDROCK, "GetCostAndUsage") == 3
    for _ in range(24):  # a day of the worker's turns
        desk.clock.advance(3_600)
        await desk.bills.importer.tick()
    assert calls(desk, BEDROCK, "GetCostAndUsage") == 5
    [bill] = (await desk.usage(source="vendor")).bills
    assert (bill.delay_seconds, bill.why_not) == (48 * 3_600, None)
    assert "IAM user" in bill.means
    assert account.id == bill.account_id


async def test_a_month_that_is_restated_weeks_later_is_read_again(desk: Bureau) -> None:
    account = await desk.configure(BEDROCK, cost_explorer="on")
    key = await desk.issue(BEDROCK)
    activate(desk)
    desk.clock.advance(DAY_S)
    cost = desk.spend(key, vendor=BEDROCK, model=HAIKU)
    await imported(desk, account)
    desk.clock.advance(28 * DAY_S)
    books = desk.books(BEDROCK)
    with desk.sandbox.state.admin.lock:
        now = books.now_ns()
        container = f"arn:aws:iam::123456789012:user/keygate/{key.footprint.place['user']}"
        at_ns = now - 28 * DAY_S * 10**9
        books.books.correct(now, at_ns=at_ns, key_id=key.footprint.key, container=container, model=HAIKU, amount_usd=Decimal("-0.25"))
    await imported(desk, account)
    assert await costs(desk) == {key.id: cost - Decimal("0.25")}


async def test_a_bill_of_many_pages_is_whole(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ce, "PAGE", 3)
    account = await desk.configure(BEDROCK, cost_explorer="on")
    keys = [await desk.issue(BEDROCK) for _ in range(3)]
    activate(desk)
    desk.clock.advance(4 * DAY_S)
    for key in keys:
        for days in range(4):
            desk.spend(key, vendor=BEDROCK, model=HAIKU, days_ago=days, tokens=1_000 * (days + 1))
    await imported(desk, account)
    assert await desk.billed() == desk.books(BEDROCK).books.total_usd()
    assert set(await costs(desk)) == {key.id for key in keys}
    assert calls(desk, BEDROCK, "GetCostAndUsage") >= 4


async def test_without_the_setting_aws_is_never_asked_and_it_says_what_to_do(desk: Bureau) -> None:
    account = await desk.configure(BEDROCK)
    key = await desk.issue(BEDROCK, budget_nano=10**9)
    desk.spend(key, vendor=BEDROCK, model=HAIKU)
    with pytest.raises(Conflict, match=r"cost_explorer.*0\.01 USD"):
        await desk.bills.importer.run(desk.owner, account.id)
    await desk.bills.importer.tick()
    await desk.bills.watch.tick()
    assert not [call for call in desk.books(BEDROCK).calls if call.path.endswith("/ce/")]
    standing = await desk.bills.watch.standing(desk.owner, key.id)
    assert standing.facts is None
    assert "cost_explorer" in (await desk.bills.watch.kept(desk.owner, key.id)).trouble
    [bill] = (await desk.bills.services[BillReconciliation].balance(desk.owner)).bills
    assert "cost_explorer" in bill.why_not


async def test_a_spent_budget_disables_a_bedrock_key_late(desk: Bureau) -> None:
    desk.behave(BEDROCK, costs_late_s=30 * 3_600)
    await desk.configure(BEDROCK, cost_explorer="on")
    key = await desk.issue(BEDROCK, budget_nano=10**9)
    activate(desk)
    desk.spend(key, vendor=BEDROCK, model=HAIKU, tokens=2_000_000)
    await desk.bills.importer.tick()
    await desk.bills.watch.tick()
    assert (await desk.bills.watch.standing(desk.owner, key.id)).watch.stage == "none"
    desk.clock.advance(31 * 3_600)
    await desk.bills.importer.tick()
    await desk.bills.watch.tick()
    standing = await desk.bills.watch.standing(desk.owner, key.id)
    assert (standing.watch.stage, standing.facts.delay_seconds) == ("disabled", 48 * 3_600)


async def test_while_costs_cant_be_told_by_key_no_budget_is_watched_and_nothing_called_bypassed(desk: Bureau) -> None:
    account = await desk.configure(BEDROCK, cost_explorer="on")
    key = await desk.issue(BEDROCK, budget_nano=10**9)
    cost = desk.spend(key, vendor=BEDROCK, model=HAIKU, tokens=2_000_000)
    assert cost > 1
    await imported(desk, account)
    await desk.bills.watch.tick()
    told = WatchOut.of(await desk.bills.watch.standing(desk.owner, key.id))
    assert (told.enforced_by, told.spent_usd, told.spent_percent) == ("nobody", None, None)
    assert "activate the cost allocation tag keygate-id" in told.import_error
    kept = await desk.bills.watch.kept(desk.owner, key.id)
    assert (kept.enforced_by, kept.trouble) == ("nobody", told.import_error)
    balance = BalanceOut.of(await desk.bills.services[BillReconciliation].balance(desk.owner))
    [day], [bill] = balance.items, balance.bills
    assert (day.verdict, day.bypassed_usd, Decimal(day.untold_usd)) == ("unclear", "0.00", cost)
    assert "activate" in bill.error
    assert "activate" in (await desk.usage(source="vendor")).bills[0].error

    desk.clock.advance(120)
    activate(desk)
    desk.clock.advance(DAY_S)
    desk.spend(key, vendor=BEDROCK, model=HAIKU, tokens=2_000_000)
    await imported(desk, account)
    await desk.bills.watch.tick()
    told = WatchOut.of(await desk.bills.watch.standing(desk.owner, key.id))
    assert (told.enforced_by, Decimal(told.spent_usd), told.stage) == ("keygate", cost, "disabled")
    assert "can't be told by key, and is not in this number" in told.import_error
    assert (await desk.bills.watch.held_back(desk.owner.organization_id, [key.id])) == {key.id: "disabled"}
    days = (await desk.bills.services[BillReconciliation].balance(desk.owner)).days
    assert [day.verdict for day, _ in days] == ["unclear", "agrees"]


async def test_what_a_budget_has_disabled_stays_so_while_costs_cant_be_told_by_key_any_more(desk: Bureau) -> None:
    account = await desk.configure(BEDROCK, cost_explorer="on")
    key = await desk.issue(BEDROCK, budget_nano=10**9)
    activate(desk)
    desk.spend(key, vendor=BEDROCK, model=HAIKU, tokens=2_000_000)
    await imported(desk, account)
    await desk.bills.watch.tick()
    with desk.sandbox.state.admin.lock:
        ce.update_cost_allocation_tags_status(desk.books(BEDROCK), {"CostAllocationTagsStatus": [{"TagKey": TAG, "Status": "Inactive"}]})
    await imported(desk, account)
    assert key.id not in await costs(desk)
    await desk.bills.watch.tick()
    assert (await desk.bills.watch.standing(desk.owner, key.id)).watch.stage == "disabled"


async def test_a_bill_that_names_keys_is_told_by_key_though_the_tag_cant_be_looked_up(desk: Bureau) -> None:
    account = await desk.configure(BEDROCK, cost_explorer="on")
    key = await desk.issue(BEDROCK, budget_nano=10**9)
    with desk.sandbox.state.admin.lock:
        desk.books(BEDROCK).faults.append(
            AdminFault(operation="ListCostAllocationTags", status=400, code="AccessDeniedException", calls=None)
        )
    state = await imported(desk, account)
    assert "could not be seen" in state.not_by_key
    activate(desk)
    desk.spend(key, vendor=BEDROCK, model=HAIKU)
    assert (await imported(desk, account)).not_by_key is None


async def test_google_costs_are_told_by_the_keys_own_project(desk: Bureau) -> None:
    account = await desk.configure(GOOGLE)
    assert not account.notes, account.notes
    keys = [await desk.issue(GOOGLE, developer=await desk.developer(name)) for name in ("ada", "bob")]
    spent = {key.id: desk.spend(key, vendor=GOOGLE, model=FLASH) + desk.spend(key, vendor=GOOGLE, model=FLASH, days_ago=3) for key in keys}
    shared = desk.spend(None, vendor=GOOGLE, model=FLASH, vendor_key="by hand", container="sandbox-project")
    await imported(desk, account)
    assert await costs(desk) == {**spent, None: shared}


async def test_keys_of_a_shared_google_project_are_not_told_apart_even_if_there_is_only_one(desk: Bureau) -> None:
    account = await desk.configure(GOOGLE, parent="", billing_account="")
    key = await desk.issue(GOOGLE)
    assert key.footprint.place["project"] == "sandbox-project"
    cost = desk.spend(key, vendor=GOOGLE, model=FLASH)
    await imported(desk, account)
    assert await costs(desk) == {None: cost}


async def test_late_and_restated_costs_of_google_count_once(desk: Bureau) -> None:
    desk.behave(GOOGLE, costs_late_s=20 * 3_600, costs_first_share=0.5, costs_restated_s=5 * DAY_S)
    account = await desk.configure(GOOGLE)
    key = await desk.issue(GOOGLE)
    cost = desk.spend(key, vendor=GOOGLE, model=FLASH)
    await imported(desk, account)
    assert await desk.billed() == 0
    desk.clock.advance(DAY_S)
    await imported(desk, account)
    assert await desk.billed() == cost / 2
    desk.clock.advance(6 * DAY_S)
    await imported(desk, account)
    await imported(desk, account)
    assert await costs(desk) == {key.id: cost}


async def test_a_query_that_takes_time_and_has_pages_is_waited_for(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    from keygate.vendors.admin.google import costs as google_costs

    monkeypatch.setattr(google_costs, "_ROWS", 2)
    account = await desk.configure(GOOGLE)
    key = await desk.issue(GOOGLE)
    for days in range(5):
        desk.spend(key, vendor=GOOGLE, model=FLASH, days_ago=days)
    served = bigquery.serve
    asked: list[str] = []

    def slow(cloud: Any, request: Any) -> Any:
        asked.append(request.method)
        if len(asked) == 2:
            cloud.book.settings = cloud.book.settings.with_changes({"operations_s": 0})
            desk.clock.advance(61)
        return served(cloud, request)

    desk.behave(GOOGLE, operations_s=60)
    from keygate.sandbox.admin.google import api

    monkeypatch.setitem(api.SERVICES, "bigquery", slow)
    await imported(desk, account)
    assert asked == ["POST", "GET", "GET", "GET"]
    assert await desk.billed() == desk.books(GOOGLE).books.total_usd()


async def test_a_right_that_is_missing_for_the_export_is_named(desk: Bureau) -> None:
    account = await desk.configure(GOOGLE)
    key = await desk.issue(GOOGLE)
    desk.spend(key, vendor=GOOGLE, model=FLASH)
    books = desk.books(GOOGLE)
    with desk.sandbox.state.admin.lock:
        for credential in books.credentials.values():
            object.__setattr__(credential, "without", frozenset({"bigquery.tables.getData"}))
    state = await desk.bills.importer.run(desk.owner, account.id)
    assert state.error_code == "missing_right"
    assert "bigquery.tables.getData" in state.error
    missing = (await desk.orders.accounts.verify(desk.owner, account.id)).rights
    assert [right.name for right in missing if right.held is False] == ["bigquery.tables.getData"]


@pytest.mark.parametrize(
    "table",
    [
        "",
        "gcp_billing_export_v1_1",
        "p.d.other_table",
        "my-project.d.gcp_billing_export_v1_1` WHERE true; --",
        "my-project.d`.gcp_billing_export_v1_1",
    ],
)
async def test_only_an_export_table_is_ever_asked(desk: Bureau, table: str) -> None:
    account = await desk.configure(GOOGLE, billing_export_table=table)
    with pytest.raises(Conflict, match="billing_export_table"):
        await desk.bills.importer.run(desk.owner, account.id)


async def test_aws_limits_calls_and_is_left_alone_for_a_while(desk: Bureau) -> None:
    account = await desk.configure(BEDROCK, cost_explorer="on")
    with desk.sandbox.state.admin.lock:
        fault = AdminFault(operation="GetCostAndUsage", status=400, code="LimitExceededException", calls=None)
        desk.books(BEDROCK).faults.append(fault)
    state = await desk.bills.importer.run(desk.owner, account.id)
    assert (state.error_code, calls(desk, BEDROCK, "GetCostAndUsage")) == ("vendor_rate_limited", 1)
    assert state.next_at_ns >= desk.clock.now_ns() + 290 * 10**9


@pytest.mark.parametrize(
    ("vendor", "model", "container"), [(BEDROCK, HAIKU, "arn:aws:iam::123456789012:user/gateway"), (GOOGLE, FLASH, "other")]
)
async def test_reconciliation_waits_for_late_bills_and_then_shows_what_bypassed(
    desk: Bureau, vendor: str, model: str, container: str
) -> None:
    desk.behave(vendor, costs_late_s=30 * 3_600, costs_first_share=0.5, costs_restated_s=20 * 3_600)
    account = await desk.configure(vendor, **({"cost_explorer": "on"} if vendor == BEDROCK else {}))
    key = await desk.issue(vendor)
    if vendor == BEDROCK:
        activate(desk)
        desk.clock.advance(DAY_S)  # the day of the activation can't be told by key
    await desk.credential("cred_1", account=account.id, vendor=vendor)
    ours = desk.spend(None, vendor=vendor, model=model, vendor_key="gateway", container=container, tokens=400_000)
    desk.ledger(str(ours), vendor=vendor, model=model)
    issued = desk.spend(key, vendor=vendor, model=model)
    past = desk.spend(None, vendor=vendor, model=model, vendor_key="by hand", container=container, tokens=300_000)
    reconciliation = desk.bills.services[BillReconciliation]

    async def day() -> Any:
        await imported(desk, account)
        [(found, keys)] = (await reconciliation.balance(desk.owner)).days
        return found, keys

    young, _ = await day()
    assert (young.verdict, young.bill_nano, young.final) == ("agrees", 0, False)
    assert Decimal(young.pending_nano) / 10**9 == ours
    desk.clock.advance(31 * 3_600)
    half, _ = await day()
    assert Decimal(half.bill_nano) / 10**9 == (ours + issued + past) / 2
    desk.clock.advance(50 * 3_600)
    whole, unknown = await day()
    assert (whole.verdict, Decimal(whole.bypassed_nano) / 10**9, Decimal(whole.issued_nano) / 10**9) == ("bypassed", past, issued)
    assert [each.vendor_key for each in unknown] == [None]
    assert whole.restated_nano == (ours + issued + past) / 2 * 10**9
    assert not whole.final
    desk.clock.advance(20 * DAY_S)
    assert (await day())[0].bill_nano == whole.bill_nano
