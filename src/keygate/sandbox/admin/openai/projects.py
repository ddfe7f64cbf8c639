"""Projects and service accounts. A project is archived, never deleted; the default one takes neither members nor service accounts."""

from __future__ import annotations

import secrets
from typing import Any

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.openai import keys
from keygate.sandbox.admin.openai.reading import YEAR_S, found, name_of, page, whole
from keygate.sandbox.admin.shelf import Entry, Eventual
from keygate.sandbox.errors import invalid

DEFAULT = "proj_default"


def add(account: Account, name: str, *, id_: str | None = None) -> Entry:
    id_ = id_ or f"proj_{secrets.token_hex(12)}"
    body = {
        "id": id_,
        "object": "organization.project",
        "name": name,
        "created_at": account.clock.now_s(),
        "archived_at": None,
        "status": "active",
        "external_key_id": None,
    }
    return account.make("projects", id_, body, rate_limits={}, models=Eventual(None), spend=Eventual(None))


def open_project(account: Account, request: AdminRequest) -> Entry:
    """The project that the path names, if it may be changed."""
    project = found(account, "projects", request.params["project"], what="project")
    if project.body["status"] == "archived":
        raise invalid("Project is archived and cannot be updated.", code="project_archived")
    return project


def create(account: Account, request: AdminRequest) -> dict[str, Any]:
    name = name_of(request.json())
    active = sum(1 for project in account.shelves["projects"] if project.body["status"] == "active")
    most = account.full("projects", active)
    if most is not None:
        raise invalid(f"Your organization has reached the maximum of {most} projects.", code="project_limit_exceeded")
    return add(account, name).body


def listed(account: Account, request: AdminRequest) -> dict[str, Any]:
    archived = request.text("include_archived") in {"true", "True", "1"}
    entries = [entry for entry in account.listed("projects") if archived or entry.body["status"] == "active"]
    return page(request, entries, lambda entry: entry.body)


def shown(account: Account, request: AdminRequest) -> dict[str, Any]:
    return found(account, "projects", request.params["project"], what="project").body


def update(account: Account, request: AdminRequest) -> dict[str, Any]:
    project = open_project(account, request)
    body = request.json()
    if "name" in body:
        project.body["name"] = name_of(body)
    return project.body


def archive(account: Account, request: AdminRequest) -> dict[str, Any]:
    project = found(account, "projects", request.params["project"], what="project")
    if project.id == DEFAULT:
        raise invalid("The default project cannot be archived.", code="default_project")
    if project.body["status"] == "active":
        project.body.update(status="archived", archived_at=account.clock.now_s())
        for key in account.shelves["keys"].of(project.id):
            if key.grant is not None:
                key.grant.revoke()
    return project.body


def create_account(account: Account, request: AdminRequest) -> dict[str, Any]:
    project = open_project(account, request)
    body = request.json()
    name = name_of(body)
    expires = whole(body, "expires_in_seconds", most=YEAR_S)
    if project.id == DEFAULT:
        raise invalid("Service accounts cannot be added to the default project.", code="default_project")
    most = account.full("service_accounts", len(account.shelves["service_accounts"].of(project.id)))
    if most is not None:
        raise invalid(f"This project has reached the maximum of {most} service accounts.", code="service_account_limit_exceeded")
    bare = body.get("create_service_account_only") is True
    id_ = f"user-{secrets.token_hex(12)}"
    shown_body = {
        "object": "organization.project.service_account",
        "id": id_,
        "name": name,
        "role": "none" if bare else "member",
        "created_at": account.clock.now_s(),
    }
    service_account = account.make("service_accounts", id_, shown_body, parent=project.id)
    made = None if bare else keys.add(account, service_account, name="Secret Key", scopes=[], expires_in_s=expires)
    return {**shown_body, "api_key": made}


def list_accounts(account: Account, request: AdminRequest) -> dict[str, Any]:
    project = found(account, "projects", request.params["project"], what="project")
    return page(request, account.listed("service_accounts", parent=project.id), lambda entry: entry.body)


def service_account_of(account: Account, request: AdminRequest) -> Entry:
    return found(account, "service_accounts", request.params["account"], parent=request.params["project"], what="service account")


def show_account(account: Account, request: AdminRequest) -> dict[str, Any]:
    return service_account_of(account, request).body


def update_account(account: Account, request: AdminRequest) -> dict[str, Any]:
    open_project(account, request)
    entry = service_account_of(account, request)
    body = request.json()
    if "name" in body:
        entry.body["name"] = name_of(body)
    role = body.get("role")
    if role is not None:
        if role not in {"member", "owner"}:
            raise invalid("Invalid value for 'role'.", "role", code="invalid_value")
        entry.body["role"] = role
    return entry.body


def delete_account(account: Account, request: AdminRequest) -> dict[str, Any]:
    open_project(account, request)
    entry = service_account_of(account, request)
    for key in account.shelves["keys"].of(entry.parent or ""):
        if key.more["service_account"] == entry.id:
            account.remove("keys", key.id)
    account.remove("service_accounts", entry.id)
    return {"object": "organization.project.service_account.deleted", "id": entry.id, "deleted": True}


def add_key(account: Account, request: AdminRequest) -> dict[str, Any]:
    open_project(account, request)
    return keys.create(account, request, service_account_of(account, request))


_P = "/projects/{project}"
_S = f"{_P}/service_accounts"
ROUTES = (
    ("GET", "/projects", "projects.list", "api.management.read", listed),
    ("POST", "/projects", "projects.create", "api.projects.write", create),
    ("GET", _P, "projects.get", "api.management.read", shown),
    ("POST", _P, "projects.update", "api.projects.write", update),
    ("POST", f"{_P}/archive", "projects.archive", "api.projects.write", archive),
    ("GET", _S, "service_accounts.list", "api.management.read", list_accounts),
    ("POST", _S, "service_accounts.create", "api.service_accounts.write", create_account),
    ("GET", f"{_S}/{{account}}", "service_accounts.get", "api.management.read", show_account),
    ("POST", f"{_S}/{{account}}", "service_accounts.update", "api.service_accounts.write", update_account),
    ("DELETE", f"{_S}/{{account}}", "service_accounts.delete", "api.service_accounts.write", delete_account),
    ("POST", f"{_S}/{{account}}/api_keys", "keys.create", "api.api_keys.write", add_key),
)
