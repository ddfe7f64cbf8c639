"""What a key cost is in the bill though KeyGate has ended it: whatever it spent since the last reading is read before, once, and across a
death of the process between any two steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from tests.vendor_spend.bureau import DAY_S, Bureau
from tests.vendor_spend.test_bedrock_and_google import HAIKU, activate
from tests.vendor_spend.test_import import imported

from keygate.issued_keys import IssuedKey, State
from keygate.issued_keys.bench import Bench
from keygate.vendor_spend.watch import Stage
from keygate.vendors.admin import NotFound, Rejected, Unavailable

MODEL = "openai/gpt-4.1-mini"
PER_DOLLAR = 625_000
OPENROUTER = "openrouter"


def spend(desk: Bureau, key: IssuedKey, usd: str = "1", **options: Any) -> Decimal:
    return desk.spend(key, vendor=OPENROUTER, model=MODEL, tokens=int(Decimal(usd) * PER_DOLLAR), **options)


async def ended(desk: Bureau, key: IssuedKey) -> IssuedKey:
    told = await desk.orders.keys.revoke(desk.owner, key.id, patience=30)
    assert told.state is State.REVOKED, told.error
    return told


@pytest.fixture(autouse=True)
def at_once(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait between two readings of a key."""

    async def rest(_: float) -> None: ...

    monkeypatch.setattr(desk.orders.last_bill, "_sleep", rest)


async def test_what_a_key_spent_since_the_last_reading_is_billed_once_though_it_is_revoked(desk: Bureau) -> None:
    account = await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER, developer=await desk.developer("leo"))
    cost = spend(desk, key, days_ago=1)
    await imported(desk, account)
    cost += spend(desk, key) + spend(desk, key)
    await ended(desk, key)
    assert await desk.billed(key_id=(key.id,)) == cost == desk.books(OPENROUTER).books.total_usd()
    found = await desk.usage(source="vendor", group_by=["developer"])
    assert [row.group["developer"] for row in found.rows] == [key.owner.scope_id]
    for seconds in (0, 3_600, DAY_S, DAY_S, DAY_S):
        desk.clock.advance(seconds)
        await imported(desk, account)
        assert await desk.billed() == cost


async def test_a_key_that_was_never_used_is_ended_without_a_wait(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)

    async def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(desk.orders.last_bill, "_sleep", never)
    await ended(desk, key)


async def test_a_budget_is_kept_over_rotations_whatever_the_former_keys_spent_last(desk: Bureau) -> None:
    account = await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER, budget_nano=10 * 10**9)
    await imported(desk, account)
    for number in range(1, 4):
        spend(desk, key, "4")
        key = (await desk.orders.keys.rotate(desk.owner, key.id, overlap_seconds=0, quiet_seconds=0, insist=True, patience=30)).key
        assert (key.state, key.generation) == (State.ACTIVE, number + 1), key.error
        await desk.bills.watch.tick()
        standing = await desk.bills.watch.standing(desk.owner, key.id)
        assert (standing.spent_nano, standing.enforced_by) == (4 * number * 10**9, "keygate"), "with no import in between"
        assert standing.watch.stage is (Stage.DISABLED if number == 3 else Stage.NONE)


