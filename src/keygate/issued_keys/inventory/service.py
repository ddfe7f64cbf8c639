"""Use cases of the inventory: what stands where, and what is done about it. Each is audited before the vendor is called, and what the
vendor then shows is what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from keygate.audit import AuditLog
from keygate.errors import Conflict, InvalidInput, NotFound, UpstreamFailed
from keygate.identities import Actor
from keygate.issued_keys.bench import title
from keygate.issued_keys.inventory.assessment import Eyes
from keygate.issued_keys.inventory.judging import differences, enforced, with_terms_of
from keygate.issued_keys.inventory.model import (
    MAX_REMINDERS,
    REMEDY,
    REMIND_DAYS,
    Acceptance,
    Difference,
    Finding,
    Item,
    Kind,
    Scan,
    Standing,
    Summary,
    Wanted,
)
from keygate.issued_keys.inventory.scanning import Scanner
from keygate.issued_keys.life import ENDED, LIVE, State
from keygate.issued_keys.making import next_due
from keygate.issued_keys.model import Enforcement, IssuedKey, asked
from keygate.issued_keys.operations import Operations
from keygate.issued_keys.ports import OwnerDirectory
from keygate.issued_keys.records import footprint_to_json, key_record
from keygate.issued_keys.service import IssuedKeyService
from keygate.kit.ids import new_id
from keygate.policies import Place, change
from keygate.vendors.admin import (
    AdminDesk,
    Disables,
    Footprint,
    Lists,
    Presence,
    Provisioner,
    ProvisionerError,
    Reading,
    Renames,
    SetsBudget,
    SetsExpiry,
    SetsLimits,
    SetsModels,
    Term,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.kit.database import UnitOfWork

_POLL_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)  # a vendor's own reads may lag behind its writes
PATIENCE_SECONDS = 30.0


class How(StrEnum):
    DISABLE = "disable"  # can be taken back
    REVOKE = "revoke"  # for good


@dataclass(frozen=True, slots=True)
class Adoption:
    owner: Place | None
    name: str | None = None
    expires_at_ns: int | None = None
    remind_days: Sequence[int] = REMIND_DAYS
    rename: bool = True


@dataclass(frozen=True, slots=True)
class Adopted:
    item: Item
    key: IssuedKey
    renamed: bool
    note: str | None = None


class InventoryService:
    def __init__(
        self,
        eyes: Eyes,
        *,
        scanner: Scanner,
        keys: IssuedKeyService,
        operations: Operations,
        owners: OwnerDirectory,
        audit: AuditLog,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._eyes = eyes
        self._scanner = scanner
        self._keys = keys
        self._operations = operations
        self._owners = owners
        self._audit = audit
        self._sleep = sleep

    # What there is

    async def page(self, actor: Actor, wanted: Wanted, *, after: str | None, limit: int) -> list[Item]:
        if actor.only_own:
            return []
        async with self._eyes.database.read() as connection:
            return await self._eyes.repository.page(connection, actor.organization_id, wanted, after=after, limit=limit)

    async def get(self, actor: Actor, item_id: str) -> Item:
        async with self._eyes.database.read() as connection:
            return await self._mine(connection, actor, item_id)

    async def summaries(self, actor: Actor) -> list[Summary]:
        if actor.only_own:
            return []
        async with self._eyes.database.read() as connection:
            return await self._eyes.repository.summaries(connection, actor.organization_id)

    async def scans(self, actor: Actor, *, before: str | None, limit: int) -> list[Scan]:
        if actor.only_own:
            return []
        async with self._eyes.database.read() as connection:
            return await self._eyes.repository.scans(connection, actor.organization_id, before=before, limit=limit)

    async def scan(self, actor: Actor, account_id: str | None) -> list[Scan]:
        """Begins a scan of this account, or of all; the worker does it. One that is going on already is told instead."""
        eyes = self._eyes
        async with change(eyes.database, self._audit, actor, "inventory.scan", account_id or "all") as work:
            accounts = await eyes.accounts.all(work.connection, actor.organization_id)
            chosen = [account for account in accounts if account_id in {None, account.id, account.name}]
            if not chosen:
                raise NotFound("There is no vendor account with this id" if account_id else "There is no vendor account yet")
            begun = [
                await self._scanner.begin(work.connection, actor.organization_id, account.id, account.vendor, asked_by=actor.id)
                for account in chosen
                if isinstance(eyes.provisioners.get(account.vendor), Lists)
            ]
            if not begun:
                raise Conflict("This vendor's API lists nothing; its keys are entered by hand")
            await self._audit.record(work, actor, "inventory.scan", account_id or "all", after={"scans": [scan.id for scan in begun]})
        return begun

    # What is done about it

    async def adopt(self, actor: Actor, item_id: str, adoption: Adoption) -> Adopted:
        """A key that somebody made by hand becomes one that KeyGate watches: it has an owner, an end that KeyGate keeps, and reminders; it
        is revoked with its owner. Its secret stays with whoever has it. Raises `Conflict` for what is ours already or can't be adopted."""
        eyes = self._eyes
        days = sorted(set(adoption.remind_days))
        if len(days) > MAX_REMINDERS or any(not 0 <= day <= 365 for day in days):
            raise InvalidInput(f"remind_days: at most {MAX_REMINDERS}, from 0 to 365", field="remind_days")
        now = eyes.clock.now_ns()
        if adoption.expires_at_ns is not None and adoption.expires_at_ns <= now:
            raise InvalidInput("expires_at: must lie in the future", field="expires_at")
        item = await self.get(actor, item_id)
        _require_adoptable(item)
        provisioner, desk = await self._open(item)
        reading = await self._told(provisioner.read(desk, item.footprint), "read the key")
        if reading.presence not in {Presence.LIVE, Presence.DISABLED}:
            raise Conflict(f"The vendor shows the key as {reading.presence} by now")
        async with change(eyes.database, self._audit, actor, "inventory.adopt", item_id) as work:
            item = await self._mine(work.connection, actor, item_id, lock=True)
            _require_adoptable(item)
            name = adoption.name or item.name
            if adoption.owner is not None:
                name = await self._owner_name(work.connection, actor, adoption.owner) if adoption.name is None else name
            key = _adopted_key(actor, item, adoption, reading, provisioner, name=name[:200], now=now)
            await self._audit.record(work, actor, "inventory.adopt", item_id, after={**key_record(key), "key": key.id})
            await eyes.key_rows.add(work.connection, key)
            await eyes.repository.set_reminders(work.connection, actor.organization_id, key.id, days)
            seen = replace(item, terms=reading.terms, presence=reading.presence, read_at_ns=now)
            await eyes.repository.save(work.connection, seen)
            await eyes.assess(work.connection, actor.organization_id, item.account_id, item.vendor)
        renamed, note = await self._renamed(actor, item, key, provisioner, desk) if adoption.rename else (False, None)
        return Adopted(await self.get(actor, item_id), key, renamed, note)

    async def disable(self, actor: Actor, item_id: str, *, how: How, reason: str, insist: bool = False) -> Item:
        """Switches a key off at the vendor, or ends it there for good. What carries the mark of another KeyGate only with `insist`."""
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
            await self._recorded(actor, "inventory.disable", item, {"how": how, "reason": reason, "key": item.issued_key_id})
            await self._keys.revoke(actor, item.issued_key_id, reason=reason)
            return await self._looked_again(item)
        provisioner, desk = await self._open(item)
        if how is How.DISABLE and not isinstance(provisioner, Disables):
            raise Conflict(f"{provisioner.facts.title} can't switch a key off and on again; `revoke` ends it for good")
        await self._recorded(actor, "inventory.disable", item, {"how": how, "reason": reason})
        if how is How.DISABLE and isinstance(provisioner, Disables):
            await self._told(provisioner.set_enabled(desk, item.footprint, enabled=False), "switch it off")
            wanted = {Presence.DISABLED, Presence.GONE, Presence.EXPIRED}
        else:
            await self._told(provisioner.revoke(desk, item.footprint), "revoke it")
            wanted = {Presence.GONE, Presence.EXPIRED}
        after = await self._until(provisioner, desk, item, lambda reading: reading.presence in wanted)
        if item.issued_key_id is not None:
            return await self.accept(actor, item_id, reason=reason or "switched off on purpose")
        return after

    async def accept(self, actor: Actor, item_id: str, *, reason: str) -> Item:
        """What is the matter with it now is as it should be. Other terms than agreed become the agreed ones. What is new shows up."""
        eyes = self._eyes
        async with change(eyes.database, self._audit, actor, "inventory.accept", item_id) as work:
            item = await self._mine(work.connection, actor, item_id, lock=True)
            if not item.matters:
                raise Conflict("Nothing is the matter with it")
            if Finding.MISSING in item.findings:
                raise Conflict(f"A key that is gone can't be accepted: {REMEDY[Finding.MISSING]}")
            taken = await self._terms_taken(work, item) if item.drift else {}
            acceptance = Acceptance(reason, actor.id, eyes.clock.now_ns(), tuple(sorted(item.matters)))
            detail = {"findings": list(acceptance.findings), "reason": reason, **taken}
            await self._audit.record(work, actor, "inventory.accept", item_id, before=_drift(item.drift), after=detail)
            await eyes.repository.save(work.connection, replace(item, acceptance=acceptance))
            await eyes.assess(work.connection, actor.organization_id, item.account_id, item.vendor)
            return await self._mine(work.connection, actor, item_id)

    async def repair(self, actor: Actor, item_id: str) -> Item:
        """Makes it as agreed again: terms that drifted are set, what was switched off is switched on, what is left over is removed; then
        read back. Raises `UpstreamFailed` where the vendor goes on showing something else."""
        item = await self.get(actor, item_id)
        if item.standing is Standing.ORPHANED and item.alive:
            await self._recorded(actor, "inventory.repair", item, {"remove": footprint_to_json(item.footprint)})
            await self._swept(item)
            return await self._looked_again(item)
        if item.issued_key_id is None or not ({Finding.DRIFT, Finding.DISABLED} & set(item.findings)):
            hints = "; ".join(REMEDY[finding] for finding in item.findings)
            raise Conflict(f"There is nothing that could be repaired{': ' + hints if hints else ''}")
        key = await self._keys.get(actor, item.issued_key_id)
        if key.state not in LIVE:
            raise Conflict(f"The key is {key.state}")
        provisioner, desk = await self._open(item)
        _require_powers(provisioner, item)
        await self._recorded(actor, "inventory.repair", item, {"set": [each.term for each in item.drift]})
        try:
            if Finding.DISABLED in item.findings and isinstance(provisioner, Disables):
                await provisioner.set_enabled(desk, item.footprint, enabled=True)
            for difference in item.drift:
                await _set(provisioner, desk, key, item.footprint, Term(difference.term))
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor did not take it: {error.detail}") from None

        def agreed(reading: Reading) -> bool:
            read = replace(item, terms=reading.terms, presence=reading.presence)
            return reading.presence is Presence.LIVE and not differences(key, read, provisioner.facts)

        return await self._until(provisioner, desk, item, agreed)

    # Parts

    async def _open(self, item: Item) -> tuple[Provisioner, AdminDesk]:
        async with self._eyes.database.read() as connection:
            account = await self._eyes.accounts.get(connection, item.organization_id, item.account_id)
        provisioner = self._eyes.provisioners.get(item.vendor)
        if account is None or provisioner is None:
            raise Conflict("The vendor account that it was found with is gone; configure it again")
        return provisioner, await self._eyes.desks.open(account)

    async def _told(self, call: Awaitable[Any], what: str) -> Any:
        try:
            return await call
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor did not {what}: {error.detail}") from None

    async def _recorded(self, actor: Actor, action: str, item: Item, detail: dict[str, Any]) -> None:
        """Before the effect: what can't be recorded doesn't happen."""
        async with self._eyes.database.unit() as work:
            told = {"vendor": item.vendor, "name": item.name, "at_vendor": footprint_to_json(item.footprint), **detail}
            await self._audit.record(
                work, actor, action, item.id, before={"findings": list(item.findings), **_drift(item.drift)}, after=told
            )

    async def _until(self, provisioner: Provisioner, desk: AdminDesk, item: Item, holds: Callable[[Reading], bool]) -> Item:
        """Reads until the vendor shows what was asked for, and saves what it shows. Raises `UpstreamFailed` where it never does."""
        for pause in (*_POLL_SECONDS, None):
            reading: Reading = await self._told(provisioner.read(desk, item.footprint), "read it back")
            if holds(reading) or pause is None:
                break
            await self._sleep(pause)
        after = await self._saved(item, reading)
        if not holds(reading):
            raise UpstreamFailed("The vendor took the call, but still shows it as before; look again in a moment")
        return after

    async def _saved(self, item: Item, reading: Reading) -> Item:
        eyes = self._eyes
        async with eyes.database.unit() as work:
            current = await eyes.repository.get(work.connection, item.organization_id, item.id, lock=True) or item
            terms = current.terms if reading.presence is Presence.GONE else reading.terms
            after = replace(current, presence=reading.presence, terms=terms, read_at_ns=eyes.clock.now_ns())
            await eyes.repository.save(work.connection, after)
            await eyes.assess(work.connection, item.organization_id, item.account_id, item.vendor)
            return await eyes.repository.get(work.connection, item.organization_id, item.id) or after

    async def _looked_again(self, item: Item) -> Item:
        provisioner, desk = await self._open(item)
        return await self._saved(item, await self._told(provisioner.read(desk, item.footprint), "read it back"))

    async def _swept(self, item: Item) -> None:
        """What is left of a key of ours that has ended is owed: the worker's own cleaning removes it."""
        eyes = self._eyes
        async with eyes.database.unit() as work:
            key = await eyes.key_rows.get(work.connection, item.organization_id, item.issued_key_id or "", lock=True)
            if key is None or key.state not in ENDED:
                raise Conflict("The key that it is left over from is gone; look again")
            owed = replace(key, owed=True, due_at_ns=eyes.clock.now_ns(), version=key.version + 1)
            await eyes.key_rows.save(work.connection, owed)
        task = self._operations.start(item.organization_id, owed.id)
        await asyncio.wait({task}, timeout=PATIENCE_SECONDS)

    async def _terms_taken(self, work: UnitOfWork, item: Item) -> dict[str, Any]:
        eyes = self._eyes
        key = await eyes.key_rows.get(work.connection, item.organization_id, item.issued_key_id or "", lock=True)
        if key is None or item.terms is None or key.state not in LIVE:
            raise Conflict("The key is not active any more; look again")
        terms = with_terms_of(key.terms, item.terms, item.drift)
        left = {str(term) for term in asked(terms)}
        confirmed = {each.term: Enforcement.CONFIRMED for each in item.drift if each.term in left}
        kept = {term: standing for term, standing in key.enforcement.items() if term in left}
        after = replace(key, terms=terms, enforcement={**kept, **confirmed}, version=key.version + 1)
        after = replace(after, due_at_ns=next_due(after) if after.state is State.ACTIVE else after.due_at_ns)
        if not await eyes.key_rows.save(work.connection, after):
            raise Conflict("The key was just changed; try again")
        return {"key": key.id, "terms": key_record(after)["terms"]}

    async def _renamed(
        self, actor: Actor, item: Item, key: IssuedKey, provisioner: Provisioner, desk: AdminDesk
    ) -> tuple[bool, str | None]:
        """Gives it a name at the vendor that carries our mark, where that renames nothing else."""
        if not isinstance(provisioner, Renames):
            return False, f"{provisioner.facts.title} has no names that could be changed"
        async with self._eyes.database.read() as connection:
            items = await self._eyes.repository.of_account(connection, item.organization_id, item.account_id)
        beside = [
            each for each in items if each.kind is Kind.KEY and each.alive and each.id != item.id and _same_container(each, item, items)
        ]
        if beside:
            return False, f"not renamed: {len(beside)} other keys stand in the same {provisioner.facts.container or 'place'}"
        name = f"{key.mark.tag} {title(key.name)}"
        await self._recorded(actor, "inventory.rename", item, {"name": name})
        try:
            await provisioner.rename(desk, item.footprint, name)
        except ProvisionerError as error:
            return False, f"not renamed: {error.detail}"
        return True, None

    async def _owner_name(self, connection: AsyncConnection, actor: Actor, owner: Place) -> str:
        holder = (await self._owners.holders(connection, actor.organization_id, [owner.scope_id])).get(owner.scope_id)
        field = f"{owner.scope}_id"
        if holder is None or holder.scope is not owner.scope:
            raise InvalidInput(f"{field}: there is no {owner.scope} with this id", field=field)
        if not holder.active:
            raise InvalidInput(f"{field}: this {owner.scope} is no longer active", field=field)
        return holder.name

    async def _mine(self, connection: AsyncConnection, actor: Actor, item_id: str, *, lock: bool = False) -> Item:
        item = None if actor.only_own else await self._eyes.repository.get(connection, actor.organization_id, item_id, lock=lock)
        if item is None:
            raise NotFound("There is nothing with this id in the inventory")
        return item


