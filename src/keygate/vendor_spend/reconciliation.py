"""Our ledger against the vendors' bills, by vendor account and UTC day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keygate.errors import Forbidden, InvalidInput
from keygate.identities import Actor
from keygate.issued_keys import IssuedKeyAccess, VendorAccount
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.ledger import CredentialDay, UsageReports
from keygate.vendor_spend.balance import AccountDay
from keygate.vendor_spend.model import DAY_NS, ImportState, day_of, place_of
from keygate.vendor_spend.ports import CredentialDirectory, GatewayCredential
from keygate.vendors.admin import SpendFacts, spend_of, why_no_spend

if TYPE_CHECKING:
    from keygate.kit.database import Database
    from keygate.vendor_spend.report_queries import VendorSpendQueries
    from keygate.vendor_spend.repository import SpendRepository

DEFAULT_DAYS = 30
MOST_DAYS = 93
UNKNOWN_DELAY_SECONDS = 86_400  # where a vendor does not say how late its numbers are
MOST_KEYS = 20  # shown of each day


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """What a day's bill names that is not of KeyGate's making: keys of the gateway's own credentials, and keys that bypass it."""

    vendor_key: str | None
    place: Mapping[str, str]
    amount_nano: int


@dataclass(frozen=True, slots=True)
class Unassigned:
    """What the gateway spent with a credential that belongs to no vendor account that KeyGate reads the bill of."""

    vendor: str
    credential_id: str
    requests: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class BillStanding:
    account: VendorAccount
    facts: SpendFacts | None  # None: it is not read
    state: ImportState | None
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    from_ns: int
    to_ns: int
    days: tuple[tuple[AccountDay, tuple[UnknownKey, ...]], ...]
    unassigned: tuple[Unassigned, ...]
    bills: tuple[BillStanding, ...]


