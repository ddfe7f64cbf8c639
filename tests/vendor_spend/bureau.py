"""Issued keys and their vendors' bills over a real database, with the sandbox as every vendor and its time as ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from tests.ledger.journal_files import settle, write

from keygate.events import EventOutbox
from keygate.events.repository import EventRepository
from keygate.identities import Actor
from keygate.identities.directory import OwnerDirectory
from keygate.identities.repository import OwnerRepository
from keygate.issued_keys import IssuedKey, IssueDraft, VendorAccount
from keygate.kit.clock import NANOSECONDS
from keygate.kit.database import Database
from keygate.kit.secret import Secret
from keygate.ledger.fold import Fold
from keygate.ledger.report_queries import ReportQueries
from keygate.ledger.reports import UsageReports
from keygate.ledger.repository import LedgerRepository
from keygate.policies import Place, Scope
from keygate.processes.issuing import Issuing, issuing
from keygate.processes.spending import Spending, spending
from keygate.processes.stocktaking import Stocktaking, stocktaking
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account
from keygate.sandbox.admin.prices import price_of
from keygate.sandbox.model import Usage
from keygate.vault import SEALED_COLUMNS, LocalKeySource, Vault
from keygate.vault.repository import VaultRepository
from keygate.vault.tables import credentials
from keygate.vendors.admin import PROVISIONERS, Provisioner, Terms

DAY_S = 86_400
DAY_NS = DAY_S * NANOSECONDS
MODEL = "gpt-4.1"


class VendorTime:
    """The sandbox's time, wherever it is moved to, so that bills and leases are of one calendar."""

    def __init__(self, sandbox: SandboxServer) -> None:
        self._clock = sandbox.state.admin.clock

    def now_ns(self) -> int:
        return int(self._clock.now_ns())

    monotonic_ns = now_ns

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)


