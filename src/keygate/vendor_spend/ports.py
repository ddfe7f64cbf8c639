"""What vendors' bills need from others. Wired in `processes/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class GatewayCredential:
    """A credential of the gateway, as far as bills depend on it."""

    id: str
    vendor: str
    base_url: str
    account: str | None  # the vendor account that it belongs to, as whoever entered it named it


class CredentialDirectory(Protocol):
    async def credentials(self, connection: AsyncConnection, organization_id: str) -> Sequence[GatewayCredential]:
        """Those of the organisation that are not deleted."""
