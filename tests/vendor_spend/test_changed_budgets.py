"""Budgets that somebody changed or removed at a vendor which enforces them: watched until they are as agreed, or agreed to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.vendor_spend.bureau import Bureau
from tests.vendor_spend.test_watch import NANO, PER_DOLLAR, SPENT, Watched

from keygate.events import EventType
from keygate.issued_keys import IssuedKey
from keygate.issued_keys.inventory.model import Finding, Item, Wanted
from keygate.issued_keys.model import Enforcement
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
