"""What identities need from other areas. The composition wires implementations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from keygate.identities.model import Actor

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.kit.database import UnitOfWork


class HolderListener(Protocol):
    """Whoever hands out access is told when its holder ends. Called inside the transaction that ends the holder: revoke there what
    they hold, record it, and register what must follow with `work.after_commit`. An error undoes the whole change. Returns the id of the
    receipt that tells what was ended; None where there is none."""

    async def developer_deactivated(self, work: UnitOfWork, actor: Actor, developer_id: str) -> str | None: ...

    async def app_deactivated(self, work: UnitOfWork, actor: Actor, app_id: str) -> str | None: ...

    async def team_archived(self, work: UnitOfWork, actor: Actor, team_id: str, *, ended: Sequence[str]) -> str | None:
        """`ended`: the developers and apps that end with it, of whom nobody is told apart."""


class PolicyDirectory(Protocol):
    """Whether an owner may refer to a policy."""

    async def policy_exists(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> bool: ...


class ChangePublisher(Protocol):
    """How the gateway learns of changes; the methods and promises are those of `keygate.gateway.StatePublisher`."""

    async def keys_changed(self, key_ids: Sequence[str]) -> None: ...

    async def organization_changed(self, organization_id: str) -> None: ...


class NoListener(HolderListener):
    """Nobody hands out access yet: every method does nothing."""


class NoPublisher(ChangePublisher):
    """No gateway in this process (commands on the data directory): every method does nothing."""
