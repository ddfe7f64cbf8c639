"""What stands at each vendor against what KeyGate knows: whose it is, whether it is used, and whether its limits are still those that
were set."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import Conflict, InvalidInput, NotFound, UpstreamFailed
from keygate.events import EventOutbox, EventType
from keygate.identities import Actor
from keygate.issued_keys.bench import is_gone, worker_actor
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.life import ENDED, State
from keygate.issued_keys.model import Enforcement, IssuedKey, VendorAccount, compare
from keygate.issued_keys.ports import OwnerDirectory
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.policies import Holder
from keygate.vault import EnvelopeBroken
from keygate.vendors.admin import (
    AdminDesk,
    Disables,
    Footprint,
    Found,
    Lists,
    Presence,
    Provisioner,
    ProvisionerError,
    Reading,
    SetsBudget,
    SetsExpiry,
    SetsLimits,
    SetsModels,
    Term,
)

if TYPE_CHECKING:
    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.issued_keys.inspection_repository import InspectionRepository
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database

_log = logging.getLogger(__name__)

EVERY_NS = 6 * 3_600 * NANOSECONDS  # each active key is read at the vendor so often
AT_ONCE = 20
GONE = "gone_at_vendor"
DRIFTED = "drifted"
_TAG = "kg-"
_MAX_FIND = 500  # pages looked through for one thing


class Whose(StrEnum):
    OURS = "ours"
    ORPHANED = "orphaned"  # ours, ended here, and still alive at the vendor
    FOREIGN_MARK = "foreign_mark"  # carries a mark of KeyGate's that is not in this database: another KeyGate's, or one that was restored
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing at the vendor, judged."""

    found: Found
    whose: Whose
    key: IssuedKey | None
    stale: bool | None  # unused for so long; None: the vendor does not tell
    without_limit: bool | None  # None: not known
    owner_left: bool
    accepted: str | None  # the reason, where somebody accepted it

    @property
    def vendor_id(self) -> str:
        return vendor_id(self.found.footprint)


@dataclass(frozen=True, slots=True)
class Known:
    """Our keys of one account, by what the vendor calls them."""

    by_key: Mapping[str, IssuedKey]
    by_place: Mapping[tuple[str, str], IssuedKey]
    inactive_owners: frozenset[str]
    notes: Mapping[str, str]


def vendor_id(footprint: Footprint) -> str:
    """The vendor's id of a key; of a container its place."""
    if footprint.key is not None:
        return footprint.key[:300]
    return ",".join(f"{name}={value}" for name, value in sorted(footprint.place.items()))[:300]


def known(keys: Sequence[IssuedKey], inactive_owners: frozenset[str], notes: Mapping[str, str]) -> Known:
    by_key: dict[str, IssuedKey] = {}
    by_place: dict[tuple[str, str], IssuedKey] = {}
    shared: set[tuple[str, str]] = set()
    for key in keys:
        for footprint in (key.footprint, None if key.former is None else key.former.footprint):
            if footprint is None:
                continue
            if footprint.key is not None:
                by_key[footprint.key] = key
            for item in () if key.adopted else footprint.place.items():
                if by_place.setdefault(item, key) is not key:
                    shared.add(item)
    return Known(by_key, {item: key for item, key in by_place.items() if item not in shared}, inactive_owners, notes)


def judged(found: Found, ours: Known, *, now_ns: int, stale_days: int) -> Item:
    """Pure: the verdict on one thing."""
    footprint = found.footprint
    key = ours.by_key.get(footprint.key) if footprint.key is not None else None
    if key is None:
        named = {held.id: held for item in footprint.place.items() if (held := ours.by_place.get(item)) is not None}
        own_container = next(iter(named.values())) if len(named) == 1 else None
        # A key in a container of ours that is not ours was made there by somebody else.
        key = own_container if footprint.key is None else None
    whose = Whose.FOREIGN_MARK if key is None and found.name.startswith(_TAG) else Whose.UNKNOWN
    if key is not None:
        whose = Whose.ORPHANED if key.state in ENDED and found.presence is Presence.LIVE else Whose.OURS
    limit_ns = now_ns - stale_days * 86_400 * NANOSECONDS
    used = found.last_used_at_ns if found.last_used_at_ns is not None else found.created_at_ns
    terms = found.terms if key is None else key.terms
    return Item(
        found=found,
        whose=whose,
        key=key,
        stale=None if footprint.key is None or used is None else used < limit_ns,
        without_limit=None if terms is None else terms.budget_nano is None and terms.requests_per_minute is None,
        owner_left=key is not None and key.owner is not None and key.owner.scope_id in ours.inactive_owners,
        accepted=ours.notes.get(vendor_id(footprint)),
    )


