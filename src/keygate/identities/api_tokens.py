"""API tokens: for scripts and other programs, with scopes and an end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from keygate.errors import Forbidden, InvalidInput, NotFound
from keygate.identities.bearer import API, digest, mint
from keygate.identities.model import Actor, ActorKind, ApiToken, Role
from keygate.identities.permissions import KNOWN, SELF, held_by
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret

if TYPE_CHECKING:
    from keygate.audit import AuditLog
    from keygate.identities.access_repository import AccessRepository
    from keygate.kit.database import Database


class ApiTokenService:
    """A token acts for the user who made it, within its scopes, and never with more than that user may at the time of the call."""

    def __init__(self, database: Database, repository: AccessRepository, *, audit: AuditLog, clock: Clock) -> None:
        self._database = database
        self._repository = repository
        self._audit = audit
        self._clock = clock

    async def create(
        self, actor: Actor, *, name: str, scopes: Collection[str], expires_at_ns: int | None = None
    ) -> tuple[ApiToken, Secret]:
        """The token itself is in the answer, this once. Raises `Forbidden` for scopes that the actor doesn't hold."""
        if actor.kind is not ActorKind.USER or actor.user_id is None:
            raise Forbidden("Sign in with a password to make an API token; a token can't make another")
        unknown = sorted(set(scopes) - KNOWN)
        if unknown:
            raise InvalidInput("scopes: at least one is not a permission; `GET /api/v1/auth/me` lists those that you hold", field="scopes")
        if not scopes:
            raise InvalidInput("scopes: name at least one permission", field="scopes")
        beyond = sorted(set(scopes) - held_by(actor))
        if beyond:
            raise Forbidden(f"scopes: nobody grants more than they hold; you don't hold {', '.join(beyond[:5])}", field="scopes")
        now = self._clock.now_ns()
        if expires_at_ns is not None and expires_at_ns <= now:
            raise InvalidInput("expires_at: lies in the past", field="expires_at")
        secret = mint(API)
        token = ApiToken(
            id=new_id("tok"),
            organization_id=actor.organization_id,
            user_id=actor.user_id,
            name=name,
            hint=f"{API}{secret.hint()}",
            scopes=frozenset(scopes) - {SELF},
            created_at_ns=now,
            expires_at_ns=expires_at_ns,
            revoked_at_ns=None,
            last_used_at_ns=None,
        )
        async with self._database.unit(actor.organization_id) as work:
            await self._repository.add_token(work.connection, token, digest=digest(secret.open()))
            after = {"name": name, "scopes": sorted(token.scopes), "expires_at_ns": expires_at_ns}
            await self._audit.record(work, actor, "api_token.create", token.id, after=after)
        return token, secret

    async def list(self, actor: Actor, *, after: str | None, limit: int) -> Sequence[ApiToken]:
        """Owners and admins see everybody's, others their own."""
        async with self._database.read() as connection:
            return await self._repository.tokens(connection, actor.organization_id, user_id=_only(actor), after=after, limit=limit)

    async def revoke(self, actor: Actor, token_id: str) -> ApiToken:
        """Idempotent; the next call with it is refused."""
        async with self._database.unit(actor.organization_id) as work:
            token = await self._repository.token(work.connection, actor.organization_id, token_id, user_id=_only(actor))
            if token is None:
                raise NotFound("There is no such API token")
            if token.revoked_at_ns is None:
                await self._repository.update_token(work.connection, token, {"revoked_at_ns": self._clock.now_ns()})
                await self._audit.record(work, actor, "api_token.revoke", token_id)
            revoked = await self._repository.token(work.connection, actor.organization_id, token_id, user_id=_only(actor))
        return revoked or token


def _only(actor: Actor) -> str | None:
    """Whose tokens this actor sees: None for everybody's."""
    return None if actor.role in {Role.OWNER, Role.ADMIN} else actor.user_id
