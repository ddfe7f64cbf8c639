"""What bulk orders need from others. Wired in `processes/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from keygate.identities import Actor, Developer, Team
from keygate.issued_keys.bulk.model import Order

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class People(Protocol):
    """Developers and teams. Implemented by identities."""

    async def with_emails(self, connection: AsyncConnection, organization_id: str, emails: Sequence[str]) -> Mapping[str, Developer]:
        """By e-mail address, in lower case; whoever is deactivated too. Few statements, however many addresses."""

    async def with_ids(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> Mapping[str, Developer]: ...

    async def of_team(self, connection: AsyncConnection, organization_id: str, team_id: str) -> Sequence[Developer]:
        """The active ones."""

    async def teams(self, connection: AsyncConnection, organization_id: str) -> Sequence[Team]:
        """All that are not archived."""

    async def create(self, actor: Actor, *, name: str, email: str, team_id: str | None) -> Developer:
        """Raises `Conflict` where the e-mail address is taken."""


class Orderers(Protocol):
    """Who has ordered. Implemented by identities."""

    async def actor(self, connection: AsyncConnection, order: Order) -> Actor | None:
        """With the rights that they have now. None: they may not call any more (deactivated; their API token is revoked or over)."""


class Crowd(Protocol):
    """What else stands at a vendor's account, as far as it is known."""

    async def others(self, connection: AsyncConnection, organization_id: str, account_id: str) -> int:
        """Containers there that no key of ours has."""