def _require_adoptable(item: Item) -> None:
    if item.kind is not Kind.KEY:
        raise Conflict("Only keys are adopted; this is what holds them")
    if not item.alive:
        raise Conflict(f"The vendor shows it as {item.presence}")
    if item.standing is not Standing.UNKNOWN or not item.judged:
        raise Conflict(f"It is {item.standing} already")
    if Finding.FOREIGN in item.findings:
        raise Conflict("It carries the mark of another KeyGate, which watches it")


def _require_powers(provisioner: Provisioner, item: Item) -> None:
    """Everything that has to be set can be set, before the first call."""
    powers = {
        Term.BUDGET: SetsBudget,
        Term.MODELS: SetsModels,
        Term.REQUESTS_PER_MINUTE: SetsLimits,
        Term.TOKENS_PER_MINUTE: SetsLimits,
        Term.EXPIRY: SetsExpiry,
    }
    for difference in item.drift:
        power = powers.get(Term(difference.term))
        if power is None or not isinstance(provisioner, power):
            raise Conflict(f"{provisioner.facts.title} has no call to set {difference.term} of a key that exists; rotate it, or accept")
    if Finding.DISABLED in item.findings and not isinstance(provisioner, Disables):
        raise Conflict(f"{provisioner.facts.title} has no call to switch a key on; do it in the vendor's console, or revoke it")


