"""Workspaces. Archiving one ends its keys, at once and for good (platform.claude.com/docs/ja/build-with-claude/workspaces, read
2026-11-20); that it ends tokens of federation too is unverified.
"""

from __future__ import annotations

import secrets
from typing import Any

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.anthropic import rules
from keygate.sandbox.admin.anthropic.reading import ORGANIZATION, flag, found, page_by_id, stamp, text
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.shelf import Entry
from keygate.sandbox.errors import invalid

DEFAULT = "wrkspc_default"


def organization(account: Account, _: AdminRequest) -> dict[str, Any]:
    return found(account, "organization", ORGANIZATION, "Organization").body


def add(account: Account, name: str, *, id_: str | None = None, tags: dict[str, str] | None = None) -> Entry:
    id_ = id_ or f"wrkspc_{secrets.token_hex(12)}"
    body = {
        "id": id_,
        "type": "workspace",
        "name": name,
        "created_at": stamp(account.now_ns()),
        "archived_at": None,
        "display_color": "#6C5BB9",
        "compartment_id": secrets.token_hex(8),
        "external_key_id": None,
        "user_profile_id": None,
        "tags": tags or {},
        "data_residency": {"allowed_inference_geos": "unrestricted", "default_inference_geo": "global", "workspace_geo": "us"},
    }
    return account.make("workspaces", id_, body, rate_limits={}, spend=rules.no_limit())


def open_workspace(account: Account, id_: str) -> Entry:
    """A workspace that may be changed."""
    entry = found(account, "workspaces", id_, "Workspace")
    if entry.body["archived_at"] is not None:
        raise invalid("Workspace is archived")
    return entry


def create(account: Account, request: AdminRequest) -> dict[str, Any]:
    body = request.json()
    name, tags = text(body, "name"), body.get("tags") or {}
    if not isinstance(tags, dict) or any(key.startswith("anthropic") for key in tags):
        raise invalid("tags: keys may not begin with anthropic")
    most = account.full(
        "workspaces", sum(1 for each in account.shelves["workspaces"] if each.body["archived_at"] is None and each.id != DEFAULT)
    )
    if most is not None:
        raise invalid(f"Your organization has reached its limit of {most} workspaces.", code="workspace_limit_exceeded")
    return add(account, name, tags=tags).body


def listed(account: Account, request: AdminRequest) -> dict[str, Any]:
    archived, default, ids = flag(request, "include_archived"), flag(request, "include_default"), request.many("ids")
    entries = [
        entry
        for entry in account.listed("workspaces")
        if (archived or entry.body["archived_at"] is None) and (default or entry.id != DEFAULT) and (not ids or entry.id in ids)
    ]
    return page_by_id(request, entries, lambda entry: entry.body)


def shown(account: Account, request: AdminRequest) -> dict[str, Any]:
    return found(account, "workspaces", request.params["workspace"], "Workspace").body


def update(account: Account, request: AdminRequest) -> dict[str, Any]:
    entry = open_workspace(account, request.params["workspace"])
    body = request.json()
    if body.get("name") is not None:
        entry.body["name"] = text(body, "name")
    if isinstance(body.get("tags"), dict):
        entry.body["tags"] = body["tags"]
    return entry.body


def archive(account: Account, request: AdminRequest) -> dict[str, Any]:
    entry = found(account, "workspaces", request.params["workspace"], "Workspace")
    if entry.id == DEFAULT:
        raise invalid("The default workspace cannot be archived")
    if entry.body["archived_at"] is None:
        entry.body["archived_at"] = stamp(account.now_ns())
        for key in account.shelves["keys"].of(entry.id):
            key.body["status"] = "archived"
            if key.grant is not None:
                key.grant.revoke()
        for token in account.shelves["tokens"].of(entry.id):
            if token.grant is not None:
                token.grant.revoke()
    return entry.body


_W = "/workspaces/{workspace}"
ROUTES = (
    ("GET", "/workspaces", "workspaces.list", "workspaces:read", listed),
    ("POST", "/workspaces", "workspaces.create", "workspaces:write", create),
    ("GET", _W, "workspaces.get", "workspaces:read", shown),
    ("POST", _W, "workspaces.update", "workspaces:write", update),
    ("POST", f"{_W}/archive", "workspaces.archive", "workspaces:write", archive),
)
