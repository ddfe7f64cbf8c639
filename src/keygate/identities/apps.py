"""Use cases of apps: programs that hold keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keygate.errors import Conflict
from keygate.identities.model import Actor, App, Status
from keygate.identities.owners import EndingService, absent, name_taken, present
from keygate.kit.ids import new_id

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class AppService(EndingService):
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
            raise absent("app")
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
            named: dict[str, Any] = {"team_id": team_id, "developer_id": developer_id, "policy_id": policy_id}
            await self._check_named(work.connection, actor, named)
            app = App(
                id=new_id("app"),
                organization_id=actor.organization_id,
                name=name,
                **named,
                status=Status.ACTIVE,
                created_at_ns=self._clock.now_ns(),
            )
            if not await self._repository.add_app(work.connection, app):
                raise name_taken("app")
            await self._audit.record(work, actor, "app.create", app.id, after={"name": name, **named})
        return app

    async def update(self, actor: Actor, app_id: str, changes: Mapping[str, Any]) -> App:
        """`changes`: name, team_id, developer_id, policy_id; only what is to change."""
        async with self._database.unit(actor.organization_id) as work:
            before = await self._find(work.connection, actor, app_id)
            if not before.active:
                raise Conflict("The app is deactivated")
            await self._check_named(work.connection, actor, changes)
            if "name" in changes:
                other = await self._repository.app_named(work.connection, actor.organization_id, changes["name"])
                if other is not None and other.id != app_id:
                    raise name_taken("app")
            if changes:
                await self._repository.update_app(work.connection, before, changes)
                await self._record_update(work, actor, "app", before, changes)
            return await self._find(work.connection, actor, app_id)

    async def deactivate(self, actor: Actor, app_id: str) -> str | None:
        """Ends an app and revokes every key that it holds. Returns the receipt's id as a developer's deactivation does. Idempotent."""
        async with self._database.unit(actor.organization_id) as work:
            app = await self._find(work.connection, actor, app_id)
            if not app.active:
                return None
            await self._departures.app(work, actor, app)
            receipt = await self._holders.app_deactivated(work, actor, app_id)
            self._publish(work, actor.organization_id)
        return receipt

    async def _find(self, connection: AsyncConnection, actor: Actor, app_id: str) -> App:
        return present(await self._repository.app(connection, actor.organization_id, app_id), "app")
