"""Who can own a key, as policies and virtual keys ask for it. Wired by the composition; not imported by this package's door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.identities.repository import OwnerRepository
from keygate.policies import Holder, Organization, Scope


class OwnerDirectory:
    """Implements `keygate.policies.OwnerDirectory`."""

    def __init__(self, repository: OwnerRepository) -> None:
        self._repository = repository

    async def holders(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> Mapping[str, Holder]:
        teams, developers, apps = await self._repository.by_ids(connection, organization_id, ids)
        found = [
            *(Holder(id=t.id, scope=Scope.TEAM, name=t.name, active=t.active, policy_id=t.policy_id) for t in teams),
            *(
                Holder(id=d.id, scope=Scope.DEVELOPER, name=d.name, active=d.active, team_id=d.team_id, policy_id=d.policy_id)
                for d in developers
            ),
            *(
                Holder(
                    id=a.id,
                    scope=Scope.APP,
                    name=a.name,
                    active=a.active,
                    team_id=a.team_id,
                    developer_id=a.developer_id,
                    policy_id=a.policy_id,
                )
                for a in apps
            ),
        ]
        return {holder.id: holder for holder in found}

    def ended(self, organization_id: str) -> sa.Select[tuple[str]]:
        return self._repository.ended(organization_id)

    async def organization(self, connection: AsyncConnection, organization_id: str) -> Organization | None:
        found = await self._repository.organization(connection, organization_id)
        return Organization(id=found.id, name=found.name, policy_id=found.policy_id, time_zone=found.time_zone) if found else None

    async def holders_with_policy(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> int:
        return await self._repository.with_policy(connection, organization_id, policy_id)

    async def users_among(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> frozenset[str]:
        return await self._repository.users_among(connection, organization_id, ids)
