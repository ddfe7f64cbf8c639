"""Routes of identities. Thin: they read the wire, call a use case, write the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response

from keygate.errors import InvalidInput
from keygate.identities import schemas
from keygate.identities.api_tokens import ApiTokenService
from keygate.identities.apps import AppService
from keygate.identities.developers import DeveloperService
from keygate.identities.model import Actor, ApiToken, App, Developer, Members, Organization, Status, Team, User
from keygate.identities.owners import OrganizationService, TeamService
from keygate.identities.permissions import SELF, held_by
from keygate.identities.schemas import stamp
from keygate.identities.sessions import SessionService
from keygate.identities.users import UserService
from keygate.kit.clock import rfc3339, to_ns
from keygate.kit.routes import PUBLIC, Id, Page, PageQuery, Routes, Schema, current_actor, service
from keygate.kit.secret import Secret

auth = Routes("/auth", tag="auth")
organization = Routes("/organization", tag="organization")
teams = Routes("/teams", tag="teams")
developers = Routes("/developers", tag="developers")
apps = Routes("/apps", tag="apps")
users = Routes("/users", tag="users")
api_tokens = Routes("/api-tokens", tag="api tokens")

ALL: tuple[Routes, ...] = (auth, organization, teams, developers, apps, users, api_tokens)

Caller = Annotated[Actor, Depends(current_actor)]
Listing = Annotated[PageQuery, Depends()]
Organizations = Annotated[OrganizationService, service(OrganizationService)]
Teams = Annotated[TeamService, service(TeamService)]
Developers = Annotated[DeveloperService, service(DeveloperService)]
Apps = Annotated[AppService, service(AppService)]
Users = Annotated[UserService, service(UserService)]
Sessions = Annotated[SessionService, service(SessionService)]
ApiTokens = Annotated[ApiTokenService, service(ApiTokenService)]
PathId = Annotated[Id, Path()]
OfTeam = Annotated[Id | None, Query(description="Only of this team")]
OfStatus = Annotated[Status | None, Query()]

RECEIPT_HEADER = "x-keygate-receipt"
_TOLD = {"description": "Id of the receipt, where anything was held: `GET /receipts/{id}`", "schema": {"type": "string"}}
_MEMBERS: dict[int | str, dict[str, Any]] = {
    409: {"description": "The team still has active developers or apps: say with `developers` what becomes of them, or move them first"}
}
_ENDED: dict[int | str, dict[str, Any]] = {204: {"headers": {RECEIPT_HEADER: _TOLD}}}


def _ended(receipt_id: str | None) -> Response:
    return Response(status_code=204, headers={} if receipt_id is None else {RECEIPT_HEADER: receipt_id})


def _changes(body: Schema, *, required: Sequence[str] = ("name",)) -> Mapping[str, Any]:
    """What the caller sent, nothing else: a field that is left out stays, `null` takes it away."""
    changes = body.model_dump(exclude_unset=True)
    for field in required:
        if field in changes and changes[field] is None:
            raise InvalidInput(f"{field}: can't be taken away; leave it out to keep it", field=field)
    return changes


def _organization(value: Organization) -> schemas.OrganizationView:
    return schemas.OrganizationView(
        id=value.id, name=value.name, time_zone=value.time_zone, policy_id=value.policy_id, created_at=stamp(value.created_at_ns)
    )


def _team(value: Team) -> schemas.TeamView:
    return schemas.TeamView(
        id=value.id,
        name=value.name,
        policy_id=value.policy_id,
        created_at=stamp(value.created_at_ns),
        archived_at=rfc3339(value.archived_at_ns),
    )


def _developer(value: Developer) -> schemas.DeveloperView:
    return schemas.DeveloperView(
        id=value.id,
        name=value.name,
        email=value.email,
        team_id=value.team_id,
        policy_id=value.policy_id,
        status=value.status,
        created_at=stamp(value.created_at_ns),
        deactivated_at=rfc3339(value.deactivated_at_ns),
    )


def _app(value: App) -> schemas.AppView:
    return schemas.AppView(
        id=value.id,
        name=value.name,
        team_id=value.team_id,
        developer_id=value.developer_id,
        policy_id=value.policy_id,
        status=value.status,
        created_at=stamp(value.created_at_ns),
        deactivated_at=rfc3339(value.deactivated_at_ns),
    )


def _user(value: User) -> schemas.UserView:
    return schemas.UserView(
        id=value.id,
        email=value.email,
        name=value.name,
        role=value.role,
        developer_id=value.developer_id,
        status=value.status,
        created_at=stamp(value.created_at_ns),
        last_login_at=rfc3339(value.last_login_at_ns),
    )


def _token(value: ApiToken) -> dict[str, Any]:
    return {
        "id": value.id,
        "user_id": value.user_id,
        "name": value.name,
        "hint": value.hint,
        "scopes": sorted(value.scopes),
        "created_at": stamp(value.created_at_ns),
        "expires_at": rfc3339(value.expires_at_ns),
        "revoked_at": rfc3339(value.revoked_at_ns),
        "last_used_at": rfc3339(value.last_used_at_ns),
    }


@auth.post("/login", permission=PUBLIC, responses={401: {}, 429: {}})
async def login(body: schemas.LoginBody, request: Request, sessions: Sessions) -> schemas.AccessToken:
    """Sign in with e-mail address and password. After failures an account or address waits: see `retry-after`."""
    _, session = await sessions.login(
        body.email,
        Secret(body.password.get_secret_value()),
        address=request.client.host if request.client else None,
        request_id=request.state.request_id,
    )
    return schemas.AccessToken(access_token=session.token.open(), expires_in=session.expires_in)


@auth.post("/logout", permission=SELF, status_code=204)
async def logout(actor: Caller, sessions: Sessions) -> Response:
    """End this sign-in. An API token is revoked at `/api-tokens/{id}` instead."""
    await sessions.logout(actor)
    return Response(status_code=204)


@auth.get("/me", permission=SELF)
async def me(actor: Caller, users_: Users) -> schemas.Me:
    """Who calls, and what they may do."""
    user = await users_.get(actor, actor.user_id) if actor.user_id else None
    return schemas.Me(
        id=actor.id,
        kind=actor.kind,
        organization_id=actor.organization_id,
        role=actor.role,
        email=user.email if user else None,
        name=user.name if user else None,
        developer_id=actor.developer_id,
        permissions=sorted(held_by(actor)),
    )


@auth.post("/password", permission=SELF, status_code=204, responses={429: {}})
async def change_password(body: schemas.PasswordChange, actor: Caller, users_: Users) -> Response:
    """Change one's own password; every other sign-in ends. Wrong current passwords count as failed sign-ins do: see `retry-after`."""
    current, password = (Secret(each.get_secret_value()) for each in (body.current_password, body.password))
    await users_.change_password(actor, current=current, password=password)
    return Response(status_code=204)


