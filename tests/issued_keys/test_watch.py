"""Budgets that a vendor does not enforce: watched by what it bills, told of once, switched off and on there. And the calendar of
periods."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from tests.issued_keys.test_clouds import House
from tests.running import ApiError, RunningKeyGate
from tests.sdks.aws_clients import aws_bridge
from tests.sdks.azure_clients import azure_bridge
from tests.sdks.bridge import Bridge

from keygate.issued_keys.watch import period_start
from keygate.kit.clock import to_ns
from keygate.sandbox import SandboxServer, Vendor
from keygate.vendors.admin import Period

__all__ = ["aws_bridge", "azure_bridge"]


@pytest.fixture
def house(tmp_path, azure_bridge: Bridge, aws_bridge: Bridge) -> Iterator[House]:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path) as keygate:
        yield House(keygate, sandbox, azure_bridge, aws_bridge)


def bill(house: House, container: str, amount: str) -> None:
    """What the vendor bills for today, and that KeyGate has read it."""
    body = {"days_ago": 0, "container": container, "model": "gpt-4o-mini", "amount_usd": amount}
    httpx.post(f"{house.sandbox.address}/_sandbox/admin/azure/books", json=body, timeout=10).raise_for_status()
    [account] = [each for each in house.call("GET", "/vendors/accounts", vendor="azure")["items"] if each["name"] == "default"]
    house.call("POST", f"/vendors/accounts/{account['id']}/import-spend")


def test_a_budget_that_the_vendor_can_not_keep_is_watched_and_the_key_switched_off(house: House) -> None:
    with pytest.raises(ApiError, match="allow_unenforced"):
        house.provision(Vendor.AZURE, budget_usd="10.00")
    made = house.provision(Vendor.AZURE, budget_usd="10.00", allow_unenforced=True)
    assert made["enforcement"]["budget"] == "not_enforced"
    container = made["at_vendor"]["account"]

    def told() -> list[tuple[int, bool]]:
        events = house.call("GET", "/events", type="issued_key.budget_reached")["items"]
        return [(each["payload"]["percent"], each["payload"]["switched_off"]) for each in reversed(events)]

    bill(house, container, "5.00")
    key = house.call("GET", f"/keys/{made['id']}")
    assert (key["spent_usd"], key["suspended_at"], told()) == ("5.00", None, [])
    bill(house, container, "3.50")
    bill(house, container, "0.10")
    assert told() == [(80, False)]
    assert house.opens(made)
    bill(house, container, "2.00")
    key = house.call("GET", f"/keys/{made['id']}")
    assert key["spent_usd"].startswith("10.60")
    assert key["suspended_at"] is not None
    assert told() == [(80, False), (100, True)]
    assert not house.opens(made)

    resumed = house.call("POST", f"/keys/{made['id']}/resume")
    assert resumed["suspended_at"] is None
    assert house.opens(made)
    bill(house, container, "0.10")  # told once in a period: whoever switched it on again knows
    assert len(told()) == 2
    assert house.opens(made)
    with pytest.raises(ApiError, match="not switched off"):
        house.call("POST", f"/keys/{made['id']}/resume")


@pytest.mark.parametrize(
    ("period", "start"),
    [
        (Period.DAY, datetime(2026, 12, 2, tzinfo=UTC)),
        (Period.WEEK, datetime(2026, 11, 30, tzinfo=UTC)),
        (Period.MONTH, datetime(2026, 12, 1, tzinfo=UTC)),
        (Period.LIFETIME, datetime(2026, 1, 1, 5, tzinfo=UTC)),
    ],
)
def test_periods_begin_as_the_calendar_has_them(period: Period, start: datetime) -> None:
    now, created = datetime(2026, 12, 2, 13, 30, tzinfo=UTC), datetime(2026, 1, 1, 5, tzinfo=UTC)
    assert period_start(period, to_ns(now), created_at_ns=to_ns(created)) == to_ns(start)
