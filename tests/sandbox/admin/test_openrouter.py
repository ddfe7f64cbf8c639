"""OpenRouter's own SDK administers the sandbox, and uses the keys that it made there."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from tests.sdks.admin_clients import Sdk
from tests.sdks.bridge import SdkError

from keygate.kit.clock import ManualClock, from_ns, to_ns
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account
from keygate.sandbox.admin.openrouter import period_start_s


def hello(prompt: str = "Hello") -> dict[str, object]:
    return {"model": "openai/gpt-4.1-mini", "messages": [{"role": "user", "content": prompt}]}


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.OPENROUTER]


@pytest.fixture
def admin(account: Account) -> dict[str, str]:
    return {"key": account.create_credential().value}


def test_sdk_makes_reads_disables_and_deletes(openrouter_sdk: Sdk, admin: dict[str, str]) -> None:
    made = openrouter_sdk("api_keys.create", name="kg-1", limit=2.5, limit_reset="weekly", key=admin)
    own, hash_ = {"key": made["key"]}, made["data"]["hash"]
    assert openrouter_sdk("chat.send", key=own, **hello())["usage"]["total_tokens"] > 0
    read = openrouter_sdk("api_keys.get", hash=hash_, key=admin)["data"]
    assert (read["limit"], read["limit_reset"], read["disabled"]) == (2.5, "weekly", False)
    assert read["usage"] == read["usage_daily"] == read["usage_monthly"] > 0
    assert read["last_used_at"] is not None
    openrouter_sdk("api_keys.update", hash=hash_, disabled=True, key=admin)
    with pytest.raises(SdkError) as refused:
        openrouter_sdk("chat.send", key=own, **hello())
    assert refused.value.code == 401
    assert openrouter_sdk("api_keys.list", key=admin)["data"] == []
    assert len(openrouter_sdk("api_keys.list", include_disabled=True, key=admin)["data"]) == 1
    openrouter_sdk("api_keys.update", hash=hash_, disabled=False, limit=None, key=admin)
    assert openrouter_sdk("chat.send", key=own, **hello())["usage"]["total_tokens"] > 0
    assert openrouter_sdk("api_keys.delete", hash=hash_, key=admin) == {"deleted": True}
    for method, options, key in (("chat.send", hello(), own), ("api_keys.get", {"hash": hash_}, admin)):
        with pytest.raises(SdkError):
            openrouter_sdk(method, key=key, **options)


def test_key_stops_at_its_limit_until_the_period_is_over(
    openrouter_sdk: Sdk, admin: dict[str, str], account: Account, sandbox: SandboxServer
) -> None:
    made = openrouter_sdk("api_keys.create", name="kg-1", limit=0.4, limit_reset="daily", key=admin)
    own = {"key": made["key"]}
    openrouter_sdk("chat.send", key=own, **hello("sandbox(input_tokens=1000000 output_tokens=0)"))
    with pytest.raises(SdkError, match="limit exceeded") as refused:
        openrouter_sdk("chat.send", key=own, **hello())
    assert refused.value.code == 403
    assert openrouter_sdk("api_keys.get", hash=made["data"]["hash"], key=admin)["data"]["limit_remaining"] == 0
    sandbox.state.admin.clock.advance(86_400)
    assert openrouter_sdk("chat.send", key=own, **hello())["usage"]["total_tokens"] > 0
    assert account.books.total_usd() > Decimal("0.4")


def test_key_ends_when_it_expires(openrouter_sdk: Sdk, admin: dict[str, str], account: Account, sandbox: SandboxServer) -> None:
    ends = (from_ns(account.now_ns()) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = openrouter_sdk("api_keys.create", name="kg-1", expires_at=ends, key=admin)
    assert openrouter_sdk("chat.send", key={"key": made["key"]}, **hello())["usage"]["total_tokens"] > 0
    sandbox.state.admin.clock.advance(3601)
    with pytest.raises(SdkError):
        openrouter_sdk("chat.send", key={"key": made["key"]}, **hello())
    assert openrouter_sdk("api_keys.list", key=admin)["data"] == []
    assert len(openrouter_sdk("api_keys.list", include_expired=True, key=admin)["data"]) == 1


def test_activity_tells_complete_days_by_model_and_key(
    openrouter_sdk: Sdk, admin: dict[str, str], account: Account, sandbox: SandboxServer
) -> None:
    keys = [openrouter_sdk("api_keys.create", name=f"kg-{number}", key=admin) for number in range(2)]
    for key in keys:
        openrouter_sdk("chat.send", key={"key": key["key"]}, **hello())
    assert openrouter_sdk("analytics.get_user_activity", key=admin)["data"] == []
    sandbox.state.admin.clock.advance(86_400)
    (both,) = openrouter_sdk("analytics.get_user_activity", key=admin)["data"]
    assert (both["requests"], both["usage"]) == (2, float(account.books.total_usd()))
    (one,) = openrouter_sdk("analytics.get_user_activity", request={"api_key_hash": keys[0]["data"]["hash"]}, key=admin)["data"]
    assert one["requests"] == 1


def test_key_without_rights_is_told(openrouter_sdk: Sdk, account: Account) -> None:
    weak = {"key": account.create_credential(rights=["keys:read"]).value}
    with pytest.raises(SdkError, match="keys:write") as refused:
        openrouter_sdk("api_keys.create", name="kg-1", key=weak)
    assert refused.value.code == 403


@pytest.mark.parametrize(
    ("reset", "began"), [("daily", "2026-11-26"), ("weekly", "2026-11-23"), ("monthly", "2026-11-01"), (None, "1970-01-01")]
)
def test_periods_begin_at_midnight_on_monday_and_on_the_first(reset: str | None, began: str) -> None:
    now = to_ns(from_ns(ManualClock().now_ns()).replace(year=2026, month=11, day=26, hour=13))
    assert from_ns(period_start_s(reset, now) * 10**9).date().isoformat() == began