@organization.get(permission="organization.read")
async def get_organization(actor: Caller, organizations: Organizations) -> schemas.OrganizationView:
    """The organisation."""
    return _organization(await organizations.get(actor))


@organization.patch(permission="organization.write")
async def update_organization(body: schemas.OrganizationChange, actor: Caller, organizations: Organizations) -> schemas.OrganizationView:
    """Change name, time zone (calendar windows of budgets) or policy."""
    return _organization(await organizations.update(actor, _changes(body, required=("name", "time_zone"))))


@teams.get(permission="teams.read")
async def list_teams(
    actor: Caller,
    found: Teams,
    page: Listing,
    archived: Annotated[bool, Query(description="Archived teams too")] = False,
) -> Page[schemas.TeamView]:
    """Teams; a developer sees their own."""
    rows = await found.list(actor, after=page.after, limit=page.limit + 1, archived=archived)
    kept, cursor = page.page(rows, key=lambda row: row.id)
    return Page(items=[_team(row) for row in kept], next_cursor=cursor)


@teams.post(permission="teams.write", status_code=201)
async def create_team(body: schemas.TeamBody, actor: Caller, found: Teams) -> schemas.TeamView:
    """Make a team."""
    return _team(await found.create(actor, name=body.name, policy_id=body.policy_id))


