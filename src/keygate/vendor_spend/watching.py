"""Watches budgets that vendors do not enforce: announces thresholds, lowers limits, disables or revokes. What it does at a vendor is
recorded before, read back after, and taken back with the next period."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keygate.audit import AuditLog
from keygate.errors import Conflict, InvalidInput, KeyGateError
from keygate.events import EventOutbox, EventType
from keygate.identities import Actor
from keygate.issued_keys import (
    LIVE,
    WATCHED,
    Enforcement,
    IssuedKey,
    IssuedKeyAccess,
    IssuedKeyService,
    KeptBudget,
    VendorAccount,
    worker_actor,
)
from keygate.kit.clock import NANOSECONDS, Clock, rfc3339
from keygate.kit.money import MAX_NANO, format_usd
from keygate.policies import change
from keygate.vault import EnvelopeBroken
from keygate.vendor_spend.model import ImportState
from keygate.vendor_spend.restraint import apply, shows
from keygate.vendor_spend.watch import (
    AtEnd,
    Resumption,
    Stage,
    Watch,
    WatchRule,
    allowed,
    announced_at,
    passed,
    percent_of,
    waive,
    wanted_stage,
    window_of,
)
from keygate.vendors.admin import (
    AdminKeyRefused,
    Disables,
    ProvisionerError,
    SetsLimits,
    SpendFacts,
    Term,
    spend_of,
    why_no_spend,
)

if TYPE_CHECKING:
    from keygate.kit.database import Database
    from keygate.vendor_spend.repository import SpendRepository
    from keygate.vendor_spend.watch_repository import WatchRepository

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_SECONDS = 900
AT_ONCE = 8
_UNKEPT = {
    Enforcement.DIFFERS: "Somebody changed or removed this budget at the vendor, which does not keep it as agreed until it is set again: "
    "`keygate inventory check {id} --repair`",
    Enforcement.LOST: "The vendor does not tell this account any more whether it keeps this budget: see there what the account may, then "
    "`keygate vendors verify {account}`",
}
RECHECK_NS = 3_600 * NANOSECONDS


@dataclass(frozen=True, slots=True)
class Standing:
    """A key's budget as it stands by the vendor's bill. `imported` None: its bill was never read; `facts` None: the vendor reports none,
    and `why_not` says why."""

    key: IssuedKey
    watch: Watch
    spent_nano: int
    percent: int | None  # of what is allowed in this period; None: the key has no budget
    window_start_ns: int
    resets_at_ns: int | None
    allowed_nano: int | None  # in this period; None: there is no budget, or it does not count in this period
    imported: ImportState | None
    facts: SpendFacts | None
    why_not: str | None = None

    @property
    def told(self) -> bool:
        """Whether the bill is read, and can be told by key as far as is known."""
        return self.facts is not None and (self.imported is None or self.imported.not_by_key is None)

    @property
    def enforced_by(self) -> str:
        if self.key.terms.budget_nano is None:
            return "nobody"
        if not _is_ours(self.key):
            return "vendor"
        return "keygate" if self.told else "nobody"

    @property
    def unkept(self) -> str | None:
        """Why the vendor, which should keep the budget, does not, and what to do for it."""
        return (
            _UNKEPT.get(self.key.enforcement.get(str(Term.BUDGET), Enforcement.CONFIRMED), "").format(
                id=self.key.id, account=self.key.account_id
            )
            or None
        )

    @property
    def trouble(self) -> str | None:
        """What is wrong with the number, and what to do for it."""
        return None if self.imported is None else self.imported.trouble(max(self.window_start_ns, self.key.created_at_ns))


class BudgetWatch:
    def __init__(
        self,
        *,
        database: Database,
        repository: WatchRepository,
        spend: SpendRepository,
        issued: IssuedKeyAccess,
        keys: IssuedKeyService,
        audit: AuditLog,
        outbox: EventOutbox,
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._spend = spend
        self._issued = issued
        self._keys = keys
        self._audit = audit
        self._outbox = outbox
        self._clock = clock

    async def standing(self, actor: Actor, key_id: str) -> Standing:
        """Raises `NotFound` for a key that is not this actor's to see."""
        key = await self._keys.get(actor, key_id)
        begin, end = window_of(key.terms.budget_period, self._clock.now_ns())
        async with self._database.read() as connection:
            watch = await self._repository.get(connection, key.organization_id, key_id)
            spent = await self._repository.spent(connection, key.organization_id, [key_id], since_ns=begin)
            imported = await self._spend.state(connection, key.organization_id, key.account_id)
            account = await self._issued.account(connection, key.organization_id, key.account_id)
        nano, budget = spent.get(key_id, 0), key.terms.budget_nano
        watch = watch or Watch(key_id, key.organization_id)
        limit = None if budget is None else allowed(budget, watch, begin)
        return Standing(
            key=key,
            watch=watch,
            spent_nano=nano,
            percent=None if budget is None else percent_of(nano, budget if limit is None else limit),
            window_start_ns=begin,
            resets_at_ns=end,
            allowed_nano=limit,
            imported=imported,
            facts=self._facts(account),
            why_not=why_no_spend(self._issued.provisioner(account.vendor), account.settings),
        )

    async def held_back(self, organization_id: str, key_ids: Sequence[str]) -> Mapping[str, str]:
        """The `Budgets` of issued keys."""
        async with self._database.read() as connection:
            return await self._repository.stages(connection, organization_id, key_ids)

    async def kept(self, actor: Actor, key_id: str) -> KeptBudget:
        """The `Budgets` of issued keys."""
        found = await self.standing(actor, key_id)
        if found.enforced_by == "vendor":
            return KeptBudget(found.enforced_by, None)
        troubles = [each for each in (found.unkept, found.trouble or found.why_not) if each is not None]
        return KeptBudget(found.enforced_by, ". ".join(troubles) or None)

    async def set_rule(self, actor: Actor, key_id: str, rule: WatchRule) -> Standing:
        """How this key's budget is watched from now on; the worker acts on it within a minute. Raises `InvalidInput` for what the vendor
        can't do, `Conflict` for a key whose budget needs no watching."""
        key = await self._keys.get(actor, key_id)
        async with self._database.read() as connection:
            account = await self._issued.account(connection, key.organization_id, key.account_id)
        self._check(key, account, rule)
        async with change(self._database, self._audit, actor, "issued_key.watch", key_id) as work:
            known = await self._repository.get(work.connection, key.organization_id, key_id, lock=True)
            watch = known or Watch(key_id, key.organization_id)
            before = None if known is None else _rule_record(known.rule)
            await self._audit.record(work, actor, "issued_key.watch", key_id, before=before, after=_rule_record(rule))
            await self._repository.save(work.connection, replace(watch, rule=rule, next_at_ns=0, stage_key=None))
        return await self.standing(actor, key_id)

    async def resume(self, actor: Actor, key_id: str, how: Resumption) -> Standing:
        """Lets a key that its budget ended go on; the vendor is told at once. Raises `Conflict` for a key that was not disabled, or that
        the vendor does not enable, `InvalidInput` where it would be disabled again by what is spent already."""
        key = await self._keys.get(actor, key_id)
        begin, ends = window_of(key.terms.budget_period, self._clock.now_ns())
        if how.ignore and ends is None:
            raise InvalidInput("ignore_until_period_end: this budget has no periods; raise it with budget_usd")
        async with change(self._database, self._audit, actor, "issued_key.resume", key_id) as work:
            watch = await self._repository.get(work.connection, key.organization_id, key_id, lock=True)
            if watch is None or watch.stage is not Stage.DISABLED or key.state not in LIVE:
                raise Conflict("The key was not disabled for its budget")
            spent = (await self._repository.spent(work.connection, key.organization_id, [key_id], since_ns=begin)).get(key_id, 0)
            if how.budget_nano is not None:
                key = await self._keys.raise_budget(work, actor, key_id, how.budget_nano)
            after = waive(watch, how, begin)
            limit = allowed(key.terms.budget_nano or 0, after, begin)
            if limit is not None and limit > MAX_NANO:
                raise InvalidInput(f"At most {format_usd(MAX_NANO)} USD can be allowed")
            if limit is not None and percent_of(spent, limit) >= 100:
                raise InvalidInput(
                    f"{format_usd(spent)} USD are spent already, and {format_usd(limit)} would be allowed: allow more than that"
                )
            if limit is not None:  # thresholds of the new amount that are not reached yet are announced once they are
                after = replace(after, warned=announced_at(after.rule, percent_of(spent, limit)))
            said = {"allowed_usd": None if limit is None else format_usd(limit), "until": rfc3339(ends) if how.ignore else None}
            await self._audit.record(work, actor, "issued_key.resume", key_id, before={"stage": watch.stage}, after=said)
            await self._repository.save(work.connection, after)
        await self._look(key, after, spent)
        found = await self.standing(actor, key_id)
        if found.watch.stage is Stage.DISABLED:
            raise Conflict(f"The vendor has not enabled the key yet; it is tried again. {found.watch.error or ''}".strip())
        return found

    async def tick(self) -> None:
        """Looks at every watched budget, and acts where its stage is not the one that its spend calls for. A key that is held back for a
        budget which it has no more is let go. For the worker."""
        now = self._clock.now_ns()
        async with self._database.read() as connection:
            read = {each.id for each in await self._issued.all_accounts(connection) if self._facts(each) is not None}
            budgets = await self._issued.with_budget(connection)
            keys = [key for key in budgets if key.account_id in read]
            states = await self._spend.all_states(connection)
            watches = await self._repository.all(connection)
            held_back = {watch.key_id for watch in watches.values() if watch.holds_back}
            keys += await self._issued.living(connection, sorted(held_back - {key.id for key in budgets}))
            spent: dict[str, int] = {}
            groups: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
            for key in keys:
                groups[key.organization_id, window_of(key.terms.budget_period, now)[0]].append(key.id)
            for (organization_id, begin), ids in groups.items():
                spent |= await self._repository.spent(connection, organization_id, ids, since_ns=begin)
        room = asyncio.Semaphore(AT_ONCE)

        async def one(key: IssuedKey) -> None:
            async with room:
                try:
                    state = states.get(key.account_id)
                    told = state is None or state.not_by_key is None
                    watch = watches.get(key.id) or Watch(key.id, key.organization_id)
                    await self._look(key, watch, spent.get(key.id, 0), told=told)
                except KeyGateError as error:
                    _log.warning("watched budget of %s: %s", key.id, error.detail)
                except Exception:  # noqa: BLE001  (one key's trouble must not stop the others)
                    _log.exception("watched budget of %s: the work on it failed; it is tried again", key.id)

        await asyncio.gather(*(one(key) for key in keys))

    # Parts

    async def _look(self, key: IssuedKey, watch: Watch, spent_nano: int, *, told: bool = True) -> None:
        """`told` False: the bill can't be told by key now, so that nothing which was done in this period is taken back."""
        begin, _ = window_of(key.terms.budget_period, self._clock.now_ns())
        lasting = not told and watch.window_start_ns == begin
        budget = key.terms.budget_nano or 0
        limit = allowed(budget, watch, begin)
        percent = percent_of(spent_nano, budget if limit is None else limit)
        if watch.window_start_ns != begin:
            watch = replace(watch, window_start_ns=begin, warned=0)
        reached = announced_at(watch.rule, percent)
        if reached > watch.warned and key.terms.budget_nano is not None:
            watch = await self._announce(key, watch, spent_nano, reached)
        wanted = Stage.NONE  # where the vendor refuses by itself: what was done while it did not is taken back
        if _is_ours(key):
            can_disable = isinstance(self._issued.provisioner(key.vendor), Disables)
            wanted = wanted_stage(watch.rule, percent, can_disable=can_disable, waived=limit is None)
            if lasting:
                wanted = max(wanted, watch.wanted, key=list(Stage).index)
        at_vendor = None if key.footprint is None else key.footprint.key
        settled = watch.stage is wanted and (wanted is Stage.NONE or watch.stage_key == at_vendor)
        if settled and watch.wanted is wanted and not self._is_old(watch):
            return
        if watch.wanted is not wanted or watch.next_at_ns <= self._clock.now_ns():
            await self._act(key, watch, wanted, spent_nano)

    def _is_old(self, watch: Watch) -> bool:
        """Whether a restraint was confirmed so long ago that somebody may have taken it back at the vendor since."""
        return watch.stage is not Stage.NONE and self._clock.now_ns() - (watch.confirmed_at_ns or 0) > RECHECK_NS

    async def _announce(self, key: IssuedKey, watch: Watch, spent_nano: int, percent: int) -> Watch:
        after = replace(watch, warned=percent)
        async with self._database.unit() as work:
            figures = await self._figures(work.connection, key, watch, spent_nano)
            await self._repository.save(work.connection, after)
            for each in passed(watch.rule, watch.warned, percent):
                kind = EventType.ISSUED_KEY_BUDGET_SPENT if each >= 100 else EventType.ISSUED_KEY_BUDGET_THRESHOLD_REACHED
                await self._outbox.raise_event(work, key.organization_id, kind, key.id, {**figures, "percent": each})
        return after

    async def _act(self, key: IssuedKey, watch: Watch, wanted: Stage, spent_nano: int) -> None:
        """Recorded, done, read back, recorded as confirmed. A crash in between is found by the next turn: the vendor is told again."""
        actor = worker_actor(key.organization_id)
        former = watch
        if watch.wanted is not wanted:
            watch = replace(watch, wanted=wanted, attempts=0, error=None, error_code=None)
            async with self._database.unit(key.organization_id) as work:
                said = {**await self._figures(work.connection, key, watch, spent_nano), "stage": wanted}
                await self._audit.record(work, actor, "issued_key.restrain", key.id, before={"stage": watch.stage}, after=said)
                await self._repository.save(work.connection, watch)
        try:
            if wanted is Stage.REVOKED:
                await self._keys.revoke(actor, key.id, reason=_reason(key, spent_nano), patience=0)
            else:
                await self._at_vendor(key, watch, wanted, {former.stage, former.wanted})
        except ProvisionerError as error:
            pause = min(_LONGEST_PAUSE_SECONDS, 15 * 2 ** min(watch.attempts, 10)) * NANOSECONDS
            failed = replace(watch, attempts=watch.attempts + 1, error_code=error.code, error=error.detail)
            async with self._database.unit() as work:
                await self._repository.save(work.connection, replace(failed, next_at_ns=self._clock.now_ns() + pause))
                if watch.attempts == 0:
                    said = {**await self._figures(work.connection, key, watch, spent_nano), "stage": wanted, "detail": error.detail}
                    await self._outbox.raise_event(work, key.organization_id, EventType.ISSUED_KEY_RESTRAINT_FAILED, key.id, said)
            return
        at_vendor = None if key.footprint is None else key.footprint.key
        confirmed = replace(
            watch, stage=wanted, stage_key=at_vendor, confirmed_at_ns=self._clock.now_ns(), attempts=0, error=None, error_code=None
        )
        async with self._database.unit() as work:
            await self._repository.save(work.connection, confirmed)
            if wanted is not Stage.REVOKED and (former.stage, former.stage_key) != (wanted, at_vendor):
                kind = EventType.ISSUED_KEY_RESTORED if wanted is Stage.NONE else EventType.ISSUED_KEY_RESTRICTED
                payload = {**await self._figures(work.connection, key, watch, spent_nano), "stage": wanted}
                await self._outbox.raise_event(work, key.organization_id, kind, key.id, payload)

    async def _at_vendor(self, key: IssuedKey, watch: Watch, wanted: Stage, before: set[Stage]) -> None:
        provisioner = self._issued.provisioner(key.vendor)
        async with self._database.read() as connection:
            account = await self._issued.account(connection, key.organization_id, key.account_id)
        if provisioner is None:
            raise ProvisionerError("This version of KeyGate makes no keys at this vendor")
        try:
            desk = await self._issued.desk(account)
        except EnvelopeBroken as error:
            raise AdminKeyRefused(f"The admin credential can't be opened: {error.detail}; enter it again") from None
        footprints = [key.footprint, None if key.former is None else key.former.footprint]
        for footprint in footprints:
            if footprint is not None:
                await apply(provisioner, desk, footprint, terms=key.terms, rule=watch.rule, wanted=wanted, before=before)
        for footprint in footprints:
            if footprint is not None:
                await shows(provisioner, desk, footprint, terms=key.terms, wanted=wanted)

    async def _figures(self, connection: Any, key: IssuedKey, watch: Watch, spent_nano: int) -> dict[str, Any]:
        """The number, and beside it how old it is."""
        budget = key.terms.budget_nano
        limit = None if budget is None else allowed(budget, watch, window_of(key.terms.budget_period, self._clock.now_ns())[0])
        imported = await self._spend.state(connection, key.organization_id, key.account_id)
        facts = self._facts(await self._issued.account(connection, key.organization_id, key.account_id))
        return {
            "vendor": key.vendor,
            "name": key.name,
            "spent_usd": format_usd(spent_nano),
            "budget_usd": None if budget is None else format_usd(budget),
            "allowed_usd": None if limit is None else format_usd(limit),
            "budget_period": key.terms.budget_period,
            "enforced_by_vendor": budget is not None and not _is_ours(key),
            "billed_until": rfc3339(None if imported is None else imported.as_of_ns),
            "delay_seconds": None if facts is None else facts.delay_seconds,
        }

    def _facts(self, account: VendorAccount) -> SpendFacts | None:
        return spend_of(self._issued.provisioner(account.vendor), account.settings)

    def _check(self, key: IssuedKey, account: VendorAccount, rule: WatchRule) -> None:
        provisioner = self._issued.provisioner(key.vendor)
        if key.state not in LIVE or provisioner is None:
            raise Conflict(f"The key is {key.state}; only live ones are watched")
        if key.terms.budget_nano is None:
            raise Conflict("The key has no budget")
        if not _is_ours(key):
            raise Conflict("The vendor enforces this key's budget itself; there is nothing to watch")
        title = provisioner.facts.title
        why_not = why_no_spend(provisioner, account.settings)
        if why_not is not None:
            raise Conflict(f"{title}'s bill is not read, so KeyGate has nothing to watch. {why_not}")
        if rule.at_end is AtEnd.DISABLE and not isinstance(provisioner, Disables):
            raise InvalidInput(f"at_end: {title} can't disable a key and enable it again; choose warn or revoke", field="at_end")
        if rule.lower_at is not None:
            limits = {Term.REQUESTS_PER_MINUTE: key.terms.requests_per_minute, Term.TOKENS_PER_MINUTE: key.terms.tokens_per_minute}
            kept = [term for term, limit in limits.items() if limit is not None and term in provisioner.facts.confirms]
            if not isinstance(provisioner, SetsLimits) or not kept:
                raise InvalidInput(
                    "lower_at_percent: the key has no requests or tokens a minute that the vendor enforces and that could be lowered",
                    field="lower_at_percent",
                )


def _is_ours(key: IssuedKey) -> bool:
    """Whether KeyGate has to act on the budget: the vendor does not, or not as agreed, or counts it for each key of a rotation by
    itself."""
    return key.enforcement.get(str(Term.BUDGET)) in WATCHED


def _reason(key: IssuedKey, spent_nano: int) -> str:
    return f"its budget is spent: {format_usd(spent_nano)} of {format_usd(key.terms.budget_nano or 0)} USD, as the vendor bills it"


def _rule_record(rule: WatchRule) -> dict[str, Any]:
    return {"warn_at": list(rule.warn_at), "lower_at": rule.lower_at, "lower_to": rule.lower_to, "at_end": rule.at_end}
