"""What vendors bill: imported from their cost APIs, restated days read again, attributed to our keys; what no key of ours made shows up
too.

A window of time is read whole and then replaced whole, in one transaction: numbers that a vendor restates or tells late are never counted
twice, and an import that fails half-way changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keygate.audit import canonical
from keygate.errors import Conflict, NotFound, UpstreamFailed
from keygate.identities import Actor
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.model import IssuedKey, VendorAccount
from keygate.issued_keys.watch import BudgetWatch
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.vault import EnvelopeBroken
from keygate.vendors.admin import Desk, Provisioner, ProvisionerError, Rejected, ReportsSpend, SpendFacts, SpendRow

if TYPE_CHECKING:
    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.issued_keys.spend_repository import SpendRepository
    from keygate.kit.database import Database

_log = logging.getLogger(__name__)

DAY_NS = 86_400 * NANOSECONDS
EVERY_NS = 3_600 * NANOSECONDS  # an account is read once an hour
FIRST_DAYS = 30  # how far back the first import goes
WINDOW_DAYS = 10  # of one transaction
_MAX_PAGES = 2_000


@dataclass(frozen=True, slots=True)
class ImportState:
    """How current an account's numbers are."""

    account_id: str
    organization_id: str
    until_ns: int | None
    read_at_ns: int | None
    tried_at_ns: int
    error: str | None


@dataclass(frozen=True, slots=True)
class SpendLine:
    """One group of a report. `group` None: what no key of ours made."""

    group: str | None
    amount_nano: int
    requests: int | None


@dataclass(frozen=True, slots=True)
class Freshness:
    account: VendorAccount
    state: ImportState | None
    facts: SpendFacts | None  # None: the vendor tells no costs by API


class Owners:
    """Which of our keys a vendor's row belongs to: by the vendor's key id, else by a container that holds keys of one of ours only."""

    def __init__(self, keys: Iterable[IssuedKey]) -> None:
        self._by_key: dict[str, IssuedKey] = {}
        self._by_place: dict[tuple[str, str], IssuedKey | None] = {}
        for key in keys:
            prints = [key.footprint, None if key.former is None else key.former.footprint]
            for footprint in prints:
                if footprint is not None and footprint.key is not None:
                    self._by_key[footprint.key] = key
            for each in key.evidence:
                if each.get("key"):
                    self._by_key[each["key"]] = key
            for item in key.footprint.place.items() if key.footprint is not None and not key.adopted else ():
                known = self._by_place.get(item, key)
                self._by_place[item] = key if known is key else None  # shared by several: tells nothing

    def of(self, row: SpendRow) -> IssuedKey | None:
        found = self._by_key.get(row.key) if row.key is not None else None
        if found is not None:
            return found
        held = [self._by_place.get(item) for item in row.place.items()]
        named = {key.id: key for key in held if key is not None}
        return next(iter(named.values())) if len(named) == 1 else None


def spend_record(account: VendorAccount, row: SpendRow, key: IssuedKey | None) -> dict[str, Any]:
    identity = canonical([dict(row.place), row.key, row.item])
    return {
        "account_id": account.id,
        "start_ns": row.start_ns,
        "digest": hashlib.sha256(identity.encode()).digest(),
        "organization_id": account.organization_id,
        "vendor": account.vendor,
        "key_id": None if key is None else key.id,
        "owner_id": None if key is None or key.owner is None else key.owner.scope_id,
        "place": dict(row.place),
        "vendor_key": None if row.key is None else row.key[:300],
        "item": row.item[:300],
        "end_ns": row.end_ns,
        "amount_nano": row.amount_nano,
        "requests": row.requests,
    }


