"""Use cases of those who keys belong to: what all of them share, the organisation and its teams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import available_timezones

from keygate.errors import Conflict, InvalidInput, NotFound
from keygate.identities.model import Actor, App, Developer, Organization, Team
from keygate.identities.ports import ChangePublisher, HolderListener, PolicyDirectory
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.audit import AuditLog
    from keygate.identities.repository import OwnerRepository
    from keygate.kit.database import Database, UnitOfWork

T = TypeVar("T")
_Owner = Organization | Team | Developer | App


class OwnerService:
    """What the services of organisations, teams, developers and apps have in common."""

    def __init__(
        self,
        database: Database,
        repository: OwnerRepository,
        *,
        audit: AuditLog,
        clock: Clock,
        publisher: ChangePublisher,
        holders: HolderListener,
        policies: PolicyDirectory | None = None,
    ) -> None:
        self._database = database
        self._repository = repository
        self._audit = audit
        self._clock = clock
        self._publisher = publisher
        self._holders = holders
        self._policies = policies

    async def _check_named(self, connection: AsyncConnection, actor: Actor, values: Mapping[str, Any]) -> None:
        """What `values` name as team_id, developer_id and policy_id must be there and active. Raises `InvalidInput`."""
        organization_id = actor.organization_id
        team_id, developer_id, policy_id = (values.get(name) for name in ("team_id", "developer_id", "policy_id"))
        if team_id is not None:
            team = await self._repository.team(connection, organization_id, team_id)
            if team is None or not team.active:
                raise InvalidInput("team_id: there is no such team", field="team_id")
        if developer_id is not None:
            developer = await self._repository.developer(connection, organization_id, developer_id)
            if developer is None or not developer.active:
                raise InvalidInput("developer_id: there is no such active developer", field="developer_id")
        if policy_id is not None and not (
            self._policies is not None and await self._policies.policy_exists(connection, organization_id, policy_id)
        ):
            raise InvalidInput("policy_id: there is no such policy", field="policy_id")

    async def _record_update(self, work: UnitOfWork, actor: Actor, what: str, before: _Owner, changes: Mapping[str, Any]) -> None:
        old = {name: getattr(before, name) for name in changes}
        await self._audit.record(work, actor, f"{what}.update", before.id, before=old, after=dict(changes))
        self._publish(work, actor.organization_id)

    def _publish(self, work: UnitOfWork, organization_id: str) -> None:
        work.after_commit(lambda: self._publisher.organization_changed(organization_id))


def present(found: T | None, what: str) -> T:
    """Raises `NotFound` where nothing was found."""
    if found is None:
        raise absent(what)
    return found


def absent(what: str) -> NotFound:
    return NotFound(f"There is no such {what}")


def name_taken(what: str) -> Conflict:
    return Conflict(f"name: another active {what} has this name", field="name")


class OrganizationService(OwnerService):
    async def get(self, actor: Actor) -> Organization:
        async with self._database.read() as connection:
            return await self._own(connection, actor)

    async def update(self, actor: Actor, changes: Mapping[str, Any]) -> Organization:
        """`changes`: name, time_zone, policy_id; only what is to change."""
        zone = changes.get("time_zone")
        if zone is not None and zone not in available_timezones():
            raise InvalidInput("time_zone: not a time zone; write an IANA name such as Europe/Berlin or UTC", field="time_zone")
        async with self._database.unit(actor.organization_id) as work:
            before = await self._own(work.connection, actor)
            await self._check_named(work.connection, actor, changes)
            if changes:
                await self._repository.update_organization(work.connection, before.id, changes)
                await self._record_update(work, actor, "organization", before, changes)
            return await self._own(work.connection, actor)

    async def _own(self, connection: AsyncConnection, actor: Actor) -> Organization:
        return present(await self._repository.organization(connection, actor.organization_id), "organisation")


class TeamService(OwnerService):
    async def list(self, actor: Actor, *, after: str | None, limit: int, archived: bool = False) -> Sequence[Team]:
        async with self._database.read() as connection:
            only = None
            if actor.only_own:
                only = await self._own_team(connection, actor)
                if only is None:
                    return []
            return await self._repository.teams(connection, actor.organization_id, after=after, limit=limit, only=only, archived=archived)

    async def get(self, actor: Actor, team_id: str) -> Team:
        async with self._database.read() as connection:
            if actor.only_own and await self._own_team(connection, actor) != team_id:
                raise absent("team")
            return await self._find(connection, actor, team_id)

    async def create(self, actor: Actor, *, name: str, policy_id: str | None = None) -> Team:
        """Raises `Conflict` where an active team has this name."""
        async with self._database.unit(actor.organization_id) as work:
            await self._check_named(work.connection, actor, {"policy_id": policy_id})
            team = Team(
                id=new_id("team"),
                organization_id=actor.organization_id,
                name=name,
                policy_id=policy_id,
                created_at_ns=self._clock.now_ns(),
            )
            if not await self._repository.add_team(work.connection, team):
                raise name_taken("team")
            await self._audit.record(work, actor, "team.create", team.id, after={"name": name, "policy_id": policy_id})
        return team

    async def update(self, actor: Actor, team_id: str, changes: Mapping[str, Any]) -> Team:
        """`changes`: name, policy_id; only what is to change."""
        async with self._database.unit(actor.organization_id) as work:
            before = await self._find(work.connection, actor, team_id)
            if not before.active:
                raise Conflict("The team is archived")
            await self._check_named(work.connection, actor, changes)
            if "name" in changes:
                other = await self._repository.team_named(work.connection, actor.organization_id, changes["name"])
                if other is not None and other.id != team_id:
                    raise name_taken("team")
            if changes:
                await self._repository.update_team(work.connection, before, changes)
                await self._record_update(work, actor, "team", before, changes)
            return await self._find(work.connection, actor, team_id)

    async def archive(self, actor: Actor, team_id: str) -> str | None:
        """Ends a team that has no active developers or apps any more, and revokes the keys it holds itself. Returns the receipt's id as
        a developer's deactivation does. Idempotent."""
        async with self._database.unit(actor.organization_id) as work:
            team = await self._find(work.connection, actor, team_id)
            if not team.active:
                return None
            people, programs = await self._repository.members(work.connection, actor.organization_id, team_id)
            if people or programs:
                raise Conflict(f"The team still has {people} active developers and {programs} active apps; move or deactivate them first")
            await self._repository.update_team(work.connection, team, {"archived_at_ns": self._clock.now_ns()})
            await self._audit.record(work, actor, "team.archive", team_id, before={"name": team.name})
            receipt = await self._holders.team_archived(work, actor, team_id)
            self._publish(work, actor.organization_id)
        return receipt

    async def _own_team(self, connection: AsyncConnection, actor: Actor) -> str | None:
        if actor.developer_id is None:
            return None
        developer = await self._repository.developer(connection, actor.organization_id, actor.developer_id)
        return developer.team_id if developer else None

    async def _find(self, connection: AsyncConnection, actor: Actor, team_id: str) -> Team:
        return present(await self._repository.team(connection, actor.organization_id, team_id), "team")
