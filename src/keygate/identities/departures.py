"""What ends with a developer or an app, beside the keys that they hold: in the transaction of whoever ends them, alone or with a team."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keygate.errors import Conflict, Forbidden
from keygate.events import EventOutbox, EventType
from keygate.identities.model import Actor, App, Developer, Status
from keygate.identities.permissions import may_grant
from keygate.kit.clock import Clock

if TYPE_CHECKING:
    from keygate.audit import AuditLog
    from keygate.identities.access_repository import AccessRepository
    from keygate.identities.repository import OwnerRepository
    from keygate.kit.database import UnitOfWork


class Departures:
    def __init__(
        self, repository: OwnerRepository, *, access: AccessRepository, audit: AuditLog, outbox: EventOutbox, clock: Clock
    ) -> None:
        self._repository = repository
        self._access = access
        self._audit = audit
        self._outbox = outbox
        self._clock = clock

    async def developer(self, work: UnitOfWork, actor: Actor, developer: Developer) -> None:
        """Ends a developer's sign-ins and API tokens, and notes that they have left. Raises `Forbidden` for one who signs in with a role
        that may more than the actor, `Conflict` for the last owner."""
        now = self._clock.now_ns()
        for user in await self._access.users_of(work.connection, actor.organization_id, developer.id):
            if not user.active:
                continue
            if not may_grant(actor, user.role):
                raise Forbidden(f"{developer.name} signs in as {user.role}; only who holds all that {user.role} does may end that")
            owners = await self._access.owner_ids(work.connection, actor.organization_id)
            if owners == [user.id]:
                raise Conflict(f"{developer.name} is the last owner of the organisation; make somebody else an owner first")
            await self._access.update_user(work.connection, user, {"status": Status.DEACTIVATED})
            await self._access.end_access(work.connection, user, now_ns=now)
            await self._audit.record(work, actor, "user.deactivate", user.id, before={"status": Status.ACTIVE})
        await self._repository.update_developer(work.connection, developer, {"status": Status.DEACTIVATED, "deactivated_at_ns": now})
        before, after = {"status": Status.ACTIVE}, {"status": Status.DEACTIVATED}
        await self._audit.record(work, actor, "developer.deactivate", developer.id, before=before, after=after)

    async def app(self, work: UnitOfWork, actor: Actor, app: App) -> None:
        changes = {"status": Status.DEACTIVATED, "deactivated_at_ns": self._clock.now_ns()}
        await self._repository.update_app(work.connection, app, changes)
        before, after = {"status": Status.ACTIVE}, {"status": Status.DEACTIVATED}
        await self._audit.record(work, actor, "app.deactivate", app.id, before=before, after=after)

    async def told(self, work: UnitOfWork, actor: Actor, developer: Developer, receipt_id: str | None) -> None:
        """The event of a developer who has left; `receipt_id`: what tells of the end of their keys."""
        told = {"name": developer.name, "email": developer.email, "team_id": developer.team_id, "by": actor.id, "receipt_id": receipt_id}
        await self._outbox.raise_event(work, actor.organization_id, EventType.DEVELOPER_DEACTIVATED, developer.id, told)
