"""API keys: listed, read, renamed, switched off and archived. No API makes one; the Console does (`console/keys`)."""

from __future__ import annotations

import secrets
from typing import Any

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.anthropic import workspaces
from keygate.sandbox.admin.anthropic.reading import ACTOR, found, page_by_id, stamp, text
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.shelf import Entry
from keygate.sandbox.errors import invalid

_STATUSES = ("active", "inactive", "archived")
_NEW_SHAPE = b"2026-10-21"  # from this version on a key has `scope` and `principal` in place of `workspace_id`


def add(account: Account, body: dict[str, Any]) -> dict[str, Any]:
    """A key made by hand in the Console; its value is shown once."""
    workspace = workspaces.open_workspace(account, str(body.get("workspace_id") or workspaces.DEFAULT))
    id_, value = f"apikey_{secrets.token_hex(12)}", f"sandbox-anthropic-api03-{secrets.token_hex(24)}"
    expires = body.get("expires_in_seconds")
    expires_at_ns = account.later_ns(float(expires)) if expires is not None else None
    principal = None
    if body.get("service_account_id"):
        principal = {"type": "service_account_actor", "service_account_id": str(body["service_account_id"])}
    elif body.get("user_id"):
        principal = {"type": "user_actor", "user_id": str(body["user_id"])}
    shown_body = {
        "id": id_,
        "type": "api_key",
        "name": text(body, "name"),
        "created_at": stamp(account.now_ns()),
        "created_by": {"id": str(body.get("user_id") or ACTOR), "type": "user"},
        "expires_at": stamp(expires_at_ns),
        "partial_key_hint": f"{value[:20]}...{value[-4:]}",
        "principal": principal,
        "scope": {"type": "workspace", "workspace_id": workspace.id},
        "status": "active",
    }
    entry = account.make("keys", id_, shown_body, parent=workspace.id)
    entry.grant = account.issue(value, id_=id_, container=workspace.id, expires_at_ns=expires_at_ns)
    return {"id": id_, "value": value}


def _status(entry: Entry) -> str:
    if entry.body["status"] == "active" and entry.grant is not None and entry.grant.expired:
        return "expired"
    return str(entry.body["status"])


def show(entry: Entry, request: AdminRequest) -> dict[str, Any]:
    body = {**entry.body, "status": _status(entry)}
    if request.headers.get(b"anthropic-version", b"") < _NEW_SHAPE:
        del body["scope"], body["principal"]
        body["workspace_id"] = None if entry.parent == workspaces.DEFAULT else entry.parent
    return body


def listed(account: Account, request: AdminRequest) -> dict[str, Any]:
    status, workspace, creator = request.text("status"), request.text("workspace_id"), request.text("created_by_user_id")
    entries = [
        entry
        for entry in account.listed("keys", parent=workspace)
        if (status is None or _status(entry) == status) and (creator is None or entry.body["created_by"]["id"] == creator)
    ]
    return page_by_id(request, entries, lambda entry: show(entry, request))


def shown(account: Account, request: AdminRequest) -> dict[str, Any]:
    return show(found(account, "keys", request.params["key"], "API key"), request)


def update(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Name and status. What is archived stays so: the Console says that this is permanent; of the API it is unverified."""
    entry = found(account, "keys", request.params["key"], "API key")
    body = request.json()
    name, status = body.get("name"), body.get("status")
    if name is not None:
        text(body, "name")
    if status is not None:
        _set_status(account, entry, status)
    if name is not None:
        entry.body["name"] = name
    return show(entry, request)


def _set_status(account: Account, entry: Entry, status: Any) -> None:
    if status not in _STATUSES:
        raise invalid(f"status: must be one of {', '.join(_STATUSES)}")
    standing = _status(entry)
    if standing == status:
        return
    if standing in {"archived", "expired"} and status != "archived":
        raise invalid(f"An {standing} API key cannot be changed")
    if status == "active":
        active = [key for key in account.shelves["keys"] if _status(key) == "active"]
        for ceiling, count, code in (
            ("active_keys", len(active), "org_api_key_limit_exceeded"),
            ("active_keys_per_workspace", sum(key.parent == entry.parent for key in active), "workspace_api_key_limit_exceeded"),
        ):
            if account.full("keys", count, ceiling=ceiling) is not None:
                raise invalid("The limit of active API keys has been reached.", code=code)
    entry.body["status"] = status
    if entry.grant is not None:
        if status == "active":
            entry.grant.restore()
        elif standing == "active":
            entry.grant.revoke()


ROUTES = (
    ("GET", "/api_keys", "keys.list", "api_keys:read", listed),
    ("GET", "/api_keys/{key}", "keys.get", "api_keys:read", shown),
    ("POST", "/api_keys/{key}", "keys.update", "api_keys:write", update),
)
