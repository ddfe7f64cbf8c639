"""Whose what a bill names is: the issued key, and its holder as the key has it now."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from keygate.issued_keys import IssuedKey, IssuedKeyAccess
from keygate.policies import OwnerDirectory, Scope
from keygate.vendor_spend.model import ImportState, Places, place_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class Attributor:
    def __init__(self, issued: IssuedKeyAccess, owners: OwnerDirectory) -> None:
        self._issued = issued
        self._owners = owners

    async def owners_of(
        self, connection: AsyncConnection, state: ImportState, names: AbstractSet[tuple[str, str | None]]
    ) -> dict[tuple[str, str | None], Mapping[str, str | None]]:
        """The owner's columns by `(place, key)`, of those that are somebody's."""
        if not names:
            return {}
        places = Places(await self._issued.places(connection, state.organization_id, state.account_id))
        named = {name: places.owner(place_of(name[0]), name[1]) for name in names}
        ids = sorted({key_id for key_id, _ in named.values() if key_id is not None})
        keys = {key.id: key for key in await self._issued.keys(connection, state.organization_id, ids)}
        holders = await self._holders(connection, state.organization_id, list(keys.values()))
        return {
            name: {"issued_key_id": key_id, "attribution": how.value, **holders.get(key_id, {})}
            for name, (key_id, how) in named.items()
            if key_id is not None
        }

    async def _holders(
        self, connection: AsyncConnection, organization_id: str, keys: list[IssuedKey]
    ) -> dict[str, Mapping[str, str | None]]:
        """The holder's columns by issued key, as requests of the gateway have them: an app's developer and team, a developer's team."""
        ids = sorted({key.owner.scope_id for key in keys if key.owner is not None})
        known = dict(await self._owners.holders(connection, organization_id, ids)) if ids else {}
        found: dict[str, Mapping[str, str | None]] = {}
        for key in keys:
            holder = None if key.owner is None else known.get(key.owner.scope_id)
            if holder is None:
                continue
            developer = known.get(holder.developer_id or "")
            found[key.id] = {
                "team_id": holder.id if holder.scope is Scope.TEAM else holder.team_id or (developer.team_id if developer else None),
                "developer_id": holder.id if holder.scope is Scope.DEVELOPER else holder.developer_id,
                "app_id": holder.id if holder.scope is Scope.APP else None,
            }
        return found
