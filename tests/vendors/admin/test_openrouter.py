"""OpenRouter's provisioner against the sandbox: OpenRouter's own SDK uses the keys and reads the vendor's side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.sdks.admin_clients import Sdk
from tests.sdks.bridge import SdkError
from tests.vendors.admin.desks import Script, Steps, answer, desk

from keygate.kit.clock import NANOSECONDS, ManualClock, SystemClock, from_ns
from keygate.kit.ids import new_id
from keygate.kit.money import NANO
from keygate.kit.outbound import Outbound
from keygate.kit.secret import Secret
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, AdminFault, FaultKind
from keygate.vendors.admin import (
    AddsKey,
    AdminDesk,
    AdminKeyRefused,
    Disables,
    Footprint,
    Lists,
    Mark,
    MissingRight,
    NotFound,
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
    TellsLastSpend,
    Terms,
    Unavailable,
)
from keygate.vendors.admin.openrouter import OPENROUTER_ADMIN

HOUR_NS = 3_600 * NANOSECONDS
DAY_NS = 24 * HOUR_NS
provisioner = OPENROUTER_ADMIN


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.OPENROUTER]


@pytest.fixture
def office(sandbox: SandboxServer, account: Account, outbound: Outbound) -> Callable[..., AdminDesk]:
    def open_desk(admin: str | None = None, *, watcher: Any = None, **credential: Any) -> AdminDesk:
        value = account.create_credential(**credential).value if admin is None else admin
        settings = {"base_url": sandbox.openrouter_base_url}
        return desk(provisioner.facts, outbound, value, clock=sandbox.state.admin.clock, settings=settings, watcher=watcher)

    return open_desk


@pytest.fixture
def vendor(openrouter_sdk: Sdk, account: Account) -> Callable[[str], dict[str, Any]]:
    """What OpenRouter shows of a key, by its own SDK."""
    admin = {"key": account.create_credential().value}
    return lambda hash_: dict(openrouter_sdk("api_keys.get", hash=hash_, key=admin)["data"])


@pytest.fixture
def use(openrouter_sdk: Sdk) -> Callable[..., str]:
    """A call with nothing but the key and the address, by OpenRouter's own SDK."""

    def call(secret: Secret, prompt: str = "Hello") -> str:
        messages = [{"role": "user", "content": prompt}]
        answer = openrouter_sdk("chat.send", key={"key": secret.open()}, model="openai/gpt-4.1-mini", messages=messages)
        return str(answer["choices"][0]["message"]["content"])

    return call


def order(generation: int = 1, mark: Mark | None = None, **terms: Any) -> Order:
    return Order(mark or Mark(new_id("ik")), generation, "priya, team search", Terms(**terms))


def test_what_openrouter_can_is_told_by_its_protocols() -> None:
    for power in (AddsKey, SetsBudget, Disables, Renames, Lists, ReportsSpend, TellsLastSpend):
        assert isinstance(provisioner, power)
    for power in (SetsModels, SetsLimits, SetsExpiry, Retires):
        assert not isinstance(provisioner, power)
    assert {"models", "requests_per_minute", "tokens_per_minute", "scopes"} <= provisioner.facts.cannot.keys()


