"""Keys at xAI: made, limited, rotated and revoked at the sandbox.

xAI has no SDK of its management API: its calls, made by hand, read its side; its keys are used with OpenAI's SDK, as xAI documents.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.sdks.bridge import Bridge, SdkError
from tests.vendors.admin.desks import Script, Steps, answer, desk

from keygate.kit.clock import SystemClock, to_ns
from keygate.kit.ids import new_id
from keygate.kit.outbound import Outbound
from keygate.kit.secret import Secret
from keygate.sandbox import SandboxServer
from keygate.sandbox.admin import Account, AdminFault, FaultKind
from keygate.sandbox.admin.xai import TEAM
from keygate.vendors.admin import (
    AddsKey,
    AdminDesk,
    AdminKeyRefused,
    CeilingReached,
    Disables,
    Lists,
    Mark,
    MissingRight,
    Order,
    Presence,
    Renames,
    Retires,
    SetsBudget,
    SetsExpiry,
    SetsLimits,
    SetsModels,
    Term,
    Terms,
    Unavailable,
)
from keygate.vendors.admin.xai import XaiProvisioner

TEXT = "This answer comes from the sandbox of KeyGate: no vendor was asked, nothing was paid."
MODEL = "grok-4-0709"
provisioner = XaiProvisioner()


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with Bridge("openai-3", "openai_once.py", home=tmp_path_factory.mktemp("openai")) as bridge:
        yield bridge


@pytest.fixture
def open_desk(sandbox: SandboxServer, outbound: Outbound, account: Account) -> Callable[..., AdminDesk]:
    def make(*without: str, admin: str | None = None, watcher: Any = None) -> AdminDesk:
        key = account.create_credential(without=without).value if admin is None else admin
        settings = {"base_url": f"{sandbox.address}/xai"}
        return desk(provisioner.facts, outbound, key, clock=SystemClock(), settings=settings, watcher=watcher)

    return make


@pytest.fixture
def use(sandbox: SandboxServer, client: Bridge) -> Callable[..., str]:
    return lambda key, model=MODEL: str(client.call(base=sandbox.xai_base_url, key=key.open(), model=model, prompt="Hello")["text"])


@pytest.fixture
async def vendor(sandbox: SandboxServer, account: Account) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {account.create_credential().value}"}
    async with httpx.AsyncClient(base_url=f"{sandbox.address}/xai/management/auth", headers=headers, timeout=10) as made:
        yield made


def order(generation: int = 1, mark: Mark | None = None, **terms: Any) -> Order:
    return Order(mark or Mark(new_id("ik")), generation, "priya, team search", Terms(**terms))


async def test_rate_limit_that_names_keys_is_waited_out_and_is_no_ceiling() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    limited = answer(429, {"code": 8, "error": "Rate limit of the API keys endpoint is reached."}, retry_after="4")
    vendor = Script([limited, answer(200, {"apiKeys": []})])
    at = desk(provisioner.facts, vendor, "management-key", clock=SystemClock(), settings={"team": "team_1"}, sleep=sleep)
    assert await provisioner.list_page(at, None) == ((), None)
    assert waits == [4.0]


def test_what_xai_can_is_told_by_its_protocols() -> None:
    for power in (AddsKey, SetsLimits, SetsModels, SetsExpiry, Disables, Renames, Lists):
        assert isinstance(provisioner, power)
    for lacking in (SetsBudget, Retires):
        assert not isinstance(provisioner, lacking)
    assert "budget" in provisioner.facts.cannot


async def test_key_is_made_used_rotated_and_revoked(open_desk: Callable[..., AdminDesk], use: Any, vendor: httpx.AsyncClient) -> None:
    at, first = open_desk(), order()
    made = await provisioner.create(at, first)
    assert (made.secret_env, use(made.secret)) == ("XAI_API_KEY", TEXT)
    second = await provisioner.create(at, order(2, first.mark))
    assert [use(each.secret) for each in (made, second, made, second)] == [TEXT] * 4, "both work while they overlap"
    await provisioner.revoke(at, made.footprint)
    with pytest.raises(SdkError) as caught:
        use(made.secret)
    assert caught.value.status == "AuthenticationError"
    assert (await provisioner.read(at, made.footprint)).presence is Presence.GONE
    assert [key["apiKeyId"] for key in (await vendor.get(f"/teams/{TEAM}/api-keys")).json()["apiKeys"]] == [second.footprint.key]
    assert use(second.secret) == TEXT
    await provisioner.revoke(at, made.footprint)  # again is no error


async def test_terms_read_back_from_xai_equal_what_was_asked(
    open_desk: Callable[..., AdminDesk], use: Any, vendor: httpx.AsyncClient
) -> None:
    end = to_ns(datetime.now(UTC).replace(microsecond=0) + timedelta(days=90))
    wanted = Terms(models=(MODEL,), requests_per_minute=3, tokens_per_minute=100_000, scopes=("chat",), expires_at_ns=end)
    at = open_desk()
    made = await provisioner.create(at, Order(Mark(new_id("ik")), 1, "ci", wanted, options={"requests_per_second": "2"}))
    assert made.expires_at_ns == end
    assert (await provisioner.read(at, made.footprint)).terms == wanted
    [shown] = (await vendor.get(f"/teams/{TEAM}/api-keys")).json()["apiKeys"]
    assert (shown["qps"], shown["qpm"], shown["tpm"], shown["acls"]) == (
        2,
        3,
        "100000",
        [f"api-key:model:{MODEL}", "api-key:endpoint:chat"],
    )
    with pytest.raises(SdkError) as forbidden:
        use(made.secret, "grok-3")
    assert forbidden.value.status == "PermissionDeniedError"
    for _ in range(3):
        assert use(made.secret) == TEXT
    with pytest.raises(SdkError) as caught:
        use(made.secret)
    assert caught.value.status == "RateLimitError"


async def test_terms_can_be_changed(open_desk: Callable[..., AdminDesk], use: Any) -> None:
    at = open_desk()
    made = await provisioner.create(at, order(scopes=("chat",)))
    end = to_ns(datetime(2030, 1, 1, tzinfo=UTC))
    await provisioner.set_models(at, made.footprint, ("grok-3",))
    await provisioner.set_limits(at, made.footprint, Terms(requests_per_minute=100, tokens_per_minute=5))
    await provisioner.set_expiry(at, made.footprint, end)
    wanted = Terms(models=("grok-3",), requests_per_minute=100, tokens_per_minute=5, scopes=("chat",), expires_at_ns=end)
    assert (await provisioner.read(at, made.footprint)).terms == wanted
    assert use(made.secret, "grok-3") == TEXT
    with pytest.raises(SdkError) as limited:
        use(made.secret, "grok-3")
    assert limited.value.status == "RateLimitError"
    await provisioner.set_models(at, made.footprint, None)
    await provisioner.set_limits(at, made.footprint, Terms())
    await provisioner.set_expiry(at, made.footprint, None)
    assert (await provisioner.read(at, made.footprint)).terms == Terms(scopes=("chat",))
    assert use(made.secret) == TEXT


async def test_key_is_disabled_and_enabled(open_desk: Callable[..., AdminDesk], use: Any) -> None:
    at = open_desk()
    made = await provisioner.create(at, order())
    await provisioner.set_enabled(at, made.footprint, enabled=False)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.DISABLED
    with pytest.raises(SdkError):
        use(made.secret)
    await provisioner.set_enabled(at, made.footprint, enabled=True)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.LIVE
    assert use(made.secret) == TEXT


async def test_ended_key_is_read_as_expired_and_refused(open_desk: Callable[..., AdminDesk], use: Any) -> None:
    at = open_desk()
    made = await provisioner.create(at, order(expires_at_ns=to_ns(datetime(2026, 1, 1, tzinfo=UTC))))
    assert (await provisioner.read(at, made.footprint)).presence is Presence.EXPIRED
    with pytest.raises(SdkError):
        use(made.secret)


async def test_budget_is_left_to_keygate_since_xai_has_none_for_a_key(open_desk: Callable[..., AdminDesk]) -> None:
    at = open_desk()
    made = await provisioner.create(at, order(budget_nano=1))
    assert (await provisioner.read(at, made.footprint)).terms == Terms()
    assert Term.BUDGET not in provisioner.facts.confirms


async def test_new_key_is_handed_over_once_every_cluster_knows_it(open_desk: Callable[..., AdminDesk], account: Account, use: Any) -> None:
    account.settings = account.settings.with_changes({"new_key_s": 0.6})
    made = await provisioner.create(open_desk(), order())
    assert use(made.secret) == TEXT


async def test_what_a_late_list_does_not_show_is_not_called_gone(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    at = open_desk()
    account.settings = account.settings.with_changes({"lists_s": 3_600})
    made = await provisioner.create(at, order())
    with pytest.raises(Unavailable, match="does not show it yet"):
        await provisioner.read(at, made.footprint)
    account.settings = account.settings.with_changes({"lists_s": 0})
    assert (await provisioner.read(at, made.footprint)).presence is Presence.LIVE
    account.settings = account.settings.with_changes({"lists_s": 3_600})
    await provisioner.revoke(at, made.footprint)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.GONE, "though the list shows it for an hour more"


async def test_answer_lost_after_success_is_found_by_its_mark(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    at, wanted, other = open_desk(), order(), order()
    await provisioner.create(at, other)
    account.faults.append(AdminFault("api_keys.create", FaultKind.RESET, performed=True))
    with pytest.raises(Unavailable) as caught:
        await provisioner.create(at, wanted)
    assert caught.value.uncertain
    [lost] = await provisioner.find(at, wanted.mark)
    assert (lost.generation, lost.presence) == (1, Presence.LIVE)
    await provisioner.revoke(at, lost.footprint)
    assert await provisioner.find(at, wanted.mark) == ()
    await provisioner.create(at, wanted)
    assert len(await provisioner.find(at, wanted.mark)) == 1


async def test_xai_failing_on_delete_is_tried_again(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    at = open_desk()
    made = await provisioner.create(at, order())
    account.faults.append(AdminFault("api_keys.delete", status=500, calls=2))
    await provisioner.revoke(at, made.footprint)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.GONE


async def test_ceiling_is_told(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    account.settings = account.settings.with_changes({"ceilings": {"keys": 1}})
    at = open_desk()
    await provisioner.create(at, order())
    with pytest.raises(CeilingReached):
        await provisioner.create(at, order())


async def test_verify_tells_the_team_and_the_right_that_is_missing(open_desk: Callable[..., AdminDesk]) -> None:
    whole = await provisioner.verify(open_desk())
    assert (whole.account, whole.missing) == (f"team {TEAM}", ())
    assert [right.held for right in whole.rights] == [True, None, True]
    poor = await provisioner.verify(open_desk("api-keys:read"))
    assert [right.name for right in poor.missing] == ["API keys: read"]
    with pytest.raises(MissingRight) as caught:
        await provisioner.create(open_desk("api-keys:write"), order())
    assert caught.value.right == "API keys: write"
    with pytest.raises(AdminKeyRefused):
        await provisioner.verify(open_desk(admin="xai-no-management-key"))


async def test_inventory_is_paged_and_shows_what_xai_shows(open_desk: Callable[..., AdminDesk], vendor: httpx.AsyncClient) -> None:
    for number in range(101):
        body = {"name": f"by hand {number}", "acls": ["api-key:model:*", "api-key:endpoint:*"]}
        assert (await vendor.post(f"/teams/{TEAM}/api-keys", json=body)).status_code == 200
    at = open_desk()
    first, cursor = await provisioner.list_page(at, None)
    second, end = await provisioner.list_page(at, cursor)
    assert (len(first), len(second), end) == (100, 1, None)
    [last] = second
    assert last.hint is not None
    assert last.hint.startswith("xai-...")
    assert (last.name, last.presence, last.terms) == ("by hand 100", Presence.LIVE, Terms())
    await provisioner.rename(at, last.footprint, "adopted")
    assert (await provisioner.read(at, last.footprint)).name == "adopted"


async def test_key_may_learn_of_itself(open_desk: Callable[..., AdminDesk], sandbox: SandboxServer) -> None:
    made = await provisioner.create(open_desk(), order(models=(MODEL,)))
    headers = {"authorization": f"Bearer {made.secret.open()}"}
    async with httpx.AsyncClient(base_url=sandbox.xai_base_url, headers=headers, timeout=10) as client:
        told = (await client.get("/api-key")).json()
    assert (told["api_key_id"], told["team_id"], told["api_key_disabled"]) == (made.footprint.key, TEAM, False)


async def test_no_secret_stands_in_the_list_or_in_an_error(open_desk: Callable[..., AdminDesk], vendor: httpx.AsyncClient) -> None:
    at = open_desk(watcher=Steps())
    made = await provisioner.create(at, order())
    assert isinstance(made.secret, Secret)
    assert made.secret.open() not in (await vendor.get(f"/teams/{TEAM}/api-keys")).text
    assert made.secret.open() not in repr(made)
