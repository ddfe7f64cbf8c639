"""Use cases of those who keys belong to: what all of them share, the organisation and its teams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import available_timezones

from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound
from keygate.events import EventOutbox
from keygate.identities.departures import Departures
from keygate.identities.model import Actor, App, Developer, Members, Organization, Team
from keygate.identities.permissions import allows
from keygate.identities.ports import ChangePublisher, HolderListener, PolicyDirectory
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.audit import AuditLog
    from keygate.identities.access_repository import AccessRepository
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


class EndingService(OwnerService):
    """Of those who end, and what they hold with them."""

    def __init__(
        self,
        database: Database,
        repository: OwnerRepository,
        *,
        access: AccessRepository,
        audit: AuditLog,
        clock: Clock,
        publisher: ChangePublisher,
        holders: HolderListener,
        outbox: EventOutbox,
        policies: PolicyDirectory | None = None,
    ) -> None:
        super().__init__(database, repository, audit=audit, clock=clock, publisher=publisher, holders=holders, policies=policies)
        self._departures = Departures(repository, access=access, audit=audit, outbox=outbox, clock=clock)


def present(found: T | None, what: str) -> T:
    """Raises `NotFound` where nothing was found."""
    if found is None:
        raise absent(what)
    return found


def _require(actor: Actor, permission: str, touched: Sequence[Developer | App]) -> None:
    """Whoever ends a team with what is in it may also end that by itself: a token's scopes may be narrower."""
    if touched and not allows(actor, permission):
        raise Forbidden(f"This needs the permission {permission} too")


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


class TeamService(EndingService):
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

    async def archive(self, actor: Actor, team_id: str, *, developers: Members | None = None) -> str | None:
        """Ends a team and revokes the keys that it holds. Raises `Conflict` where it has active developers or apps and `developers` does
        not say what becomes of them: those who are in it at that moment. With `DEACTIVATE` they end as each alone would, all in one
        transaction; with `DETACH` they stay, without a team, and apps that no developer answers for end with it. Returns the id of one
        receipt for all of it, as a developer's deactivation does. Idempotent."""
        async with self._database.unit(actor.organization_id) as work:
            team = await self._find(work.connection, actor, team_id)
            if not team.active:
                return None
            people, programs = await self._repository.members(work.connection, actor.organization_id, team_id)
            if developers is None and (people or programs):
                raise Conflict(
                    f"The team still has {len(people)} active developers and {len(programs)} active apps. Say what becomes of them: "
                    "developers=deactivate ends them with it, and every key of theirs; developers=detach lets developers and their apps "
                    "stay, without a team. Or move or deactivate them first"
                )
            _require(actor, "developers.write", people)
            _require(actor, "apps.write", programs)
            left = people if developers is Members.DEACTIVATE else []
            stopped = programs if developers is Members.DEACTIVATE else await self._detach(work, actor, team_id, people, programs)
            for developer in left:
                await self._departures.developer(work, actor, developer)
            for app in stopped:
                await self._departures.app(work, actor, app)
            await self._repository.update_team(work.connection, team, {"archived_at_ns": self._clock.now_ns()})
            ended = [*(developer.id for developer in left), *(app.id for app in stopped)]
            how = None if developers is None else {"developers": developers, "developers_ended": len(left), "apps_ended": len(stopped)}
            await self._audit.record(work, actor, "team.archive", team_id, before={"name": team.name}, after=how)
            receipt = await self._holders.team_archived(work, actor, team_id, ended=ended)
            for developer in left:
                await self._departures.told(work, actor, developer, receipt)
            self._publish(work, actor.organization_id)
        return receipt

    async def _detach(
        self, work: UnitOfWork, actor: Actor, team_id: str, people: Sequence[Developer], programs: Sequence[App]
    ) -> Sequence[App]:
        """Takes the team from its developers, and from those of its apps that an active developer answers for. Returns the apps that are
        left: the team's own."""
        answering = {app.developer_id for app in programs if app.developer_id is not None}
        _, known, _ = await self._repository.by_ids(work.connection, actor.organization_id, answering)
        active = {developer.id for developer in known if developer.active}
        before, after = {"team_id": team_id}, {"team_id": None}
        for developer in people:
            await self._repository.update_developer(work.connection, developer, after)
            await self._audit.record(work, actor, "developer.update", developer.id, before=before, after=after)
        for app in programs:
            if app.team_id == team_id and app.developer_id in active:
                await self._repository.update_app(work.connection, app, after)
                await self._audit.record(work, actor, "app.update", app.id, before=before, after=after)
        return [app for app in programs if app.developer_id not in active]

    async def _own_team(self, connection: AsyncConnection, actor: Actor) -> str | None:
        if actor.developer_id is None:
            return None
        developer = await self._repository.developer(connection, actor.organization_id, actor.developer_id)
        return developer.team_id if developer else None

    async def _find(self, connection: AsyncConnection, actor: Actor, team_id: str) -> Team:
        return present(await self._repository.team(connection, actor.organization_id, team_id), "team")
