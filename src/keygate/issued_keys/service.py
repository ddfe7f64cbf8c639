"""Use cases of issued keys. A call records what is wanted, in one audited transaction; the work at the vendor follows, and what has come of
it when the caller's patience ends is in the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import Conflict, InvalidInput, KeyGateError, UpstreamFailed
from keygate.identities import Actor
from keygate.issued_keys.accounts import VendorAccountService
from keygate.issued_keys.agreed import Drifted, HeldBack
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.ending import told_to_end
from keygate.issued_keys.extending import extend_at_vendor, knows_ends
from keygate.issued_keys.handover import Gone, Handover, Told, never
from keygate.issued_keys.life import ENDED, LIVE, Event, State, may
from keygate.issued_keys.making import next_due
from keygate.issued_keys.model import (
    DEFAULT_QUIET_SECONDS,
    MAX_OVERLAP_SECONDS,
    AccountStatus,
    Ending,
    Enforcement,
    Former,
    IssuedFilter,
    IssuedKey,
    IssueDraft,
    VendorAccount,
    VendorStep,
)
from keygate.issued_keys.operations import Operations
from keygate.issued_keys.ownership import own_key
from keygate.issued_keys.ports import OwnerDirectory, Restraints
from keygate.issued_keys.receipts import Receipt
from keygate.issued_keys.records import key_record
from keygate.issued_keys.rotating import told_to_rotate
from keygate.issued_keys.terms import check_schedule, check_terms
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.kit.ids import new_id
from keygate.policies import Place, change
from keygate.vendors.admin import AddsKey, Footprint, Provisioner, Term, TermsRefused, Unfit, Wanted

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database, UnitOfWork

PATIENCE_SECONDS = 60.0
MAX_PATIENCE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class _Hearer:
    """Who asked, and whether the secret is for their answer. `again`: they can ask again under the same request id."""

    actor: Actor
    tell: bool
    gone: Gone
    again: bool


class IssuedKeyService:
    """Also the listener of identities: what a holder that ends has at vendors is revoked there."""

    def __init__(
        self,
        *,
        database: Database,
        repository: IssuedKeyRepository,
        account_rows: VendorAccountRepository,
        accounts: VendorAccountService,
        operations: Operations,
        desks: Desks,
        owners: OwnerDirectory,
        handover: Handover,
        restraints: Restraints,
        audit: AuditLog,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._account_rows = account_rows
        self._accounts = accounts
        self._operations = operations
        self._desks = desks
        self._owners = owners
        self._handover = handover
        self._restraints = restraints
        self._audit = audit
        self._provisioners = provisioners
        self._clock = clock

    async def provision(
        self, actor: Actor, draft: IssueDraft, *, tell: bool = True, gone: Gone = never, patience: float = PATIENCE_SECONDS
    ) -> Told:
        """Orders a key. With `tell` the answer holds the secret if the vendor is done within `patience` seconds and the caller is not
        `gone` by then; else it waits for a link. The same `request_id` again, or at the same time, gives the same key, and within ten
        minutes its secret again: an answer may get lost.

        Raises `InvalidInput` for an owner, term or option that can't be, `Conflict` where the account is not ready or full."""
        hearer = _Hearer(actor, tell, gone, again=draft.request_id is not None)
        known = await self._known(actor, draft)
        if known is not None:
            return await self._again(hearer, draft, known, patience)
        account = await self._accounts.choose(actor, vendor=draft.vendor, account=draft.account)
        if account.status is not AccountStatus.READY:
            missing = ", ".join(right.name for right in account.rights if right.held is False)
            if account.status is AccountStatus.REFUSED:
                raise Conflict(
                    f"The admin credential of {account.vendor} is not known to the vendor; enter another one: `keygate vendors configure`"
                )
            raise Conflict(
                f"The admin credential of {account.vendor} lacks these rights: {missing}; add them there, then have it looked at again: "
                f"`keygate vendors verify {account.id}`, or POST /vendors/accounts/{account.id}/verify"
            )
        provisioner = self._provisioners[account.vendor]
        now = self._clock.now_ns()
        check_terms(provisioner, draft, account=account, now=now)
        check_schedule(provisioner, draft.rotate_every_days, draft.rotate_overlap_seconds)
        room = await self._accounts.room(account, draft.options)
        if room.full and await self._known(actor, draft) is None:
            raise Conflict(f"No key was made: {room.told}")
        async with change(self._database, self._audit, actor, "issued_key.provision", "issued_key") as work:
            known = await self._requested(work.connection, actor, draft)
            key = known or await self._recorded(work, actor, draft, account, now)
        if known is not None:  # ordered under the same request id at the same time
            return await self._again(hearer, draft, known, patience)
        key = await self._worked(key, patience)
        _require_made(key)
        return await self._told(hearer, key)

    async def _recorded(self, work: UnitOfWork, actor: Actor, draft: IssueDraft, account: VendorAccount, now: int) -> IssuedKey:
        """The order, written down: from here on it is worked on, whatever becomes of the caller."""
        owner, name = await self._owner(work.connection, actor, draft)
        if draft.request_id is not None:  # an order that failed gives its id to the next
            failed = await self._repository.requested(work.connection, actor.organization_id, draft.request_id)
            if failed is not None:
                await self._repository.save(work.connection, replace(failed, request_id=None, version=failed.version + 1))
        key = IssuedKey(
            id=new_id("ik"),
            organization_id=actor.organization_id,
            vendor=account.vendor,
            account_id=account.id,
            name=name,
            owner=owner,
            state=State.REQUESTED,
            generation=1,
            terms=draft.terms,
            options=dict(draft.options),
            created_at_ns=now,
            created_by=actor.id,
            due_at_ns=now,
            request_id=draft.request_id,
            rotate_every_days=draft.rotate_every_days,
            rotate_overlap_seconds=draft.rotate_overlap_seconds,
        )
        await self._audit.record(work, actor, "issued_key.provision", key.id, after=key_record(key))
        await self._repository.add(work.connection, key)
        return key

    async def rotate(
        self,
        actor: Actor,
        key_id: str,
        *,
        overlap_seconds: int,
        quiet_seconds: int | None = None,
        insist: bool = False,
        request_id: str | None = None,
        tell: bool = True,
        gone: Gone = never,
        patience: float = PATIENCE_SECONDS,
    ) -> Told:
        """A second key with the same terms. The former one goes on for `overlap_seconds`, then until the vendor shows it unused for
        `quiet_seconds` (None: an hour; 0: no proof is wanted); with `insist` it ends with the overlap, used or not. Where the vendor never
        tells when a key was used it waits for `cut`; raises `InvalidInput` for a `quiet_seconds` that can't be kept there, `Conflict` for a
        key that is disabled."""
        for name, value in (("overlap_seconds", overlap_seconds), ("quiet_seconds", quiet_seconds)):
            if value is not None and not 0 <= value <= MAX_OVERLAP_SECONDS:
                raise InvalidInput(f"{name}: from 0 to {MAX_OVERLAP_SECONDS}", field=name)
        hearer = _Hearer(actor, tell, gone, again=request_id is not None)
        async with change(self._database, self._audit, actor, "issued_key.rotate", key_id) as work:
            key = await own_key(self._repository, work.connection, actor, key_id, lock=True)
            known = request_id is not None and key.rotation_id == request_id
            if known:
                after = key
            else:
                after = await self._turned(work, actor, key, overlap_seconds, quiet_seconds, insist=insist, request_id=request_id)
        if known:
            return await self._replayed(hearer, after, patience)
        key = await self._worked(after, patience)
        if key.state is State.ACTIVE and key.error is not None:
            raise _kind_of(key)(f"The key was not rotated; it goes on as it is. {key.error}")
        return await self._told(hearer, key)

    def _quiet(self, key: IssuedKey, wanted: int | None, *, insist: bool) -> int | None:
        facts = self._provisioners[key.vendor].facts
        if facts.tells_last_use:
            return DEFAULT_QUIET_SECONDS if wanted is None else wanted
        if wanted and not insist:
            raise InvalidInput(
                f"quiet_seconds: {facts.title} never tells when a key was used, so no such proof can be had; leave it out and `cut` the "
                "former key yourself once nothing uses it, or send insist: it then ends with the overlap",
                field="quiet_seconds",
            )
        return wanted

    async def cut(self, actor: Actor, key_id: str, *, patience: float = PATIENCE_SECONDS) -> IssuedKey:
        """During a rotation: the operator insists that the former key ends now, used or not."""
        now = self._clock.now_ns()
        async with change(self._database, self._audit, actor, "issued_key.cut", key_id) as work:
            key = await own_key(self._repository, work.connection, actor, key_id, lock=True)
            if key.state is not State.ROTATING or key.former is None or key.former.cut_at_ns is None:
                raise Conflict("There is no former key that waits to be cut")
            after = await self.tell_to_cut(work, actor, key, key.former, now)
        return await self._worked(after, patience)

    async def revoke(self, actor: Actor, key_id: str, *, reason: str = "", patience: float = PATIENCE_SECONDS) -> IssuedKey:
        """Told to the vendor, which has confirmed it where the answer says `revoked`; `revoking` and `irrevocable` are tried again.
        Doing it again tries again at once."""
        now = self._clock.now_ns()
        async with change(self._database, self._audit, actor, "issued_key.revoke", key_id) as work:
            key = await own_key(self._repository, work.connection, actor, key_id, lock=True)
            after = await self.tell_to_end(work, actor, key, reason, now)
        return key if after is None else await self._worked(after, patience)

    async def extend(self, actor: Actor, key_id: str, *, expires_at_ns: int | None) -> IssuedKey:
        """Another end, at the vendor first where it keeps one; in the overlap of a rotation too, whose former key ends with it. Raises
        `Conflict` for a key that is not active, `InvalidInput` for an end that can't be had there."""
        now = self._clock.now_ns()
        if expires_at_ns is not None and expires_at_ns <= now:
            raise InvalidInput("expires_at: must lie in the future; to end a key now, revoke it", field="expires_at")
        async with self._database.read() as connection:
            key = await own_key(self._repository, connection, actor, key_id)
        if key.state not in LIVE or not key.settled or key.vendor not in self._provisioners:
            raise Conflict(f"The key is {key.state}; only active ones get another end")
        enforcement = await self._extend_at_vendor(key, expires_at_ns)
        async with change(self._database, self._audit, actor, "issued_key.extend", key_id) as work:
            current = await own_key(self._repository, work.connection, actor, key_id, lock=True)
            if current.state not in LIVE or not current.settled:
                raise Conflict(f"The key is {current.state} by now")
            kept = {term: standing for term, standing in current.enforcement.items() if term != Term.EXPIRY}
            after = replace(
                current,
                terms=replace(current.terms, expires_at_ns=expires_at_ns),
                enforcement={**kept, **enforcement},
                version=current.version + 1,
            )
            after = replace(after, due_at_ns=next_due(after) if after.former is None else now)  # a rotation looks at the new end itself
            await self._audit.record(work, actor, "issued_key.extend", key_id, before=key_record(current), after=key_record(after))
            await self._repository.save(work.connection, after)
        return after

    async def get(self, actor: Actor, key_id: str) -> IssuedKey:
        async with self._database.read() as connection:
            return await own_key(self._repository, connection, actor, key_id)

    async def steps(self, actor: Actor, key_id: str) -> list[VendorStep]:
        """What was called at the vendor for this key, and how it ended."""
        async with self._database.read() as connection:
            await own_key(self._repository, connection, actor, key_id)
            return await self._repository.steps(connection, actor.organization_id, key_id)

    async def page(self, actor: Actor, wanted: IssuedFilter, *, after: str | None, limit: int) -> Sequence[IssuedKey]:
        if actor.only_own:
            if actor.developer_id is None or wanted.owner_id not in {None, actor.developer_id}:
                return []
            wanted = replace(wanted, owner_id=actor.developer_id)
        async with self._database.read() as connection:
            return await self._repository.page(connection, actor.organization_id, wanted, after=after, limit=limit)

    async def holder_ended(
        self,
        work: UnitOfWork,
        actor: Actor,
        *,
        cause: str,
        subject: str,
        name: str,
        reason: str,
        virtual_keys: Sequence[Mapping[str, str]],
        also: Sequence[str] = (),
    ) -> str | None:
        """In the transaction that ends a holder: all that it has at vendors is told to end, with a receipt, whose id is returned; None
        where it has nothing. `also`: other holders that end with it, in the same receipt. The vendors are called after the commit."""
        now = self._clock.now_ns()
        held = await self._repository.held_by(work.connection, actor.organization_id, [subject, *also])
        for key in held:
            await self.tell_to_end(work, actor, key, reason, now)
        if not held and not virtual_keys:
            return None
        receipt = Receipt(
            id=new_id("rcp"),
            organization_id=actor.organization_id,
            cause=cause,
            subject=subject,
            subject_name=name,
            issued_keys=[key.id for key in held],
            virtual_keys=[dict(key) for key in virtual_keys],
            created_at_ns=now,
            created_by=actor.id,
        )
        await self._repository.add_receipt(work.connection, receipt)

        async def begin() -> None:
            for key in held:
                self._operations.start(key.organization_id, key.id)

        work.after_commit(begin)
        return receipt.id

    async def tell_to_end(self, work: UnitOfWork, actor: Actor, key: IssuedKey, reason: str, now: int) -> IssuedKey | None:
        """In a transaction of the caller's, who starts the work at the vendor after it. None: it is ended already."""
        if key.state in ENDED:
            if not key.owed:
                return None
            after = replace(key, due_at_ns=now, version=key.version + 1)
        elif may(key.state, Event.REVOKE):
            after = told_to_end(key, ending=Ending.REVOKED, reason=reason, by=actor.id, now=now)
            after = replace(after, version=key.version + 1)
        else:  # revoking or irrevocable: try again at once
            after = replace(key, due_at_ns=now, version=key.version + 1)
        said = {"reason": reason, "state": after.state, "hint": key.hint}
        await self._audit.record(work, actor, "issued_key.revoke", key.id, before={"state": key.state}, after=said)
        await self._repository.save(work.connection, after)
        return after

    async def tell_to_cut(self, work: UnitOfWork, actor: Actor, key: IssuedKey, former: Former, now: int) -> IssuedKey:
        """As `tell_to_end`, for the former key of a rotation whose next one works."""
        cut = replace(former, insist=True, cut_at_ns=now if former.cut_at_ns is None else min(now, former.cut_at_ns))
        after = replace(key, former=cut, due_at_ns=now, version=key.version + 1)
        await self._audit.record(work, actor, "issued_key.cut", key.id, after={"last_used_at_ns": former.last_used_at_ns})
        await self._repository.save(work.connection, after)
        return after

    async def raise_budget(self, work: UnitOfWork, actor: Actor, key_id: str, budget_nano: int) -> IssuedKey:
        """In a transaction of the caller's. Of a key whose budget KeyGate alone keeps: no vendor has to be told."""
        key = await own_key(self._repository, work.connection, actor, key_id, lock=True)
        standing = key.enforcement.get(str(Term.BUDGET))
        if standing is Enforcement.DIFFERS:
            how = f"`keygate inventory check {key.id} --repair`"
            raise Conflict(f"The vendor shows another budget than agreed: set that right first, {how}")
        if standing is Enforcement.LOST:  # the former amount may still stand there
            how = f"see there what the account may, then `keygate vendors verify {key.account_id}`"
            raise Conflict(f"The vendor does not tell this account any more whether it keeps the present budget: {how}")
        if standing is not Enforcement.NOT_ENFORCED:
            raise Conflict("The vendor enforces this key's budget itself")
        if budget_nano <= (key.terms.budget_nano or 0):
            raise InvalidInput("budget_usd: must be more than the present budget", field="budget_usd")
        after = replace(key, terms=replace(key.terms, budget_nano=budget_nano), version=key.version + 1)
        await self._audit.record(work, actor, "issued_key.budget", key_id, before=key_record(key), after=key_record(after))
        await self._repository.save(work.connection, after)
        return after

    # Parts

    async def _worked(self, key: IssuedKey, patience: float) -> IssuedKey:
        """The key once the work on it has come to something, or to a wait that is longer than the patience; the work goes on."""
        ends = self._clock.monotonic_ns() + int(min(patience, MAX_PATIENCE_SECONDS) * NANOSECONDS)
        while True:
            task = self._operations.start(key.organization_id, key.id)
            left = (ends - self._clock.monotonic_ns()) / NANOSECONDS
            if left > 0:
                await asyncio.wait({task}, timeout=left)
            async with self._database.read() as connection:
                key = await self._repository.get(connection, key.organization_id, key.id) or key
            pause = ((key.due_at_ns or 0) - self._clock.now_ns()) / NANOSECONDS
            left = (ends - self._clock.monotonic_ns()) / NANOSECONDS
            if key.settled or not task.done() or pause >= left:
                return key
            await asyncio.sleep(max(pause, 0.05))

    async def _turned(
        self,
        work: UnitOfWork,
        actor: Actor,
        key: IssuedKey,
        overlap_seconds: int,
        quiet_seconds: int | None,
        *,
        insist: bool,
        request_id: str | None,
    ) -> IssuedKey:
        """The key as it is told to rotate, written down. Raises `Conflict` where it can't be."""
        if key.adopted:
            raise Conflict("This key was made by hand: make its successor at the vendor, adopt that one, then revoke this one")
        if not isinstance(self._provisioners.get(key.vendor), AddsKey):
            raise Conflict("This vendor can't hold a second key beside the first; make a new key and revoke this one")
        quiet_seconds = self._quiet(key, quiet_seconds, insist=insist)
        now = self._clock.now_ns()
        restraints = await self._restraints.restraints(work.connection, key.organization_id, [key.id])
        after = told_to_rotate(
            key,
            overlap_seconds=overlap_seconds,
            quiet_seconds=quiet_seconds,
            insist=insist,
            request_id=request_id,
            restraint=restraints.get(key.id),
            now=now,
        )
        after = replace(after, version=key.version + 1)
        detail = {"generation": after.generation, "overlap_seconds": overlap_seconds, "quiet_seconds": quiet_seconds, "insist": insist}
        await self._audit.record(work, actor, "issued_key.rotate", key.id, before={"state": key.state}, after=detail)
        await self._repository.save(work.connection, after)
        return after

    async def _known(self, actor: Actor, draft: IssueDraft) -> IssuedKey | None:
        async with self._database.read() as connection:
            return await self._requested(connection, actor, draft)

    async def _requested(self, connection: AsyncConnection, actor: Actor, draft: IssueDraft) -> IssuedKey | None:
        """The key that stands under the order's request id, unless making it failed: then the id is free."""
        if draft.request_id is None:
            return None
        known = await self._repository.requested(connection, actor.organization_id, draft.request_id)
        return None if known is None or known.state is State.FAILED else known

    async def _again(self, hearer: _Hearer, draft: IssueDraft, key: IssuedKey, patience: float) -> Told:
        if key.created_by != hearer.actor.id or not _same(key, draft, self._clock.now_ns()):
            raise Conflict("request_id: another order was made under it", field="request_id")
        return await self._replayed(hearer, key, patience)

    async def _replayed(self, hearer: _Hearer, key: IssuedKey, patience: float) -> Told:
        """What became of a call that is made again; its secret too, where that was told less than ten minutes ago."""
        if not key.settled:
            key = await self._worked(key, patience)
        _require_made(key)
        return await self._told(hearer, key)

    async def _told(self, hearer: _Hearer, key: IssuedKey) -> Told:
        return await self._handover.tell(hearer.actor, key, again=hearer.again, gone=hearer.gone) if hearer.tell else Told(key)

    async def _extend_at_vendor(self, key: IssuedKey, expires_at_ns: int | None) -> dict[str, Enforcement]:
        provisioner = self._provisioners[key.vendor]
        if not knows_ends(provisioner, key):
            return {} if expires_at_ns is None else {str(Term.EXPIRY): Enforcement.NOT_ENFORCED}
        async with self._database.read() as connection:
            account = await self._account_rows.get(connection, key.organization_id, key.account_id)
        if account is None:
            raise Conflict("The vendor account that this key was made with is gone")
        wanted = Wanted(replace(key.terms, expires_at_ns=expires_at_ns), key.options, account.settings, self._clock.now_ns())
        return await extend_at_vendor(provisioner, await self._desks.open(account), key.footprint or Footprint(), wanted)

    def check(self, draft: IssueDraft, account: VendorAccount) -> None:
        """Raises `InvalidInput` for terms or options that this vendor can't have; asks nobody."""
        provisioner = self._provisioners.get(draft.vendor)
        if provisioner is None:
            raise InvalidInput("vendor: KeyGate makes no keys there", field="vendor")
        check_terms(provisioner, draft, account=account, now=self._clock.now_ns())
        check_schedule(provisioner, draft.rotate_every_days, draft.rotate_overlap_seconds)

    async def _owner(self, connection: AsyncConnection, actor: Actor, draft: IssueDraft) -> tuple[Place | None, str]:
        owner = draft.owner
        if owner is None:
            return None, draft.name or f"{draft.vendor} key"
        holder = (await self._owners.holders(connection, actor.organization_id, [owner.scope_id])).get(owner.scope_id)
        field = f"{owner.scope}_id"
        if holder is None or holder.scope is not owner.scope:
            raise InvalidInput(f"{field}: there is no {owner.scope} with this id", field=field)
        if not holder.active:
            raise InvalidInput(f"{field}: this {owner.scope} is no longer active", field=field)
        return owner, draft.name or holder.name


