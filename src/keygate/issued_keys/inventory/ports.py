"""What the inventory needs from others. Wired in `processes/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from keygate.issued_keys.model import IssuedKey

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class Restraints(Protocol):
    """What KeyGate itself does to keys at vendors for their budgets. Implemented by vendor_spend."""

    async def restrained(self, connection: AsyncConnection, organization_id: str) -> frozenset[str]:
        """Ids of keys whose limits are lowered, or that are switched off, on purpose."""


class GatewaySecrets(Protocol):
    """What passes through the gateway is counted there. Implemented by the vault."""

    async def credential_with(self, connection: AsyncConnection, organization_id: str, *, digest: str | None, hint: str) -> str | None:
        """The name of the gateway's credential that has this secret, by its keyed digest; where that is not known (None), of one whose
        secret ends as the hint `…abcd` does."""


class Ages(Protocol):
    """How old keys may be. Implemented by rotation."""

    async def max_ages(self, connection: AsyncConnection, organization_id: str, keys: Sequence[IssuedKey]) -> Mapping[str, int]:
        """By key, in nanoseconds; keys that no policy covers are left out."""


class Leavers(Protocol):
    """Who is not here any more. Implemented by identities."""

    async def inactive(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> frozenset[str]:
        """Which of these teams, developers and apps are archived or deactivated; an app also where its developer is."""

    async def left(self, connection: AsyncConnection, organization_id: str, emails: Sequence[str]) -> frozenset[str]:
        """Which of these addresses (in lower case) are of developers who are deactivated."""
