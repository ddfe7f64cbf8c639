"""For vendors that trade identity tokens: who KeyGate is as their issuer, and fresh tokens for whoever holds a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keygate.audit import AuditLog, digest_secret
from keygate.errors import Conflict, UpstreamFailed
from keygate.identities import Actor
from keygate.issued_keys.bench import known_secret
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.handover import Handover
from keygate.issued_keys.life import LIVE
from keygate.issued_keys.service import IssuedKeyService
from keygate.kit.clock import Clock
from keygate.policies import change
from keygate.vendors.admin import Issuer, Made, Mints, Provisioner, ProvisionerError, Term, Unfit

if TYPE_CHECKING:
    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database


class MintingService:
    """A minted token is told once. Only its keyed digest is kept, with its end and who fetched it, so that a leaked one is known. Revoking
    the key ends it at the vendor with all others."""

    def __init__(
        self,
        *,
        database: Database,
        rows: IssuedKeyRepository,
        account_rows: VendorAccountRepository,
        keys: IssuedKeyService,
        handover: Handover,
        desks: Desks,
        issuer: Issuer,
        audit: AuditLog,
        digest_key: bytes,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._database = database
        self._rows = rows
        self._account_rows = account_rows
        self._keys = keys
        self._handover = handover
        self._desks = desks
        self._issuer = issuer
        self._audit = audit
        self._digest_key = digest_key
        self._provisioners = provisioners
        self._clock = clock

    def identity(self) -> dict[str, Any]:
        """`{issuer, jwks}`: what an admin enters at the vendor. Public keys only."""
        return {"issuer": self._issuer.url, "jwks": self._issuer.jwks()}

    async def mint(self, actor: Actor, key_id: str) -> Made:
        """A fresh token of the key's newest generation, which ends before the key does. Raises `NotFound` for a key that the actor can't
        see, `Conflict` for one that does not live, or not long enough, or whose vendor's keys last, `UpstreamFailed` where the vendor does
        not answer as expected."""
        key = await self._keys.get(actor, key_id)
        provisioner = self._provisioners.get(key.vendor)
        if provisioner is None or not isinstance(provisioner, Mints):
            raise Conflict("Keys of this vendor last until they end; there is no token to fetch. Rotate the key for a new one")
        if key.state not in LIVE or key.footprint is None or key.footprint.key is None:
            raise Conflict(f"The key is {key.state}; only keys that live have tokens")
        async with change(self._database, self._audit, actor, "issued_key.mint", key_id) as work:
            account = await self._account_rows.get(work.connection, key.organization_id, key.account_id)
            if account is None:
                raise Conflict("The vendor account of this key is gone")
            await self._audit.record(work, actor, "issued_key.mint", key_id, after={"generation": key.generation})
        try:
            made = await provisioner.mint(await self._desks.open(account), key.footprint, expires_at_ns=key.expires_at_ns)
        except ProvisionerError as error:
            if isinstance(error, Unfit) and error.field == Term.EXPIRY:
                raise Conflict(error.detail) from None
            raise UpstreamFailed(f"The vendor gave no word on the key: {error.detail}") from None
        digest = digest_secret(made.secret, self._digest_key)
        token = known_secret(key, digest, self._clock.now_ns(), minted_by=actor.id, expires_at_ns=made.expires_at_ns)
        async with self._database.unit(key.organization_id) as work:  # before it is told
            await self._rows.note_secret(work.connection, token)
        await self._handover.taken(actor, key_id)
        return made
