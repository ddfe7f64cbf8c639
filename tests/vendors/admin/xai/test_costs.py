"""What xAI's usage report tells of a key. xAI has no SDK of its management API: its own call, made by hand, reads the same books."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
from tests.vendors.admin.desks import Script, answer, desk

from keygate.kit.clock import SystemClock
from keygate.kit.ids import new_id
from keygate.kit.outbound import Outbound
from keygate.sandbox import SandboxServer
from keygate.sandbox.admin import Account, xai
from keygate.sandbox.admin.prices import UNLISTED
from keygate.sandbox.admin.xai import TEAM
from keygate.sandbox.model import Usage
from keygate.vendors.admin import AdminDesk, Mark, MissingRight, Order, Rejected, ReportsSpend, Terms, Unavailable
from keygate.vendors.admin.xai import XaiProvisioner

NS, DAY_NS = 10**9, 86_400 * 10**9
provisioner = XaiProvisioner()


@pytest.fixture
def open_desk(sandbox: SandboxServer, outbound: Outbound, account: Account) -> Callable[..., AdminDesk]:
    def make(*without: str, sender: Any = None, **settings: str) -> AdminDesk:
        key = account.create_credential(without=without).value
        known = {"base_url": f"{sandbox.address}/xai", **settings}
        return desk(provisioner.facts, sender or outbound, key, clock=SystemClock(), settings=known)

    return make


def spend(account: Account, key: str, tokens: int, *, model: str = "grok-3", days_ago: float = 0) -> None:
    at_ns, usage = account.now_ns() - round(days_ago * DAY_NS), Usage(input=0, output=tokens)
    account.books.use(at_ns, key_id=key, container=None, model=model, usage=usage, price=UNLISTED, request=True)


async def bill(at: AdminDesk, account: Account, days: int = 3) -> Any:
    now = account.now_ns()
    rows, cursor = await provisioner.spend_page(at, (now - days * DAY_NS) // DAY_NS * DAY_NS, now, None)
    assert cursor is None
    return rows


async def test_each_keys_costs_are_what_xai_tells(
    sandbox: SandboxServer, open_desk: Callable[..., AdminDesk], account: Account, outbound: Outbound
) -> None:
    at = open_desk()
    made = [await provisioner.create(at, Order(Mark(new_id("ik")), 1, "ada", Terms())) for _ in range(2)]
    for number, key in enumerate(made, 1):
        spend(account, str(key.footprint.key), 111_111 * number)
        spend(account, str(key.footprint.key), 333, days_ago=2, model="grok-4-0709")
    spend(account, "by hand", 5_000)
    rows = await bill(at, account)
    assert sum(row.amount_nano for row in rows) == int(account.books.total_usd() * NS)
    assert {row.key for row in rows} == {made[0].footprint.key, made[1].footprint.key, "by hand"}
    assert all(row.place == {} for row in rows)
    question = {
        "timeRange": {"startTime": "2026-01-01 00:00:00", "endTime": "2030-01-01 00:00:00", "timezone": "Etc/GMT"},
        "timeUnit": "TIME_UNIT_DAY",
        "values": [{"name": "usd", "aggregation": "AGGREGATION_SUM"}],
        "groupBy": ["api_key_id"],
    }
    headers = {"authorization": f"Bearer {account.create_credential().value}"}
    async with httpx.AsyncClient(base_url=f"{sandbox.address}/xai/management", headers=headers, timeout=20) as client:
        told = (await client.post(f"/v1/billing/teams/{TEAM}/usage", json={"analyticsRequest": question})).json()
    theirs = {
        each["group"][0]: sum((Decimal(str(point["values"][0])) for point in each["dataPoints"]), Decimal(0)) for each in told["timeSeries"]
    }
    ours: dict[str | None, Decimal] = {}
    for row in rows:
        ours[row.key] = ours.get(row.key, Decimal(0)) + Decimal(row.amount_nano) / NS
    assert ours == theirs
    label = next(each["groupLabels"][0] for each in told["timeSeries"] if each["group"][0] == made[0].footprint.key)
    assert "(xai-..." in label


async def test_a_report_that_is_cut_off_is_not_taken_for_the_whole(
    open_desk: Callable[..., AdminDesk], account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xai, "SERIES", 2)
    for number in range(3):
        spend(account, f"key {number}", 1_000)
    with pytest.raises(Rejected) as cut:
        await bill(open_desk(), account)
    assert cut.value.reason == "limitReached"


async def test_a_management_key_without_the_right_makes_keys_and_says_that_costs_are_not_told(
    open_desk: Callable[..., AdminDesk], account: Account
) -> None:
    poor = open_desk("billing:read")
    told = await provisioner.verify(poor)
    assert told.missing == ()
    assert [right.held for right in told.rights] == [True, None, None]
    assert "cost can't be read" in told.notes[0]
    with pytest.raises(MissingRight):
        await bill(poor, account)
    assert (await provisioner.verify(open_desk())).notes == ()


@pytest.mark.parametrize(
    ("series", "amounts"),
    [
        ([{"group": ["k", "i"], "dataPoints": [{"timestamp": "2026-11-20T00:00:00Z", "values": [0.1234567891]}]}], [123_456_789]),
        ([{"group": ["k", "i"], "dataPoints": [{"timestamp": "2026-11-20T00:00:00Z", "values": [-2]}]}], [-2 * NS]),
        ([{"group": ["k", "i"], "dataPoints": [{"timestamp": "2026-11-20T00:00:00Z"}]}], []),
        ([{"group": [], "dataPoints": [{"timestamp": "2026-11-20T00:00:00Z", "values": [1]}]}], [NS]),
        ([], []),
    ],
)
async def test_the_reports_shapes(open_desk: Callable[..., AdminDesk], account: Account, series: Any, amounts: list[int]) -> None:
    at = open_desk(sender=Script([answer(200, {"timeSeries": series})]), team=TEAM)
    assert [row.amount_nano for row in await bill(at, account)] == amounts


async def test_a_cost_without_its_day_is_refused(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    series = [{"group": ["k", "i"], "dataPoints": [{"values": [1]}]}]
    at = open_desk(sender=Script([answer(200, {"timeSeries": series})]), team=TEAM)
    with pytest.raises(Unavailable):
        await bill(at, account)


def test_xai_reports_spend_by_key() -> None:
    assert isinstance(provisioner, ReportsSpend)
    assert provisioner.spend_facts.per_key