class BillReconciliation:
    def __init__(
        self,
        *,
        database: Database,
        queries: VendorSpendQueries,
        repository: SpendRepository,
        issued: IssuedKeyAccess,
        credentials: CredentialDirectory,
        gateway: UsageReports,
        default_hosts: Mapping[str, str],
        clock: Clock,
    ) -> None:
        """`default_hosts`: the host of each vendor's own API, where a credential is at home that names no account."""
        self._database = database
        self._queries = queries
        self._repository = repository
        self._issued = issued
        self._credentials = credentials
        self._gateway = gateway
        self._default_hosts = default_hosts
        self._clock = clock

    async def balance(self, actor: Actor, *, from_ns: int | None = None, to_ns: int | None = None, account: str | None = None) -> Balance:
        """Whole UTC days of `[from, to)`, thirty up to today unless told otherwise. Raises `InvalidInput`, `Forbidden`."""
        if actor.only_own:
            raise Forbidden("Bills are shown to those who see the whole organisation")
        end = day_of(self._clock.now_ns() if to_ns is None else to_ns - 1) + DAY_NS
        start = end - DEFAULT_DAYS * DAY_NS if from_ns is None else day_of(from_ns)
        if not 0 < end - start <= MOST_DAYS * DAY_NS:
            raise InvalidInput(f"from: must be before `to`, and at most {MOST_DAYS} days", field="from")
        organization_id = actor.organization_id
        spent = await self._gateway.by_credential(organization_id, from_ns=max(0, start - DAY_NS), to_ns=end)
        async with self._database.read() as connection:
            accounts = await self._issued.accounts(connection, organization_id)
            states = {state.account_id: state for state in await self._repository.states(connection, organization_id)}
            credentials = {each.id: each for each in await self._credentials.credentials(connection, organization_id)}
            billed = await self._queries.days(connection, organization_id, from_ns=start, to_ns=end)
            unknown = await self._queries.unknown(connection, organization_id, from_ns=start, to_ns=end)
        if account is not None and account not in {name for each in accounts for name in (each.id, each.name)}:
            raise InvalidInput("account: no vendor account has this id or name", field="account")
        bills = tuple(self._standing(each, states.get(each.id)) for each in accounts)
        home = {row.credential_id: self._home(row, accounts, credentials) for row in spent if row.credential_id is not None}
        keys: defaultdict[tuple[str, int], list[UnknownKey]] = defaultdict(list)
        for row in unknown:
            keys[row.account_id, row.bucket_ns].append(UnknownKey(row.vendor_key, place_of(row.place), row.amount_nano))
        days = []
        for bill in bills:
            if account is not None and account not in {bill.account.id, bill.account.name}:
                continue
            mine = [row for row in spent if row.credential_id is not None and home[row.credential_id] == bill.account.id]
            theirs = {row.bucket_ns: row for row in billed if row.account_id == bill.account.id}
            for day in range(start, end, DAY_NS):
                nobodys = sum(each.amount_nano for each in keys[bill.account.id, day] if each.vendor_key is None and not each.place)
                found = await self._day(organization_id, bill, day, mine, theirs.get(day), nobodys)
                if found is not None:
                    days.append((found, tuple(keys[bill.account.id, day][:MOST_KEYS])))
        days.sort(key=lambda each: (each[0].day_ns, each[0].vendor, each[0].account))
        return Balance(start, end, tuple(days), _unassigned(spent, home, start), bills)

    async def _day(
        self,
        organization_id: str,
        bill: BillStanding,
        day: int,
        mine: Sequence[CredentialDay],
        billed: object | None,
        nobodys_nano: int,
    ) -> AccountDay | None:
        """None: nothing was spent and nothing billed."""
        today = [row for row in mine if row.day_ns == day]
        if not today and billed is None:
            return None
        facts, state, account = bill.facts, bill.state, bill.account
        as_of = None if state is None else state.as_of_ns
        pending, final, read = 0, False, False
        if facts is not None and state is not None and as_of is not None:
            delay = (UNKNOWN_DELAY_SECONDS if facts.delay_seconds is None else facts.delay_seconds) * NANOSECONDS
            read = state.read_until_ns is not None and day < state.read_until_ns
            final = day + DAY_NS + max(facts.restated_days * DAY_NS, delay) <= as_of
            ids = sorted({row.credential_id for row in today if row.credential_id is not None})
            since = max(day, as_of - delay)
            if since < day + DAY_NS:
                pending = await self._gateway.spent_since(
                    organization_id, vendor=account.vendor, credential_ids=ids, since_ns=since, until_ns=day + DAY_NS
                )
        return AccountDay(
            account_id=account.id,
            account=account.name,
            vendor=account.vendor,
            day_ns=day,
            ledger_nano=sum(row.cost_nano for row in today),
            requests=sum(row.requests for row in today),
            unpriced=sum(row.unpriced for row in today),
            in_doubt_nano=sum(row.in_doubt_nano for row in today),
            pending_nano=pending,
            late_nano=sum(row.late_nano for row in today),
            early_nano=sum(row.late_nano for row in mine if row.day_ns == day - DAY_NS),
            bill_nano=getattr(billed, "bill_nano", 0) if read else None,
            issued_nano=getattr(billed, "issued_nano", 0) if read else 0,
            restated_nano=getattr(billed, "restated_nano", 0) if read else 0,
            untold_nano=0 if state is None or state.tells_by_key(day) else max(0, nobodys_nano),
            reported=facts is not None,
            final=final,
        )

    def _standing(self, account: VendorAccount, state: ImportState | None) -> BillStanding:
        provisioner = self._issued.provisioner(account.vendor)
        return BillStanding(account, spend_of(provisioner, account.settings), state, why_no_spend(provisioner, account.settings))

    def _home(self, row: CredentialDay, accounts: Sequence[VendorAccount], credentials: Mapping[str, GatewayCredential]) -> str | None:
        """The vendor account that a credential belongs to: the one that it names; else the vendor's only one, if the credential leads to
        where that account is. None: none that we read the bill of."""
        theirs = [each for each in accounts if each.vendor == row.vendor]
        credential = credentials.get(row.credential_id or "")
        if credential is not None and credential.account is not None:
            return next((each.id for each in theirs if credential.account in {each.id, each.name, each.account}), None)
        if len(theirs) != 1:
            return None
        address = theirs[0].settings.get("base_url")
        expected = self._default_hosts.get(row.vendor) if address is None else urlsplit(address).netloc
        if credential is not None and expected is not None and urlsplit(credential.base_url).netloc != expected:
            return None
        return theirs[0].id


def _unassigned(spent: Sequence[CredentialDay], home: Mapping[str, str | None], start: int) -> tuple[Unassigned, ...]:
    sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in spent:
        if row.credential_id is not None and home[row.credential_id] is None and row.day_ns >= start:
            total = sums[row.vendor, row.credential_id]
            total[0] += row.requests
            total[1] += row.cost_nano
    return tuple(Unassigned(vendor, credential, requests, cost) for (vendor, credential), (requests, cost) in sorted(sums.items()))
