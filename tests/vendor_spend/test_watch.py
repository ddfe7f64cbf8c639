"""Budgets that their vendor does not enforce: announced, lowered, disabled or revoked by what the vendor bills; and taken back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.vendor_spend.bureau import DAY_S, Bureau

from keygate.audit import EntryFilter
from keygate.errors import Conflict, InvalidInput, NotFound
from keygate.events import EventType
from keygate.identities import Actor, ActorKind, Role
from keygate.issued_keys import IssuedKey, State, Told, VendorAccount
from keygate.issued_keys.api import Viewer
from keygate.kit.clock import from_ns, to_ns
from keygate.sandbox.admin import AdminFault
from keygate.vendor_spend.watch import AtEnd, Resumption, Stage, WatchRule, announced_at, passed, percent_of, wanted_stage, window_of
from keygate.vendor_spend.watching import Standing
from keygate.vendors.admin import Period, Presence

MODEL = "gpt-4.1-mini"
PER_DOLLAR = 625_000  # output tokens of the model: 1.60 dollars a million
NANO = 10**9
REACHED, SPENT = EventType.ISSUED_KEY_BUDGET_THRESHOLD_REACHED, EventType.ISSUED_KEY_BUDGET_SPENT
ORDER = [Stage.NONE, Stage.LOWERED, Stage.DISABLED, Stage.REVOKED]


class Watched:
    """A key with a budget of ten dollars a month at a vendor that caps no spend."""

    def __init__(self, desk: Bureau, account: VendorAccount, key: IssuedKey) -> None:
        self.desk = desk
        self.account = account
        self.key = key

    @classmethod
    async def open(cls, desk: Bureau, **terms: object) -> Watched:
        account = await desk.configure("azure")
        wanted = {"budget_nano": 10 * 10**9, "models": (MODEL,), "tokens_per_minute": 20_000, **terms}
        return cls(desk, account, await desk.issue("azure", **wanted))

    async def spend(self, usd: str, **options: float) -> None:
        self.desk.spend(self.key, vendor="azure", model=MODEL, tokens=int(Decimal(usd) * PER_DOLLAR), **options)

    async def look(self) -> Stage:
        """The bill is read, and the watch looks at it."""
        state = await self.desk.bills.importer.run(self.desk.owner, self.account.id)
        assert state.error is None, state.error
        await self.desk.bills.watch.tick()
        return (await self.standing()).watch.stage

    async def standing(self):
        return await self.desk.bills.watch.standing(self.desk.owner, self.key.id)

    async def resume(self, **how: Any) -> Standing:
        return await self.desk.bills.watch.resume(self.desk.owner, self.key.id, Resumption(**how))

    async def rule(self, **rule: object) -> None:
        await self.desk.bills.watch.set_rule(self.desk.owner, self.key.id, WatchRule(**rule))

    async def works(self) -> bool:
        """Straight at the vendor, with no KeyGate in the path."""
        path = f"{self.key.env['AZURE_OPENAI_ENDPOINT'].rstrip('/')}/openai/deployments/{MODEL}/chat/completions"
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        async with httpx.AsyncClient(timeout=10) as client:
            secret = self.desk.secrets[self.key.id].open()
            answer = await client.post(path, params={"api-version": "2024-10-21"}, json=body, headers={"api-key": secret})
        assert answer.status_code in {200, 401, 403, 404}, answer.text  # 404: the account is gone
        return answer.status_code == 200

    async def shown(self) -> str | None:
        """What the API shows beside an active key's terms."""
        viewer = Viewer(self.desk.orders.outlooks, self.desk.bills.watch, self.desk.clock)
        [shown] = await viewer.many([await self.desk.orders.keys.get(self.desk.owner, self.key.id)])
        assert shown.state is State.ACTIVE
        return shown.restraint

    async def capacity(self) -> int:
        desk = await self.desk.orders.access.desk(self.account)
        reading = await self.desk.provisioners["azure"].read(desk, self.key.footprint)
        return reading.terms.tokens_per_minute or 0

    async def told(self) -> list[str]:
        return [event.type for event in await self.desk.events() if event.subject == self.key.id and "budget" in event.type]