def merged(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one name and bucket that a vendor tells apart are added up: one answer of a vendor holds each cost once."""
    by_name: dict[tuple[int, bytes], dict[str, Any]] = {}
    for record in records:
        name = (record["start_ns"], record["digest"])
        known = by_name.get(name)
        if known is None:
            by_name[name] = record
        else:
            known["amount_nano"] += record["amount_nano"]
            if record["requests"] is not None:
                known["requests"] = (known["requests"] or 0) + record["requests"]
    return list(by_name.values())


class VendorSpend:
    def __init__(
        self,
        *,
        database: Database,
        repository: SpendRepository,
        accounts: VendorAccountRepository,
        desks: Desks,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
        watch: BudgetWatch,
    ) -> None:
        self._watch = watch
        self._database = database
        self._repository = repository
        self._accounts = accounts
        self._desks = desks
        self._provisioners = provisioners
        self._clock = clock

    async def tick(self) -> None:
        """Reads every account that was not read for an hour. What fails is noted on the account and tried again in an hour. For the
        worker."""
        async with self._database.read() as connection:
            due = await self._repository.due(connection, before_ns=self._clock.now_ns() - EVERY_NS)
        for organization_id, account_id in due:
            async with self._database.read() as connection:
                account = await self._accounts.get(connection, organization_id, account_id)
            if account is not None and self._facts(account) is not None:
                try:
                    await self._read(account)
                except (UpstreamFailed, Conflict) as error:
                    _log.warning("costs of vendor account %s: %s", account.id, error.detail)

    async def read_now(self, actor: Actor, account_id: str) -> ImportState:
        """Imports at once. Raises `UpstreamFailed` where the vendor does not do its part; what was known before stays as it was."""
        async with self._database.read() as connection:
            account = await self._accounts.get(connection, actor.organization_id, account_id)
        if account is None:
            raise NotFound("There is no vendor account with this id")
        return await self._read(account)

    async def report(self, actor: Actor, *, from_ns: int, to_ns: int, group_by: str) -> tuple[Sequence[SpendLine], Sequence[Freshness]]:
        """What vendors bill for `[from, to)` by whole buckets, and how current each account's numbers are."""
        async with self._database.read() as connection:
            lines = await self._repository.report(
                connection, actor.organization_id, from_ns=from_ns, to_ns=to_ns, group_by=group_by, day_ns=DAY_NS
            )
            accounts = await self._accounts.all(connection, actor.organization_id)
            states = {state.account_id: state for state in await self._repository.states(connection, actor.organization_id)}
        return lines, [Freshness(account, states.get(account.id), self._facts(account)) for account in accounts]

    def _facts(self, account: VendorAccount) -> SpendFacts | None:
        provisioner = self._provisioners.get(account.vendor)
        return provisioner.spend_facts if isinstance(provisioner, ReportsSpend) else None

    async def _read(self, account: VendorAccount) -> ImportState:
        reporter: object = self._provisioners.get(account.vendor)
        if not isinstance(reporter, ReportsSpend):
            raise Conflict("This vendor tells no costs by API, or KeyGate can't read them yet")
        now = self._clock.now_ns()
        async with self._database.read() as connection:
            state = await self._repository.state(connection, account.organization_id, account.id)
            owners = Owners(await self._repository.keys_of(connection, account.organization_id, account.id))
        began = (now - FIRST_DAYS * DAY_NS) if state is None or state.until_ns is None else state.until_ns
        start = (began - reporter.spend_facts.restated_days * DAY_NS) // DAY_NS * DAY_NS
        try:
            desk = await self._desks.open(account)
            while start < now:
                end = min(start + WINDOW_DAYS * DAY_NS, (now // DAY_NS + 1) * DAY_NS)
                rows = await _window(reporter, desk, start, end)
                records = merged(spend_record(account, row, owners.of(row)) for row in rows)
                async with self._database.unit(account.organization_id) as work:
                    await self._repository.replace(work.connection, account, records, from_ns=start, to_ns=end)
                    done = ImportState(account.id, account.organization_id, min(end, now), now, now, None)
                    await self._repository.note(work.connection, done)
                start = end
        except (ProvisionerError, EnvelopeBroken) as error:
            await self._failed(account, error.detail, now)
            raise UpstreamFailed(f"The vendor's costs could not be read: {error.detail}") from None
        await self._watch.look(account)
        return ImportState(account.id, account.organization_id, now, now, now, None)

    async def _failed(self, account: VendorAccount, detail: str, now: int) -> None:
        """What was read before stays; that the account's numbers are old is shown beside them."""
        async with self._database.unit(account.organization_id) as work:
            known = await self._repository.state(work.connection, account.organization_id, account.id)
            until, read = (None, None) if known is None else (known.until_ns, known.read_at_ns)
            await self._repository.note(work.connection, ImportState(account.id, account.organization_id, until, read, now, detail))


async def _window(reporter: ReportsSpend, desk: Desk, start: int, end: int) -> list[SpendRow]:
    """Every row whose bucket begins in `[start, end)`, all pages."""
    found: list[SpendRow] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        rows, cursor = await reporter.spend_page(desk, start, end, cursor)
        found += [row for row in rows if start <= row.start_ns < end]
        if cursor is None:
            return found
    raise Rejected("the vendor's cost report has no end")
