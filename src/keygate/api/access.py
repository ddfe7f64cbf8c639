"""Who calls, and may they: the authoriser that every route but the public ones goes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request

from keygate.errors import Forbidden, Unauthenticated
from keygate.identities import Actor, SessionService, allows

Authoriser = Callable[[Request, str], Awaitable[Actor]]


def authoriser(sessions: SessionService) -> Authoriser:
    """Bearer tokens only, so a browser sends nothing by itself and there is nothing to forge across sites."""

    async def authorise(request: Request, permission: str) -> Actor:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("Sign in: send `Authorization: Bearer` with an access token from POST /api/v1/auth/login or an API token")
        actor = await sessions.authenticate(
            token.strip(), address=request.client.host if request.client else None, request_id=request.state.request_id
        )
        request.state.actor = actor
        request.state.permission = permission
        if not allows(actor, permission):
            held = "this API token" if actor.scopes is not None else f"the role {actor.role}"
            raise Forbidden(f"This needs the permission {permission}, which {held} does not have")
        return actor

    return authorise
