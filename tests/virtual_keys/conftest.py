"""A small organisation on a real database, with the real services around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from keygate.audit import AuditService, EntryFilter, HeadsFile, Signer
from keygate.audit.repository import AuditRepository
from keygate.events import EventOutbox
from keygate.events.repository import EventRepository
from keygate.identities import Actor, ActorKind, Role
from keygate.identities.directory import OwnerDirectory
from keygate.identities.repository import OwnerRepository
from keygate.identities.tables import apps, developers, organizations, teams
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database
from keygate.policies import (
    AliasService,
    BudgetService,
    BudgetStanding,
    Estimate,
    ExplainService,
    KeyState,
    KeyUsage,
    LimitStanding,
    PolicyService,
)
from keygate.policies.repository import PolicyRepository
from keygate.vendors import VENDORS
from keygate.virtual_keys import DatabaseKeySource, VirtualKeyService
from keygate.virtual_keys.repository import VirtualKeyRepository

PEPPER = bytes(range(32))


@dataclass
class Bulletin:
    """A `StatePublisher` that remembers what it was told."""

    keys: list[str] = field(default_factory=list)
    organizations: list[str] = field(default_factory=list)

    async def keys_changed(self, key_ids: Sequence[str]) -> None:
        self.keys += key_ids

    async def organization_changed(self, organization_id: str) -> None:
        self.organizations.append(organization_id)


@dataclass
class Books:
    """A `UsageReader` and `PriceReader` with settable figures: two dollars per thousand tokens."""

    spent: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)

    async def usage(self, state: KeyState) -> KeyUsage:
        return KeyUsage(
            requests=3,
            input_tokens=10,
            output_tokens=20,
            spent_nano=5,
            budgets=tuple(BudgetStanding(r, self.spent.get(r.id, 0), self.held.get(r.id, 0), None) for r in state.budgets),
            limits=tuple(LimitStanding(r, self.used.get(r.id, 0)) for r in state.limits),
        )

    def estimate(self, vendor: str, model: str, *, input_tokens: int, output_tokens: int, at_ns: int) -> Estimate | None:
        if model.startswith("unknown"):
            return None
        return Estimate(price_id=f"{vendor}/{model}", nano=(input_tokens + output_tokens) * 2_000_000)


@pytest.fixture
async def house(database: Database, clock: ManualClock, tmp_path: Path) -> SimpleNamespace:
    now = clock.now_ns()
    async with database.unit() as work:
        for org in ("org_1", "org_2"):
            row = {"id": org, "name": "Acme", "time_zone": "Europe/Berlin", "created_at_ns": now}
            await work.connection.execute(sa.insert(organizations).values(row))
        for team in ("team_1", "team_2"):
            row = {"id": team, "organization_id": "org_1", "name": team, "created_at_ns": now}
            await work.connection.execute(sa.insert(teams).values(row))
        for dev in ("dev_1", "dev_2"):
            row = {"id": dev, "organization_id": "org_1", "name": dev, "email": f"{dev}@x.org", "team_id": "team_1", "status": "active"}
            await work.connection.execute(sa.insert(developers).values(row | {"created_at_ns": now}))
        row = {"id": "app_1", "organization_id": "org_1", "name": "bot", "developer_id": "dev_2", "status": "active", "created_at_ns": now}
        await work.connection.execute(sa.insert(apps).values(row))

    audit = AuditService(
        database, AuditRepository(), signer=Signer(bytes(range(32))), digest_key=b"k" * 32, heads=HeadsFile(tmp_path), clock=clock
    )
    publisher, books, owners = Bulletin(), Books(), OwnerDirectory(OwnerRepository())
    keys, policies = VirtualKeyRepository(), PolicyRepository()
    source = DatabaseKeySource(database=database, keys=keys, policies=policies, owners=owners, clock=clock, pepper=PEPPER)
    outbox = EventOutbox(database=database, repository=EventRepository(), clock=clock)
    common: dict[str, Any] = {
        "database": database,
        "repository": policies,
        "audit": audit,
        "publisher": publisher,
        "vendors": VENDORS,
        "clock": clock,
    }

    async def entries(action: str) -> list[Any]:
        return await audit.find("org_1", EntryFilter(action=action), before=None, limit=100)

    async def set_row(table: sa.Table, row_id: str, **values: object) -> None:
        async with database.unit() as work:
            await work.connection.execute(sa.update(table).where(table.c.id == row_id).values(values))

    admin = Actor(ActorKind.USER, "usr_admin", "org_1", Role.ADMIN)
    developer = Actor(ActorKind.USER, "usr_dev", "org_1", Role.DEVELOPER, developer_id="dev_1")
    return SimpleNamespace(
        database=database,
        clock=clock,
        audit=audit,
        entries=entries,
        set_row=set_row,
        publisher=publisher,
        books=books,
        source=source,
        admin=admin,
        developer=developer,
        stranger=replace(admin, organization_id="org_2", id="usr_other"),
        key_repository=keys,
        policy_repository=policies,
        outbox=outbox,
        keys=VirtualKeyService(
            **(common | {"repository": keys}),
            policies=policies,
            source=source,
            owners=owners,
            outbox=outbox,
            pepper=PEPPER,
            address="https://keys.example.com",
            usage=books,
        ),
        policies=PolicyService(**common, owners=owners, keys=source),
        budgets=BudgetService(**common, owners=owners, keys=source),
        aliases=AliasService(**common, owners=owners, keys=source),
        explain=ExplainService(keys=source, vendors=VENDORS, clock=clock, prices=books, usage=books),
    )