async def test_thresholds_are_announced_once_each_with_the_age_of_the_number(desk: Bureau) -> None:
    azure = await Watched.open(desk)
    await azure.spend("4.99")
    await azure.look()
    assert await azure.told() == []
    await azure.spend("0.02")
    await azure.look()
    await azure.look()
    assert await azure.told() == [EventType.ISSUED_KEY_BUDGET_THRESHOLD_REACHED]
    [event] = [event for event in await desk.events() if event.type == EventType.ISSUED_KEY_BUDGET_THRESHOLD_REACHED]
    assert '"percent": 50' in event.payload
    assert '"spent_usd": "5.0' in event.payload
    assert '"delay_seconds": 86400' in event.payload
    assert '"billed_until": "20' in event.payload
    await azure.spend("3.00")
    await azure.look()
    assert len(await azure.told()) == 2


async def test_at_the_end_the_key_is_disabled_at_the_vendor_and_works_again_next_month(desk: Bureau) -> None:
    azure = await Watched.open(desk)
    await azure.spend("9.99")
    assert await azure.look() is Stage.NONE
    assert await azure.works()
    assert await azure.shown() is None
    await azure.spend("0.02")
    assert await azure.look() is Stage.DISABLED
    assert not await azure.works()
    assert await azure.shown() == "disabled"
    assert (await azure.told())[-1] == EventType.ISSUED_KEY_BUDGET_SPENT
    standing = await azure.standing()
    assert standing.watch.confirmed_at_ns is not None
    assert standing.percent == 100
    ends = standing.resets_at_ns
    desk.clock.advance((ends - desk.clock.now_ns()) / 10**9 + 60)
    assert await azure.look() is Stage.NONE
    assert await azure.works()
    types = [event.type for event in await desk.events() if event.subject == azure.key.id]
    assert types[-2:] == [EventType.ISSUED_KEY_RESTRICTED, EventType.ISSUED_KEY_RESTORED]


async def test_what_arrives_late_ends_the_key_late_and_the_standing_says_how_late(desk: Bureau) -> None:
    desk.behave("azure", costs_late_s=8 * 3_600)
    azure = await Watched.open(desk)
    await azure.spend("12.00")
    assert await azure.look() is Stage.NONE
    assert await azure.works()
    standing = await azure.standing()
    assert (standing.spent_nano, standing.facts.delay_seconds) == (0, 86_400)
    desk.clock.advance(9 * 3_600)
    assert await azure.look() is Stage.DISABLED
    assert not await azure.works()


async def test_restated_spend_is_counted_once(desk: Bureau) -> None:
    desk.behave("azure", costs_first_share=0.5, costs_restated_s=4 * 3_600)
    azure = await Watched.open(desk)
    await azure.spend("9.00")
    for hours in range(6):
        assert await azure.look() is Stage.NONE
        assert (await azure.standing()).percent == (45 if hours < 4 else 90)
        desk.clock.advance(3_600)


async def test_limits_are_lowered_on_the_way_and_come_back(desk: Bureau) -> None:
    azure = await Watched.open(desk)
    await azure.rule(lower_at=80, lower_to=25)
    await azure.spend("7.90")
    assert await azure.look() is Stage.NONE
    assert await azure.capacity() == 20_000
    await azure.spend("0.20")
    assert await azure.look() is Stage.LOWERED
    assert await azure.capacity() == 5_000
    assert await azure.works()
    assert await azure.shown() == "lowered"
    looked = await desk.orders.inspection.check(desk.owner, azure.key.id, repair=True)
    assert (looked.error, looked.enforcement["tokens_per_minute"], await azure.capacity()) == (None, "confirmed", 5_000)
    await azure.rule(lower_at=80, lower_to=50)
    assert await azure.look() is Stage.LOWERED
    assert await azure.capacity() == 10_000
    await azure.spend("2.00")
    assert await azure.look() is Stage.DISABLED
    standing = await azure.standing()
    desk.clock.advance((standing.resets_at_ns - desk.clock.now_ns()) / 10**9 + 60)
    assert await azure.look() is Stage.NONE
    assert await azure.capacity() == 20_000
    assert await azure.works()


