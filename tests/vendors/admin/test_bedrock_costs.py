"""What Bedrock costs by IAM user: boto3's Cost Explorer client reads the same books, and switches the tag on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.sdks.aws_clients import KEY_ID, MODEL, Boto
from tests.sdks.bridge import Bridge, SdkError
from tests.vendors.admin.desks import answer, desk

from keygate.kit.clock import SystemClock
from keygate.kit.ids import new_id
from keygate.kit.outbound import Outbound
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, AdminFault
from keygate.sandbox.admin.aws import ce
from keygate.sandbox.admin.prices import UNLISTED
from keygate.sandbox.model import Usage
from keygate.vendors.admin import AdminDesk, AdminKeyRefused, Mark, MissingRight, Order, RateLimited, Rejected, SpendRow, Terms, Unavailable
from keygate.vendors.admin.bedrock import BEDROCK_ADMIN as BEDROCK

NS, DAY_NS = 10**9, 86_400 * 10**9
TAG = "iamPrincipal/keygate-id"
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.BEDROCK]


@pytest.fixture
def boto(sandbox: SandboxServer, account: Account, aws_bridge: Bridge) -> Boto:
    return Boto(aws_bridge, sandbox, account.create_credential(name=KEY_ID))


def seat(sandbox: SandboxServer, outbound: Outbound, account: Account, *without: str, name: str = "AKIASANDBOX00000002") -> AdminDesk:
    credential = account.create_credential(name=name, without=without)
    settings = {
        "base_url": f"{sandbox.address}/aws/iam",
        "access_key_id": credential.name,
        "region": "us-east-1",
        "cost_explorer": "on",
    }
    return desk(BEDROCK.facts, outbound, credential.value, clock=SystemClock(), settings=settings)


@pytest.fixture
def at(sandbox: SandboxServer, outbound: Outbound, account: Account) -> AdminDesk:
    return seat(sandbox, outbound, account)


async def pages(at: AdminDesk, account: Account, days: int = 3) -> list[SpendRow]:
    now = account.now_ns()
    rows: list[SpendRow] = []
    cursor: str | None = None
    while True:
        found, cursor = await BEDROCK.spend_page(at, (now - days * DAY_NS) // DAY_NS * DAY_NS, now, cursor)
        rows += found
        if cursor is None:
            return rows


def spend(account: Account, user: str | None, tokens: int, *, model: str = MODEL, days_ago: float = 0) -> None:
    arn = None if user is None else f"arn:aws:iam::123456789012:user/keygate/{user}"
    usage = Usage(input=0, output=tokens)
    at_ns = account.now_ns() - round(days_ago * DAY_NS)
    account.books.use(at_ns, key_id="ACCA1", container=arn, model=model, usage=usage, price=UNLISTED, request=True)


def asked(**changes: Any) -> dict[str, Any]:
    today = datetime.now(UTC).date()
    return {
        "TimePeriod": {"Start": (today - timedelta(days=2)).isoformat(), "End": (today + timedelta(days=1)).isoformat()},
        "Granularity": "DAILY",
        "Metrics": ["UnblendedCost"],
        **changes,
    }


def total(result: Any) -> Decimal:
    groups = [group for day in result["ResultsByTime"] for group in day["Groups"]]
    return sum((Decimal(group["Metrics"]["UnblendedCost"]["Amount"]) for group in groups), Decimal(0))


async def issue(at: AdminDesk) -> Mark:
    mark = Mark(new_id("ik"))
    await BEDROCK.create(at, Order(mark, 1, "ada", Terms(models=(MODEL,))))
    return mark


async def test_boto3_reads_the_same_costs_by_the_tag_that_it_activated(at: AdminDesk, account: Account, boto: Boto) -> None:
    marks = [await issue(at), await issue(at)]
    assert boto.call("ce", "list_cost_allocation_tags", options={"TagKeys": [TAG]})["CostAllocationTags"][0]["Status"] == "Inactive"
    assert (await BEDROCK.verify(at)).notes[-1].startswith("costs can't be told by key yet")
    status = [{"TagKey": TAG, "Status": "Active"}]
    boto.call("ce", "update_cost_allocation_tags_status", options={"CostAllocationTagsStatus": status})
    assert not [note for note in (await BEDROCK.verify(at)).notes if "costs" in note]
    for number, mark in enumerate(marks, 1):
        spend(account, mark.tag, 123_457 * number)
    spend(account, None, 1_000)
    groups = [{"Type": "TAG", "Key": TAG}, {"Type": "PRODUCT_ATTRIBUTE", "Key": "model"}]
    told = boto.call("ce", "get_cost_and_usage", options=asked(GroupBy=groups))
    assert total(told) == account.books.total_usd()
    theirs = {group["Keys"][0].partition("$")[2]: group for day in told["ResultsByTime"] for group in day["Groups"]}
    ours = {row.place.get("user", ""): row for row in await pages(at, account)}
    assert set(ours) == {marks[0].tag, marks[1].tag, ""}
    for mark in marks:
        amount = Decimal(theirs[mark.id]["Metrics"]["UnblendedCost"]["Amount"])
        assert (ours[mark.tag].amount_nano, ours[mark.tag].item, ours[mark.tag].key) == (int(amount * NS), MODEL, None)
    assert sum(row.amount_nano for row in ours.values()) == int(account.books.total_usd() * NS)


async def test_calls_that_boto3_makes_with_the_key_are_its_users_costs(at: AdminDesk, account: Account, boto: Boto) -> None:
    status = [{"TagKey": TAG, "Status": "Active"}]
    boto.call("ce", "update_cost_allocation_tags_status", options={"CostAllocationTagsStatus": status})
    mark = Mark(new_id("ik"))
    made = await BEDROCK.create(at, Order(mark, 1, "ada", Terms(models=(MODEL,))))
    for _ in range(2):
        boto.converse(made.secret.open())
    [row] = await pages(at, account)
    assert row.place == made.footprint.place
    assert row.amount_nano == int(account.books.total_usd() * NS) > 0


async def test_pages_are_the_whole_bill_once(at: AdminDesk, account: Account, boto: Boto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ce, "PAGE", 2)
    for days in range(3):
        for model in ("a", "b", "c"):
            spend(account, None, 1_000 + days, model=model, days_ago=days)
    rows = await pages(at, account)
    assert len({(row.start_ns, row.item) for row in rows}) == len(rows) == 9
    assert sum(row.amount_nano for row in rows) == int(account.books.total_usd() * NS)


async def test_a_token_of_another_request_is_refused_and_told_apart(at: AdminDesk, account: Account, boto: Boto, monkeypatch: Any) -> None:
    monkeypatch.setattr(ce, "PAGE", 1)
    for model in ("a", "b"):
        spend(account, None, 1_000, model=model)
    groups = [{"Type": "PRODUCT_ATTRIBUTE", "Key": "model"}]
    token = boto.call("ce", "get_cost_and_usage", options=asked(GroupBy=groups))["NextPageToken"]
    with pytest.raises(SdkError) as other:
        boto.call("ce", "get_cost_and_usage", options=asked(NextPageToken=token))
    assert other.value.code == "RequestChangedException"
    now = account.now_ns()
    with pytest.raises(Rejected):
        await BEDROCK.spend_page(at, now // DAY_NS * DAY_NS, now, token)


async def test_days_before_product_attributes_are_not_asked_for(at: AdminDesk, account: Account) -> None:
    august = int(datetime(2026, 8, 1, tzinfo=UTC).timestamp()) * NS
    assert await BEDROCK.spend_page(at, august, august + 20 * DAY_NS, None) == ((), None)
    assert not [call for call in account.calls if call.operation == "GetCostAndUsage"]
    await BEDROCK.spend_page(at, august, account.now_ns(), None)
    assert [call.status for call in account.calls if call.operation == "GetCostAndUsage"] == [200]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("LimitExceededException", RateLimited),
        ("AccessDeniedException", MissingRight),
        ("UnrecognizedClientException", AdminKeyRefused),
        ("DataUnavailableException", Unavailable),
        ("InvalidNextTokenException", Rejected),
        ("ValidationException", Rejected),
    ],
)
async def test_refusals_are_told_apart(at: AdminDesk, account: Account, code: str, error: type[Exception]) -> None:
    account.faults.append(AdminFault(operation="GetCostAndUsage", status=400, code=code, message="no"))
    with pytest.raises(error):
        await pages(at, account)


@pytest.mark.parametrize(("status", "code"), [(429, None), (400, "Throttling"), (400, "SlowDown"), (503, "SlowDown")])
async def test_throttling_of_every_form_says_when_to_come_back(at: AdminDesk, account: Account, status: int, code: str | None) -> None:
    account.faults.append(AdminFault(operation="GetCostAndUsage", status=status, code=code, message="Rate exceeded"))
    with pytest.raises(RateLimited) as limited:
        await pages(at, account)
    assert limited.value.retry_after == 300


async def test_a_key_in_cost_explorers_words_is_blacked_out(at: AdminDesk, account: Account) -> None:
    key = "ABSKQmVkcm9ja0FQSUtleS1hYmNkLWF0LTEyMzQ1Njc4OTAxMjpsb25n"
    account.faults.append(AdminFault(operation="GetCostAndUsage", status=400, code="ValidationException", message=f"no {key}"))
    with pytest.raises(Rejected, match=r"no \[redacted\]"):
        await pages(at, account)


async def test_missing_rights_to_read_costs_are_named_before(sandbox: SandboxServer, outbound: Outbound, account: Account) -> None:
    poor = seat(sandbox, outbound, account, "ce:GetCostAndUsage", name="AKIASANDBOX00000003")
    assert [right.name for right in (await BEDROCK.verify(poor)).missing] == ["ce:GetCostAndUsage"]
    with pytest.raises(MissingRight) as caught:
        await pages(poor, account)
    assert caught.value.right == "ce:GetCostAndUsage"


class Scripted:
    """STS as it is, Cost Explorer from a script."""

    def __init__(self, outbound: Outbound, body: Any) -> None:
        self._outbound = outbound
        self._body = body

    async def send(self, method: str, url: str, **options: Any) -> Any:
        return answer(200, self._body) if "/ce" in url else await self._outbound.send(method, url, **options)


def _day(tag: str, amount: str = "1.5", unit: str = "USD") -> dict[str, Any]:
    group = {"Keys": [f"{TAG}${tag}", "model$Claude Haiku 4.5"], "Metrics": {"UnblendedCost": {"Amount": amount, "Unit": unit}}}
    return {"ResultsByTime": [{"TimePeriod": {"Start": "2026-11-20", "End": "2026-11-21"}, "Groups": [group], "Estimated": True}]}


@pytest.mark.parametrize(
    ("tag", "place"),
    [
        ("", {}),
        ("ik_!", {"keygate-id": "ik_!"}),
        ("ik_" + "z" * 60, {"keygate-id": "ik_" + "z" * 60}),
        ("theirs", {"keygate-id": "theirs"}),
    ],
)
async def test_a_tag_that_is_none_of_ours_is_nobodys(
    sandbox: SandboxServer, outbound: Outbound, account: Account, tag: str, place: dict[str, str]
) -> None:
    at = seat(sandbox, Scripted(outbound, _day(tag)), account)
    [row] = await pages(at, account)
    assert (row.place, row.amount_nano) == (place, 1_500_000_000)


@pytest.mark.parametrize(("amount", "unit"), [("1.5", "CNY"), ("lots", "USD")])
async def test_no_dollars_and_no_amounts_are_refused(
    sandbox: SandboxServer, outbound: Outbound, account: Account, amount: str, unit: str
) -> None:
    at = seat(sandbox, Scripted(outbound, _day("", amount, unit)), account)
    with pytest.raises((Rejected, Unavailable)):
        await pages(at, account)


async def test_amounts_of_many_decimals_are_exact_to_the_nano_dollar(sandbox: SandboxServer, outbound: Outbound, account: Account) -> None:
    at = seat(sandbox, Scripted(outbound, _day("", "1234567.1234567894999")), account)
    [row] = await pages(at, account)
    assert row.amount_nano == 1_234_567_123_456_789


def test_costs_are_read_only_where_that_is_switched_on() -> None:
    assert BEDROCK.spend_off({"cost_explorer": "on"}) is None
    assert "virtual key" in (BEDROCK.spend_off({"cost_explorer": "on", "partition": "aws-cn"}) or "")
    for settings in ({}, {"cost_explorer": "off"}, {"cost_explorer": ""}):
        assert "0.01 USD" in (BEDROCK.spend_off(settings) or "")