async def test_key_is_made_limited_used_rotated_and_revoked(office, vendor, use, account) -> None:
    at, ends = office(), account.now_ns() // NANOSECONDS * NANOSECONDS + HOUR_NS
    wanted = order(budget_nano=12_345_678_000, budget_period=Period.WEEK, expires_at_ns=ends)
    made = await provisioner.create(at, wanted)
    assert (made.secret_env, made.expires_at_ns) == ("OPENROUTER_API_KEY", ends)
    assert use(made.secret)
    told = vendor(made.footprint.key)
    assert (told["limit"], told["limit_reset"], told["name"]) == (12.345678, "weekly", wanted.mark.key_name(1))
    reading = await provisioner.read(at, made.footprint)
    assert (reading.presence, reading.terms) == (Presence.LIVE, wanted.terms)
    assert reading.last_used_at_ns is not None

    second = await provisioner.create(at, replace(wanted, generation=2, footprint=replace(made.footprint, key=None)))
    for secret in (made.secret, second.secret, made.secret, second.secret):
        assert use(secret), "no failed call while they overlap"
    assert (await provisioner.read(at, second.footprint)).terms == wanted.terms, "the terms carry over"

    await provisioner.revoke(at, made.footprint)
    with pytest.raises(SdkError) as refused:
        use(made.secret)
    assert refused.value.code == 401
    assert (await provisioner.read(at, made.footprint)).presence is Presence.GONE
    with pytest.raises(SdkError):
        vendor(made.footprint.key)
    assert use(second.secret)
    await provisioner.revoke(at, made.footprint)  # again is no error


