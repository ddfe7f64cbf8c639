"""What the inventory needs from others. Wired in `processes/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class Leavers(Protocol):
    """Who is not here any more. Implemented by identities."""

    async def inactive(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> frozenset[str]:
        """Which of these teams, developers and apps are archived or deactivated."""

    async def left(self, connection: AsyncConnection, organization_id: str, emails: Sequence[str]) -> frozenset[str]:
        """Which of these addresses (in lower case) are of developers who are deactivated."""
