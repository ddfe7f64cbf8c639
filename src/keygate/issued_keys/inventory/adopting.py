"""Adopting: a key that somebody made by hand becomes one that KeyGate watches and ends."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog, digest_secret
from keygate.errors import Conflict, InvalidInput
from keygate.identities import Actor
from keygate.issued_keys.accounts import VendorAccountService
from keygate.issued_keys.bench import known_secret, title
from keygate.issued_keys.inventory.assessment import Eyes
from keygate.issued_keys.inventory.hands import Hands, require_keys
from keygate.issued_keys.inventory.model import MAX_REMINDERS, REMIND_DAYS, Finding, Item, Kind, Standing, identity_of
from keygate.issued_keys.inventory.ports import GatewaySecrets
from keygate.issued_keys.life import State
from keygate.issued_keys.making import next_due
from keygate.issued_keys.model import ADOPTED, IssuedKey, VendorAccount, compare
from keygate.issued_keys.ports import OwnerDirectory
from keygate.issued_keys.records import key_record
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret
from keygate.policies import Place, change
from keygate.vendors.admin import (
    ADOPTIONS,
    AdminDesk,
    Footprint,
    Presence,
    Provisioner,
    ProvisionerError,
    Reading,
    Renames,
    Terms,
    why_none,
)

_SHOWN = 4  # letters of a secret that vendors show at the end of their hint
_END = re.compile(r"[A-Za-z0-9_-]{4}")

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.kit.database import UnitOfWork


@dataclass(frozen=True, slots=True)
class Adoption:
    owner: Place | None
    name: str | None = None
    expires_at_ns: int | None = None
    remind_days: Sequence[int] = REMIND_DAYS
    rename: bool = True
    secret: Secret | None = None  # compared with what the vendor shows of it, kept as a digest only: so that a leak report finds the key


@dataclass(frozen=True, slots=True)
class Adopted:
    item: Item
    key: IssuedKey
    renamed: bool
    note: str | None = None
    checklist: Sequence[str] = ()  # of a rotation by hand


class AdoptionService(Hands):
    def __init__(
        self,
        eyes: Eyes,
        *,
        accounts: VendorAccountService,
        owners: OwnerDirectory,
        gateway: GatewaySecrets,
        digest_key: bytes,
        audit: AuditLog,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(eyes, audit=audit, sleep=sleep)
        self._accounts = accounts
        self._owners = owners
        self._gateway = gateway
        self._digest_key = digest_key

    async def adopt(self, actor: Actor, item_id: str, adoption: Adoption) -> Adopted:
        """A key that somebody made by hand becomes one that KeyGate watches: it has an owner, an end that KeyGate keeps, and reminders; it
        is revoked with its owner. Its secret stays with whoever has it. Raises `Conflict` for what is ours already or can't be adopted."""
        require_keys(actor)
        eyes = self.eyes
        now = eyes.clock.now_ns()
        _check(adoption, now)
        item = await self.get(actor, item_id)
        _require_adoptable(item)
        provisioner, desk = await self.open(item)
        if not provisioner.facts.adopts:
            raise Conflict(f"Keys of {provisioner.facts.title} can't be adopted: ending one there may end others too")
        secret, digest = adoption.secret, None
        if secret is not None:
            if not _fits(secret, item.hint):
                raise InvalidInput("key: its end is not what the vendor shows of this key", field="key")
            digest = digest_secret(secret, self._digest_key)
        reading = await self.told(provisioner.read(desk, item.footprint), "read the key")
        if reading.presence not in {Presence.LIVE, Presence.DISABLED}:
            raise Conflict(f"The vendor shows the key as {reading.presence} by now")
        claim = f"{item.vendor}:{item.footprint.key}"
        async with change(eyes.database, self.audit, actor, "inventory.adopt", item_id) as work:
            item = await self.mine(work.connection, actor, item_id, lock=True)
            _require_adoptable(item)
            await self._require_free(work, actor, claim)
            await self._require_not_served(work, actor, item, digest)
            name = await self._named(work.connection, actor, adoption, item.name)
            key = _adopted_key(actor, item, adoption, reading, provisioner, name=name, now=now, claim=claim)
            await self._keep(work, actor, key, adoption, target=item_id, digest=digest)
            seen = replace(item, terms=reading.terms, presence=reading.presence, read_at_ns=now)
            await eyes.repository.save(work.connection, seen)
            await eyes.assess(work.connection, actor.organization_id, item.account_id, item.vendor)
        renamed, note = await self._renamed(actor, item, key, provisioner, desk) if adoption.rename else (False, None)
        return Adopted(await self.get(actor, item_id), key, renamed, note)

    async def enter(self, actor: Actor, *, vendor: str, secret: Secret, settings: Mapping[str, str], adoption: Adoption) -> Adopted:
        """A key of a vendor that has no API for keys. It is tried there, then kept, sealed: with itself KeyGate asks whether it still
        lives, and calls it revoked only once the vendor refuses it; ending it is up to a person. Raises `InvalidInput` for a key that the
        vendor does not take, `Conflict` for one that is here already."""
        require_keys(actor)
        eyes = self.eyes
        provisioner = eyes.provisioners.get(vendor)
        if provisioner is None:
            if (why := why_none(vendor)) is not None:
                raise Conflict(why, field="vendor")
            raise InvalidInput("vendor: not one whose keys KeyGate knows", field="vendor")
        if not provisioner.facts.adopt_only:
            raise Conflict(f"{provisioner.facts.title}'s keys are found in the inventory: adopt it there", field="vendor")
        now = eyes.clock.now_ns()
        _check(adoption, now)
        digest = digest_secret(secret, self._digest_key)
        claim = f"{vendor}:{digest}"  # its secret is all that is known of it
        async with eyes.database.read() as connection:
            known = await eyes.key_rows.claimed(connection, actor.organization_id, claim)
            await self._named(connection, actor, adoption, "")
        if known is not None:
            raise Conflict(f"This key is here already: {known}")
        try:
            account = await self._accounts.configure(
                actor, vendor=vendor, name=f"by-hand-{secrets.token_hex(4)}", admin_key=secret, settings=settings, by_hand=True
            )
        except InvalidInput as error:  # the key that was entered is its own admin credential
            if error.field != "admin_key":
                raise
            raise InvalidInput(error.detail.replace("admin_key:", "key:", 1), field="key") from None
        item = _entered(account, now)
        reading = Reading(Presence.LIVE)
        try:
            async with change(eyes.database, self.audit, actor, "inventory.adopt", item.id) as work:
                await self._require_free(work, actor, claim)
                name = await self._named(work.connection, actor, adoption, f"{provisioner.facts.title} {account.hint}")
                named = replace(item, name=name)
                key = _adopted_key(actor, named, adoption, reading, provisioner, name=name, now=now, claim=claim)
                await self._keep(work, actor, key, adoption, target=item.id, digest=digest)
                await eyes.repository.add(work.connection, named)
                await eyes.assess(work.connection, actor.organization_id, account.id, vendor)
        except Conflict:  # somebody else has just entered it: this account of it would lie there for nothing
            await self._accounts.delete(actor, account.id)
            raise
        return Adopted(await self.get(actor, item.id), key, renamed=False, checklist=ADOPTIONS[vendor].checklist)

    async def _require_free(self, work: UnitOfWork, actor: Actor, claim: str) -> None:
        """One key at the vendor is one key here, also where two of its accounts show it; the database holds that too (`claim`)."""
        known = await self.eyes.key_rows.claimed(work.connection, actor.organization_id, claim)
        if known is not None:
            raise Conflict(f"This key is here already: {known}")

    async def _require_not_served(self, work: UnitOfWork, actor: Actor, item: Item, digest: str | None) -> None:
        """A key that serves the gateway is counted there; adopted, its vendor's bill would count the same once more."""
        end = (item.hint or "")[-_SHOWN:]
        if digest is None and not _END.fullmatch(end):
            return
        name = await self._gateway.credential_with(work.connection, actor.organization_id, digest=digest, hint=f"…{end}")
        if name is not None and digest is not None:
            raise Conflict(f"It is the gateway's credential {name}: what it spends is counted there, and would be counted twice")
        if name is not None:
            raise Conflict(
                f"It ends as the gateway's credential {name} does, whose spend is counted there and would be counted twice; if it is "
                "another key, send its secret with it (`key`)"
            )

    async def _keep(self, work: UnitOfWork, actor: Actor, key: IssuedKey, adoption: Adoption, *, target: str, digest: str | None) -> None:
        await self.audit.record(work, actor, "inventory.adopt", target, after={**key_record(key), "key": key.id})
        await self.eyes.key_rows.add(work.connection, key)
        if digest is not None:
            await self.eyes.key_rows.note_secret(work.connection, known_secret(key, digest, key.created_at_ns))
        await self.eyes.repository.set_reminders(work.connection, actor.organization_id, key.id, adoption.remind_days)

    async def _named(self, connection: AsyncConnection, actor: Actor, adoption: Adoption, otherwise: str) -> str:
        """What the key is called here. Raises for an owner who is not there."""
        owner = None if adoption.owner is None else await self._owner_name(connection, actor, adoption.owner)
        return (adoption.name or owner or otherwise)[:200]

    async def _renamed(
        self, actor: Actor, item: Item, key: IssuedKey, provisioner: Provisioner, desk: AdminDesk
    ) -> tuple[bool, str | None]:
        """Gives the key itself a name at the vendor that carries our mark, where the vendor can. What holds it keeps its own: it is not
        ours, and other keys may come into it."""
        if not isinstance(provisioner, Renames):
            return False, f"not renamed: {provisioner.facts.title} can't rename a key; KeyGate knows it by its id there"
        name = f"{key.mark.tag} {title(key.name)}"
        await self.recorded(actor, "inventory.rename", item, {"name": name})
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