@pytest.mark.parametrize("step", ["set_enabled", "last_spend", "keep", "revoke"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
async def test_a_process_that_ends_between_two_steps_of_an_end_loses_and_doubles_nothing(
    desk: Bureau, monkeypatch: pytest.MonkeyPatch, step: str, done: bool
) -> None:
    account = await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    await imported(desk, account)
    cost = spend(desk, key)
    kind = type(desk.orders.last_bill._spend if step == "keep" else desk.provisioners[OPENROUTER])
    real: Callable[..., Awaitable[Any]] = getattr(kind, step)
    deaths: list[str] = []

    async def cut_off(*arguments: Any, **options: Any) -> Any:
        if deaths:
            return await real(*arguments, **options)
        deaths.append(step)
        if done:
            await real(*arguments, **options)
        raise RuntimeError("the process ends here")

    monkeypatch.setattr(kind, step, cut_off)
    await desk.orders.keys.revoke(desk.owner, key.id, patience=5)
    assert deaths
    await imported(desk, account)
    desk.clock.advance(61)
    await desk.orders.operations.tick()
    assert (await desk.orders.keys.get(desk.owner, key.id)).state is State.REVOKED
    assert await desk.billed(key_id=(key.id,)) == cost
    for seconds in (0, DAY_S):
        desk.clock.advance(seconds)
        await imported(desk, account)
        assert await desk.billed() == cost


async def test_a_reading_of_the_bill_that_began_before_a_keys_end_does_not_take_it_back(
    desk: Bureau, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    cost = spend(desk, key)
    kind = type(desk.provisioners[OPENROUTER])
    whole = kind.spend_page
    costs: list[Decimal] = []

    async def meanwhile(self: Any, at: Any, from_ns: int, until_ns: int, cursor: str | None) -> Any:
        page = await whole(self, at, from_ns, until_ns, cursor)
        if page[0] and not costs:  # the page is older than what follows
            assert sum(row.amount_nano for row in page[0]) == cost * 10**9
            costs.append(spend(desk, key))
            await ended(desk, key)
        return page

    monkeypatch.setattr(kind, "spend_page", meanwhile)
    await imported(desk, account)
    assert costs
    assert await desk.billed(key_id=(key.id,)) == cost + costs[0]


async def test_what_the_vendor_books_after_the_end_comes_with_the_days_report(desk: Bureau) -> None:
    account = await desk.configure(OPENROUTER)
    desk.behave(OPENROUTER, costs_late_s=600, costs_first_share=0.5, costs_restated_s=7_200)
    key = await desk.issue(OPENROUTER)
    cost = spend(desk, key)
    await ended(desk, key)
    assert await desk.billed() == 0, "the vendor tells nothing of it yet"
    calls = desk.books(OPENROUTER).calls
    before = len(calls)
    await imported(desk, account)
    assert not [call for call in list(calls)[before:] if call.operation == "activity.list"], "the day is not over"
    desk.clock.advance(DAY_S)
    await imported(desk, account)
    assert await desk.billed(key_id=(key.id,)) == cost
    before = len(calls)
    await imported(desk, account)
    assert not [call for call in list(calls)[before:] if call.operation == "activity.list"], "asked once, and not with each import"


@pytest.mark.parametrize("failure", [Unavailable("no"), Rejected("never heard of it"), KeyError("date")])
async def test_a_vendor_that_tells_nothing_of_deleted_keys_leaves_what_was_read_before(
    desk: Bureau, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    account = await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    cost = spend(desk, key)
    await ended(desk, key)

    async def silent(*_: object) -> None:
        raise failure

    monkeypatch.setattr(type(desk.provisioners[OPENROUTER]), "spend_of_gone", silent)
    for seconds in (0, DAY_S, DAY_S):
        desk.clock.advance(seconds)
        await imported(desk, account)
        assert await desk.billed(key_id=(key.id,)) == cost


async def test_a_key_ends_though_what_it_cost_cant_be_read_and_the_evidence_says_so(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    spend(desk, key)
    tries: list[State] = []

    async def silent(self: Any, at: Any, footprint: Any) -> None:
        tries.append((await desk.orders.keys.get(desk.owner, key.id)).state)
        assert desk.books(OPENROUTER).shelves["keys"].get(footprint.key).body["disabled"], "nobody can use it meanwhile"
        raise Unavailable("read what the key has spent: the vendor failed (500)")

    monkeypatch.setattr(type(desk.provisioners[OPENROUTER]), "last_spend", silent)
    await desk.orders.keys.revoke(desk.owner, key.id, patience=5)
    for _ in range(4):
        desk.clock.advance(60)
        await desk.orders.operations.tick()
    told = await desk.orders.keys.get(desk.owner, key.id)
    assert (told.state, tries) == (State.REVOKED, [State.REVOKING] * 3), "tried again, and never called irrevocable for it"
    assert told.evidence[-1]["last_bill"] == "not read for certain before its end: read what the key has spent: the vendor failed (500)"
    assert told.evidence[-1]["vendor_says"] == "gone"


async def test_what_a_disabled_key_spends_until_the_vendor_refuses_it_is_billed_too(desk: Bureau) -> None:
    account = await desk.configure(OPENROUTER)
    desk.behave(OPENROUTER, revoked_key_s=30)
    key = await desk.issue(OPENROUTER)
    cost = spend(desk, key)
    told = await desk.orders.keys.revoke(desk.owner, key.id, patience=5)
    assert (told.state, told.error_code, told.gone_at_ns) == (State.REVOKING, "still_answers", None)
    assert "still takes it" in told.error
    cost += spend(desk, key)
    desk.clock.advance(31)
    await desk.orders.operations.tick()
    told = await desk.orders.keys.get(desk.owner, key.id)
    assert told.state is State.REVOKED
    assert "last_bill" not in told.evidence[-1]
    assert await desk.billed() == cost
    await imported(desk, account)
    assert await desk.billed() == cost


async def test_a_vendor_that_goes_on_taking_a_disabled_key_keeps_it_from_its_end_for_minutes_only(desk: Bureau) -> None:
    await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    desk.behave(OPENROUTER, revoked_key_s=100_000)
    cost = spend(desk, key)
    await desk.orders.keys.revoke(desk.owner, key.id, patience=5)
    for _ in range(2):
        assert desk.books(OPENROUTER).shelves["keys"].get(key.footprint.key) is not None
        desk.clock.advance(200)
        await desk.orders.operations.tick()
    told = await desk.orders.keys.get(desk.owner, key.id)
    assert (told.state, told.error_code) == (State.REVOKING, "still_answers"), "deleted, and not called revoked"
    assert [each["last_bill"] for each in told.evidence] == ["read while the vendor still took the key"]
    assert desk.books(OPENROUTER).shelves["keys"].get(key.footprint.key) is None
    assert await desk.billed() == cost


@pytest.mark.parametrize("vendor", ["openai", "anthropic", "azure", "xai", "google", "bedrock"])
async def test_other_vendors_bills_still_tell_what_a_key_cost_that_is_gone(desk: Bureau, vendor: str) -> None:
    settings = {"cost_explorer": "on"} if vendor == "bedrock" else {}
    account = await desk.configure(vendor, **settings)
    key = await desk.issue(vendor, models=("gpt-4.1-mini",)) if vendor == "azure" else await desk.issue(vendor)
    model = {"anthropic": "claude-sonnet-4-5", "xai": "grok-3", "google": "gemini-2.5-flash", "bedrock": HAIKU}.get(vendor, "gpt-4.1-mini")
    if vendor == "bedrock":
        activate(desk)
    await imported(desk, account)
    desk.spend(key, vendor=vendor, model=model)
    await desk.orders.keys.revoke(desk.owner, key.id)
    desk.clock.advance(3 * DAY_S)
    await desk.orders.operations.tick()
    assert (await desk.orders.keys.get(desk.owner, key.id)).state is State.REVOKED
    await imported(desk, account)
    assert await desk.billed(key_id=(key.id,)) == desk.books(vendor).books.total_usd() > 0


async def test_a_key_that_cant_be_disabled_is_read_and_deleted_at_once(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    cost = spend(desk, key)

    async def failing(*_: object, **__: object) -> None:
        raise Unavailable("change the key: the vendor failed (500)")

    monkeypatch.setattr(type(desk.provisioners[OPENROUTER]), "set_enabled", failing)
    told = await ended(desk, key)
    assert told.evidence[-1]["last_bill"].startswith("read while it could be used, as it could not be disabled: change the key")
    assert await desk.billed() == cost


async def test_a_key_that_can_neither_be_disabled_nor_read_is_deleted_at_once(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    spend(desk, key)

    async def failing(*_: object, **__: object) -> None:
        raise Unavailable("the vendor failed (500)")

    for call in ("set_enabled", "last_spend"):
        monkeypatch.setattr(type(desk.provisioners[OPENROUTER]), call, failing)
    told = await ended(desk, key)
    assert told.evidence[-1]["last_bill"] == "not read for certain before its end: the vendor failed (500)"


@pytest.mark.parametrize("failure", [Unavailable("the vendor failed (500)"), NotFound("read what the key has spent: not there")])
async def test_what_was_read_is_billed_though_the_next_reading_fails(
    desk: Bureau, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    cost = spend(desk, key)
    kind = type(desk.provisioners[OPENROUTER])
    first, told = kind.last_spend, []

    async def once(*arguments: Any) -> Any:
        if told:
            raise failure
        told.append(await first(*arguments))
        return told[0]

    monkeypatch.setattr(kind, "last_spend", once)
    await desk.orders.keys.revoke(desk.owner, key.id, patience=1)
    for _ in range(3):
        desk.clock.advance(60)
        await desk.orders.operations.tick()
    after = await desk.orders.keys.get(desk.owner, key.id)
    assert (after.state, await desk.billed()) == (State.REVOKED, cost)
    assert after.evidence[-1]["last_bill"].startswith("not read for certain before its end: ")


@pytest.mark.parametrize("failure", [Rejected("read what days cost: not allowed (403)"), NotFound("read what days cost"), KeyError("date")])
async def test_the_running_day_is_billed_though_the_days_before_cant_be_read(
    desk: Bureau, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    spend(desk, key, days_ago=1)
    cost = spend(desk, key)

    async def silent(*_: object) -> None:
        raise failure

    monkeypatch.setattr(type(desk.provisioners[OPENROUTER]), "_days", silent)
    await desk.orders.keys.revoke(desk.owner, key.id, patience=1)
    for _ in range(3):
        desk.clock.advance(60)
        await desk.orders.operations.tick()
    told = await desk.orders.keys.get(desk.owner, key.id)
    assert (told.state, await desk.billed()) == (State.REVOKED, cost)
    assert "read what days cost" in told.evidence[-1]["last_bill"]


@pytest.mark.parametrize("then", ["dies", "is_shown"])
async def test_what_was_not_read_is_in_the_evidence_though_the_end_needs_another_turn(
    desk: Bureau, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    spend(desk, key)
    kind = type(desk.provisioners[OPENROUTER])
    revoke = kind.revoke
    meanwhile: list[IssuedKey] = []

    async def silent(*_: object) -> None:
        raise Rejected("not allowed (403)")

    async def deleted(*arguments: Any) -> None:
        await revoke(*arguments)
        if not meanwhile:
            meanwhile.append(await desk.orders.keys.get(desk.owner, key.id))
            raise RuntimeError("the process ends here") if then == "dies" else Unavailable("no answer")

    monkeypatch.setattr(kind, "last_spend", silent)
    monkeypatch.setattr(kind, "revoke", deleted)
    if then == "is_shown":
        monkeypatch.setattr(Bench, "gone", fails_once(Bench.gone))
    await desk.orders.keys.revoke(desk.owner, key.id, patience=1)
    [between] = meanwhile
    assert (between.state, between.confirmed, len(between.evidence)) == (State.REVOKING, (), 1), "a note, and no proof of an end"
    desk.clock.advance(601)
    await desk.orders.operations.tick()
    told = await desk.orders.keys.get(desk.owner, key.id)
    assert (told.state, len(told.evidence)) == (State.REVOKED, 1)
    assert told.evidence[0]["last_bill"] == "not read for certain before its end: not allowed (403)"
    assert told.evidence[0]["vendor_says"] == "gone"


def fails_once(real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    failed: list[bool] = []

    async def method(*arguments: Any) -> Any:
        if not failed:
            failed.append(True)
            raise Unavailable("the vendor failed (500)")
        return await real(*arguments)

    return method


async def test_what_was_read_of_a_former_key_that_still_answers_is_in_the_evidence(desk: Bureau) -> None:
    await desk.configure(OPENROUTER)
    key = await desk.issue(OPENROUTER)
    desk.behave(OPENROUTER, revoked_key_s=400)
    spend(desk, key)
    await desk.orders.keys.rotate(desk.owner, key.id, overlap_seconds=0, quiet_seconds=0, insist=True, patience=1)
    for _ in range(4):
        desk.clock.advance(301)
        await desk.orders.operations.tick()
    told = await desk.orders.keys.get(desk.owner, key.id)
    assert told.state is State.ACTIVE, told.error
    assert [(each["key"], each["last_bill"]) for each in told.evidence] == [(key.footprint.key, "read while the vendor still took the key")]
    assert all("vendor_says" in each and "the_key_itself" in each for each in told.evidence)


async def test_the_evidence_says_where_nobody_could_ask_with_the_key_whether_it_still_works(desk: Bureau) -> None:
    await desk.configure(OPENROUTER, proof="off")
    key = await desk.issue(OPENROUTER)
    cost = spend(desk, key)
    desk.clock.advance(601)
    told = await desk.orders.keys.revoke(desk.owner, key.id, patience=1)
    assert await desk.billed() == cost
    assert told.evidence[-1]["last_bill"].startswith("read as soon as it was disabled")
