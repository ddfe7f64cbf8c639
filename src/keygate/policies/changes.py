"""A change of the control plane: one transaction, recorded; and where it is refused, the refusal recorded too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import Conflict, Forbidden, NotFound
from keygate.identities import Actor, Role
from keygate.kit.clock import Clock
from keygate.policies.ports import KeyDirectory, OwnerDirectory, StatePublisher
from keygate.vendors import Vendor

if TYPE_CHECKING:
    from keygate.kit.database import Database, UnitOfWork
    from keygate.policies.repository import PolicyRepository


@asynccontextmanager
async def change(database: Database, audit: AuditLog, actor: Actor, action: str, target: str) -> AsyncIterator[UnitOfWork]:
    """A unit of work. Where it ends with `Forbidden`, `NotFound` or `Conflict`, the attempt is recorded as refused."""
    try:
        async with database.unit(actor.organization_id) as work:
            yield work
    except (Conflict, Forbidden, NotFound) as error:
        await audit.refused(actor, action, target, reason=error.detail)
        error.recorded = True
        raise


def require_governor(actor: Actor) -> None:
    """Rules above single keys are for owners and admins, whatever a route's permission says."""
    if actor.role not in {Role.OWNER, Role.ADMIN}:
        raise Forbidden("Policies, budgets, limits and aliases are changed by owners and admins")


class RuleService:
    """What the services of policies, budgets, limits and aliases have in common."""

    def __init__(
        self,
        *,
        database: Database,
        repository: PolicyRepository,
        audit: AuditLog,
        publisher: StatePublisher,
        owners: OwnerDirectory,
        keys: KeyDirectory,
        vendors: Mapping[str, Vendor],
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._audit = audit
        self._publisher = publisher
        self._owners = owners
        self._keys = keys
        self._vendors = vendors
        self._clock = clock

    def _change(self, actor: Actor, action: str, target: str) -> AbstractAsyncContextManager[UnitOfWork]:
        return change(self._database, self._audit, actor, action, target)

    def _changed(self, work: UnitOfWork, actor: Actor) -> None:
        work.after_commit(lambda: self._publisher.organization_changed(actor.organization_id))