async def test_revoked_at_the_end_where_that_was_asked_for_through_the_keys_own_life(desk: Bureau) -> None:
    azure = await Watched.open(desk)
    await azure.rule(at_end=AtEnd.REVOKE)
    await azure.spend("10.00")
    await azure.look()
    await desk.orders.operations.tick()
    key = await desk.orders.keys.get(desk.owner, azure.key.id)
    assert key.state == "revoked"
    assert key.end_reason.startswith("its budget is spent: 10.00 of 10.00 USD")
    assert key.end_asked_by == "worker"
    assert not await azure.works()


async def test_only_announced_where_that_was_asked_for_and_lifted_where_it_is_asked_for_later(desk: Bureau) -> None:
    azure = await Watched.open(desk)
    await azure.spend("11.00")
    assert await azure.look() is Stage.DISABLED
    await azure.rule(at_end=AtEnd.WARN)
    assert await azure.look() is Stage.NONE
    assert await azure.works()


async def test_a_restraint_that_somebody_takes_back_at_the_vendor_holds_again_within_an_hour(desk: Bureau) -> None:
    azure = await Watched.open(desk)
    await azure.spend("10.50")
    assert await azure.look() is Stage.DISABLED
    at = await desk.orders.access.desk(azure.account)
    await desk.provisioners["azure"].set_enabled(at, azure.key.footprint, enabled=True)
    assert await azure.works()
    desk.clock.advance(3_700)
    assert await azure.look() is Stage.DISABLED
    assert not await azure.works()
    assert [event.type for event in await desk.events()].count(EventType.ISSUED_KEY_RESTRICTED) == 1


