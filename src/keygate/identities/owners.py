"""Use cases of those who keys belong to: the organisation, its teams, developers and apps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound
from keygate.identities.model import Actor, App, Developer, Organization, Status, Team
from keygate.identities.permissions import may_grant
from keygate.identities.ports import ChangePublisher, HolderListener, PolicyDirectory
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.audit import AuditLog
    from keygate.identities.access_repository import AccessRepository
    from keygate.identities.repository import OwnerRepository
    from keygate.kit.database import Database, UnitOfWork

_ABSENT_TEAM = "team_id: there is no such team"


class _OwnerService:
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

    async def _check_policy(self, connection: AsyncConnection, organization_id: str, policy_id: str | None) -> None:
        if policy_id is None:
            return
        if self._policies is None or not await self._policies.policy_exists(connection, organization_id, policy_id):
            raise InvalidInput("policy_id: there is no such policy", field="policy_id")

    async def _check_team(self, connection: AsyncConnection, organization_id: str, team_id: str | None) -> None:
        if team_id is None:
            return
        team = await self._repository.team(connection, organization_id, team_id)
        if team is None or not team.active:
            raise InvalidInput(_ABSENT_TEAM, field="team_id")

    def _publish(self, work: UnitOfWork, organization_id: str) -> None:
        work.after_commit(lambda: self._publisher.organization_changed(organization_id))


class OrganizationService(_OwnerService):
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
            await self._check_policy(work.connection, actor.organization_id, changes.get("policy_id"))
            if changes:
                await self._repository.update_organization(work.connection, before.id, changes)
                await self._audit.record(work, actor, "organization.update", before.id, before=_old(before, changes), after=dict(changes))
                self._publish(work, before.id)
            return await self._own(work.connection, actor)

    async def _own(self, connection: AsyncConnection, actor: Actor) -> Organization:
        found = await self._repository.organization(connection, actor.organization_id)
        if found is None:
            raise NotFound("The organisation is gone")
        return found


class TeamService(_OwnerService):
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
                raise _no_team()
            return await self._find(connection, actor, team_id)

    async def create(self, actor: Actor, *, name: str, policy_id: str | None = None) -> Team:
        """Raises `Conflict` where an active team has this name."""
        async with self._database.unit(actor.organization_id) as work:
            await self._check_policy(work.connection, actor.organization_id, policy_id)
            team = Team(
                id=new_id("team"),
                organization_id=actor.organization_id,
                name=name,
                policy_id=policy_id,
                created_at_ns=self._clock.now_ns(),
            )
            if not await self._repository.add_team(work.connection, team):
                raise _name_taken("team")
            await self._audit.record(work, actor, "team.create", team.id, after={"name": name, "policy_id": policy_id})
        return team

    async def update(self, actor: Actor, team_id: str, changes: Mapping[str, Any]) -> Team:
        """`changes`: name, policy_id; only what is to change."""
        async with self._database.unit(actor.organization_id) as work:
            before = await self._active(work.connection, actor, team_id)
            await self._check_policy(work.connection, actor.organization_id, changes.get("policy_id"))
            if "name" in changes:
                other = await self._repository.team_named(work.connection, actor.organization_id, changes["name"])
                if other is not None and other.id != team_id:
                    raise _name_taken("team")
            if changes:
                await self._repository.update_team(work.connection, before, changes)
                await self._audit.record(work, actor, "team.update", team_id, before=_old(before, changes), after=dict(changes))
                self._publish(work, actor.organization_id)
            return await self._find(work.connection, actor, team_id)

    async def archive(self, actor: Actor, team_id: str) -> None:
        """Ends a team that has no active developers or apps any more, and revokes the keys it holds itself. Idempotent."""
        async with self._database.unit(actor.organization_id) as work:
            team = await self._find(work.connection, actor, team_id)
            if not team.active:
                return
            people, programs = await self._repository.members(work.connection, actor.organization_id, team_id)
            if people or programs:
                raise Conflict(f"The team still has {people} active developers and {programs} active apps; move or deactivate them first")
            await self._repository.update_team(work.connection, team, {"archived_at_ns": self._clock.now_ns()})
            await self._audit.record(work, actor, "team.archive", team_id, before={"name": team.name})
            await self._holders.team_archived(work, actor, team_id)
            self._publish(work, actor.organization_id)

    async def _own_team(self, connection: AsyncConnection, actor: Actor) -> str | None:
        if actor.developer_id is None:
            return None
        developer = await self._repository.developer(connection, actor.organization_id, actor.developer_id)
        return developer.team_id if developer else None

    async def _find(self, connection: AsyncConnection, actor: Actor, team_id: str) -> Team:
        team = await self._repository.team(connection, actor.organization_id, team_id)
        if team is None:
            raise _no_team()
        return team

    async def _active(self, connection: AsyncConnection, actor: Actor, team_id: str) -> Team:
        team = await self._find(connection, actor, team_id)
        if not team.active:
            raise Conflict("The team is archived")
        return team


class DeveloperService(_OwnerService):
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
        policies: PolicyDirectory | None = None,
    ) -> None:
        super().__init__(database, repository, audit=audit, clock=clock, publisher=publisher, holders=holders, policies=policies)
        self._access = access

    async def list(
        self, actor: Actor, *, after: str | None, limit: int, team_id: str | None = None, status: Status | None = None
    ) -> Sequence[Developer]:
        if actor.only_own and actor.developer_id is None:
            return []
        async with self._database.read() as connection:
            only = actor.developer_id if actor.only_own else None
            return await self._repository.developers(
                connection, actor.organization_id, after=after, limit=limit, only=only, team_id=team_id, status=status
            )

    async def get(self, actor: Actor, developer_id: str) -> Developer:
        if actor.only_own and actor.developer_id != developer_id:
            raise _no_developer()
        async with self._database.read() as connection:
            return await self._find(connection, actor, developer_id)

    async def create(self, actor: Actor, *, name: str, email: str, team_id: str | None = None, policy_id: str | None = None) -> Developer:
        """Raises `Conflict` where the e-mail address is taken, by a deactivated developer too: activate that one again."""
        async with self._database.unit(actor.organization_id) as work:
            await self._check_team(work.connection, actor.organization_id, team_id)
            await self._check_policy(work.connection, actor.organization_id, policy_id)
            developer = Developer(
                id=new_id("dev"),
                organization_id=actor.organization_id,
                name=name,
                email=email.lower(),
                team_id=team_id,
                policy_id=policy_id,
                status=Status.ACTIVE,
                created_at_ns=self._clock.now_ns(),
            )
            if not await self._repository.add_developer(work.connection, developer):
                raise _email_taken()
            after = {"name": name, "email": developer.email, "team_id": team_id, "policy_id": policy_id}
            await self._audit.record(work, actor, "developer.create", developer.id, after=after)
        return developer

    async def update(self, actor: Actor, developer_id: str, changes: Mapping[str, Any]) -> Developer:
        """`changes`: name, email, team_id, policy_id; only what is to change."""
        if "email" in changes:
            changes = {**changes, "email": changes["email"].lower()}
        async with self._database.unit(actor.organization_id) as work:
            before = await self._find(work.connection, actor, developer_id)
            await self._check_team(work.connection, actor.organization_id, changes.get("team_id"))
            await self._check_policy(work.connection, actor.organization_id, changes.get("policy_id"))
            if "email" in changes:
                other = await self._repository.developer_with_email(work.connection, actor.organization_id, changes["email"])
                if other is not None and other.id != developer_id:
                    raise _email_taken()
            if changes:
                await self._repository.update_developer(work.connection, before, changes)
                await self._audit.record(work, actor, "developer.update", developer_id, before=_old(before, changes), after=dict(changes))
                self._publish(work, actor.organization_id)
            return await self._find(work.connection, actor, developer_id)

    async def deactivate(self, actor: Actor, developer_id: str) -> None:
        """Ends a developer: their sign-ins and API tokens end, every key that they hold is revoked, all in one transaction; when
        it returns, the next request of any of them is refused. Idempotent."""
        async with self._database.unit(actor.organization_id) as work:
            developer = await self._find(work.connection, actor, developer_id)
            if not developer.active:
                return
            now = self._clock.now_ns()
            for user in await self._access.users_of(work.connection, actor.organization_id, developer_id):
                if not user.active:
                    continue
                if not may_grant(actor, user.role):
                    raise Forbidden(f"This developer signs in as {user.role}; only who holds all that {user.role} does may end that")
                owners = await self._access.owner_ids(work.connection, actor.organization_id)
                if owners == [user.id]:
                    raise Conflict("This developer is the last owner of the organisation; make somebody else an owner first")
                await self._access.update_user(work.connection, user, {"status": Status.DEACTIVATED})
                await self._access.end_access(work.connection, user, now_ns=now)
                await self._audit.record(work, actor, "user.deactivate", user.id, before={"status": Status.ACTIVE})
            await self._repository.update_developer(work.connection, developer, {"status": Status.DEACTIVATED, "deactivated_at_ns": now})
            before, after = {"status": Status.ACTIVE}, {"status": Status.DEACTIVATED}
            await self._audit.record(work, actor, "developer.deactivate", developer_id, before=before, after=after)
            await self._holders.developer_deactivated(work, actor, developer_id)
            self._publish(work, actor.organization_id)

    async def activate(self, actor: Actor, developer_id: str) -> Developer:
        """Takes a deactivated developer back. What was revoked stays revoked; their user is activated apart. Idempotent."""
        async with self._database.unit(actor.organization_id) as work:
            developer = await self._find(work.connection, actor, developer_id)
            if not developer.active:
                if developer.team_id is not None:
                    await self._check_team(work.connection, actor.organization_id, developer.team_id)
                await self._repository.update_developer(work.connection, developer, {"status": Status.ACTIVE, "deactivated_at_ns": None})
                before, after = {"status": Status.DEACTIVATED}, {"status": Status.ACTIVE}
                await self._audit.record(work, actor, "developer.activate", developer_id, before=before, after=after)
                self._publish(work, actor.organization_id)
            return await self._find(work.connection, actor, developer_id)

    async def _find(self, connection: AsyncConnection, actor: Actor, developer_id: str) -> Developer:
        developer = await self._repository.developer(connection, actor.organization_id, developer_id)
        if developer is None:
            raise _no_developer()
        return developer


class AppService(_OwnerService):
    async def list(
        self, actor: Actor, *, after: str | None, limit: int, team_id: str | None = None, status: Status | None = None
    ) -> Sequence[App]:
        if actor.only_own and actor.developer_id is None:
            return []
        async with self._database.read() as connection:
            developer_id = actor.developer_id if actor.only_own else None
            return await self._repository.apps(
                connection, actor.organization_id, after=after, limit=limit, developer_id=developer_id, team_id=team_id, status=status
            )

    async def get(self, actor: Actor, app_id: str) -> App:
        async with self._database.read() as connection:
            app = await self._find(connection, actor, app_id)
        if actor.only_own and (actor.developer_id is None or app.developer_id != actor.developer_id):
            raise _no_app()
        return app

    async def create(
        self,
        actor: Actor,
        *,
        name: str,
        team_id: str | None = None,
        developer_id: str | None = None,
        policy_id: str | None = None,
    ) -> App:
        """Raises `Conflict` where an active app has this name."""
        async with self._database.unit(actor.organization_id) as work:
            await self._check_team(work.connection, actor.organization_id, team_id)
            await self._check_developer(work.connection, actor.organization_id, developer_id)
            await self._check_policy(work.connection, actor.organization_id, policy_id)
            app = App(
                id=new_id("app"),
                organization_id=actor.organization_id,
                name=name,
                team_id=team_id,
                developer_id=developer_id,
                policy_id=policy_id,
                status=Status.ACTIVE,
                created_at_ns=self._clock.now_ns(),
            )
            if not await self._repository.add_app(work.connection, app):
                raise _name_taken("app")
            after = {"name": name, "team_id": team_id, "developer_id": developer_id, "policy_id": policy_id}
            await self._audit.record(work, actor, "app.create", app.id, after=after)
        return app

    async def update(self, actor: Actor, app_id: str, changes: Mapping[str, Any]) -> App:
        """`changes`: name, team_id, developer_id, policy_id; only what is to change."""
        async with self._database.unit(actor.organization_id) as work:
            before = await self._find(work.connection, actor, app_id)
            if not before.active:
                raise Conflict("The app is deactivated")
            await self._check_team(work.connection, actor.organization_id, changes.get("team_id"))
            await self._check_developer(work.connection, actor.organization_id, changes.get("developer_id"))
            await self._check_policy(work.connection, actor.organization_id, changes.get("policy_id"))
            if "name" in changes:
                other = await self._repository.app_named(work.connection, actor.organization_id, changes["name"])
                if other is not None and other.id != app_id:
                    raise _name_taken("app")
            if changes:
                await self._repository.update_app(work.connection, before, changes)
                await self._audit.record(work, actor, "app.update", app_id, before=_old(before, changes), after=dict(changes))
                self._publish(work, actor.organization_id)
            return await self._find(work.connection, actor, app_id)

    async def deactivate(self, actor: Actor, app_id: str) -> None:
        """Ends an app and revokes every key that it holds. Idempotent."""
        async with self._database.unit(actor.organization_id) as work:
            app = await self._find(work.connection, actor, app_id)
            if not app.active:
                return
            changes = {"status": Status.DEACTIVATED, "deactivated_at_ns": self._clock.now_ns()}
            await self._repository.update_app(work.connection, app, changes)
            before, after = {"status": Status.ACTIVE}, {"status": Status.DEACTIVATED}
            await self._audit.record(work, actor, "app.deactivate", app_id, before=before, after=after)
            await self._holders.app_deactivated(work, actor, app_id)
            self._publish(work, actor.organization_id)

    async def _check_developer(self, connection: AsyncConnection, organization_id: str, developer_id: str | None) -> None:
        if developer_id is None:
            return
        developer = await self._repository.developer(connection, organization_id, developer_id)
        if developer is None or not developer.active:
            raise InvalidInput("developer_id: there is no such active developer", field="developer_id")

    async def _find(self, connection: AsyncConnection, actor: Actor, app_id: str) -> App:
        app = await self._repository.app(connection, actor.organization_id, app_id)
        if app is None:
            raise _no_app()
        return app


def _old(value: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in changes}


def _no_team() -> NotFound:
    return NotFound("There is no such team")


def _no_developer() -> NotFound:
    return NotFound("There is no such developer")


def _no_app() -> NotFound:
    return NotFound("There is no such app")


def _name_taken(what: str) -> Conflict:
    return Conflict(f"name: another active {what} has this name", field="name")


def _email_taken() -> Conflict:
    return Conflict("email: another developer has this address", field="email")