_REPEATED_NS = 2 * NANOSECONDS  # ends are whole seconds


def _same(key: IssuedKey, draft: IssueDraft, now: int) -> bool:
    """Whether this order is the one that the key was made for. An end that was asked for in days lies as much later as it is asked again
    later."""
    wanted, stood, terms = draft.terms.expires_at_ns, key.terms.expires_at_ns, key.terms
    if wanted is not None and stood is not None and -_REPEATED_NS <= wanted - stood <= now - key.created_at_ns + _REPEATED_NS:
        terms = replace(terms, expires_at_ns=wanted)
    made = (key.vendor, key.owner, terms, dict(key.options), key.rotate_every_days, key.rotate_overlap_seconds)
    return made == (draft.vendor, draft.owner, draft.terms, dict(draft.options), draft.rotate_every_days, draft.rotate_overlap_seconds)


def _require_made(key: IssuedKey) -> None:
    """Raises where the vendor did not make the key: the message names the missing right, the ceiling or the remedy, and what is owed."""
    if key.state is State.FAILED:
        raise _kind_of(key)(f"The vendor did not make the key ({key.id}). {key.error}")


def _kind_of(key: IssuedKey) -> type[KeyGateError]:
    """Of what a vendor did not make: whether somebody has to change something there, or in the order, or the vendor failed."""
    if key.error_code in {"missing_right", "ceiling_reached", "admin_key_refused", HeldBack.code, Drifted.code}:
        return Conflict
    return InvalidInput if key.error_code in {TermsRefused.code, Unfit.code} else UpstreamFailed