async def test_a_disabled_key_goes_on_by_so_much_more_and_is_disabled_again_in_the_same_period(desk: Bureau) -> None:
    azure = await Watched.open(desk, budget_period=Period.DAY)
    with pytest.raises(Conflict, match="not disabled"):
        await azure.resume(extra_nano=5 * NANO)
    await azure.spend("10.50")
    assert await azure.look() is Stage.DISABLED
    with pytest.raises(InvalidInput, match=r"10\.5.* are spent already"):
        await azure.resume(extra_nano=NANO // 2)
    assert not await azure.works()

    resumed = await azure.resume(extra_nano=10 * NANO)
    assert (resumed.watch.stage, resumed.allowed_nano, resumed.percent) == (Stage.NONE, 20 * NANO, 52)
    assert await azure.works()
    await azure.spend("6.00")  # 82 percent of what is allowed now
    assert await azure.look() is Stage.NONE
    await azure.spend("4.00")
    assert await azure.look() is Stage.DISABLED
    assert not await azure.works()
    assert await azure.told() == [REACHED, REACHED, SPENT, REACHED, SPENT]

    more = await azure.resume(extra_nano=10 * NANO)  # beyond what was allowed before
    assert (more.allowed_nano, await azure.works()) == (30 * NANO, True)
    desk.clock.advance(DAY_S)  # the next period has the budget alone
    await azure.spend("10.50")
    assert await azure.look() is Stage.DISABLED


async def test_a_disabled_key_goes_on_with_a_raised_budget_from_now_on(desk: Bureau) -> None:
    azure = await Watched.open(desk, budget_period=Period.DAY)
    await azure.spend("10.50")
    assert await azure.look() is Stage.DISABLED
    for too_little in (10 * NANO, 10_500_000_000):
        with pytest.raises(InvalidInput):
            await azure.resume(budget_nano=too_little)
    assert (await desk.orders.keys.get(desk.owner, azure.key.id)).terms.budget_nano == 10 * NANO
    resumed = await azure.resume(budget_nano=15 * NANO)
    assert (resumed.watch.stage, resumed.key.terms.budget_nano, await azure.works()) == (Stage.NONE, 15 * NANO, True)
    await azure.spend("4.60")
    assert await azure.look() is Stage.DISABLED
    desk.clock.advance(DAY_S)
    await azure.spend("14.00")
    assert await azure.look() is Stage.NONE


async def test_a_key_whose_budget_is_ignored_is_announced_again_and_ends_with_the_next_periods_budget(desk: Bureau) -> None:
    azure = await Watched.open(desk, budget_period=Period.DAY)
    await azure.spend("10.50")
    assert await azure.look() is Stage.DISABLED
    resumed = await azure.resume(ignore=True)
    assert (resumed.watch.stage, resumed.allowed_nano, await azure.works()) == (Stage.NONE, None, True)
    await azure.spend("9.00")
    assert await azure.look() is Stage.NONE
    await azure.spend("1.00")
    assert await azure.look() is Stage.NONE
    spent = [json.loads(event.payload)["percent"] for event in await desk.events() if event.type == SPENT]
    assert spent == [100, 200]  # nobody forgets that it goes on
    desk.clock.advance(DAY_S)
    await azure.spend("10.50")
    assert await azure.look() is Stage.DISABLED


async def test_a_budget_without_periods_can_be_raised_and_not_ignored(desk: Bureau) -> None:
    azure = await Watched.open(desk, budget_period=Period.LIFETIME)
    await azure.spend("10.50")
    assert await azure.look() is Stage.DISABLED
    with pytest.raises(InvalidInput, match="no periods"):
        await azure.resume(ignore=True)
    assert (await azure.resume(extra_nano=5 * NANO)).watch.stage is Stage.NONE


async def test_a_budget_that_the_vendor_enforces_is_announced_and_left_to_it(desk: Bureau) -> None:
    account = await desk.configure("openai")
    key = await desk.issue("openai", budget_nano=10 * 10**9)
    desk.spend(key, tokens=1_250_000)  # ten dollars
    openai = Watched(desk, account, key)
    assert await openai.look() is Stage.NONE
    assert await openai.told() == [REACHED, REACHED, SPENT]
    assert openai.desk.books("openai").shelves["keys"].get(key.footprint.key) is not None


async def test_a_budget_that_somebody_removed_at_the_vendor_is_watched_until_it_is_set_again(desk: Bureau) -> None:
    account = await desk.configure("openrouter")
    key = await desk.issue("openrouter", budget_nano=10 * 10**9)
    router, inspection, at = Watched(desk, account, key), desk.orders.inspection, await desk.orders.access.desk(account)

    async def presence() -> Presence:
        return (await desk.provisioners["openrouter"].read(at, key.footprint)).presence

    await desk.provisioners["openrouter"].set_budget(at, key.footprint, None, Period.MONTH)
    await inspection.check(desk.owner, key.id)
    desk.spend(key, vendor="openrouter", model="openai/gpt-4.1-mini", tokens=10 * PER_DOLLAR)
    assert await router.look() is Stage.DISABLED
    assert await presence() is Presence.DISABLED
    standing = await router.standing()
    assert standing.enforced_by == "keygate"
    assert f"keygate inventory check {key.id} --repair" in standing.unkept
    kept = await desk.bills.watch.kept(desk.owner, key.id)
    assert (kept.enforced_by, kept.trouble) == ("keygate", standing.unkept)
    with pytest.raises(Conflict, match="set that right first"):
        await router.resume(budget_nano=20 * 10**9)
    await inspection.check(desk.owner, key.id, repair=True)
    assert await router.look() is Stage.NONE, "the vendor refuses by itself again"
    assert await presence() is Presence.LIVE
    assert ((await router.standing()).enforced_by, (await router.standing()).unkept) == ("vendor", None)


async def test_a_budget_counted_for_each_key_of_a_rotation_is_kept_over_all_of_them(desk: Bureau) -> None:
    """OpenRouter refuses by what the key itself has spent: the second one begins with a whole limit. KeyGate counts both."""
    account = await desk.configure("openrouter")
    key = await desk.issue("openrouter", budget_nano=10 * 10**9)
    openrouter = Watched(desk, account, key)
    assert (await desk.orders.keys.get(desk.owner, key.id)).enforcement == {"budget": "confirmed"}
    desk.spend(key, vendor="openrouter", model="openai/gpt-4.1-mini", tokens=9 * PER_DOLLAR)
    assert await openrouter.look() is Stage.NONE
    told = await desk.orders.keys.rotate(desk.owner, key.id, overlap_seconds=600, quiet_seconds=0, patience=5)
    assert told.key.enforcement == {"budget": "per_key"}, "the answer says that the budget is not exact"
    assert told.key.footprint != key.footprint
    desk.spend(told.key, vendor="openrouter", model="openai/gpt-4.1-mini", tokens=PER_DOLLAR)
    assert await openrouter.look() is Stage.DISABLED, "nine and one"
    shelf = desk.books("openrouter").shelves["keys"]
    both = [shelf.get(each.footprint.key) for each in (key, told.key)]
    assert [(shown.body["disabled"], shown.body["limit"]) for shown in both if shown is not None] == [(True, 10)] * 2


async def test_disabled_is_said_only_once_the_vendor_shows_it_and_is_tried_again(desk: Bureau) -> None:
    azure = await Watched.open(desk)
    await azure.spend("10.01")
    with desk.sandbox.state.admin.lock:
        desk.books("azure").faults.append(AdminFault(operation="accounts.update", status=403, calls=None))
    assert await azure.look() is Stage.NONE
    standing = await azure.standing()
    assert (standing.watch.wanted, standing.watch.stage) == (Stage.DISABLED, Stage.NONE)
    assert standing.watch.error_code == "missing_right"
    assert await azure.works()
    desk.clock.advance(60)
    assert await azure.look() is Stage.NONE
    failures = [event for event in await desk.events() if event.type == EventType.ISSUED_KEY_RESTRAINT_FAILED]
    assert len(failures) == 1
    with desk.sandbox.state.admin.lock:
        desk.books("azure").faults.clear()
    desk.clock.advance(60)
    assert await azure.look() is Stage.DISABLED
    assert not await azure.works()


async def test_a_call_that_the_vendor_takes_and_does_not_do_is_not_called_done(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    azure = await Watched.open(desk)
    await azure.spend("10.01")
    kind = type(desk.provisioners["azure"])

    async def taken(self, at, footprint, *, enabled) -> None:
        """Answered with success, and nothing changes."""

    with monkeypatch.context() as patch:
        patch.setattr(kind, "set_enabled", taken)
        assert await azure.look() is Stage.NONE
    assert "does not show the key as disabled" in (await azure.standing()).watch.error
    desk.clock.advance(60)
    assert await azure.look() is Stage.DISABLED


async def test_a_process_that_ends_between_the_vendors_answer_and_our_note_finds_its_way(
    desk: Bureau, audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure = await Watched.open(desk)
    await azure.spend("10.01")
    kind = type(desk.provisioners["azure"])
    done = kind.set_enabled

    async def cut_off(self, at, footprint, *, enabled) -> None:
        await done(self, at, footprint, enabled=enabled)
        raise RuntimeError("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr(kind, "set_enabled", cut_off)
        assert await azure.look() is Stage.NONE
    assert not await azure.works()
    assert await azure.look() is Stage.DISABLED
    entries = await audit.find(desk.owner.organization_id, EntryFilter(action="issued_key.restrain"), before=None, limit=10)
    assert len(entries) == 1


async def test_what_is_done_is_recorded_before_it_is_done(desk: Bureau, audit) -> None:
    azure = await Watched.open(desk)
    await azure.spend("10.01")
    with desk.sandbox.state.admin.lock:
        desk.books("azure").faults.append(AdminFault(operation="accounts.update", status=403, calls=None))
    await azure.look()
    [entry] = await audit.find(desk.owner.organization_id, EntryFilter(action="issued_key.restrain"), before=None, limit=10)
    assert entry.target == azure.key.id


async def _turned(desk: Bureau, key: IssuedKey) -> Told:
    return await desk.orders.keys.rotate(desk.owner, key.id, overlap_seconds=600, patience=30)


async def test_a_key_that_its_budget_disabled_gets_no_next_one_before_it_may_go_on(desk: Bureau) -> None:
    account = await desk.configure("xai")
    key = await desk.issue("xai", budget_nano=NANO)
    xai = Watched(desk, account, key)
    desk.spend(key, vendor="xai", model="grok-3")
    assert await xai.look() is Stage.DISABLED
    with pytest.raises(Conflict, match=f"disabled for its budget.*keygate resume {key.id}"):
        await _turned(desk, key)
    left = await desk.orders.keys.get(desk.owner, key.id)
    assert (left.state, left.generation, left.error, len(list(desk.books("xai").shelves["keys"]))) == (State.ACTIVE, 1, None, 1)
    await xai.resume(extra_nano=100 * NANO)
    told = await _turned(desk, key)
    assert (told.key.state, told.key.generation, told.secret is None) == (State.ROTATING, 2, False)


async def test_a_key_that_its_budget_disables_while_it_is_rotated_gets_no_next_one(desk: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await desk.configure("xai")
    key = await desk.issue("xai", budget_nano=NANO)
    xai = Watched(desk, account, key)
    desk.spend(key, vendor="xai", model="grok-3")
    kind = type(desk.provisioners["xai"])
    create = kind.create

    async def meanwhile(self, at, order):
        made = await create(self, at, order)
        assert await xai.look() is Stage.DISABLED
        return made

    with monkeypatch.context() as patch:
        patch.setattr(kind, "create", meanwhile)
        with pytest.raises(Conflict, match="disabled for its budget"):
            await _turned(desk, key)
    left = await desk.orders.keys.get(desk.owner, key.id)
    assert (left.state, left.former, left.footprint, left.secret) == (State.ACTIVE, None, key.footprint, None)
    assert [each.body["disabled"] for each in desk.books("xai").shelves["keys"]] == [True], "the next one is removed"


@pytest.mark.parametrize(
    ("vendor", "model", "terms"),
    [
        ("anthropic", "claude-sonnet-4-5", {"requests_per_minute": 600}),
        ("xai", "grok-3", {"requests_per_minute": 600}),
        ("azure", MODEL, {"tokens_per_minute": 20_000, "models": (MODEL,)}),
    ],
)
async def test_a_key_whose_limits_are_lowered_rotates_and_its_next_one_is_lowered_too(
    desk: Bureau, vendor: str, model: str, terms: dict[str, Any]
) -> None:
    account = await desk.configure(vendor)
    key = await desk.issue(vendor, budget_nano=NANO, **terms)
    watched = Watched(desk, account, key)
    await watched.rule(lower_at=50, lower_to=10, at_end=AtEnd.WARN)
    desk.spend(key, vendor=vendor, model=model, tokens=5_000_000)
    assert await watched.look() is Stage.LOWERED
    told = await _turned(desk, key)
    assert told.secret is not None
    assert {told.key.enforcement[term] for term in terms} == {"confirmed"}
    limit = next(iter(terms))

    async def shown() -> Any:
        at = await desk.orders.access.desk(account)
        return getattr((await desk.provisioners[vendor].read(at, told.key.footprint)).terms, limit)

    assert await shown() == terms[limit] // 10
    assert await watched.look() is Stage.LOWERED
    ends = (await watched.standing()).resets_at_ns
    desk.clock.advance((ends - desk.clock.now_ns()) / 10**9 + 60)
    assert (await watched.look(), await shown()) == (Stage.NONE, terms[limit])
    assert EventType.ISSUED_KEY_DRIFTED not in [event.type for event in await desk.events()]


async def test_rules_that_the_vendor_can_not_keep_are_refused(desk: Bureau) -> None:
    azure = await Watched.open(desk, tokens_per_minute=None)
    with pytest.raises(InvalidInput, match="lower_at_percent"):
        await azure.rule(lower_at=80)
    await desk.configure("openai")
    enforced = await desk.issue("openai", budget_nano=10 * 10**9)
    with pytest.raises(Conflict, match="enforces this key's budget itself"):
        await desk.bills.watch.set_rule(desk.owner, enforced.id, WatchRule())
    without = await desk.issue("azure", models=(MODEL,))
    with pytest.raises(Conflict, match="no budget"):
        await desk.bills.watch.set_rule(desk.owner, without.id, WatchRule())


async def test_a_key_at_anthropic_is_disabled_let_go_on_and_revoked_where_that_is_asked_for(desk: Bureau) -> None:
    account = await desk.configure("anthropic")
    key = await desk.issue("anthropic", budget_nano=10 * 10**9)
    desk.spend(key, vendor="anthropic", model="claude-sonnet-4-5")  # 15 dollars
    anthropic = Watched(desk, account, key)
    assert await anthropic.look() is Stage.DISABLED
    assert (await anthropic.resume(ignore=True)).watch.stage is Stage.NONE
    assert await anthropic.look() is Stage.NONE
    assert [event.type for event in await desk.events()][-3:] == [
        EventType.ISSUED_KEY_BUDGET_SPENT,
        EventType.ISSUED_KEY_RESTRICTED,
        EventType.ISSUED_KEY_RESTORED,
    ]
    desk.clock.advance(32 * DAY_S)
    desk.spend(key, vendor="anthropic", model="claude-sonnet-4-5")
    await anthropic.rule(at_end=AtEnd.REVOKE)
    await anthropic.look()
    await desk.orders.operations.tick()
    assert (await desk.orders.keys.get(desk.owner, key.id)).state == "revoked"


async def test_others_keys_look_absent_to_a_developer(desk: Bureau) -> None:
    azure = await Watched.open(desk)
    stranger = Actor(ActorKind.USER, "usr_x", desk.owner.organization_id, Role.DEVELOPER, developer_id="dev_x")
    with pytest.raises(NotFound):
        await desk.bills.watch.standing(stranger, azure.key.id)


async def test_a_day_begins_anew_at_midnight(desk: Bureau) -> None:
    azure = await Watched.open(desk, budget_period=Period.DAY)
    await azure.spend("10.50")
    assert await azure.look() is Stage.DISABLED
    desk.clock.advance(DAY_S)
    assert await azure.look() is Stage.NONE


# Pure


@given(spent=st.integers(-(10**12), 10**12), budget=st.integers(1, 10**12))
def test_all_is_spent_exactly_when_it_is(spent: int, budget: int) -> None:
    assert (percent_of(spent, budget) >= 100) == (spent >= budget)


@given(
    low=st.integers(0, 200),
    more=st.integers(0, 200),
    lower_at=st.none() | st.integers(1, 99),
    at_end=st.sampled_from(AtEnd),
    can_disable=st.booleans(),
)
def test_more_spend_never_restrains_less(low: int, more: int, lower_at: int | None, at_end: AtEnd, can_disable: bool) -> None:
    rule = WatchRule(lower_at=lower_at, at_end=at_end)
    less, much = (wanted_stage(rule, percent, can_disable=can_disable) for percent in (low, low + more))
    assert ORDER.index(less) <= ORDER.index(much)
    assert announced_at(rule, low) <= announced_at(rule, low + more)


def test_each_threshold_that_one_bill_passes_is_told() -> None:
    rule = WatchRule(warn_at=(50, 80))
    assert [passed(rule, *step) for step in ((0, 50), (0, 80), (0, 100), (50, 300), (300, 400))] == [
        [50],
        [50, 80],
        [50, 80, 100],
        [80, 100, 300],
        [400],
    ]


def test_nothing_that_can_not_be_taken_back_happens_unasked() -> None:
    for can_disable in (True, False):
        assert wanted_stage(WatchRule(), 1_000, can_disable=can_disable) is not Stage.REVOKED


@pytest.mark.parametrize(
    ("period", "begin", "end"),
    [
        (Period.DAY, "2026-12-31", "2027-01-01"),
        (Period.WEEK, "2026-12-28", "2027-01-04"),
        (Period.MONTH, "2026-12-01", "2027-01-01"),
    ],
)
def test_periods_are_of_the_utc_calendar(period: Period, begin: str, end: str) -> None:
    now = to_ns(datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
    start, reset = window_of(period, now)
    assert (from_ns(start).date().isoformat(), from_ns(reset).date().isoformat()) == (begin, end)


def test_a_lifetime_has_no_reset() -> None:
    assert window_of(Period.LIFETIME, to_ns(datetime(2026, 12, 31, tzinfo=UTC))) == (0, None)


async def test_at_xai_a_spent_budget_disables_the_key_and_no_other(desk: Bureau) -> None:
    account = await desk.configure("xai")
    spent, other = await desk.issue("xai", budget_nano=10**9), await desk.issue("xai", budget_nano=10**9)

    async def works(key: IssuedKey) -> bool:
        body = {"model": "grok-3", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        headers = {"authorization": f"Bearer {desk.secrets[key.id].open()}"}
        async with httpx.AsyncClient(base_url=desk.sandbox.xai_base_url, headers=headers, timeout=10) as client:
            return (await client.post("/chat/completions", json=body)).status_code == 200

    assert await works(spent)
    desk.spend(spent, vendor="xai", model="grok-3")
    await desk.bills.importer.run(desk.owner, account.id)
    await desk.bills.watch.tick()
    assert (await desk.bills.watch.standing(desk.owner, spent.id)).watch.stage is Stage.DISABLED
    assert (await desk.bills.watch.standing(desk.owner, other.id)).watch.stage is Stage.NONE
    assert (await works(spent), await works(other)) == (False, True)