async def test_budget_is_enforced_by_the_vendor_and_can_be_changed(office, vendor, use) -> None:
    at = office()
    made = await provisioner.create(at, order(budget_nano=NANO // 10, budget_period=Period.LIFETIME))
    use(made.secret, "sandbox(input_tokens=1000000 output_tokens=0)")
    with pytest.raises(SdkError, match="limit exceeded"):
        use(made.secret)
    await provisioner.set_budget(at, made.footprint, 5 * NANO, Period.MONTH)
    assert (vendor(made.footprint.key)["limit"], vendor(made.footprint.key)["limit_reset"]) == (5, "monthly")
    assert use(made.secret)
    await provisioner.set_budget(at, made.footprint, None, Period.MONTH)
    assert (await provisioner.read(at, made.footprint)).terms == Terms()
    with pytest.raises(Rejected):
        await provisioner.set_budget(at, made.footprint, 1, Period.DAY)


async def test_kill_switch_can_be_taken_back(office, vendor, use) -> None:
    at = office()
    made = await provisioner.create(at, order())
    await provisioner.set_enabled(at, made.footprint, enabled=False)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.DISABLED
    assert vendor(made.footprint.key)["disabled"] is True
    with pytest.raises(SdkError):
        use(made.secret)
    await provisioner.set_enabled(at, made.footprint, enabled=True)
    assert use(made.secret)


async def test_key_ends_by_itself_at_the_vendor(office, use, sandbox, account) -> None:
    at = office()
    made = await provisioner.create(at, order(expires_at_ns=account.now_ns() + HOUR_NS))
    sandbox.state.admin.clock.advance(3_601)
    with pytest.raises(SdkError):
        use(made.secret)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.EXPIRED


async def test_everything_of_a_mark_is_found_and_nothing_else(office) -> None:
    at, wanted = office(), order()
    first = await provisioner.create(at, wanted)
    second = await provisioner.create(at, replace(wanted, generation=2))
    await provisioner.create(at, order())
    await provisioner.set_enabled(at, second.footprint, enabled=False)
    found = await provisioner.find(at, wanted.mark)
    assert {(each.footprint.key, each.generation) for each in found} == {(first.footprint.key, 1), (second.footprint.key, 2)}
    await provisioner.rename(at, first.footprint, "by hand")
    assert len(await provisioner.find(at, wanted.mark)) == 1


async def test_key_whose_answer_was_lost_is_found_and_ended(office, account) -> None:
    account.faults.append(AdminFault("keys.create", FaultKind.RESET, performed=True))
    steps, wanted = Steps(), order()
    at = office(watcher=steps)
    with pytest.raises(Unavailable) as lost:
        await provisioner.create(at, wanted)
    assert lost.value.uncertain
    assert steps.told == ["> create the key", "< create the key: vendor_unavailable"]
    (left,) = await provisioner.find(at, wanted.mark)
    await provisioner.revoke(at, left.footprint)
    assert await provisioner.find(at, wanted.mark) == ()


async def test_delete_that_fails_though_done_ends_gone(office, account) -> None:
    at = office()
    made = await provisioner.create(at, order())
    account.faults.append(AdminFault("keys.delete", status=500, performed=True))
    await provisioner.revoke(at, made.footprint)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.GONE


async def test_each_missing_right_is_named_and_nothing_is_made(office, account) -> None:
    whole = await provisioner.verify(office())
    assert [right.held for right in whole.rights] == [True, True, True]
    some = await provisioner.verify(office(rights=["keys:read"]))
    assert [right.name for right in some.missing] == ["keys:write", "activity:read"]
    with pytest.raises(AdminKeyRefused):
        await provisioner.verify(office("nobody"))
    assert list(account.shelves["keys"]) == []
    with pytest.raises(MissingRight) as refused:
        await provisioner.create(office(rights=["keys:read"]), order())
    assert refused.value.right == "keys:write"


async def test_inventory_shows_every_key(office, openrouter_sdk, account) -> None:
    at = office()
    made = await provisioner.create(at, order(budget_nano=NANO))
    by_hand = openrouter_sdk("api_keys.create", name="by hand", key={"key": account.create_credential().value})
    found, cursor = await provisioner.list_page(at, None)
    assert {each.footprint.key: each.terms.budget_nano for each in found} == {made.footprint.key: NANO, by_hand["data"]["hash"]: None}
    assert all(each.hint and made.secret.open() not in repr(each) for each in found)
    assert await provisioner.list_page(at, cursor) == ((), None)


async def test_spend_of_a_day_is_told_once_whether_it_runs_or_is_over(office, use, sandbox, account) -> None:
    at = office()
    keys = [await provisioner.create(at, order()) for _ in range(2)]
    begins = account.now_ns() - DAY_NS

    async def told() -> dict[tuple[str | None, int, str], int]:
        rows, cursor = await provisioner.spend_page(at, begins, account.now_ns() + DAY_NS, None)
        assert await provisioner.spend_page(at, begins, account.now_ns() + DAY_NS, cursor) == ((), None)
        return {(row.key, row.start_ns, row.item): row.amount_nano for row in rows}

    ledger: dict[Any, int] = {}
    for key in keys:
        use(key.secret, "sandbox(input_tokens=1000000 output_tokens=11)")
    ledger |= await told()
    use(keys[0].secret)
    ledger |= await told()
    sandbox.state.admin.clock.advance(86_400)
    use(keys[0].secret)
    ledger |= await told()
    assert sum(ledger.values()) == int(account.books.total_usd() * NANO)
    for key in keys:
        own = sum(amount for (owner, _, _), amount in ledger.items() if owner == key.footprint.key)
        assert own == int(account.books.total_usd(key_id=key.footprint.key) * NANO)


async def test_what_a_key_cost_is_told_the_same_just_before_its_end_and_after(office, use, sandbox, account) -> None:
    at = office()
    made, unused = [await provisioner.create(at, order()) for _ in range(2)]
    assert [(row.amount_nano, row.requests) for row in await provisioner.last_spend(at, unused.footprint)] == [(0, 0)]
    use(made.secret)
    sandbox.state.admin.clock.advance(86_400)
    use(made.secret, "sandbox(input_tokens=1000000 output_tokens=11)")
    begins = account.now_ns() - 2 * DAY_NS
    rows, _ = await provisioner.spend_page(at, begins, account.now_ns() + 1, None)
    await provisioner.set_enabled(at, made.footprint, enabled=False)
    last = await provisioner.last_spend(at, made.footprint)
    assert last == tuple(row for row in rows if row.key == made.footprint.key), "the same lines, so that none counts twice"
    assert sum(row.amount_nano for row in last) == int(account.books.total_usd() * NANO)
    await provisioner.revoke(at, made.footprint)
    with pytest.raises(NotFound):
        await provisioner.last_spend(at, made.footprint)
    assert await provisioner.spend_of_gone(at, made.footprint.key, begins, account.now_ns()) == last[:1], "complete days"


async def test_a_day_that_ends_while_a_key_is_read_is_not_taken_for_the_next(account) -> None:
    clock = ManualClock()
    clock.advance((DAY_NS - clock.now_ns() % DAY_NS) / NANOSECONDS - 1)
    today = clock.now_ns() // DAY_NS * DAY_NS

    class Slow(Script):
        async def send(self, *arguments: Any, **options: Any) -> Any:
            told = await super().send(*arguments, **options)
            clock.advance(2)
            return told

    def shown(daily: float) -> Any:
        return answer(200, {"data": {"hash": "a", "usage": 3, "usage_daily": daily, "last_used_at": "2026-11-26T00:00:00Z"}})

    pages = [shown(3), shown(0), answer(200, {"data": [{"date": from_ns(today).date().isoformat(), "usage": 3}]})]
    at = desk(OPENROUTER_ADMIN.facts, Slow(pages), "sk-or-admin", clock=clock)
    told = await provisioner.last_spend(at, Footprint({}, "a"))
    assert [(row.start_ns, row.amount_nano) for row in told] == [(today, 3 * NANO), (today + DAY_NS, 0)]


async def test_restated_cost_is_corrected_when_it_is_read_again(office, use, sandbox, account) -> None:
    account.settings = account.settings.with_changes({"costs_late_s": 600, "costs_first_share": 0.5, "costs_restated_s": 7_200})
    at = office()
    made = await provisioner.create(at, order())
    begins = account.now_ns() - DAY_NS
    use(made.secret, "sandbox(input_tokens=1000000 output_tokens=0)")

    async def told() -> int:
        rows, _ = await provisioner.spend_page(at, begins, account.now_ns() + DAY_NS, None)
        return sum({(row.start_ns, row.item): row.amount_nano for row in rows}.values())

    assert await told() == 0
    sandbox.state.admin.clock.advance(601)
    assert await told() == NANO // 5
    sandbox.state.admin.clock.advance(86_400)
    assert await told() == NANO * 2 // 5


async def test_no_secret_is_in_what_is_told(office, account) -> None:
    at = office()
    made = await provisioner.create(at, order())
    for thing in (at, made, await provisioner.find(at, order().mark)):
        assert made.secret.open() not in repr(thing)
        assert at.admin.open() not in repr(thing)
    account.faults.append(AdminFault("keys.get", status=400, message=f"bad credential {at.admin.open()}"))
    with pytest.raises(Rejected) as refused:
        await provisioner.read(at, made.footprint)
    assert at.admin.open() not in refused.value.detail


async def test_a_list_that_never_ends_is_seen_at_its_second_page(account) -> None:
    page = answer(200, {"data": [{"hash": "a"}, {"hash": "b"}]})
    at = desk(OPENROUTER_ADMIN.facts, Script([page, page]), "sk-or-admin", clock=SystemClock())
    _, cursor = await provisioner.spend_page(at, 0, 10, None)
    with pytest.raises(Unavailable, match="no end"):
        await provisioner.spend_page(at, 0, 10, cursor)


async def test_days_are_asked_only_of_keys_that_were_used_in_them(office, use, sandbox, account) -> None:
    at = office()
    old, young = [await provisioner.create(at, order()) for _ in range(2)]
    use(old.secret)
    sandbox.state.admin.clock.advance(5 * 86_400)
    use(young.secret)
    sandbox.state.admin.clock.advance(86_400)
    before = len(account.calls)
    now = account.now_ns()
    rows, _ = await provisioner.spend_page(at, now // DAY_NS * DAY_NS - 2 * DAY_NS, now, None)
    assert len([call for call in list(account.calls)[before:] if call.operation == "activity.list"]) == 1
    assert [row.key for row in rows if row.amount_nano] == [young.footprint.key]
