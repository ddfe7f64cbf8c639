"""Use cases of aliases: names of an organisation's own for models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.errors import Conflict, NotFound
from keygate.identities import Actor
from keygate.kit.ids import new_id
from keygate.policies import validation
from keygate.policies.changes import RuleService, require_governor
from keygate.policies.model import Alias
from keygate.policies.records import alias_record

if TYPE_CHECKING:
    from keygate.kit.database import UnitOfWork

MAX_ALIASES = 1_000


class AliasService(RuleService):
    async def create(self, actor: Actor, *, alias: str, target: str) -> Alias:
        """Raises `Conflict` where the alias exists."""
        async with self._change(actor, "alias.create", "alias") as work:
            require_governor(actor)
            if await self._repository.count_aliases(work.connection, actor.organization_id) >= MAX_ALIASES:
                raise Conflict(f"An organisation has at most {MAX_ALIASES} aliases; remove one first")
            made = Alias(
                id=new_id("alias"),
                organization_id=actor.organization_id,
                alias=validation.alias_name(alias, self._vendors),
                target="/".join(validation.model_name(target, self._vendors)),
                created_at_ns=self._clock.now_ns(),
                created_by=actor.id,
            )
            await self._repository.add_alias(work.connection, made)
            await self._audit.record(work, actor, "alias.create", made.id, after=alias_record(made))
            self._changed(work, actor)
        return made

    async def update(self, actor: Actor, alias_id: str, *, target: str) -> Alias:
        async with self._change(actor, "alias.update", alias_id) as work:
            before = await self._found(work, actor, alias_id)
            require_governor(actor)
            after = replace(before, target="/".join(validation.model_name(target, self._vendors)))
            await self._repository.save_alias(work.connection, after)
            await self._audit.record(work, actor, "alias.update", alias_id, before=alias_record(before), after=alias_record(after))
            self._changed(work, actor)
        return after

    async def delete(self, actor: Actor, alias_id: str) -> None:
        async with self._change(actor, "alias.delete", alias_id) as work:
            before = await self._found(work, actor, alias_id)
            require_governor(actor)
            await self._repository.remove_alias(work.connection, actor.organization_id, alias_id)
            await self._audit.record(work, actor, "alias.delete", alias_id, before=alias_record(before))
            self._changed(work, actor)

    async def get(self, actor: Actor, alias_id: str) -> Alias:
        async with self._database.read() as connection:
            alias = await self._repository.alias(connection, actor.organization_id, alias_id)
        if alias is None:
            raise NotFound("There is no alias with this id")
        return alias

    async def list(self, actor: Actor, *, after: str | None, limit: int) -> Sequence[Alias]:
        async with self._database.read() as connection:
            return await self._repository.list_aliases(connection, actor.organization_id, after=after, limit=limit)

    async def _found(self, work: UnitOfWork, actor: Actor, alias_id: str) -> Alias:
        alias = await self._repository.alias(work.connection, actor.organization_id, alias_id)
        if alias is None:
            raise NotFound("There is no alias with this id")
        return alias
