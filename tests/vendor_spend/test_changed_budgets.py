"""Budgets that somebody changed or removed at a vendor which enforces them: watched until they are as agreed, or agreed to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.vendor_spend.bureau import Bureau
from tests.vendor_spend.test_watch import NANO, PER_DOLLAR, SPENT, Watched

from keygate.errors import Conflict
from keygate.events import EventType
from keygate.issued_keys import IssuedKey
from keygate.issued_keys.inventory.model import Finding, Item, Wanted
from keygate.issued_keys.model import Enforcement
from keygate.sandbox.admin.anthropic import AnthropicAdmin
from keygate.vendor_spend.watch import Stage
from keygate.vendors.admin import Period, Presence, Reading

CASES = [("openrouter", "openai/gpt-4.1-mini", Stage.DISABLED), ("openai", "gpt-4.1-mini", Stage.LOWERED)]


class Removed:
    """A key whose budget of ten dollars was removed at its vendor, and that is held back for what it spent since."""

    def __init__(self, watched: Watched, vendor: str) -> None:
        self.watched, self.desk, self.key, self._vendor = watched, watched.desk, watched.key, vendor

    @classmethod
    async def held_back(cls, desk: Bureau, vendor: str, model: str, stage: Stage) -> Removed:
        account = await desk.configure(vendor)
        limits = {} if vendor == "openrouter" else {"requests_per_minute": 600}
        key = await desk.issue(vendor, budget_nano=10 * NANO, **limits)
        removed = cls(Watched(desk, account, key), vendor)
        await desk.provisioners[vendor].set_budget(await desk.orders.access.desk(account), key.footprint, None, Period.MONTH)
        await desk.orders.inspection.check(desk.owner, key.id)
        await removed.watched.rule(lower_at=90 if stage is Stage.LOWERED else None)
        desk.spend(key, vendor=vendor, model=model, tokens=10 * PER_DOLLAR)
        assert await removed.watched.look() is stage
        return removed

    async def shown(self) -> Reading:
        at = await self.desk.orders.access.desk(self.watched.account)
        return await self.desk.provisioners[self._vendor].read(at, self.key.footprint)

    async def now(self) -> IssuedKey:
        return await self.desk.orders.keys.get(self.desk.owner, self.key.id)

    async def item(self) -> Item:
        """The key in the inventory, once its account was looked at."""
        await self.desk.stock.inventory.scan(self.desk.owner, None)
        while await self.desk.stock.scanner.tick():
            self.desk.clock.advance(1)
        items: Sequence[Item] = await self.desk.stock.inventory.page(self.desk.owner, Wanted(attention=True), after=None, limit=99)
        return next(item for item in items if item.issued_key_id == self.key.id)

    async def events(self) -> list[str]:
        return [event.type for event in await self.desk.events() if event.subject == self.key.id]


@pytest.mark.parametrize(("vendor", "model", "stage"), CASES)
async def test_a_key_is_let_go_once_somebody_agrees_that_its_budget_is_removed(desk: Bureau, vendor: str, model: str, stage: Stage) -> None:
    removed = await Removed.held_back(desk, vendor, model, stage)
    item = await removed.item()
    assert (item.findings, [each.term for each in item.drift]) == ((Finding.DRIFT, Finding.NO_LIMIT), ["budget"])
    await desk.stock.inventory.accept(desk.owner, item.id, reason="no budget any more")
    assert (await removed.now()).terms.budget_nano is None
    told = (await removed.events()).count(SPENT)
    assert await removed.watched.look() is Stage.NONE
    shown = await removed.shown()
    assert (shown.presence, shown.terms.requests_per_minute) == (Presence.LIVE, removed.key.terms.requests_per_minute)
    [restored] = [event for event in await desk.events() if event.type == EventType.ISSUED_KEY_RESTORED]
    assert '"budget_usd": null' in restored.payload
    assert '"enforced_by_vendor": false' in restored.payload
    assert (await removed.events()).count(SPENT) == told, "what is not there is not spent"
    assert (await removed.watched.standing()).enforced_by == "nobody"


@pytest.mark.parametrize(("vendor", "model", "stage"), CASES)
async def test_a_budget_is_set_again_while_the_key_is_held_back_for_it(desk: Bureau, vendor: str, model: str, stage: Stage) -> None:
    removed = await Removed.held_back(desk, vendor, model, stage)
    repaired = await desk.stock.inventory.repair(desk.owner, (await removed.item()).id)
    assert (repaired.findings, repaired.drift) == ((), ())
    shown = await removed.shown()
    assert shown.terms.budget_nano == 10 * NANO
    assert (shown.presence is Presence.DISABLED) == (stage is Stage.DISABLED), "it stays as it was until the watch has seen it"
    assert (await removed.now()).enforcement["budget"] is Enforcement.CONFIRMED
    assert await removed.watched.look() is Stage.NONE, "the vendor refuses by itself again"
    shown = await removed.shown()
    assert (shown.presence, shown.terms.requests_per_minute) == (Presence.LIVE, removed.key.terms.requests_per_minute)


# Budgets that the vendor does not tell any more


def let_in(desk: Bureau, *, enabled: bool) -> None:
    """Whether the organization takes part in Anthropic's early access to spend limits."""
    with desk.sandbox.state.admin.lock:
        AnthropicAdmin().console(desk.books("anthropic"), "spend_limits", {"enabled": enabled})


