"""The control plane's services, wired: what each area stands on, and who is told of changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keygate.events import EventOutbox
from keygate.events.repository import EventRepository
from keygate.gateway.ports import StatePublisher
from keygate.identities.directory import OwnerDirectory
from keygate.identities.repository import OwnerRepository
from keygate.identities.wiring import Identities, identities
from keygate.issued_keys import IssuedKeyService
from keygate.issued_keys.repository import IssuedKeyRepository
from keygate.kit.clock import Clock
from keygate.policies import AliasService, BudgetService, ExplainService, PolicyService, PriceReader, UsageReader
from keygate.policies.repository import PolicyRepository
from keygate.processes.foundation import Foundation
from keygate.processes.issuing import Holders
from keygate.vault import CredentialService, HttpProbe
from keygate.vault.credential_repository import CredentialRepository
from keygate.vendors import VENDORS
from keygate.vendors.admin import PROVISIONERS
from keygate.virtual_keys import DatabaseKeySource, VirtualKeyService
from keygate.virtual_keys.repository import VirtualKeyRepository

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class Announcer:
    """The `StatePublisher` of every service. The gateway is made after some of them; until then there is nobody to tell."""

    def __init__(self) -> None:
        self.gateway: StatePublisher | None = None

    async def keys_changed(self, key_ids: Sequence[str]) -> None:
        if self.gateway is not None:
            await self.gateway.keys_changed(key_ids)

    async def organization_changed(self, organization_id: str) -> None:
        if self.gateway is not None:
            await self.gateway.organization_changed(organization_id)

    async def credentials_changed(self) -> None:
        if self.gateway is not None:
            await self.gateway.credentials_changed()


class Told:
    """The vault's `IssuedSecrets`."""

    def __init__(self, repository: IssuedKeyRepository) -> None:
        self._repository = repository

    async def key_with(self, connection: AsyncConnection, organization_id: str, digest: str) -> str | None:
        for secret in await self._repository.secrets_with(connection, digest):
            key = await self._repository.get(connection, organization_id, secret.key_id)
            if key is not None and not PROVISIONERS[key.vendor].facts.adopt_only:  # what is entered by hand has no bill
                return key.id
        return None


@dataclass(frozen=True, slots=True)
class Sources:
    """What the gateway reads from the control plane's tables."""

    owners: OwnerDirectory
    policies: PolicyRepository
    key_rows: VirtualKeyRepository
    keys: DatabaseKeySource


@dataclass(frozen=True, slots=True)
class Control:
    identities: Identities
    virtual_keys: VirtualKeyService
    services: dict[type, object]


def sources(base: Foundation) -> Sources:
    owners = OwnerDirectory(OwnerRepository())
    policies, key_rows = PolicyRepository(), VirtualKeyRepository()
    keys = DatabaseKeySource(database=base.database, keys=key_rows, policies=policies, owners=owners, clock=base.clock, pepper=base.pepper)
    return Sources(owners, policies, key_rows, keys)


def credential_service(base: Foundation, publisher: StatePublisher) -> CredentialService:
    return CredentialService(
        base.database,
        CredentialRepository(),
        vault=base.vault,
        audit=base.audit,
        publisher=publisher,
        probe=HttpProbe(clock=base.clock),
        vendors=VENDORS,
        issued=Told(IssuedKeyRepository()),
        digest_key=base.digest_key,
        clock=base.clock,
    )


def outbox(base: Foundation) -> EventOutbox:
    return EventOutbox(database=base.database, repository=EventRepository(), clock=base.clock)


def control(
    base: Foundation,
    source: Sources,
    *,
    publisher: StatePublisher,
    usage: UsageReader,
    prices: PriceReader,
    issued: IssuedKeyService,
    outbox: EventOutbox,
    services: dict[type, object],
) -> Control:
    """All services of the control plane. `services` are those that stand elsewhere already: credentials, the ledger's, events."""
    keys = VirtualKeyService(
        database=base.database,
        repository=source.key_rows,
        policies=source.policies,
        source=source.keys,
        audit=base.audit,
        publisher=publisher,
        owners=source.owners,
        vendors=VENDORS,
        clock=base.clock,
        outbox=outbox,
        pepper=base.pepper,
        address=base.settings.address,
        usage=usage,
    )
    rules = [
        kind(
            database=base.database,
            repository=source.policies,
            audit=base.audit,
            publisher=publisher,
            owners=source.owners,
            keys=source.keys,
            vendors=VENDORS,
            clock=base.clock,
        )
        for kind in (PolicyService, BudgetService, AliasService)
    ]
    holders = Holders(virtual=keys, virtual_rows=source.key_rows, issued=issued, owners=source.owners)
    people = identities(
        base.database,
        audit=base.audit,
        clock=base.clock,
        publisher=publisher,
        holders=holders,
        outbox=outbox,
        policies=source.policies,
    )
    explain = ExplainService(keys=source.keys, vendors=VENDORS, clock=base.clock, prices=prices, usage=usage)
    every = (keys, *rules, explain, base.audit)
    return Control(people, keys, {**people.by_class(), **{type(each): each for each in every}, **services, Clock: base.clock})