@teams.get("/{team_id}", permission="teams.read")
async def get_team(team_id: PathId, actor: Caller, found: Teams) -> schemas.TeamView:
    """One team."""
    return _team(await found.get(actor, team_id))


@teams.patch("/{team_id}", permission="teams.write")
async def update_team(team_id: PathId, body: schemas.TeamChange, actor: Caller, found: Teams) -> schemas.TeamView:
    """Change name or policy; keys below follow at once."""
    return _team(await found.update(actor, team_id, _changes(body)))


@teams.delete("/{team_id}", permission="teams.write", status_code=204, responses=_ENDED | _MEMBERS)
async def archive_team(
    team_id: PathId,
    actor: Caller,
    found: Teams,
    developers: Annotated[
        Members | None,
        Query(
            description="What becomes of its active developers and apps. `deactivate`: they end with it, with every key of theirs, in one "
            "receipt. `detach`: developers and their apps stay, without a team; apps that no developer answers for end"
        ),
    ] = None,
) -> Response:
    """Archive a team; every key that it holds is revoked. One that has active developers or apps only with `developers`."""
    return _ended(await found.archive(actor, team_id, developers=developers))


@developers.get(permission="developers.read")
async def list_developers(
    actor: Caller, found: Developers, page: Listing, team_id: OfTeam = None, status: OfStatus = None
) -> Page[schemas.DeveloperView]:
    """Developers; a developer sees themselves."""
    rows = await found.list(actor, after=page.after, limit=page.limit + 1, team_id=team_id, status=status)
    kept, cursor = page.page(rows, key=lambda row: row.id)
    return Page(items=[_developer(row) for row in kept], next_cursor=cursor)


@developers.post(permission="developers.write", status_code=201)
async def create_developer(body: schemas.DeveloperBody, actor: Caller, found: Developers) -> schemas.DeveloperView:
    """Make a developer."""
    made = await found.create(actor, name=body.name, email=body.email, team_id=body.team_id, policy_id=body.policy_id)
    return _developer(made)


@developers.get("/{developer_id}", permission="developers.read")
async def get_developer(developer_id: PathId, actor: Caller, found: Developers) -> schemas.DeveloperView:
    """One developer."""
    return _developer(await found.get(actor, developer_id))


@developers.patch("/{developer_id}", permission="developers.write")
async def update_developer(developer_id: PathId, body: schemas.DeveloperChange, actor: Caller, found: Developers) -> schemas.DeveloperView:
    """Change name, address, team or policy; their keys follow at once."""
    return _developer(await found.update(actor, developer_id, _changes(body, required=("name", "email"))))


@developers.delete("/{developer_id}", permission="developers.write", status_code=204, responses=_ENDED)
async def deactivate_developer(developer_id: PathId, actor: Caller, found: Developers) -> Response:
    """Deactivate: their sign-ins and API tokens end, and every key that they hold is revoked."""
    return _ended(await found.deactivate(actor, developer_id))


@developers.post("/{developer_id}/activate", permission="developers.write")
async def activate_developer(developer_id: PathId, actor: Caller, found: Developers) -> schemas.DeveloperView:
    """Take a deactivated developer back. What was revoked stays revoked."""
    return _developer(await found.activate(actor, developer_id))


@apps.get(permission="apps.read")
async def list_apps(actor: Caller, found: Apps, page: Listing, team_id: OfTeam = None, status: OfStatus = None) -> Page[schemas.AppView]:
    """Apps; a developer sees those that they answer for."""
    rows = await found.list(actor, after=page.after, limit=page.limit + 1, team_id=team_id, status=status)
    kept, cursor = page.page(rows, key=lambda row: row.id)
    return Page(items=[_app(row) for row in kept], next_cursor=cursor)


@apps.post(permission="apps.write", status_code=201)
async def create_app(body: schemas.AppBody, actor: Caller, found: Apps) -> schemas.AppView:
    """Make an app."""
    made = await found.create(actor, name=body.name, team_id=body.team_id, developer_id=body.developer_id, policy_id=body.policy_id)
    return _app(made)


