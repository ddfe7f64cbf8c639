"""Makes the services of this area from what they stand on. For composition roots and tests."""

from __future__ import annotations

from dataclasses import dataclass

from keygate.audit import AuditLog
from keygate.events import EventOutbox
from keygate.identities.access_repository import AccessRepository
from keygate.identities.api_tokens import ApiTokenService
from keygate.identities.apps import AppService
from keygate.identities.developers import DeveloperService
from keygate.identities.owners import OrganizationService, TeamService
from keygate.identities.passwords import Passwords
from keygate.identities.ports import ChangePublisher, HolderListener, PolicyDirectory
from keygate.identities.repository import OwnerRepository
from keygate.identities.sessions import SessionService
from keygate.identities.users import UserService
from keygate.kit.clock import Clock
from keygate.kit.database import Database


@dataclass(frozen=True, slots=True)
class Identities:
    organizations: OrganizationService
    teams: TeamService
    developers: DeveloperService
    apps: AppService
    users: UserService
    sessions: SessionService
    api_tokens: ApiTokenService

    def by_class(self) -> dict[type, object]:
        """As the application finds them."""
        every = (self.organizations, self.teams, self.developers, self.apps, self.users, self.sessions, self.api_tokens)
        return {type(each): each for each in every}


def identities(
    database: Database,
    *,
    audit: AuditLog,
    clock: Clock,
    publisher: ChangePublisher,
    holders: HolderListener,
    outbox: EventOutbox,
    policies: PolicyDirectory | None,
    passwords: Passwords | None = None,
) -> Identities:
    owners, access = OwnerRepository(), AccessRepository()
    secrets = passwords or Passwords()
    return Identities(
        organizations=OrganizationService(
            database, owners, audit=audit, clock=clock, publisher=publisher, holders=holders, policies=policies
        ),
        teams=TeamService(
            database,
            owners,
            access=access,
            audit=audit,
            clock=clock,
            publisher=publisher,
            holders=holders,
            outbox=outbox,
            policies=policies,
        ),
        developers=DeveloperService(
            database,
            owners,
            access=access,
            audit=audit,
            clock=clock,
            publisher=publisher,
            holders=holders,
            outbox=outbox,
            policies=policies,
        ),
        apps=AppService(
            database,
            owners,
            access=access,
            audit=audit,
            clock=clock,
            publisher=publisher,
            holders=holders,
            outbox=outbox,
            policies=policies,
        ),
        users=UserService(database, access, owners=owners, passwords=secrets, audit=audit, clock=clock),
        sessions=SessionService(database, access, passwords=secrets, audit=audit, clock=clock),
        api_tokens=ApiTokenService(database, access, audit=audit, clock=clock),
    )
