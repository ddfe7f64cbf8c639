"""A change of the control plane: one transaction, recorded; and where it is refused, the refusal recorded too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import Conflict, Forbidden, NotFound
from keygate.identities import Actor, Role

if TYPE_CHECKING:
    from keygate.kit.database import Database, UnitOfWork


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
