"""Use cases of the inventory: what stands where, and what is done about it. Each is audited before the vendor is called, and what the
vendor then shows is what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from keygate.audit import AuditLog
from keygate.errors import Conflict, NotFound, UpstreamFailed
from keygate.identities import Actor
from keygate.issued_keys.agreed import DRIFTED
from keygate.issued_keys.inspection import InspectionService
from keygate.issued_keys.inventory.assessment import Eyes
from keygate.issued_keys.inventory.hands import Hands, drift_record, require_keys
from keygate.issued_keys.inventory.judging import differences, with_terms_of
from keygate.issued_keys.inventory.looking import can_look
from keygate.issued_keys.inventory.model import (
    Acceptance,
    Finding,
    Item,
    Kind,
    Scan,
    Standing,
    Summary,
    Wanted,
    remedy,
)
from keygate.issued_keys.inventory.scanning import Scanner
from keygate.issued_keys.last_bill import LastBill
from keygate.issued_keys.life import ENDED, LIVE, State
from keygate.issued_keys.making import next_due
from keygate.issued_keys.model import IssuedKey, asked, compare_with
from keygate.issued_keys.operations import Operations
from keygate.issued_keys.records import footprint_to_json, key_record
from keygate.issued_keys.service import IssuedKeyService
from keygate.policies import change
from keygate.vendors.admin import (
    AdminDesk,
    Disables,
    Footprint,
    Presence,
    Provisioner,
    ProvisionerError,
    Reading,
    SetsBudget,
    SetsExpiry,
    SetsLimits,
    SetsModels,
    SetsTerms,
    Term,
)

if TYPE_CHECKING:
    from keygate.kit.database import UnitOfWork

_POLL_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)  # a vendor's own reads may lag behind its writes
PATIENCE_SECONDS = 30.0


class How(StrEnum):
    DISABLE = "disable"  # can be taken back
    REVOKE = "revoke"  # for good


class InventoryService(Hands):
    def __init__(
        self,
        eyes: Eyes,
        *,
        scanner: Scanner,
        keys: IssuedKeyService,
        inspection: InspectionService,
        operations: Operations,
        last_bill: LastBill,
        audit: AuditLog,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(eyes, audit=audit, sleep=sleep)
        self._scanner = scanner
        self._keys = keys
        self._inspection = inspection
        self._operations = operations
        self._last_bill = last_bill

    # What there is

    async def page(self, actor: Actor, wanted: Wanted, *, after: str | None, limit: int) -> list[Item]:
        if actor.only_own:
            return []
        async with self.eyes.database.read() as connection:
            return await self.eyes.repository.page(connection, actor.organization_id, wanted, after=after, limit=limit)

    async def summaries(self, actor: Actor) -> list[Summary]:
        if actor.only_own:
            return []
        async with self.eyes.database.read() as connection:
            return await self.eyes.repository.summaries(connection, actor.organization_id)

    async def scans(self, actor: Actor, *, before: str | None, limit: int) -> list[Scan]:
        if actor.only_own:
            return []
        async with self.eyes.database.read() as connection:
            return await self.eyes.repository.scans(connection, actor.organization_id, before=before, limit=limit)

    async def scan(self, actor: Actor, account_id: str | None) -> list[Scan]:
        """Begins a scan of this account, or of all; the worker does it. One that is going on already is told instead."""
        eyes = self.eyes
        async with change(eyes.database, self.audit, actor, "inventory.scan", account_id or "all") as work:
            accounts = await eyes.accounts.all(work.connection, actor.organization_id)
            chosen = [account for account in accounts if account_id in {None, account.id, account.name}]
            if not chosen:
                raise NotFound("There is no vendor account with this id" if account_id else "There is no vendor account yet")
            begun = [
                await self._scanner.begin(work.connection, actor.organization_id, account.id, account.vendor, asked_by=actor.id)
                for account in chosen
                if can_look(eyes.provisioners.get(account.vendor))
            ]
            if not begun:
                raise Conflict("This vendor's API lists nothing; its keys are entered by hand")
            await self.audit.record(work, actor, "inventory.scan", account_id or "all", after={"scans": [scan.id for scan in begun]})
        return begun

    # What is done about it

    async def disable(self, actor: Actor, item_id: str, *, how: How, reason: str, insist: bool = False) -> Item:
        """Switches a key off at the vendor, or ends it there for good. What carries the mark of another KeyGate only with `insist`."""
        require_keys(actor)
        item = await self.get(actor, item_id)
        if not item.alive:
            raise Conflict(f"The vendor shows it as {item.presence} already")
        if Finding.FOREIGN in item.findings and not insist:
            raise Conflict("It carries the mark of another KeyGate; end it there, or insist")
        if item.standing is Standing.ORPHANED:
            raise Conflict("It is left over from a key of ours; `repair` removes it")
        if how is How.REVOKE and item.kind is Kind.CONTAINER:
            raise Conflict("Containers are not ended from here; revoke the keys in it")
        if how is How.REVOKE and item.issued_key_id is not None:
            await self.recorded(actor, "inventory.disable", item, {"how": how, "reason": reason, "key": item.issued_key_id})
            await self._keys.revoke(actor, item.issued_key_id, reason=reason)
            return await self.looked_again(item)
        provisioner, desk = await self.open(item)
        if how is How.DISABLE and not isinstance(provisioner, Disables):
            raise Conflict(f"{provisioner.facts.title} can't switch a key off and on again; `revoke` ends it for good")
        if item.kind is Kind.CONTAINER and (provisioner.facts.lists_keys or await self._beside(item)):
            raise Conflict("Keys are switched off, not what holds them: disable the keys in it, which stand in the inventory themselves")
        await self.recorded(actor, "inventory.disable", item, {"how": how, "reason": reason})
        if how is How.DISABLE and isinstance(provisioner, Disables):
            await self.told(provisioner.set_enabled(desk, item.footprint, enabled=False), "switch it off")
            wanted = {Presence.DISABLED, Presence.GONE, Presence.EXPIRED}
        else:
            there = await self._last_bill.disable(provisioner, desk, [item.footprint])
            for word in (await self._last_bill.read(provisioner, desk, item, there, patient=False)).values():
                if word is not None:
                    await self.recorded(actor, "inventory.disable", item, {"how": how, "last_bill": word})
            await self.told(provisioner.revoke(desk, item.footprint), "revoke it")
            wanted = {Presence.GONE, Presence.EXPIRED}
        after = await self.until(provisioner, desk, item, lambda reading: reading.presence in wanted)
        return await self._on_purpose(actor, after, reason) if Finding.DISABLED in after.findings else after

    async def accept(self, actor: Actor, item_id: str, *, reason: str) -> Item:
        """What is the matter with it now is as it should be. Other terms than agreed become the agreed ones. What is new shows up."""
        require_keys(actor)
        eyes = self.eyes
        async with change(eyes.database, self.audit, actor, "inventory.accept", item_id) as work:
            item = await self.mine(work.connection, actor, item_id, lock=True)
            if not item.matters:
                raise Conflict("Nothing is the matter with it")
            if Finding.MISSING in item.findings:
                raise Conflict(f"A key that is gone can't be accepted: {remedy(Finding.MISSING, stale_days=eyes.stale_days)}")
            taken = await self._terms_taken(work, item) if item.drift else {}
            covered = item.matters - {Finding.DRIFT}  # of which nothing is left: another change at the vendor is another drift
            acceptance = Acceptance(reason, actor.id, eyes.clock.now_ns(), tuple(sorted(covered)))
            detail = {"findings": sorted(item.matters), "reason": reason, **taken}
            await self.audit.record(work, actor, "inventory.accept", item_id, before=drift_record(item.drift), after=detail)
            await eyes.repository.save(work.connection, replace(item, acceptance=acceptance))
            await eyes.assess(work.connection, actor.organization_id, item.account_id, item.vendor)
            return await self.mine(work.connection, actor, item_id)

    async def repair(self, actor: Actor, item_id: str) -> Item:
        """Makes it as agreed again: terms that drifted are set, what was switched off is switched on, what is left over is removed; then
        read back. A key that KeyGate holds back for its budget stays so until the watch has seen the budget as agreed again. Raises
        `UpstreamFailed` where the vendor goes on showing something else."""
        require_keys(actor)
        item = await self.get(actor, item_id)
        if item.standing is Standing.ORPHANED and item.alive:
            await self.recorded(actor, "inventory.repair", item, {"remove": footprint_to_json(item.footprint)})
            await self._swept(item)
            return await self.looked_again(item)
        if item.issued_key_id is None or not ({Finding.DRIFT, Finding.DISABLED} & set(item.findings)):
            hints = "; ".join(self.remedies(item))
            raise Conflict(f"There is nothing that could be repaired{': ' + hints if hints else ''}")
        key = await self._keys.get(actor, item.issued_key_id)
        if key.state not in LIVE:
            raise Conflict(f"The key is {key.state}")
        provisioner, desk = await self.open(item)
        _require_powers(provisioner, item)
        async with self.eyes.database.read() as connection:
            facts = await self.eyes.facts(connection, item.organization_id, item.account_id, item.vendor)
            held_back = key.id in await self.eyes.restraints.restrained(connection, item.organization_id)
        await self.recorded(actor, "inventory.repair", item, {"set": [each.term for each in item.drift]})
        try:
            if item.drift and isinstance(provisioner, SetsTerms):
                await provisioner.set_terms(desk, item.footprint, key.terms)
            else:
                for difference in item.drift:
                    await _set(provisioner, desk, key, item.footprint, Term(difference.term))
            off = Finding.DISABLED in item.findings and not held_back  # KeyGate may have switched it off since
            if off and isinstance(provisioner, Disables):  # last: never with other limits than agreed
                await provisioner.set_enabled(desk, item.footprint, enabled=True)
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor did not take it: {error.detail}") from None

        def agreed(reading: Reading) -> bool:
            read = replace(item, terms=reading.terms, presence=reading.presence)
            works = reading.presence is Presence.LIVE or (held_back and reading.presence is Presence.DISABLED)
            return works and not differences(key, read, facts, held_back=held_back)

        after = await self.until(provisioner, desk, item, agreed)
        if key.state is State.ACTIVE:
            await self._inspection.check(actor, key.id)  # what stands beside the key is told anew, too
        return after

    # Parts

    async def _on_purpose(self, actor: Actor, item: Item, reason: str) -> Item:
        """That it is switched off is as it should be; whatever else is the matter with it stays so."""
        eyes = self.eyes
        async with change(eyes.database, self.audit, actor, "inventory.accept", item.id) as work:
            current = await self.mine(work.connection, actor, item.id, lock=True)
            before = () if current.acceptance is None else current.acceptance.findings
            covered = tuple(sorted({*before, str(Finding.DISABLED)}))
            acceptance = Acceptance(reason or "switched off on purpose", actor.id, eyes.clock.now_ns(), covered)
            detail = {"findings": [str(Finding.DISABLED)], "reason": acceptance.reason}
            await self.audit.record(work, actor, "inventory.accept", item.id, after=detail)
            await eyes.repository.save(work.connection, replace(current, acceptance=acceptance))
            await eyes.assess(work.connection, actor.organization_id, item.account_id, item.vendor)
            return await self.mine(work.connection, actor, item.id)

    async def _beside(self, item: Item) -> bool:
        """Whether the key in this container stands in the inventory by itself."""
        async with self.eyes.database.read() as connection:
            items = await self.eyes.repository.of_account(connection, item.organization_id, item.account_id)
        return item.issued_key_id is not None and any(
            each.kind is Kind.KEY and each.alive and each.issued_key_id == item.issued_key_id for each in items
        )

    async def _swept(self, item: Item) -> None:
        """What is left of a key of ours that has ended is owed: the worker's own cleaning removes it."""
        eyes = self.eyes
        async with eyes.database.unit(item.organization_id) as work:
            key = await eyes.key_rows.get(work.connection, item.organization_id, item.issued_key_id or "", lock=True)
            if key is None or key.state not in ENDED:
                raise Conflict("The key that it is left over from is gone; look again")
            owed = replace(key, owed=True, due_at_ns=eyes.clock.now_ns(), version=key.version + 1)
            await eyes.key_rows.save(work.connection, owed)
        task = self._operations.start(item.organization_id, owed.id)
        await asyncio.wait({task}, timeout=PATIENCE_SECONDS)

    async def _terms_taken(self, work: UnitOfWork, item: Item) -> dict[str, Any]:
        eyes = self.eyes
        key = await eyes.key_rows.get(work.connection, item.organization_id, item.issued_key_id or "", lock=True)
        if key is None or item.terms is None or key.state not in LIVE:
            raise Conflict("The key is not active any more; look again")
        if isinstance(eyes.provisioners[item.vendor], SetsTerms) and not asked(item.terms):
            raise Conflict("The vendor shows rules that KeyGate did not write, so what they allow can't be agreed to here; `repair` it")
        terms = with_terms_of(key.terms, item.terms, item.drift)
        left = {str(term) for term in asked(terms)}
        facts = await eyes.facts(work.connection, item.organization_id, item.account_id, item.vendor)
        told = compare_with(replace(key, terms=terms), item.terms, facts)
        confirmed = {each.term: told[each.term] for each in item.drift if each.term in left}
        kept = {term: standing for term, standing in key.enforcement.items() if term in left}
        after = replace(key, terms=terms, enforcement={**kept, **confirmed}, version=key.version + 1)
        if after.error_code == DRIFTED:
            after = replace(after, error_code=None, error=None)
        after = replace(after, due_at_ns=next_due(after) if after.state is State.ACTIVE else after.due_at_ns)
        if not await eyes.key_rows.save(work.connection, after):
            raise Conflict("The key was just changed; try again")
        return {"key": key.id, "terms": key_record(after)["terms"]}


