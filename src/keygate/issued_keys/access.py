"""What other areas see of vendor accounts and issued keys: whose spend a bill is, and a way to ask the vendor. They change keys only
through `IssuedKeyService`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keygate.errors import NotFound
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.model import IssuedKey, VendorAccount
from keygate.vendors.admin import AdminDesk, Provisioner

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.issued_keys.repository import IssuedKeyRepository


class IssuedKeyAccess:
    """Reads on the caller's connection, so that what it adds stands in one snapshot with what it read."""

    def __init__(
        self,
        *,
        accounts: VendorAccountRepository,
        keys: IssuedKeyRepository,
        desks: Desks,
        provisioners: Mapping[str, Provisioner],
    ) -> None:
        self._accounts = accounts
        self._keys = keys
        self._desks = desks
        self._provisioners = provisioners

    def provisioner(self, vendor: str) -> Provisioner | None:
        return self._provisioners.get(vendor)

    async def desk(self, account: VendorAccount) -> AdminDesk:
        """Raises `EnvelopeBroken` where the admin credential can't be opened."""
        return await self._desks.open(account)

    async def all_accounts(self, connection: AsyncConnection) -> list[VendorAccount]:
        """Of every organisation: for the worker."""
        return await self._accounts.everywhere(connection)

    async def accounts(self, connection: AsyncConnection, organization_id: str) -> list[VendorAccount]:
        return await self._accounts.all(connection, organization_id)

    async def account(self, connection: AsyncConnection, organization_id: str, account_id: str) -> VendorAccount:
        found = await self._accounts.get(connection, organization_id, account_id)
        if found is None:
            raise NotFound("There is no vendor account with this id")
        return found

    async def places(self, connection: AsyncConnection, organization_id: str, account_id: str) -> list[tuple[str, str, str]]:
        """`(name, value, key)`: what the vendor's bills name, and whose it is; former keys included. `name` is `key` for a key's id."""
        return await self._keys.places(connection, organization_id, account_id)

    async def keys(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> list[IssuedKey]:
        return await self._keys.by_ids(connection, organization_id, ids)

    async def with_budget(self, connection: AsyncConnection) -> list[IssuedKey]:
        """Of every organisation: live keys with a budget, enforced by their vendor or not."""
        return await self._keys.with_budget(connection)

    async def living(self, connection: AsyncConnection, ids: Sequence[str]) -> list[IssuedKey]:
        """Of every organisation: those of these keys that are live."""
        return await self._keys.living(connection, ids)