def _fits(secret: Secret, hint: str | None) -> bool:
    """Whether the end of the secret is what the vendor shows of it; where it shows nothing, any."""
    text = secret.open()
    return text.isascii() and (not hint or not hint.isascii() or hmac.compare_digest(text[-_SHOWN:], hint[-_SHOWN:]))


def _check(adoption: Adoption, now_ns: int) -> None:
    if len(adoption.remind_days) > MAX_REMINDERS or any(not 0 <= day <= 365 for day in adoption.remind_days):
        raise InvalidInput(f"remind_days: at most {MAX_REMINDERS}, from 0 to 365", field="remind_days")
    if adoption.expires_at_ns is not None and adoption.expires_at_ns <= now_ns:
        raise InvalidInput("expires_at: must lie in the future", field="expires_at")


def _entered(account: VendorAccount, now: int) -> Item:
    """The account stands for its one key: it is what the vendor is asked with."""
    footprint = Footprint({}, account.id)
    return Item(
        id=new_id("inv"),
        organization_id=account.organization_id,
        account_id=account.id,
        vendor=account.vendor,
        kind=Kind.KEY,
        identity=identity_of(account.id, footprint),
        footprint=footprint,
        name=account.name,
        presence=Presence.LIVE,
        scan_id="",
        first_seen_ns=now,
        seen_at_ns=now,
        hint=account.hint,
        read_at_ns=now,
    )


