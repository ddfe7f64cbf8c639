"""Use cases of developers: people who hold keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keygate.errors import Conflict
from keygate.identities.model import Actor, Developer, Status
from keygate.identities.owners import EndingService, absent, present
from keygate.kit.ids import new_id

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class DeveloperService(EndingService):
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
            raise absent("developer")
        async with self._database.read() as connection:
            return await self._find(connection, actor, developer_id)

    async def create(self, actor: Actor, *, name: str, email: str, team_id: str | None = None, policy_id: str | None = None) -> Developer:
        """Raises `Conflict` where the e-mail address is taken, by a deactivated developer too: activate that one again."""
        async with self._database.unit(actor.organization_id) as work:
            await self._check_named(work.connection, actor, {"team_id": team_id, "policy_id": policy_id})
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
                raise Conflict("email: another developer has this address", field="email")
            after = {"name": name, "email": developer.email, "team_id": team_id, "policy_id": policy_id}
            await self._audit.record(work, actor, "developer.create", developer.id, after=after)
        return developer

    async def update(self, actor: Actor, developer_id: str, changes: Mapping[str, Any]) -> Developer:
        """`changes`: name, email, team_id, policy_id; only what is to change."""
        if "email" in changes:
            changes = {**changes, "email": changes["email"].lower()}
        async with self._database.unit(actor.organization_id) as work:
            before = await self._find(work.connection, actor, developer_id)
            await self._check_named(work.connection, actor, changes)
            if "email" in changes:
                other = await self._repository.developer_with_email(work.connection, actor.organization_id, changes["email"])
                if other is not None and other.id != developer_id:
                    raise Conflict("email: another developer has this address", field="email")
            if changes:
                await self._repository.update_developer(work.connection, before, changes)
                await self._record_update(work, actor, "developer", before, changes)
            return await self._find(work.connection, actor, developer_id)

    async def deactivate(self, actor: Actor, developer_id: str) -> str | None:
        """Ends a developer: their sign-ins and API tokens end, every key that they hold is revoked, all in one transaction; when
        it returns, the next request of any of them is refused. Returns the id of the receipt for all of it; None where they held nothing,
        or it was done before: idempotent."""
        async with self._database.unit(actor.organization_id) as work:
            developer = await self._find(work.connection, actor, developer_id)
            if not developer.active:
                return None
            await self._departures.developer(work, actor, developer)
            receipt = await self._holders.developer_deactivated(work, actor, developer_id)
            await self._departures.told(work, actor, developer, receipt)
            self._publish(work, actor.organization_id)
        return receipt

    async def activate(self, actor: Actor, developer_id: str) -> Developer:
        """Takes a deactivated developer back. What was revoked stays revoked; their user is activated apart. Idempotent."""
        async with self._database.unit(actor.organization_id) as work:
            developer = await self._find(work.connection, actor, developer_id)
            if not developer.active:
                await self._check_named(work.connection, actor, {"team_id": developer.team_id})
                await self._repository.update_developer(work.connection, developer, {"status": Status.ACTIVE, "deactivated_at_ns": None})
                before, after = {"status": Status.DEACTIVATED}, {"status": Status.ACTIVE}
                await self._audit.record(work, actor, "developer.activate", developer_id, before=before, after=after)
                self._publish(work, actor.organization_id)
            return await self._find(work.connection, actor, developer_id)

    async def _find(self, connection: AsyncConnection, actor: Actor, developer_id: str) -> Developer:
        return present(await self._repository.developer(connection, actor.organization_id, developer_id), "developer")
