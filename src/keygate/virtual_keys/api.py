"""`/virtual-keys` and `/quota`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query, Request

from keygate.errors import Unauthenticated
from keygate.identities import Actor
from keygate.kit.routes import PUBLIC, Page, PageQuery, Routes, current_actor, service
from keygate.kit.secret import Secret
from keygate.virtual_keys.model import IssuedToken, KeyFilter, Standing
from keygate.virtual_keys.schemas import IssuedKeyOut, KeyCreate, KeyOut, KeyUpdate, Leak, Revoke, Rotate, UsageOut
from keygate.virtual_keys.service import VirtualKeyService

routes = Routes("/virtual-keys", tag="virtual keys")
quota_routes = Routes("/quota", tag="virtual keys")
ALL = (routes, quota_routes)

_Actor = Annotated[Actor, Depends(current_actor)]
_Keys = Annotated[VirtualKeyService, service(VirtualKeyService)]
_Id = Annotated[str, Path(max_length=100)]
_Text = Annotated[str | None, Query(max_length=200)]

_ABSENT: dict[int | str, dict[str, Any]] = {404: {"description": "Absent, or not visible to this actor"}}
_REVOKED: dict[int | str, dict[str, Any]] = {409: {"description": "The key is revoked"}}


def _issued(keys: VirtualKeyService, made: IssuedToken) -> IssuedKeyOut:
    return IssuedKeyOut(**KeyOut.fields(made.view), key=made.token.text.open(), env=keys.environment(made))


@routes.post("", permission="virtual_keys.write", status_code=201)
async def create_key(body: KeyCreate, actor: _Actor, keys: _Keys) -> IssuedKeyOut:
    """Makes a virtual key. The key itself is in this answer and nowhere else."""
    return _issued(keys, await keys.create(actor, body.draft()))


@routes.get("", permission="virtual_keys.read")
async def list_keys(
    actor: _Actor,
    keys: _Keys,
    page: Annotated[PageQuery, Depends()],
    team_id: _Text = None,
    developer_id: _Text = None,
    app_id: _Text = None,
    status: Annotated[Standing | None, Query()] = None,
    tag: _Text = None,
    q: Annotated[str | None, Query(max_length=200, description="In the name, or how an id or the key's public part begins")] = None,
) -> Page[KeyOut]:
    """Virtual keys, oldest first; an owner's filter finds the keys that it holds itself."""
    wanted = KeyFilter(owner_id=team_id or developer_id or app_id, status=status, tag=tag, text=q)
    rows, cursor = page.page(await keys.page(actor, wanted, after=page.after, limit=page.limit + 1), key=lambda view: view.key.id)
    return Page(items=[KeyOut.of(view) for view in rows], next_cursor=cursor)


@routes.post("/report-leak", permission=PUBLIC, status_code=204, responses={404: {"description": "Not a key of ours"}})
async def report_leak(body: Leak, request: Request, keys: _Keys) -> None:
    """Whoever finds a key may end it: holding it is the only evidence asked for. The key is revoked at once."""
    await keys.report_leak(Secret(body.key), address=request.client.host if request.client else None)


@routes.get("/{key_id}", permission="virtual_keys.read", responses=_ABSENT)
async def get_key(key_id: _Id, actor: _Actor, keys: _Keys) -> KeyOut:
    """One key."""
    return KeyOut.of(await keys.get(actor, key_id))


@routes.patch("/{key_id}", permission="virtual_keys.write", responses=_ABSENT | _REVOKED)
async def update_key(key_id: _Id, body: KeyUpdate, actor: _Actor, keys: _Keys) -> KeyOut:
    """Changes what is named, from the next request on; open streams that the change forbids are cut. Developers may only narrow."""
    return KeyOut.of(await keys.update(actor, key_id, body.changes()))


@routes.post("/{key_id}/rotate", permission="virtual_keys.write", responses=_ABSENT | _REVOKED)
async def rotate_key(key_id: _Id, actor: _Actor, keys: _Keys, body: Rotate | None = None) -> IssuedKeyOut:
    """A new key in place of the old one, with the same limits, budgets and history; both work during the grace."""
    return _issued(keys, await keys.rotate(actor, key_id, grace_seconds=0 if body is None else body.grace_seconds))


@routes.post("/{key_id}/revoke", permission="virtual_keys.write", responses=_ABSENT)
async def revoke_key(key_id: _Id, actor: _Actor, keys: _Keys, body: Revoke | None = None) -> KeyOut:
    """Ends a key for good: the next request is refused, open streams are cut. Doing it again changes nothing."""
    return KeyOut.of(await keys.revoke(actor, key_id, reason="" if body is None else body.reason))


@routes.get("/{key_id}/usage", permission="virtual_keys.read", responses=_ABSENT)
async def key_usage(key_id: _Id, actor: _Actor, keys: _Keys) -> UsageOut:
    """What the key has used, and how everything that limits it stands, true as of the answer."""
    return UsageOut.of(*await keys.usage(actor, key_id))


@quota_routes.get("", permission=PUBLIC, responses={401: {"description": "No virtual key, or one that does not work"}})
async def quota(keys: _Keys, authorization: Annotated[str | None, Header(max_length=1_000)] = None) -> UsageOut:
    """For the holder of a virtual key, with the key as bearer: its own limits and budgets, what is spent and held."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Send a virtual key: Authorization: Bearer sk-kg-…")
    return UsageOut.of(*await keys.quota(Secret(token.strip())))