def _require_adoptable(item: Item) -> None:
    if item.kind is not Kind.KEY:
        raise Conflict("Only keys are adopted; this is what holds them")
    if not item.alive:
        raise Conflict(f"The vendor shows it as {item.presence}")
    if item.standing is not Standing.UNKNOWN or not item.judged:
        raise Conflict(f"It is {item.standing} already")
    if Finding.FOREIGN in item.findings:
        raise Conflict("It carries the mark of another KeyGate, which watches it")


def _adopted_key(
    actor: Actor, item: Item, adoption: Adoption, reading: Reading, provisioner: Provisioner, *, name: str, now: int, claim: str
) -> IssuedKey:
    facts = provisioner.facts
    ends = [moment for moment in (adoption.expires_at_ns, reading.terms.expires_at_ns) if moment is not None]
    own = replace(reading.terms, expires_at_ns=min(ends, default=None))
    # What the container allows holds for everybody in it: it is no term of this key.
    terms = Terms(expires_at_ns=own.expires_at_ns) if facts.container else own
    place = {name: value for name, value in item.footprint.place.items() if name == facts.container}
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
        options={ADOPTED: "yes"},
        created_at_ns=now,
        created_by=actor.id,
        enforcement=compare(terms, reading.terms, facts, own_end=True),
        footprint=Footprint(place, item.footprint.key),
        hint=None if item.hint is None else f"…{item.hint[-4:]}",
        activated_at_ns=now,
        made_at_ns=item.created_at_ns or now,
        last_used_at_ns=reading.last_used_at_ns,
        read_at_ns=now,
        secret_generation=1,
        delivered_at_ns=now,
        claim=claim,
    )
    return replace(key, due_at_ns=next_due(key))