async def of_early_access(desk: Bureau) -> tuple[Watched, IssuedKey]:
    """A key that was read just now, whose budget of ten dollars Anthropic keeps; and another one of its account."""
    let_in(desk, enabled=True)
    account = await desk.configure("anthropic")
    key, other = await desk.issue("anthropic", budget_nano=10 * NANO), await desk.issue("anthropic", budget_nano=10 * NANO)
    assert key.enforcement == other.enforcement == {"budget": "confirmed"}
    await desk.orders.inspection.tick()
    return Watched(desk, account, key), other


async def test_a_budget_that_is_lost_is_told_as_lost_where_it_was_to_be_repaired_too_and_of_every_key(desk: Bureau) -> None:
    anthropic, other = await of_early_access(desk)
    let_in(desk, enabled=False)
    found = await desk.orders.inspection.check(desk.owner, anthropic.key.id, repair=True)
    assert (found.enforcement, found.error_code) == ({"budget": "lost"}, "lost_at_vendor")
    assert (await desk.orders.accounts.get(desk.owner, anthropic.account.id)).also_confirms == frozenset()
    await desk.orders.inspection.tick()
    assert (await desk.orders.keys.get(desk.owner, other.id)).enforcement == {"budget": "lost"}, "not in six hours only"


async def test_a_lost_budget_is_not_raised_as_its_former_amount_may_still_stand_at_the_vendor(desk: Bureau) -> None:
    anthropic, _ = await of_early_access(desk)
    let_in(desk, enabled=False)
    await desk.orders.inspection.check(desk.owner, anthropic.key.id)
    desk.spend(anthropic.key, vendor="anthropic", model="claude-sonnet-4-5")  # 15 dollars
    assert await anthropic.look() is Stage.DISABLED
    with pytest.raises(Conflict, match=f"keygate vendors verify {anthropic.account.id}"):
        await anthropic.resume(budget_nano=20 * NANO)
    assert (await desk.orders.keys.get(desk.owner, anthropic.key.id)).terms.budget_nano == 10 * NANO
    assert (await anthropic.resume(extra_nano=10 * NANO)).watch.stage is Stage.NONE
    let_in(desk, enabled=True)
    found = await desk.orders.inspection.check(desk.owner, anthropic.key.id)
    assert (found.enforcement, found.error) == ({"budget": "confirmed"}, None), "nobody is said to have changed it"


async def test_what_is_learnt_of_an_account_while_its_key_is_read_has_the_key_read_again(
    desk: Bureau, monkeypatch: pytest.MonkeyPatch
) -> None:
    anthropic, _ = await of_early_access(desk)
    let_in(desk, enabled=False)
    await desk.orders.accounts.verify(desk.owner, anthropic.account.id)
    kind = type(desk.provisioners["anthropic"])
    read = kind.read

    async def meanwhile(self, at, footprint):
        reading = await read(self, at, footprint)
        monkeypatch.undo()
        let_in(desk, enabled=True)
        await desk.orders.accounts.verify(desk.owner, anthropic.account.id)
        return reading

    monkeypatch.setattr(kind, "read", meanwhile)
    found = await desk.orders.inspection.check(desk.owner, anthropic.key.id)
    assert found.enforcement == {"budget": "lost"}
    assert (await desk.orders.accounts.get(desk.owner, anthropic.account.id)).also_confirms == {"budget"}, "the newer answer counts"
    await desk.orders.inspection.tick()
    assert (await desk.orders.keys.get(desk.owner, anthropic.key.id)).enforcement == {"budget": "confirmed"}
