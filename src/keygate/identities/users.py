"""Users: who may sign in, and the first start."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound
from keygate.identities.attempts import AttemptCounter
from keygate.identities.model import Actor, ActorKind, Organization, Role, Status, User, system_actor
from keygate.identities.passwords import Passwords
from keygate.identities.permissions import may_grant
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.audit import AuditLog
    from keygate.identities.access_repository import AccessRepository
    from keygate.identities.repository import OwnerRepository
    from keygate.kit.database import Database


@dataclass(frozen=True, slots=True)
class Started:
    """The first start. `password` is set where it was generated: show it once."""

    organization: Organization
    owner: User
    password: Secret | None


class UserService:
    def __init__(
        self,
        database: Database,
        repository: AccessRepository,
        *,
        owners: OwnerRepository,
        passwords: Passwords,
        audit: AuditLog,
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._owners = owners
        self._passwords = passwords
        self._audit = audit
        self._clock = clock
        self._attempts = AttemptCounter(database, repository, clock=clock)

    async def bootstrap(self, *, organization_name: str, email: str, password: Secret | None = None) -> Started | None:
        """Makes the organisation and its first owner. None where an organisation is there already, whatever the arguments say."""
        async with self._database.read() as connection:
            if await self._owners.any_organization(connection) is not None:
                return None
        generated = Secret(secrets.token_urlsafe(18)) if password is None else None
        hashed = await self._passwords.hash(generated or password or Secret(""))
        now = self._clock.now_ns()
        organization = Organization(id=new_id("org"), name=organization_name, time_zone="UTC", policy_id=None, created_at_ns=now)
        owner = User(
            id=new_id("usr"),
            organization_id=organization.id,
            email=email.strip().lower(),
            name=email.split("@", maxsplit=1)[0],
            role=Role.OWNER,
            developer_id=None,
            status=Status.ACTIVE,
            created_at_ns=now,
        )
        actor = system_actor(organization.id)
        async with self._database.unit(organization.id) as work:
            await self._owners.lock_start(work.connection)
            if await self._owners.any_organization(work.connection) is not None:
                return None
            await self._owners.add_organization(work.connection, organization)
            await self._repository.add_user(work.connection, owner, password_hash=hashed)
            await self._audit.record(work, actor, "organization.create", organization.id, after={"name": organization.name})
            await self._audit.record(work, actor, "user.create", owner.id, after={"email": owner.email, "role": owner.role})
        return Started(organization=organization, owner=owner, password=generated)

    async def organization(self) -> Organization | None:
        """The organisation of this KeyGate, once the first start has made it."""
        async with self._database.read() as connection:
            return await self._owners.any_organization(connection)

    async def list(self, actor: Actor, *, after: str | None, limit: int) -> Sequence[User]:
        async with self._database.read() as connection:
            return await self._repository.users(connection, actor.organization_id, after=after, limit=limit)

    async def get(self, actor: Actor, user_id: str) -> User:
        async with self._database.read() as connection:
            return await self._find(connection, actor, user_id)

    async def create(self, actor: Actor, *, email: str, name: str, role: Role, password: Secret, developer_id: str | None = None) -> User:
        """Raises `Forbidden` for a role that may more than the actor, `Conflict` for an address that is taken."""
        _require_grant(actor, role)
        hashed = await self._passwords.hash(password)
        user = User(
            id=new_id("usr"),
            organization_id=actor.organization_id,
            email=email.lower(),
            name=name,
            role=role,
            developer_id=developer_id,
            status=Status.ACTIVE,
            created_at_ns=self._clock.now_ns(),
        )
        async with self._database.unit(actor.organization_id) as work:
            await self._check_link(work.connection, user)
            if not await self._repository.add_user(work.connection, user, password_hash=hashed):
                raise Conflict("email: a user with this address is there already", field="email")
            after = {"email": user.email, "name": name, "role": role, "developer_id": developer_id}
            await self._audit.record(work, actor, "user.create", user.id, after=after)
        return user

    async def update(self, actor: Actor, user_id: str, changes: Mapping[str, Any]) -> User:
        """`changes`: name, role, developer_id, status. A change of role or status ends every sign-in of that user."""
        async with self._database.unit(actor.organization_id) as work:
            before = await self._manageable(work.connection, actor, user_id)
            after = _changed(before, changes)
            if after.role is not before.role:
                _require_grant(actor, after.role)
            await self._check_link(work.connection, after)
            if before.role is Role.OWNER and before.active and (after.role is not Role.OWNER or not after.active):
                await self._keep_an_owner(work.connection, actor, user_id)
            if changes:
                values = {name: getattr(after, name) for name in changes}
                await self._repository.update_user(work.connection, before, values)
                if (after.role, after.status, after.developer_id) != (before.role, before.status, before.developer_id):
                    await self._repository.end_access(work.connection, before, now_ns=self._clock.now_ns(), tokens=not after.active)
                old = {name: getattr(before, name) for name in changes}
                await self._audit.record(work, actor, "user.update", user_id, before=old, after=values)
        return after

    async def deactivate(self, actor: Actor, user_id: str) -> None:
        """Ends sign-ins and API tokens at once. Idempotent. The last owner stays."""
        await self.update(actor, user_id, {"status": Status.DEACTIVATED})

    async def set_password(self, actor: Actor, user_id: str, password: Secret) -> None:
        """For somebody else; ends every sign-in and API token of theirs."""
        hashed = await self._passwords.hash(password)
        async with self._database.unit(actor.organization_id) as work:
            user = await self._manageable(work.connection, actor, user_id)
            await self._repository.update_user(work.connection, user, {"password_hash": hashed})
            await self._repository.end_access(work.connection, user, now_ns=self._clock.now_ns())
            await self._audit.record(work, actor, "user.set_password", user_id)

    async def change_password(self, actor: Actor, *, current: Secret, password: Secret) -> None:
        """One's own; ends every other sign-in. Raises `Forbidden` where the current one is wrong, or for an API token, and `Throttled` as a
        sign-in does: whoever has somebody's session must not learn their password by it."""
        if actor.kind is not ActorKind.USER or actor.user_id is None:
            raise Forbidden("Sign in with the password to change it; an API token can't")
        async with self._database.read() as connection:
            user = await self._find(connection, actor, actor.user_id)
            stored = await self._repository.password_hash(connection, actor.organization_id, actor.user_id)
        await self._attempts.take(user.email, actor.address, user)
        if not await self._passwords.matches(stored, current):
            raise Forbidden("current_password: this is not the current password", field="current_password")
        hashed = await self._passwords.hash(password)
        async with self._database.unit(actor.organization_id) as work:
            user = await self._find(work.connection, actor, actor.user_id)
            await self._attempts.forgive(work.connection, user.email, actor.address, user)
            await self._repository.update_user(work.connection, user, {"password_hash": hashed})
            await self._repository.end_access(
                work.connection, user, now_ns=self._clock.now_ns(), keep_session=actor.session_id, tokens=False
            )
            await self._audit.record(work, actor, "user.change_password", user.id)

    async def _find(self, connection: AsyncConnection, actor: Actor, user_id: str) -> User:
        user = await self._repository.user(connection, actor.organization_id, user_id)
        if user is None:
            raise NotFound("There is no such user")
        return user

    async def _manageable(self, connection: AsyncConnection, actor: Actor, user_id: str) -> User:
        user = await self._find(connection, actor, user_id)
        _require_grant(actor, user.role)
        return user

    async def _keep_an_owner(self, connection: AsyncConnection, actor: Actor, user_id: str) -> None:
        if await self._repository.owner_ids(connection, actor.organization_id) == [user_id]:
            raise Conflict("This is the last owner of the organisation; make somebody else an owner first")

    async def _check_link(self, connection: AsyncConnection, user: User) -> None:
        if user.developer_id is None:
            if user.role is Role.DEVELOPER:
                raise InvalidInput("developer_id: a user of role developer needs the developer that they are", field="developer_id")
            return
        developer = await self._owners.developer(connection, user.organization_id, user.developer_id)
        if developer is None or (user.active and not developer.active):
            raise InvalidInput("developer_id: there is no such active developer", field="developer_id")


def _changed(user: User, changes: Mapping[str, Any]) -> User:
    return User(**{name: changes.get(name, getattr(user, name)) for name in User.__dataclass_fields__})


def _require_grant(actor: Actor, role: Role) -> None:
    if not may_grant(actor, role):
        raise Forbidden(f"Only who holds all that {role} does may make, change or end a user of that role")
