"""Use cases of vendor accounts: an admin credential is tried before it is kept, and what it may not do is named."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import Conflict, InvalidInput, KeyGateError, NotFound, Unavailable, UpstreamFailed
from keygate.identities import Actor
from keygate.issued_keys.bench import worker_actor
from keygate.issued_keys.counting import Counting
from keygate.issued_keys.desks import (
    CALLS_SETTING,
    CEILING_SETTING,
    LAG_SETTING,
    PROOF_SETTING,
    Desks,
    admin_place,
    calls_per_minute,
)
from keygate.issued_keys.model import AccountStatus, Room, VendorAccount
from keygate.issued_keys.operations import AT_ONCE, Operations
from keygate.issued_keys.records import account_record
from keygate.issued_keys.whose import require_same, same_place
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.kit.ids import new_id
from keygate.kit.redaction import of_ours
from keygate.kit.secret import Secret
from keygate.policies import change
from keygate.vault import EnvelopeBroken, Vault, checked_base_url
from keygate.vendors.admin import (
    AdminDesk,
    AdminKeyRefused,
    MissingRight,
    Provisioner,
    ProvisionerError,
    RateLimited,
    Right,
    Verification,
    why_none,
)
from keygate.vendors.admin import NotFound as VendorNotFound
from keygate.vendors.admin import Unavailable as VendorUnavailable

if TYPE_CHECKING:
    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database, UnitOfWork

_log = logging.getLogger(__name__)

RETRY_NS = 900 * NANOSECONDS
MAX_ADMIN_KEY = 16_384  # a service account's JSON is 2,400


class VendorAccountService:
    def __init__(
        self,
        *,
        database: Database,
        repository: VendorAccountRepository,
        keys: IssuedKeyRepository,
        vault: Vault,
        audit: AuditLog,
        desks: Desks,
        provisioners: Mapping[str, Provisioner],
        operations: Operations,
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._keys = keys
        self._vault = vault
        self._audit = audit
        self._desks = desks
        self._provisioners = provisioners
        self._clock = clock
        self._operations = operations
        self._counting = Counting(database=database, keys=keys, desks=desks, provisioners=provisioners, clock=clock)

    async def configure(
        self, actor: Actor, *, vendor: str, name: str, admin_key: Secret, settings: Mapping[str, str], by_hand: bool = False
    ) -> VendorAccount:
        """Tries the admin credential at the vendor, then stores it, sealed; under a name that is taken it replaces what was there, if it is
        of the same organisation or no key is left. One that the vendor does not know is not stored. One that lacks rights is, with each
        of them named: nothing is made with it until `verify` finds them. With `by_hand` also a key of a vendor whose keys are made by
        hand: the account then stands for that key. Raises `InvalidInput`, `Conflict`, `UpstreamFailed`, `Unavailable`."""
        provisioner = self._provisioner(vendor, by_hand=by_hand)
        admin = _checked(admin_key)
        wanted = self._settings(provisioner, settings)
        desk = self._desks.trial(provisioner.facts, admin, wanted)
        try:
            found, status = await self._try(provisioner, desk)
        except _NothingThere as error:
            raise InvalidInput(f"settings: {error.detail}", field="settings") from None
        replaced, same = await self._replaced(actor, provisioner, desk, name=name, found=found)
        now = self._clock.now_ns()
        async with self._database.unit(actor.organization_id) as work:
            known = await self._repository.all(work.connection, actor.organization_id, vendor=vendor)
            former = next((each for each in known if each.name == name), None)
            if (None if former is None else former.updated_at_ns) != (None if replaced is None else replaced.updated_at_ns):
                raise Conflict("name: this account was just entered by somebody else; look at it, then try again", field="name")
            draft = VendorAccount(
                id=new_id("va") if former is None else former.id,
                organization_id=actor.organization_id,
                vendor=vendor,
                name=name,
                admin_key=b"",
                hint=admin.hint() if admin.open()[-4:].isalnum() else "…",  # the end of a JSON document tells nothing
                settings=wanted,
                status=status,
                rights=found.rights,
                account=None if found.account is None else found.account[:200],
                identity=None if found.identity is None else found.identity[:200],
                same_since_ns=now if former is None or not same else former.same_since_ns,
                notes=found.notes,
                also_confirms=found.also_confirms,
                verified_at_ns=now,
                created_at_ns=now if former is None else former.created_at_ns,
                updated_at_ns=now,
            )
            account = replace(draft, admin_key=await self._vault.seal(work, admin, admin_place(draft)))
            before = None if former is None else account_record(former)
            await self._audit.record(
                work, actor, "vendor.configure", account.id, before=before, after={**account_record(account), "admin_key": admin}
            )
            if former is not None:
                await self._repository.save(work.connection, account)
                if account.also_confirms != former.also_confirms:
                    await self._keys.read_again(work.connection, actor.organization_id, now_ns=now, account_id=account.id)
                await self._woken(work, account)
            elif not await self._repository.add(work.connection, account):
                raise Conflict("name: another account of this vendor has just been given this name", field="name")
        return account

    async def verify(self, actor: Actor, account_id: str) -> VendorAccount:
        """Asks the vendor again which rights the admin credential has and what its account can, and keeps the answer. Where the account can
        something else than before its keys are read again, so that what stands behind their terms is told as it is now."""
        account = await self.get(actor, account_id)
        provisioner = self._provisioner(account.vendor, by_hand=True)
        desk = await self._desks.open(account, trial=True)
        try:
            found, status = await self._try(provisioner, desk)
        except InvalidInput as error:
            status = AccountStatus.REFUSED
            found = Verification(account.rights, account.account, (error.detail,), also_confirms=account.also_confirms)
        async with self._database.unit(actor.organization_id) as work:
            current = await self._repository.get(work.connection, actor.organization_id, account_id)
            if current is None:
                raise _absent()
            now = self._clock.now_ns()
            told = replace(current, status=status, rights=found.rights, notes=found.notes, also_confirms=found.also_confirms)
            after = replace(told, verified_at_ns=now)
            if (after.status, after.rights, after.also_confirms) != (current.status, current.rights, current.also_confirms):
                record = account_record(after)
                await self._audit.record(work, actor, "vendor.verify", account_id, before=account_record(current), after=record)
            await self._repository.save(work.connection, after)
            if after.also_confirms != current.also_confirms:
                await self._keys.read_again(work.connection, actor.organization_id, now_ns=now, account_id=account_id)
            if after.status is not AccountStatus.REFUSED and (after.status, after.rights) != (current.status, current.rights):
                await self._woken(work, after)
        return after

    async def retry(self) -> None:
        """Asks again about credentials that were refused: a vendor may have stumbled, or have mended it. For the worker."""
        before = self._clock.now_ns() - RETRY_NS
        async with self._database.read() as connection:
            every = await self._repository.everywhere(connection)
        for account in every:
            if account.status is AccountStatus.REFUSED and account.verified_at_ns < before and account.vendor in self._provisioners:
                try:
                    await self.verify(worker_actor(account.organization_id), account.id)
                except KeyGateError as error:
                    _log.info("vendor account %s: refused, and can't be asked about: %s", account.id, error.detail)

    async def get(self, actor: Actor, account_id: str) -> VendorAccount:
        async with self._database.read() as connection:
            account = await self._repository.get(connection, actor.organization_id, account_id)
        if account is None:
            raise _absent()
        return account

    async def all(self, actor: Actor, *, vendor: str | None = None) -> list[VendorAccount]:
        async with self._database.read() as connection:
            return await self._repository.all(connection, actor.organization_id, vendor=vendor)

    async def choose(self, actor: Actor, *, vendor: str, account: str | None) -> VendorAccount:
        """The account that an order names by id or name; with None the vendor's only one, or the one called `default`."""
        self._provisioner(vendor)
        found = await self.all(actor, vendor=vendor)
        if account is not None:
            chosen = next((each for each in found if account in {each.id, each.name}), None)
            if chosen is None:
                raise InvalidInput("account: no account of this vendor has this id or name", field="account")
            return chosen
        if not found:
            how = f"enter one: `keygate vendors configure {vendor}`, or POST /vendors/configure"
            raise Conflict(f"There is no admin credential for {vendor} yet; {how}", field="vendor")
        named = [each for each in found if each.name == "default"]
        if len(found) > 1 and not named:
            raise InvalidInput(f"account: {vendor} has several; name one of {', '.join(each.name for each in found)}", field="account")
        return (named or found)[0]

    async def room(self, account: VendorAccount, options: Mapping[str, str], *, others: int = 0, afresh: bool = False) -> Room:
        """How many containers still fit, before anything is changed: the vendor is asked where its API can tell, or with `afresh` unset
        was asked a while ago. `others`: what stands there beside our own, as the inventory knows, for where it can't."""
        self._provisioner(account.vendor, by_hand=True)
        return await self._counting.room(account, options, others=others, afresh=afresh)

    def pace(self, account: VendorAccount) -> int:
        """How many calls a minute KeyGate allows itself."""
        return calls_per_minute(self._provisioner(account.vendor, by_hand=True).facts, account.settings)

    async def delete(self, actor: Actor, account_id: str) -> None:
        """Forgets an admin credential. Refused while keys made with it are alive: nothing could revoke them any more."""
        async with change(self._database, self._audit, actor, "vendor.delete", account_id) as work:
            account = await self._repository.get(work.connection, actor.organization_id, account_id)
            if account is None:
                raise _absent()
            alive = await self._keys.count_alive(work.connection, actor.organization_id, account_id)
            if alive:
                raise Conflict(f"{alive} keys made with this account are not ended; revoke them first")
            await self._audit.record(work, actor, "vendor.delete", account_id, before=account_record(account))
            await self._repository.delete(work.connection, actor.organization_id, account_id)

    async def _replaced(
        self, actor: Actor, provisioner: Provisioner, desk: AdminDesk, *, name: str, found: Verification
    ) -> tuple[VendorAccount | None, bool]:
        """The account that a credential under this name replaces, and whether it is known to be of the same organisation. Raises `Conflict`
        where keys that live would be in nobody's hands."""
        async with self._database.read() as connection:
            known = await self._repository.all(connection, actor.organization_id, vendor=provisioner.facts.vendor)
            former = next((each for each in known if each.name == name), None)
            keys = [] if former is None else await self._keys.alive(connection, actor.organization_id, former.id)
        if former is None:
            return None, False
        try:
            before = await self._vault.open(former.admin_key, admin_place(former))
        except EnvelopeBroken:
            before = None
        if before is not None and same_place(former, desk.admin, before, desk.settings):
            return former, True
        return former, await require_same(provisioner, desk, former=former, found=found, keys=keys)

    async def _woken(self, work: UnitOfWork, account: VendorAccount) -> None:
        """Whatever waits for its next try with this account is tried again at once."""
        if account.status is AccountStatus.REFUSED:
            return
        ids = await self._keys.wake(work.connection, account.organization_id, account.id, now_ns=self._clock.now_ns())

        async def begin() -> None:
            for key_id in ids[:AT_ONCE]:  # the worker follows with the rest
                self._operations.start(account.organization_id, key_id)

        work.after_commit(begin)

    async def _try(self, provisioner: Provisioner, desk: AdminDesk) -> tuple[Verification, AccountStatus]:
        try:
            found = await provisioner.verify(desk)
        except AdminKeyRefused as error:
            raise InvalidInput(f"admin_key: {error.detail}", field="admin_key") from None
        except MissingRight as error:
            found = Verification(rights=(Right(error.right, held=False, needed_for="everything"),))
        except (VendorUnavailable, RateLimited) as error:
            raise Unavailable(f"The vendor can't be asked about the admin credential: {error.detail}") from None
        except VendorNotFound as error:
            raise _NothingThere(
                f"{provisioner.facts.title}'s admin API does not find what was asked for at {desk.base()}: {error.detail}. See that "
                "base_url is the API's root as the vendor's own SDK has it, and that the other settings are right"
            ) from None
        except ProvisionerError as error:
            raise UpstreamFailed(f"The vendor did not answer as expected: {error.detail}") from None
        return found, AccountStatus.RIGHTS_MISSING if found.missing else AccountStatus.READY

    def _provisioner(self, vendor: str, *, by_hand: bool = False) -> Provisioner:
        found = self._provisioners.get(vendor)
        if found is None:
            if (why := why_none(vendor)) is not None:
                raise Conflict(why, field="vendor")
            names = ", ".join(sorted(name for name, each in self._provisioners.items() if not each.facts.adopt_only)) or "none"
            all_of_them = "`keygate vendors list` (GET /vendors) shows every vendor that it knows, and why it makes none at the others"
            raise InvalidInput(f"vendor: KeyGate makes no keys there; it does at: {names}. {all_of_them}", field="vendor")
        if found.facts.adopt_only and not by_hand:
            raise Conflict(f"{found.facts.title}: {found.facts.cannot['create']}", field="vendor")
        return found

    def _settings(self, provisioner: Provisioner, settings: Mapping[str, str]) -> dict[str, str]:
        facts = provisioner.facts
        addresses = {"base_url", *(f"{host}_url" for host in facts.hosts)}
        known = {*facts.settings, *addresses, CALLS_SETTING, CEILING_SETTING, LAG_SETTING, PROOF_SETTING}
        unknown = set(settings) - known
        if unknown:
            raise InvalidInput(
                f"settings: {facts.title} has none called {min(unknown)[:60]!r}; there are {', '.join(sorted(known))}", field="settings"
            )
        missing = {name: what for name, what in facts.settings.items() if what.endswith("(required)") and not settings.get(name)}
        if missing:
            listed = "; ".join(f"{name}: {what.removesuffix(' (required)')}" for name, what in missing.items())
            raise InvalidInput(f"settings: {facts.title} needs {listed}", field=f"settings.{next(iter(missing))}")
        for name in (CALLS_SETTING, CEILING_SETTING, LAG_SETTING):
            if name in settings and not (settings[name].isascii() and settings[name].isdecimal() and 0 < int(settings[name]) <= 1_000_000):
                raise InvalidInput(f"settings.{name}: a number from 1 to 1000000", field=f"settings.{name}")
        if settings.get(PROOF_SETTING, "on") not in {"on", "off"}:
            raise InvalidInput(f"settings.{PROOF_SETTING}: on or off", field=f"settings.{PROOF_SETTING}")
        return {
            name: checked_base_url(value, field=f"settings.{name}") if name in addresses else value
            for name, value in settings.items()
            if value
        }


class _NothingThere(UpstreamFailed):
    """No missing right: there is no such API, or no such project, at this address."""


def _checked(secret: Secret) -> Secret:
    text = secret.open().strip()
    if not 0 < len(text) <= MAX_ADMIN_KEY or "\0" in text:
        raise InvalidInput(f"admin_key: 1 to {MAX_ADMIN_KEY} characters, as the vendor shows it", field="admin_key")
    if of_ours(text):
        raise InvalidInput("admin_key: this is a token of KeyGate's own, not a vendor's key", field="admin_key")
    return Secret(text)


def _absent() -> NotFound:
    return NotFound("There is no vendor account with this id")
