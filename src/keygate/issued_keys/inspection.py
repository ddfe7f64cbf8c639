"""Looking after keys that are active: each is read at its vendor every few hours, and what somebody changed there is found, and set again
where that is wanted. What else stands at the vendors is the inventory's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import Conflict, NotFound, UpstreamFailed
from keygate.events import EventOutbox, EventType
from keygate.identities import Actor
from keygate.issued_keys.agreed import DRIFTED, differing, set_again
from keygate.issued_keys.bench import is_gone, worker_actor
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.inventory.ports import Restraints
from keygate.issued_keys.life import State
from keygate.issued_keys.model import Enforcement, IssuedKey, compare_with, facts_of
from keygate.issued_keys.ports import OwnerDirectory
from keygate.issued_keys.records import account_record
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.vault import EnvelopeBroken
from keygate.vendors.admin import Provisioner, ProvisionerError, Reading, Term

if TYPE_CHECKING:
    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.issued_keys.inspection_repository import InspectionRepository
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database, UnitOfWork

_log = logging.getLogger(__name__)

EVERY_NS = 6 * 3_600 * NANOSECONDS  # each active key is read at the vendor so often
RETRY_NS = 1_800 * NANOSECONDS  # one that could not be read is asked for again
ACCOUNTS_AT_ONCE = 8
AT_ONCE = 4  # of one account: whatever else is to be done there has its turn in between
BATCH = 40
LONGEST_NS = 900 * NANOSECONDS  # of one turn; the next one goes on
IN_A_ROW = 5  # keys of an account that can't be read: then it is the account that can't
_UNSET = frozenset({Enforcement.NOT_ENFORCED, Enforcement.LOST})
GONE = "gone_at_vendor"
LOST = "lost_at_vendor"
_LOST = (
    "The vendor does not tell {terms} to this account any more, so that nobody knows whether it still holds. See there what the "
    "account may, then have it looked at again: `keygate vendors verify {account}`"
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
        restraints: Restraints,
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
        self._restraints = restraints
        self._clock = clock

    async def tick(self) -> None:
        """Reads keys at the vendor that were not read for hours: account beside account, so that none waits for another's dead address, and
        each account as fast as its pace allows. For the worker."""
        now = self._clock.now_ns()
        async with self._database.read() as connection:
            accounts = await self._repository.accounts(connection, now_ns=now, before_ns=now - EVERY_NS)
        turn, ends = asyncio.Semaphore(ACCOUNTS_AT_ONCE), self._clock.monotonic_ns() + LONGEST_NS

        async def look(organization_id: str, account_id: str) -> None:
            async with turn:
                await self._account(organization_id, account_id, ends_ns=ends)

        async with asyncio.TaskGroup() as group:
            for organization_id, account_id in accounts:
                group.create_task(look(organization_id, account_id))

    async def _account(self, organization_id: str, account_id: str, *, ends_ns: int) -> None:
        """All keys of one account that are due, some beside each other. Where several in a row can't be read, the rest is put off."""
        failed = 0
        while self._clock.monotonic_ns() < ends_ns:
            now = self._clock.now_ns()
            window = {"now_ns": now, "before_ns": now - EVERY_NS}
            async with self._database.unit() as work:
                ids = await self._repository.claim(
                    work.connection, organization_id, account_id, until_ns=now + RETRY_NS, limit=BATCH, **window
                )
            if not ids:
                return
            waiting = iter(ids)

            async def read() -> None:
                nonlocal failed
                for key_id in waiting:  # noqa: B023  (they all take from this batch, and end with it)
                    if failed >= IN_A_ROW:
                        return
                    failed = 0 if await self._read(organization_id, key_id) else failed + 1

            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(read())
            if failed >= IN_A_ROW:
                _log.warning("vendor account %s: its keys can't be read now; they are tried again later", account_id)
                sooner = now + RETRY_NS // 2  # they have their turn before those that failed
                async with self._database.unit() as work:
                    await self._repository.put_off(work.connection, organization_id, account_id, until_ns=sooner, **window)
                return

    async def _read(self, organization_id: str, key_id: str) -> bool:
        """False: it could not be read. What nobody foresaw stops no other key."""
        try:
            await self.check(worker_actor(organization_id), key_id)
        except (Conflict, NotFound) as error:
            _log.info("issued key %s is not read at its vendor: %s", key_id, error.detail)  # it has ended, or changed, meanwhile
        except (UpstreamFailed, EnvelopeBroken) as error:
            _log.info("issued key %s can't be read at its vendor: %s", key_id, error.detail)
            return False
        except Exception:  # noqa: BLE001  (one key's trouble must not stop the others)
            _log.exception("issued key %s: reading it at its vendor failed", key_id)
            return False
        return True

    async def check(self, actor: Actor, key_id: str, *, repair: bool = False) -> IssuedKey:
        """Reads an active key at the vendor: whether it is there, when it was used, and whether its terms are those that were asked
        for. With `repair` terms that differ are set again and read back, and those that the vendor keeps for this account by now, but was
        never told of, are set for the first time."""
        async with self._database.read() as connection:
            key = await self._keys.get(connection, actor.organization_id, key_id)
            account = None if key is None else await self._accounts.get(connection, actor.organization_id, key.account_id)
            restrained = await self._restraints.restrained(connection, actor.organization_id)
        if key is None:
            raise NotFound("There is no issued key with this id")
        if key.state is not State.ACTIVE or key.footprint is None or account is None:
            raise Conflict(f"The key is {key.state}; only active ones are read")
        provisioner = self._provisioners.get(account.vendor)
        if provisioner is None:
            raise Conflict("This version of KeyGate makes no keys at this vendor")
        desk, began = await self._desks.open(account), self._clock.now_ns()
        try:
            reading = await provisioner.read(desk, key.footprint)
            facts = facts_of(provisioner, account)
            told = _as_meant(key, compare_with(key, reading.terms, facts), restrained)
            drift = differing(told)
            if repair:  # what the vendor refuses to tell this account it does not let it set either
                has = facts.confirms & facts.confirms_for_some.keys()
                unset = (term for term, standing in told.items() if standing in _UNSET and term in has)
                drift = sorted({*drift, *unset} - set(reading.terms.untold))
            if repair and drift and not is_gone(reading):
                await set_again(provisioner, desk, key.footprint, key.terms, drift)
                reading = await provisioner.read(desk, key.footprint)
                told = _as_meant(key, compare_with(key, reading.terms, facts), restrained)
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor did not do its part: {error.detail}") from None
        return await self._noted(actor, key, reading, told, began_ns=began, repaired=drift if repair else [])

    async def _noted(
        self, actor: Actor, key: IssuedKey, reading: Reading, told: Mapping[str, Enforcement], *, began_ns: int, repaired: Sequence[str]
    ) -> IssuedKey:
        now = self._clock.now_ns()
        drift = differing(told)
        lost = sorted(term for term, standing in told.items() if standing is Enforcement.LOST)
        code, error = None, None
        if is_gone(reading):
            code, error = GONE, "The vendor shows the key as gone: somebody ended it there. Revoke it here, or make a new one"
        elif drift:
            code, error = DRIFTED, f"Somebody changed {', '.join(drift)} at the vendor; repair it, or make it what it should be"
        elif lost:
            code, error = LOST, _LOST.format(terms=", ".join(lost), account=key.account_id)
        async with self._database.unit(key.organization_id) as work:
            current = await self._keys.get(work.connection, key.organization_id, key.id, lock=True)
            if current is None or current.state is not State.ACTIVE:
                raise Conflict("The key was changed meanwhile; read it again")
            if (current.read_at_ns or 0) > began_ns and not repaired:
                return current  # somebody has read it since, and perhaps repaired it
            after = replace(
                current,
                enforcement=dict(told) if not is_gone(reading) else current.enforcement,
                last_used_at_ns=reading.last_used_at_ns or current.last_used_at_ns,
                read_at_ns=now,
                inspect_at_ns=None if current.inspect_at_ns == key.inspect_at_ns else current.inspect_at_ns,  # asked for meanwhile
                error_code=code,
                error=error,
                version=current.version + 1,
            )
            await self._unlearn(work, actor, key.account_id, reading, began_ns=began_ns)
            if repaired:
                await self._audit.record(work, actor, "issued_key.repair", key.id, after={"terms": list(repaired), "differing": drift})
            if code is not None and current.error_code != code:
                await self._audit.record(work, actor, "issued_key.drift", key.id, after={"found": code, "differing": drift})
                payload = {"vendor": key.vendor, "name": key.name, "detail": error}
                await self._outbox.raise_event(work, key.organization_id, EventType.ISSUED_KEY_DRIFTED, key.id, payload)
            await self._keys.save(work.connection, after)
        return after

    async def _unlearn(self, work: UnitOfWork, actor: Actor, account_id: str, reading: Reading, *, began_ns: int) -> None:
        """What the vendor refuses to tell, this account has lost: orders that need it are refused from now on, and what stands behind the
        terms of its other keys is told anew."""
        if not reading.terms.untold:
            return
        account = await self._accounts.get(work.connection, actor.organization_id, account_id)
        if account is None or account.verified_at_ns > began_ns:
            return  # the vendor has told since what the account can
        if account.also_confirms & set(reading.terms.untold):
            after = replace(account, also_confirms=account.also_confirms - set(reading.terms.untold))
            await self._audit.record(work, actor, "vendor.verify", account_id, before=account_record(account), after=account_record(after))
            await self._accounts.save(work.connection, after)
            await self._keys.read_again(work.connection, actor.organization_id, now_ns=self._clock.now_ns(), account_id=account_id)


def _as_meant(key: IssuedKey, told: Mapping[str, Enforcement], restrained: Collection[str]) -> dict[str, Enforcement]:
    """Limits that KeyGate itself has lowered, for the key's budget, are not somebody's change: they stand as they stood."""
    if key.id not in restrained:
        return dict(told)
    lowered = {str(Term.REQUESTS_PER_MINUTE), str(Term.TOKENS_PER_MINUTE)}
    return {term: key.enforcement.get(term, standing) if term in lowered else standing for term, standing in told.items()}