@dataclass
class Bureau:
    database: Database
    sandbox: SandboxServer
    clock: VendorTime
    owner: Actor
    people: Any
    orders: Issuing
    bills: Spending
    stock: Stocktaking
    reports: UsageReports
    outbox: EventOutbox
    journal: Path
    provisioners: Mapping[str, Provisioner]
    process: Callable[[str], Awaitable[Spending]]  # another one, on the same database: of the node of that name
    secrets: dict[str, Secret] = field(default_factory=dict)  # by issued key

    def books(self, vendor: str) -> Account:
        return self.sandbox.state.admin[Vendor(vendor)]

    async def configure(self, vendor: str = "openai", **settings: str) -> VendorAccount:
        account = self.books(vendor)
        credential = account.create_credential(name="keygate")
        known = {
            "openai": {"base_url": self.sandbox.openai_base_url},
            "openrouter": {"base_url": f"{self.sandbox.address}/openrouter/api/v1"},
        }
        known["xai"] = {"base_url": f"{self.sandbox.address}/xai"}
        known["bedrock"] = {"base_url": f"{self.sandbox.address}/aws/iam", "access_key_id": credential.name, "region": "us-east-1"}
        secret = credential.value
        if vendor == "google":
            from keygate.sandbox.admin.google.api import BILLING_ACCOUNT, PARENT, PROJECT, GoogleAdmin

            console, token_uri = GoogleAdmin(), f"{self.sandbox.address}/google/oauth2/token"
            secret = console.console(account, "admin_key", {"token_uri": token_uri})["credentials"]
            known["google"] = {
                "base_url": f"{self.sandbox.address}/google",
                "project": PROJECT,
                "parent": PARENT,
                "billing_account": BILLING_ACCOUNT,
                "billing_export_table": console.console(account, "billing_export", {})["table"],
            }
        if vendor == "azure":
            from tests.sdks.azure_clients import GROUP, SUBSCRIPTION, TENANT

            known["azure"] = {
                "base_url": f"{self.sandbox.address}/azure",
                "tenant": TENANT,
                "client_id": credential.name,
                "subscription": SUBSCRIPTION,
                "resource_group": GROUP,
                "region": "eastus",
            }
        if vendor == "anthropic":
            from keygate.sandbox.admin.anthropic import AnthropicAdmin

            identity = self.orders.minting.identity()
            jwks = {"type": "inline", "keys": identity["jwks"]["keys"]}
            rule = {"issuer_url": identity["issuer"], "jwks": jwks, "subject": "keygate:admin", "audience": "https://api.anthropic.com"}
            made = AnthropicAdmin().console(account, "admin_rule", rule)
            federation = {name: made[name] for name in ("organization_id", "federation_rule_id", "service_account_id")}
            known["anthropic"] = {"base_url": self.sandbox.anthropic_base_url, **federation}
        wanted = {**known[vendor], "calls_per_minute": "100000", **settings}
        return await self.orders.accounts.configure(self.owner, vendor=vendor, name="default", admin_key=Secret(secret), settings=wanted)

    async def issue(self, vendor: str = "openai", *, developer: str | None = None, **terms: Any) -> IssuedKey:
        owner = None if developer is None else Place(Scope.DEVELOPER, developer)
        draft = IssueDraft(vendor, owner, Terms(**terms), allow_unenforced=True)
        told = await self.orders.keys.provision(self.owner, draft)
        assert told.key.state == "active", told.key.error
        assert told.secret is not None
        self.secrets[told.key.id] = told.secret
        return told.key

    async def developer(self, name: str, team_id: str | None = None) -> str:
        made = await self.people.developers.create(self.owner, name=name, email=f"{name}@example.com", team_id=team_id)
        return str(made.id)

    def spend(
        self,
        key: IssuedKey | None,
        *,
        vendor: str = "openai",
        days_ago: float = 0,
        tokens: int = 1_000_000,
        model: str = MODEL,
        vendor_key: str | None = None,
        container: str | None = None,
    ) -> Decimal:
        """What the vendor books: as if the key had produced so many tokens. Returns what it cost. Without a key: a key of the vendor's
        that KeyGate never made."""
        account = self.books(vendor)
        if key is not None:
            assert key.footprint is not None
            place = key.footprint.place
            container = place.get("project") or place.get("workspace") or self._container(place.get("account"))
            container = f"arn:aws:iam::123456789012:user/keygate/{place['user']}" if "user" in place else container
            vendor_key = vendor_key or place.get("service_account" if vendor == "anthropic" else "") or key.footprint.key
        usage = Usage(input=0, output=tokens)
        with self.sandbox.state.admin.lock:
            price = price_of(self.sandbox.state.models, Vendor(vendor), model)
            at_ns = account.now_ns() - round(days_ago * DAY_NS)
            pico = account.books.use(at_ns, key_id=vendor_key, container=container, model=model, usage=usage, price=price, request=True)
        return Decimal(pico) / 10**12

    def _container(self, name: str | None) -> str | None:
        """The whole id of a resource at Azure, as its books have it."""
        found = (key.grant.container for key in self.sandbox.state.keys.values() if key.grant is not None and key.grant.container)
        return next((each for each in found if name and each.endswith(f"/{name}")), None)

    def restate(self, key: IssuedKey, amount_usd: str, *, days_ago: float, vendor: str = "openai") -> None:
        account = self.books(vendor)
        assert key.footprint is not None
        with self.sandbox.state.admin.lock:
            now = account.now_ns()
            account.books.correct(
                now,
                at_ns=now - round(days_ago * DAY_NS),
                key_id=key.footprint.key,
                container=key.footprint.place.get("project"),
                model=MODEL,
                amount_usd=Decimal(amount_usd),
            )

    def behave(self, vendor: str = "openai", **settings: Any) -> None:
        account = self.books(vendor)
        with self.sandbox.state.admin.lock:
            account.settings = account.settings.with_changes(settings)

    def ledger(self, cost_usd: str, *, days_ago: float = 0, credential: str = "cred_1", **changes: Any) -> None:
        """A request that went through the gateway."""
        at_ns = self.clock.now_ns() - round(days_ago * DAY_NS)
        nano = int(Decimal(cost_usd) * 10**9)
        values = {"began_at_ns": at_ns, "at_ns": at_ns + 1, "cost_nano": nano, "hold_nano": nano, "credential_id": credential}
        write(self.journal, [settle(organization_id=self.owner.organization_id, **{**values, **changes})])

    async def credential(self, id_: str, *, account: str | None = None, base_url: str | None = None, vendor: str = "openai") -> None:
        """A credential of the gateway; its secret is never used here."""
        row = {
            "id": id_,
            "organization_id": self.owner.organization_id,
            "vendor": vendor,
            "name": id_,
            "secret": b"",
            "secret_digest": id_,
            "hint": "",
            "base_url": base_url or self.sandbox.openai_base_url,
            "account": account,
            "weight": 1,
            "status": "enabled",
            "created_at_ns": 0,
            "updated_at_ns": 0,
        }
        async with self.database.unit() as work:
            await work.connection.execute(sa.insert(credentials).values(row))

    async def usage(self, *, source: str, group_by: Sequence[str] = (), actor: Actor | None = None, **filters: Any) -> Any:
        from keygate.ledger import Source, VendorUsage

        who = actor or self.owner
        selection = self.reports.selection(who, from_ns=self.clock.now_ns() - 40 * DAY_NS, filters=filters)
        billed = self.bills.services[VendorUsage]
        return await billed.usage(who, selection, group_by, source=Source(source))

    async def billed(self, **filters: Any) -> Decimal:
        report = await self.usage(source="vendor", **filters)
        return Decimal(sum(row.cost_nano for row in report.rows)) / 10**9

    async def events(self) -> list[Any]:
        return list(reversed(await self.outbox.page(self.owner.organization_id, before=None, type_=None, limit=200)))


def _passed(clock: VendorTime) -> Callable[[float], Awaitable[None]]:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    return sleep


@asynccontextmanager
async def bureau(
    database: Database,
    sandbox: SandboxServer,
    clock: VendorTime,
    people: Any,
    owner: Actor,
    audit: Any,
    folder: Path,
    **others: Provisioner,
) -> Any:
    provisioners = {**PROVISIONERS, **others}
    vault = Vault(database, VaultRepository(), source=LocalKeySource(folder / "keys"), clock=clock, columns=SEALED_COLUMNS)
    await vault.start()
    base: Any = SimpleNamespace(
        settings=SimpleNamespace(address="http://keygate.test", stale_days=90),
        clock=clock,
        database=database,
        vault=vault,
        audit=audit,
        signer=None,
        digest_key=b"d" * 32,
    )
    outbox = EventOutbox(database=database, repository=EventRepository(), clock=clock)
    owners = OwnerDirectory(OwnerRepository())
    journal = folder / "journal"
    journal.mkdir()
    fold = Fold(database=database, repository=LedgerRepository(), directory=journal, journal_id="node_1", clock=clock)
    reports = UsageReports(database=database, queries=ReportQueries(), clock=clock, fresh=fold)
    orders = await issuing(base, outbox, owners, node_id="node_1", provisioners=provisioners)

    async def process(node_id: str) -> Spending:
        return await spending(base, outbox, owners, orders, reports, node_id=node_id)

    bills = await process("node_1")
    stock = await stocktaking(base, orders, outbox, people.developers, node_id="node_1", sleep=_passed(clock))
    try:
        yield Bureau(database, sandbox, clock, owner, people, orders, bills, stock, reports, outbox, journal, provisioners, process)
    finally:
        await orders.close()