async def _set(provisioner: Provisioner, desk: AdminDesk, key: IssuedKey, footprint: Footprint, term: Term) -> None:
    terms = enforced(key)
    if term is Term.BUDGET and isinstance(provisioner, SetsBudget):
        await provisioner.set_budget(desk, footprint, terms.budget_nano, terms.budget_period)
    elif term is Term.MODELS and isinstance(provisioner, SetsModels):
        await provisioner.set_models(desk, footprint, terms.models)
    elif term is Term.EXPIRY and isinstance(provisioner, SetsExpiry):
        await provisioner.set_expiry(desk, footprint, terms.expires_at_ns)
    elif isinstance(provisioner, SetsLimits):
        await provisioner.set_limits(desk, footprint, terms)


def _adopted_key(
    actor: Actor, item: Item, adoption: Adoption, reading: Reading, provisioner: Provisioner, *, name: str, now: int
) -> IssuedKey:
    facts = provisioner.facts
    ends = [moment for moment in (adoption.expires_at_ns, reading.terms.expires_at_ns) if moment is not None]
    terms = replace(reading.terms, expires_at_ns=min(ends, default=None))
    enforcement = {str(term): Enforcement.CONFIRMED for term in asked(reading.terms) if term in facts.confirms}
    if terms.expires_at_ns is not None and terms.expires_at_ns != reading.terms.expires_at_ns:
        enforcement[str(Term.EXPIRY)] = Enforcement.NOT_ENFORCED  # KeyGate's own sweep revokes it then
    key = IssuedKey(
        id=new_id("ik"),
        organization_id=item.organization_id,
        vendor=item.vendor,
        account_id=item.account_id,
        name=name,
        owner=adoption.owner,
        state=State.ACTIVE,
        generation=1,
        terms=terms,
        options={},
        created_at_ns=now,
        created_by=actor.id,
        enforcement=enforcement,
        footprint=item.footprint,
        hint=None if item.hint is None else f"…{item.hint[-4:]}",
        activated_at_ns=now,
        last_used_at_ns=reading.last_used_at_ns,
        read_at_ns=now,
        adopted=True,
    )
    return replace(key, due_at_ns=next_due(key))


def _same_container(one: Item, other: Item, items: Sequence[Item]) -> bool:
    """Whether both keys stand in one container that the vendor lists; where it lists none, in no shared one."""
    containers = [each.footprint.place for each in items if each.kind is Kind.CONTAINER]
    mine = [place for place in containers if place.items() <= other.footprint.place.items()]
    return any(place.items() <= one.footprint.place.items() for place in mine)


def _drift(drift: Sequence[Difference]) -> dict[str, Any]:
    return {"drift": [{"term": each.term, "agreed": each.agreed, "found": each.found} for each in drift]} if drift else {}