class InspectionService:
    def __init__(
        self,
        *,
        database: Database,
        repository: InspectionRepository,
        keys: IssuedKeyRepository,
        accounts: VendorAccountRepository,
        owners: OwnerDirectory,
        desks: Desks,
        audit: AuditLog,
        outbox: EventOutbox,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._keys = keys
        self._accounts = accounts
        self._owners = owners
        self._desks = desks
        self._audit = audit
        self._outbox = outbox
        self._provisioners = provisioners
        self._clock = clock

    async def tick(self) -> None:
        """Reads keys at the vendor that were not read for hours. For the worker."""
        async with self._database.read() as connection:
            due = await self._repository.unread(connection, before_ns=self._clock.now_ns() - EVERY_NS, limit=AT_ONCE)
        for organization_id, key_id in due:
            try:
                await self.check(worker_actor(organization_id), key_id)
            except (UpstreamFailed, Conflict, NotFound, EnvelopeBroken) as error:
                _log.info("issued key %s can't be read at its vendor: %s", key_id, error.detail)

    async def check(self, actor: Actor, key_id: str, *, repair: bool = False) -> IssuedKey:
        """Reads an active key at the vendor: whether it is there, when it was used, and whether its terms are those that were asked
        for. With `repair` terms that differ are set again and read back."""
        async with self._database.read() as connection:
            key = await self._keys.get(connection, actor.organization_id, key_id)
            account = None if key is None else await self._accounts.get(connection, actor.organization_id, key.account_id)
        if key is None:
            raise NotFound("There is no issued key with this id")
        if key.state is not State.ACTIVE or key.footprint is None or account is None:
            raise Conflict(f"The key is {key.state}; only active ones are read")
        provisioner = self._provisioners.get(account.vendor)
        if provisioner is None:
            raise Conflict("This version of KeyGate makes no keys at this vendor")
        desk = await self._desks.open(account)
        try:
            reading = await provisioner.read(desk, key.footprint)
            told = compare(key.terms, reading.terms, provisioner.facts, own_end=key.adopted)
            differing = {term for term, standing in told.items() if standing is Enforcement.DIFFERS}
            if repair and differing and not is_gone(reading):
                await self._repair(provisioner, desk, key, differing)
                reading = await provisioner.read(desk, key.footprint)
                told = compare(key.terms, reading.terms, provisioner.facts, own_end=key.adopted)
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor did not do its part: {error.detail}") from None
        return await self._noted(actor, key, reading, told, repaired=differing if repair else set())

    async def page(self, actor: Actor, account_id: str, *, cursor: str | None, stale_days: int) -> tuple[list[Item], str | None]:
        """One page of what stands at the vendor, judged; asked of the vendor each time."""
        account, provisioner = await self._lister(actor, account_id)
        desk = await self._desks.open(account)
        try:
            found, following = await provisioner.list_page(desk, cursor)
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor can't be listed: {error.detail}") from None
        ours = await self._known(actor, account)
        now = self._clock.now_ns()
        return [judged(each, ours, now_ns=now, stale_days=stale_days) for each in found], following

    async def accept(self, actor: Actor, account_id: str, thing: str, *, reason: str) -> None:
        """Somebody has looked at it and knows why it is there."""
        if not reason.strip():
            raise InvalidInput("reason: say why", field="reason")
        async with self._database.unit(actor.organization_id) as work:
            if await self._accounts.get(work.connection, actor.organization_id, account_id) is None:
                raise NotFound("There is no vendor account with this id")
            await self._audit.record(work, actor, "inventory.accept", account_id, after={"vendor_id": thing, "reason": reason})
            await self._repository.note(
                work.connection, actor.organization_id, account_id, thing, reason=reason, by=actor.id, at_ns=self._clock.now_ns()
            )

    async def disable(self, actor: Actor, account_id: str, thing: str) -> None:
        """Switches off a key that is not ours, where the vendor can. Ours are revoked under `/keys`."""
        account, provisioner = await self._lister(actor, account_id)
        if not isinstance(provisioner, Disables):
            raise Conflict("This vendor's API can't switch a key off; do it in the vendor's console")
        desk = await self._desks.open(account)
        ours = await self._known(actor, account)
        try:
            found = await self._find(provisioner, desk, thing)
            item = judged(found, ours, now_ns=self._clock.now_ns(), stale_days=1)
            if item.key is not None and item.whose is Whose.OURS:
                raise Conflict(f"This is {item.key.id}, a key of KeyGate's; revoke it instead")
            async with self._database.unit(actor.organization_id) as work:
                await self._audit.record(work, actor, "inventory.disable", account_id, after={"vendor_id": thing, "name": found.name})
            await provisioner.set_enabled(desk, found.footprint, enabled=False)
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor did not switch it off: {error.detail}") from None

    async def look(self, actor: Actor, account_id: str, thing: str) -> tuple[VendorAccount, Item]:
        """One thing at the vendor, judged. Raises `NotFound` where the vendor has none of this id."""
        account, provisioner = await self._lister(actor, account_id)
        ours = await self._known(actor, account)
        try:
            found = await self._find(provisioner, await self._desks.open(account), thing)
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor can't be listed: {error.detail}") from None
        return account, judged(found, ours, now_ns=self._clock.now_ns(), stale_days=1)

    async def _find(self, provisioner: Lists, desk: AdminDesk, thing: str) -> Found:
        cursor: str | None = None
        for _ in range(_MAX_FIND):
            page, cursor = await provisioner.list_page(desk, cursor)
            for each in page:
                if vendor_id(each.footprint) == thing:
                    return each
            if cursor is None:
                break
        raise NotFound("There is nothing with this id at the vendor")

    async def _lister(self, actor: Actor, account_id: str) -> tuple[VendorAccount, Lists]:
        async with self._database.read() as connection:
            account = await self._accounts.get(connection, actor.organization_id, account_id)
        if account is None:
            raise NotFound("There is no vendor account with this id")
        provisioner: object = self._provisioners.get(account.vendor)
        if not isinstance(provisioner, Lists):
            raise Conflict("This vendor's API lists nothing, or KeyGate can't read it yet")
        return account, provisioner

    async def _known(self, actor: Actor, account: VendorAccount) -> Known:
        async with self._database.read() as connection:
            keys = await self._repository.keys_of(connection, actor.organization_id, account.id)
            notes = await self._repository.notes(connection, actor.organization_id, account.id)
            ids = sorted({key.owner.scope_id for key in keys if key.owner is not None})
            holders: dict[str, Holder] = {}
            for start in range(0, len(ids), 500):
                holders.update(await self._owners.holders(connection, actor.organization_id, ids[start : start + 500]))
        left = frozenset(owner_id for owner_id in ids if owner_id not in holders or not holders[owner_id].active)
        return known(keys, left, notes)

    async def _repair(self, provisioner: Provisioner, desk: AdminDesk, key: IssuedKey, differing: set[str]) -> None:
        terms, footprint = key.terms, key.footprint or Footprint()
        power: object = provisioner
        if Term.BUDGET in differing and isinstance(power, SetsBudget):
            await power.set_budget(desk, footprint, terms.budget_nano, terms.budget_period)
        if Term.MODELS in differing and isinstance(power, SetsModels):
            await power.set_models(desk, footprint, terms.models)
        if differing & {Term.REQUESTS_PER_MINUTE, Term.TOKENS_PER_MINUTE} and isinstance(power, SetsLimits):
            await power.set_limits(desk, footprint, terms)
        if Term.EXPIRY in differing and isinstance(power, SetsExpiry):
            await power.set_expiry(desk, footprint, terms.expires_at_ns)

    async def _noted(
        self, actor: Actor, key: IssuedKey, reading: Reading, told: Mapping[str, Enforcement], *, repaired: set[str]
    ) -> IssuedKey:
        now = self._clock.now_ns()
        differing = sorted(term for term, standing in told.items() if standing is Enforcement.DIFFERS)
        code, error = None, None
        if is_gone(reading):
            code, error = GONE, "The vendor shows the key as gone: somebody ended it there. Revoke it here, or make a new one"
        elif differing:
            code, error = DRIFTED, f"Somebody changed {', '.join(differing)} at the vendor; repair it, or make it what it should be"
        async with self._database.unit(key.organization_id) as work:
            current = await self._keys.get(work.connection, key.organization_id, key.id, lock=True)
            if current is None or current.state is not State.ACTIVE:
                raise Conflict("The key was changed meanwhile; read it again")
            after = replace(
                current,
                enforcement=dict(told) if not is_gone(reading) else current.enforcement,
                last_used_at_ns=reading.last_used_at_ns or current.last_used_at_ns,
                read_at_ns=now,
                error_code=code,
                error=error,
                version=current.version + 1,
            )
            if repaired:
                await self._audit.record(
                    work, actor, "issued_key.repair", key.id, after={"terms": sorted(repaired), "differing": differing}
                )
            if code is not None and current.error_code != code:
                await self._audit.record(work, actor, "issued_key.drift", key.id, after={"found": code, "differing": differing})
                payload = {"vendor": key.vendor, "name": key.name, "detail": error}
                await self._outbox.raise_event(work, key.organization_id, EventType.ISSUED_KEY_DRIFTED, key.id, payload)
            await self._keys.save(work.connection, after)
        return after
