"""Keys that people made by hand at a vendor, entered here: given an owner and an end, watched, and ended at the vendor when they must be.

Nothing but the key itself is KeyGate's: the container that it stands in is never limited, rotated or ended with it.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog, digest_secret
from keygate.errors import Conflict, InvalidInput, UpstreamFailed
from keygate.events import EventOutbox, EventType
from keygate.identities import Actor
from keygate.issued_keys.bench import is_gone
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.inspection import InspectionService, Whose
from keygate.issued_keys.life import State
from keygate.issued_keys.making import next_due
from keygate.issued_keys.model import ADOPTED, IssuedKey, VendorAccount, compare
from keygate.issued_keys.ports import OwnerDirectory
from keygate.issued_keys.records import key_record
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret
from keygate.policies import Place, change
from keygate.vendors.admin import Footprint, Provisioner, ProvisionerError, Reading, Terms

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database

_SHOWN = 4  # letters of a secret that vendors show at the end of their hint


@dataclass(frozen=True, slots=True)
class Adoption:
    """`secret` is compared with what the vendor shows of it, and kept as a digest only: so that a leak report finds the key."""

    vendor_id: str
    owner: Place | None
    name: str | None = None
    expires_at_ns: int | None = None
    secret: Secret | None = None


class AdoptionService:
    def __init__(
        self,
        *,
        database: Database,
        repository: IssuedKeyRepository,
        inspection: InspectionService,
        owners: OwnerDirectory,
        desks: Desks,
        audit: AuditLog,
        outbox: EventOutbox,
        digest_key: bytes,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._inspection = inspection
        self._owners = owners
        self._desks = desks
        self._audit = audit
        self._outbox = outbox
        self._digest_key = digest_key
        self._provisioners = provisioners
        self._clock = clock

    async def adopt(self, actor: Actor, account_id: str, wanted: Adoption) -> IssuedKey:
        """The key as it stands at the vendor becomes one of ours. Raises `NotFound` where the vendor has none, `Conflict` where it is
        ours already, carries a mark of KeyGate's or is gone, `InvalidInput` for an owner or a secret that does not fit."""
        if wanted.expires_at_ns is not None and wanted.expires_at_ns <= self._clock.now_ns():
            raise InvalidInput("expires_at: must lie in the future", field="expires_at")
        account, item = await self._inspection.look(actor, account_id, wanted.vendor_id)
        provisioner = self._provisioners[account.vendor]
        if not provisioner.facts.adopts:
            raise Conflict(f"Keys of {provisioner.facts.title} can't be entered: ending one there may end others too")
        footprint = item.found.footprint
        if footprint.key is None:
            raise Conflict("This is a container; only keys can be entered")
        if item.whose is not Whose.UNKNOWN:
            held = item.key.id if item.key is not None else "another KeyGate's"
            raise Conflict(f"This key is known already: {held}")
        container = provisioner.facts.container
        kept = Footprint({name: value for name, value in footprint.place.items() if name == container}, footprint.key)
        reading = await self._read(provisioner, account, kept)
        now = self._clock.now_ns()
        hint = item.found.hint
        if wanted.secret is not None and not _fits(wanted.secret, hint):
            raise InvalidInput("key: its end is not what the vendor shows of this key", field="key")
        own = replace(reading.terms, expires_at_ns=wanted.expires_at_ns or reading.terms.expires_at_ns)
        terms = Terms(expires_at_ns=own.expires_at_ns) if container else own
        async with change(self._database, self._audit, actor, "issued_key.adopt", account_id) as work:
            key = IssuedKey(
                id=new_id("ik"),
                organization_id=actor.organization_id,
                vendor=account.vendor,
                account_id=account.id,
                name=wanted.name or item.found.name.strip()[:100] or "adopted key",
                owner=await self._owner(work.connection, actor, wanted.owner),
                state=State.ACTIVE,
                generation=1,
                terms=terms,
                options={ADOPTED: "yes"},
                created_at_ns=now,
                created_by=actor.id,
                enforcement=compare(terms, reading.terms, provisioner.facts, own_end=True),
                footprint=kept,
                secret_digest=None if wanted.secret is None else digest_secret(wanted.secret, self._digest_key),
                secret_generation=1,
                delivered_at_ns=now,
                hint=None if hint is None else f"…{hint[-_SHOWN:]}",
                activated_at_ns=now,
                last_used_at_ns=reading.last_used_at_ns,
                read_at_ns=now,
            )
            key = replace(key, due_at_ns=next_due(key))
            record = {**key_record(key), "key": wanted.secret} if wanted.secret is not None else key_record(key)
            await self._audit.record(work, actor, "issued_key.adopt", key.id, after=record)
            payload = {"vendor": key.vendor, "name": key.name, "state": str(key.state), "detail": None}
            await self._outbox.raise_event(work, key.organization_id, EventType.ISSUED_KEY_ACTIVE, key.id, payload)
            await self._repository.add(work.connection, key)
        return key

    async def _read(self, provisioner: Provisioner, account: VendorAccount, footprint: Footprint) -> Reading:
        try:
            reading = await provisioner.read(await self._desks.open(account), footprint)
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor did not show the key: {error.detail}") from None
        if is_gone(reading):
            raise Conflict("The vendor shows this key as gone")
        return reading

    async def _owner(self, connection: AsyncConnection, actor: Actor, owner: Place | None) -> Place | None:
        if owner is None:
            return None
        holder = (await self._owners.holders(connection, actor.organization_id, [owner.scope_id])).get(owner.scope_id)
        if holder is None or holder.scope is not owner.scope or not holder.active:
            raise InvalidInput(f"{owner.scope}_id: there is no active {owner.scope} with this id", field=f"{owner.scope}_id")
        return owner


def _fits(secret: Secret, hint: str | None) -> bool:
    """Whether the end of the secret is what the vendor shows of it; where it shows nothing, any."""
    text = secret.open()
    return text.isascii() and (hint is None or not hint.isascii() or hmac.compare_digest(text[-_SHOWN:], hint[-_SHOWN:]))
