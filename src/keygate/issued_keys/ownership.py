"""Whose key an actor may see and act on. What is not theirs does not exist for them (404 before 403)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keygate.errors import NotFound
from keygate.identities import Actor
from keygate.issued_keys.model import IssuedKey
from keygate.policies import Place, Scope

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.issued_keys.repository import IssuedKeyRepository


async def own_key(
    repository: IssuedKeyRepository, connection: AsyncConnection, actor: Actor, key_id: str, *, lock: bool = False
) -> IssuedKey:
    key = await repository.get(connection, actor.organization_id, key_id, lock=lock)
    own = not actor.only_own or (
        key is not None and actor.developer_id is not None and key.owner == Place(Scope.DEVELOPER, actor.developer_id)
    )
    if key is None or not own:
        raise NotFound("There is no issued key with this id")
    return key