def _require_powers(provisioner: Provisioner, item: Item) -> None:
    """Everything that has to be set can be set, before the first call."""
    powers = {
        Term.BUDGET: SetsBudget,
        Term.MODELS: SetsModels,
        Term.REQUESTS_PER_MINUTE: SetsLimits,
        Term.TOKENS_PER_MINUTE: SetsLimits,
        Term.EXPIRY: SetsExpiry,
    }
    for difference in () if isinstance(provisioner, SetsTerms) else item.drift:
        power = powers.get(Term(difference.term))
        if power is None or not isinstance(provisioner, power):
            raise Conflict(f"{provisioner.facts.title} has no call to set {difference.term} of a key that exists; rotate it, or accept")
    if Finding.DISABLED in item.findings and not isinstance(provisioner, Disables):
        raise Conflict(f"{provisioner.facts.title} has no call to switch a key on; do it in the vendor's console, or revoke it")


async def _set(provisioner: Provisioner, desk: AdminDesk, key: IssuedKey, footprint: Footprint, term: Term) -> None:
    terms = key.terms
    if term is Term.BUDGET and isinstance(provisioner, SetsBudget):
        await provisioner.set_budget(desk, footprint, terms.budget_nano, terms.budget_period)
    elif term is Term.MODELS and isinstance(provisioner, SetsModels):
        await provisioner.set_models(desk, footprint, terms.models)
    elif term is Term.EXPIRY and isinstance(provisioner, SetsExpiry):
        await provisioner.set_expiry(desk, footprint, terms.expires_at_ns)
    elif isinstance(provisioner, SetsLimits):
        await provisioner.set_limits(desk, footprint, terms)
