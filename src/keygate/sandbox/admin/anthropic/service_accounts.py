"""Service accounts and their membership in workspaces. Admin keys are refused here: the vendor wants an OAuth bearer with `org:admin`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import wraps
from typing import Any

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.anthropic import workspaces
from keygate.sandbox.admin.anthropic.reading import ACTOR, OAUTH, flag, found, page_by_cursor, slug, stamp
from keygate.sandbox.admin.api import AdminRequest, Handler
from keygate.sandbox.admin.shelf import Entry
from keygate.sandbox.errors import VendorError, invalid

ROLES = ("workspace_admin", "workspace_developer", "workspace_restricted_developer", "workspace_user")


def oauth_only(handler: Handler) -> Handler:
    """platform.claude.com/docs/de/manage-claude/admin-api-keys, read 2026-11-20."""

    @wraps(handler)
    def checked(account: Account, request: AdminRequest) -> Any:
        if request.credential is None or request.credential.kind != OAUTH:
            raise VendorError(403, "This endpoint does not accept Admin API keys. Use an OAuth token with the org:admin scope.")
        return handler(account, request)

    return checked


def add(account: Account, name: str, *, role: str = "developer", description: str | None = None) -> Entry:
    id_, now = f"svac_{secrets.token_hex(12)}", stamp(account.now_ns())
    body = {
        "id": id_,
        "type": "service_account",
        "name": name,
        "description": description,
        "organization_role": role,
        "archived_at": None,
        "archived_by_actor_id": None,
        "created_at": now,
        "created_by_actor_id": ACTOR,
        "updated_at": now,
        "updated_by_actor_id": ACTOR,
    }
    return account.make("service_accounts", id_, body)


@oauth_only
def create(account: Account, request: AdminRequest) -> dict[str, Any]:
    body = request.json()
    role = body.get("organization_role") or "developer"
    if role != "developer":
        raise VendorError(403, "organization_role: admin can only be set by an interactive credential.")
    return add(account, slug(account, "service_accounts", body), description=body.get("description")).body


@oauth_only
def listed(account: Account, request: AdminRequest) -> dict[str, Any]:
    archived = flag(request, "include_archived")
    entries = [entry for entry in account.listed("service_accounts") if archived or entry.body["archived_at"] is None]
    return page_by_cursor(request, entries, lambda entry: entry.body)


@oauth_only
def shown(account: Account, request: AdminRequest) -> dict[str, Any]:
    return found(account, "service_accounts", request.params["account"], "Service account").body


@oauth_only
def update(account: Account, request: AdminRequest) -> dict[str, Any]:
    entry = found(account, "service_accounts", request.params["account"], "Service account")
    body = request.json()
    if body.get("name") is not None and body["name"] != entry.body["name"]:
        entry.body["name"] = slug(account, "service_accounts", body)
    if "description" in body:
        entry.body["description"] = body["description"]
    entry.body["updated_at"] = stamp(account.now_ns())
    return entry.body


@oauth_only
def archive(account: Account, request: AdminRequest) -> dict[str, Any]:
    """400 while a live rule targets it (SDK docstring)."""
    entry = found(account, "service_accounts", request.params["account"], "Service account")
    if any(rule.body["archived_at"] is None and rule.body["target"]["service_account_id"] == entry.id for rule in account.shelves["rules"]):
        raise invalid("The service account is the target of a federation rule that is not archived.")
    if entry.body["archived_at"] is None:
        entry.body.update(archived_at=stamp(account.now_ns()), archived_by_actor_id=ACTOR)
    return entry.body


def membership(account: Account, workspace: str, service_account: str) -> Entry | None:
    return account.shelves["members"].get(f"{workspace}/{service_account}")


def _join(account: Account, workspace: str, service_account: str, role: Any) -> dict[str, Any]:
    workspaces.open_workspace(account, workspace)
    found(account, "service_accounts", service_account, "Service account")
    if role not in ROLES:
        raise invalid(f"workspace_role: must be one of {', '.join(ROLES)}")
    if membership(account, workspace, service_account) is not None:
        raise VendorError(409, "The service account is a member already.", kind="invalid_request_error", code="already_member")
    body = {
        "type": "service_account_workspace_member",
        "service_account_id": service_account,
        "workspace_id": workspace,
        "workspace_role": role,
        "created_by_actor_id": ACTOR,
        "implicit": False,
    }
    return account.make("members", f"{workspace}/{service_account}", body, parent=workspace).body


@oauth_only
def join_workspace(account: Account, request: AdminRequest) -> dict[str, Any]:
    body = request.json()
    return _join(account, request.params["workspace"], str(body.get("service_account_id")), body.get("workspace_role"))


@oauth_only
def join_account(account: Account, request: AdminRequest) -> dict[str, Any]:
    body = request.json()
    return _join(account, str(body.get("workspace_id")), request.params["account"], body.get("workspace_role"))


@oauth_only
def members(account: Account, request: AdminRequest) -> dict[str, Any]:
    found(account, "workspaces", request.params["workspace"], "Workspace")
    return page_by_cursor(request, account.listed("members", parent=request.params["workspace"]), lambda entry: entry.body)


@oauth_only
def memberships(account: Account, request: AdminRequest) -> dict[str, Any]:
    ours = [entry for entry in account.listed("members") if entry.body["service_account_id"] == request.params["account"]]
    return page_by_cursor(request, ours, lambda entry: entry.body)


@oauth_only
def member(account: Account, request: AdminRequest) -> dict[str, Any]:
    return found(account, "members", f"{request.params['workspace']}/{request.params['account']}", "Membership").body


@oauth_only
def leave(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Tokens that were minted before live on: what the vendor does with them is unverified, and the worse is assumed."""
    entry = found(account, "members", f"{request.params['workspace']}/{request.params['account']}", "Membership")
    account.remove("members", entry.id)
    names = {name: entry.body[name] for name in ("service_account_id", "workspace_id")}
    return {"type": "service_account_workspace_member_deleted", **names}


_S, _W = "/service_accounts", "/workspaces/{workspace}/service_accounts"
Row = tuple[str, str, str, str, Callable[[Account, AdminRequest], Any]]
ROUTES: tuple[Row, ...] = (
    ("GET", _S, "service_accounts.list", "org:admin", listed),
    ("POST", _S, "service_accounts.create", "org:admin", create),
    ("GET", f"{_S}/{{account}}", "service_accounts.get", "org:admin", shown),
    ("POST", f"{_S}/{{account}}", "service_accounts.update", "org:admin", update),
    ("POST", f"{_S}/{{account}}/archive", "service_accounts.archive", "org:admin", archive),
    ("GET", f"{_S}/{{account}}/workspaces", "members.list", "org:admin", memberships),
    ("POST", f"{_S}/{{account}}/workspaces", "members.create", "org:admin", join_account),
    ("DELETE", f"{_S}/{{account}}/workspaces/{{workspace}}", "members.delete", "org:admin", leave),
    ("GET", _W, "members.list", "org:admin", members),
    ("POST", _W, "members.create", "org:admin", join_workspace),
    ("GET", f"{_W}/{{account}}", "members.get", "org:admin", member),
    ("DELETE", f"{_W}/{{account}}", "members.delete", "org:admin", leave),
)
