"""Keys of projects. The value is answered once, by the call that makes it."""

from __future__ import annotations

import secrets
from typing import Any

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.openai import rules
from keygate.sandbox.admin.openai.reading import YEAR_S, found, page, texts, whole
from keygate.sandbox.admin.shelf import Entry
from keygate.sandbox.errors import invalid

_OBJECT = "organization.project.service_account.api_key"


def add(account: Account, owner: Entry, *, name: str, scopes: list[str], expires_in_s: int | None) -> dict[str, Any]:
    """A key of a service account, and the one answer that carries its value."""
    entry, value = _put(account, owner.parent or "", name, scopes=scopes, expires_in_s=expires_in_s, service_account=owner.id)
    shown = {"object": _OBJECT, "value": value, "name": name, "created_at": entry.body["created_at"], "id": entry.id}
    return {**shown, "expires_at": entry.body["expires_at"]}


def add_personal(account: Account, project_id: str, name: str, user: str) -> dict[str, Any]:
    """A key that a person has."""
    entry, value = _put(account, project_id, name, scopes=[], expires_in_s=None, user=user or "someone@example.com")
    return {"id": entry.id, "value": value}


def _put(
    account: Account,
    project_id: str,
    name: str,
    *,
    scopes: list[str],
    expires_in_s: int | None,
    service_account: str | None = None,
    user: str | None = None,
) -> tuple[Entry, str]:
    id_ = f"key_{secrets.token_hex(8)}"
    value = f"sandbox-openai-{'svcacct' if service_account else 'proj'}-{secrets.token_hex(24)}"
    now_s = account.clock.now_s()
    body = {
        "object": "organization.project.api_key",
        "id": id_,
        "name": name,
        "redacted_value": f"{value[:16]}...{value[-4:]}",
        "created_at": now_s,
        "expires_at": None if expires_in_s is None else now_s + expires_in_s,
    }
    entry = account.make("keys", id_, body, parent=project_id, scopes=scopes, service_account=service_account, user=user)
    entry.grant = account.issue(
        value,
        id_=id_,
        container=project_id,
        expires_at_ns=None if expires_in_s is None else (now_s + expires_in_s) * NANOSECONDS,
    )
    return entry, value


def show(account: Account, entry: Entry) -> dict[str, Any]:
    used_ns = entry.grant.last_used_ns.at(account.now_ns()) if entry.grant is not None else None
    return {
        **entry.body,
        "last_used_at": None if used_ns is None else used_ns // NANOSECONDS,
        "owner_project_access": "active" if rules.has_access(account, entry) else "inactive",
        "owner": _owner(account, entry),
    }


def _owner(account: Account, entry: Entry) -> dict[str, Any]:
    id_ = entry.more["service_account"]
    if id_ is None:
        user = entry.more["user"]
        body = {"id": f"user-{user}", "email": user, "name": user, "role": "owner", "created_at": entry.body["created_at"]}
        return {"type": "user", "user": body}
    service_account = account.shelves["service_accounts"].get(id_)
    members = service_account.body if service_account is not None else {"name": "deleted", "role": "none", "created_at": 0}
    return {
        "type": "service_account",
        "service_account": {"id": id_, "name": members["name"], "created_at": members["created_at"], "role": members["role"]},
    }


def create(account: Account, request: AdminRequest, owner: Entry) -> dict[str, Any]:
    body = request.json()
    name = body.get("name")
    if name is not None and not isinstance(name, str):
        raise invalid("Invalid type for 'name': expected a string.", "name", code="invalid_type")
    expires = whole(body, "expires_in_seconds", most=YEAR_S)
    scopes = texts(body, "scopes") or []
    standing = sum(1 for key in account.shelves["keys"] if key.more["service_account"] == owner.id)
    most = account.full("keys", standing, ceiling="keys_per_service_account")
    if most is not None:
        raise invalid(f"This service account has reached the maximum of {most} API keys.", code="api_key_limit_exceeded")
    return add(account, owner, name=name or "Secret Key", scopes=scopes, expires_in_s=expires)


def listed(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Without `owner_project_access`, keys of owners without access are hidden, as the SDK's documentation warns."""
    found(account, "projects", request.params["project"], what="project")
    wanted = request.text("owner_project_access")
    if wanted not in {None, "active", "inactive", "any"}:
        raise invalid("Invalid value for 'owner_project_access'.", "owner_project_access", code="invalid_value")
    entries = [
        entry
        for entry in account.listed("keys", parent=request.params["project"])
        if wanted == "any" or rules.has_access(account, entry) == (wanted != "inactive")
    ]
    return page(request, entries, lambda entry: show(account, entry))


def _key(account: Account, request: AdminRequest) -> Entry:
    return found(account, "keys", request.params["key"], parent=request.params["project"], what="API key")


def shown(account: Account, request: AdminRequest) -> dict[str, Any]:
    return show(account, _key(account, request))


def update(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Scopes and expiry, counted from this request on. An expired key can't be updated."""
    entry = _key(account, request)
    body = request.json()
    grant = entry.grant
    if grant is None or grant.expired:
        raise invalid("Expired API keys cannot be updated.", code="api_key_expired")
    scopes, expires = texts(body, "scopes"), whole(body, "expires_in_seconds", most=YEAR_S)
    if scopes is not None:
        entry.more["scopes"] = scopes
    if expires is not None:
        entry.body["expires_at"] = account.clock.now_s() + expires
        grant.expires_at_ns = entry.body["expires_at"] * NANOSECONDS
    return show(account, entry)


def delete(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Its service account and the others of its keys stay."""
    entry = _key(account, request)
    account.remove("keys", entry.id)
    return {"object": "organization.project.api_key.deleted", "id": entry.id, "deleted": True}


_K = "/projects/{project}/api_keys"
ROUTES = (
    ("GET", _K, "keys.list", "api.management.read", listed),
    ("GET", f"{_K}/{{key}}", "keys.get", "api.management.read", shown),
    ("POST", f"{_K}/{{key}}", "keys.update", "api.api_keys.write", update),
    ("DELETE", f"{_K}/{{key}}", "keys.delete", "api.api_keys.write", delete),
)
