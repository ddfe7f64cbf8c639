"""What lies ahead of keys: each with the policies that cover it, by its owner's team and its vendor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keygate.issued_keys.life import LIVE
from keygate.issued_keys.model import IssuedKey
from keygate.issued_keys.ports import OwnerDirectory, Restraints
from keygate.issued_keys.rotation.due import Case, Outlook, outlook, strictest_of
from keygate.issued_keys.rotation.model import RotationPolicy
from keygate.kit.clock import Clock
from keygate.policies import Holder, Scope
from keygate.vendors.admin import AddsKey, Provisioner

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.issued_keys.rotation.repository import RotationRepository
    from keygate.kit.database import Database


class Outlooks:
    def __init__(
        self,
        *,
        database: Database,
        repository: RotationRepository,
        owners: OwnerDirectory,
        restraints: Restraints,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._owners = owners
        self._restraints = restraints
        self._provisioners = provisioners
        self._clock = clock

    async def of(self, keys: Sequence[IssuedKey]) -> dict[str, Outlook]:
        """By key; keys of one organisation."""
        living = [key for key in keys if key.state in LIVE]
        found = {key.id: Outlook() for key in keys}
        if living:
            async with self._database.read() as connection:
                cases = await self.cases(connection, living[0].organization_id, living)
            now = self._clock.now_ns()
            found |= {case.key.id: outlook(case, now) for case in cases}
        return found

    async def cases(
        self,
        connection: AsyncConnection,
        organization_id: str,
        keys: Sequence[IssuedKey],
        *,
        policies: Sequence[RotationPolicy] | None = None,
    ) -> list[Case]:
        """`policies`: as they are, or as they would be."""
        rules = await self._repository.of_organization(connection, organization_id) if policies is None else policies
        teams = await self._teams(connection, organization_id, keys) if any(rule.team_id for rule in rules) else {}
        restraints = await self._restraints.restraints(connection, organization_id, [key.id for key in keys])
        return [
            Case(
                key,
                tuple(rule for rule in rules if rule.covers(vendor=key.vendor, team_id=teams.get(key.id))),
                isinstance(self._provisioners.get(key.vendor), AddsKey),
                disabled=key.id in restraints and restraints[key.id].disabled,
            )
            for key in keys
        ]

    async def max_ages(self, connection: AsyncConnection, organization_id: str, keys: Sequence[IssuedKey]) -> dict[str, int]:
        """How old each key may be, in nanoseconds; those that no policy covers are left out."""
        found = {}
        for case in await self.cases(connection, organization_id, keys):
            strictest = strictest_of(case.policies)
            if strictest is not None:
                found[case.key.id] = strictest.max_age_ns
        return found

    async def _teams(self, connection: AsyncConnection, organization_id: str, keys: Sequence[IssuedKey]) -> dict[str, str | None]:
        """The team of each key's owner."""
        owners = sorted({key.owner.scope_id for key in keys if key.owner is not None})
        holders = await self._owners.holders(connection, organization_id, owners)
        return {key.id: team_of(key.owner.scope_id, holders) for key in keys if key.owner is not None}


def team_of(owner_id: str, holders: Mapping[str, Holder]) -> str | None:
    """Of a team itself, or of who belongs to one; of an app also by the developer who answers for it."""
    holder = holders.get(owner_id)
    if holder is None:
        return None
    if holder.scope is Scope.TEAM:
        return owner_id
    if holder.team_id is None and holder.developer_id is not None:
        developer = holders.get(holder.developer_id)
        return None if developer is None else developer.team_id
    return holder.team_id