@apps.get("/{app_id}", permission="apps.read")
async def get_app(app_id: PathId, actor: Caller, found: Apps) -> schemas.AppView:
    """One app."""
    return _app(await found.get(actor, app_id))


@apps.patch("/{app_id}", permission="apps.write")
async def update_app(app_id: PathId, body: schemas.AppChange, actor: Caller, found: Apps) -> schemas.AppView:
    """Change name, team, developer or policy; its keys follow at once."""
    return _app(await found.update(actor, app_id, _changes(body)))


@apps.delete("/{app_id}", permission="apps.write", status_code=204, responses=_ENDED)
async def deactivate_app(app_id: PathId, actor: Caller, found: Apps) -> Response:
    """Deactivate: every key that it holds is revoked."""
    return _ended(await found.deactivate(actor, app_id))


@users.get(permission="users.read")
async def list_users(actor: Caller, found: Users, page: Listing) -> Page[schemas.UserView]:
    """Who may sign in."""
    rows = await found.list(actor, after=page.after, limit=page.limit + 1)
    kept, cursor = page.page(rows, key=lambda row: row.id)
    return Page(items=[_user(row) for row in kept], next_cursor=cursor)


@users.post(permission="users.write", status_code=201)
async def create_user(body: schemas.UserBody, actor: Caller, found: Users) -> schemas.UserView:
    """Make a user; of a role that may no more than you do."""
    made = await found.create(
        actor,
        email=body.email,
        name=body.name,
        role=body.role,
        password=Secret(body.password.get_secret_value()),
        developer_id=body.developer_id,
    )
    return _user(made)


@users.get("/{user_id}", permission="users.read")
async def get_user(user_id: PathId, actor: Caller, found: Users) -> schemas.UserView:
    """One user."""
    return _user(await found.get(actor, user_id))


@users.patch("/{user_id}", permission="users.write")
async def update_user(user_id: PathId, body: schemas.UserChange, actor: Caller, found: Users) -> schemas.UserView:
    """Change name, role, developer or status; a change of role or status ends their sign-ins."""
    return _user(await found.update(actor, user_id, _changes(body, required=("name", "role", "status"))))


@users.delete("/{user_id}", permission="users.write", status_code=204)
async def deactivate_user(user_id: PathId, actor: Caller, found: Users) -> Response:
    """Deactivate: their sign-ins and API tokens end. The last owner stays."""
    await found.deactivate(actor, user_id)
    return Response(status_code=204)


@users.put("/{user_id}/password", permission="users.write", status_code=204)
async def set_password(user_id: PathId, body: schemas.PasswordBody, actor: Caller, found: Users) -> Response:
    """Set somebody's password; their sign-ins and API tokens end."""
    await found.set_password(actor, user_id, Secret(body.password.get_secret_value()))
    return Response(status_code=204)


@api_tokens.get(permission="api_tokens.read")
async def list_api_tokens(actor: Caller, found: ApiTokens, page: Listing) -> Page[schemas.ApiTokenView]:
    """API tokens: everybody's for owners and admins, one's own for others."""
    rows = await found.list(actor, after=page.after, limit=page.limit + 1)
    kept, cursor = page.page(rows, key=lambda row: row.id)
    return Page(items=[schemas.ApiTokenView(**_token(row)) for row in kept], next_cursor=cursor)


@api_tokens.post(permission="api_tokens.write", status_code=201)
async def create_api_token(body: schemas.ApiTokenBody, actor: Caller, found: ApiTokens) -> schemas.NewApiToken:
    """Make an API token with scopes that you hold. The token is in this answer only."""
    expires = to_ns(body.expires_at) if body.expires_at else None
    made, token = await found.create(actor, name=body.name, scopes=frozenset(body.scopes), expires_at_ns=expires)
    return schemas.NewApiToken(**_token(made), token=token.open())


@api_tokens.delete("/{token_id}", permission="api_tokens.write", status_code=204)
async def revoke_api_token(token_id: PathId, actor: Caller, found: ApiTokens) -> Response:
    """Revoke; the next call with it is refused."""
    await found.revoke(actor, token_id)
    return Response(status_code=204)
