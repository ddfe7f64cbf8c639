"""Admin keys, which this API makes too. Each is an admin credential of the sandbox."""

from __future__ import annotations

import secrets
from typing import Any

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.model import Credential
from keygate.sandbox.admin.openai.reading import YEAR_S, found, name_of, page, whole


def create(account: Account, request: AdminRequest) -> dict[str, Any]:
    body = request.json()
    name, expires = name_of(body), whole(body, "expires_in_seconds", most=YEAR_S)
    id_, value = f"key_{secrets.token_hex(8)}", f"sandbox-openai-admin-{secrets.token_hex(24)}"
    now_s = account.clock.now_s()
    shown_body = {
        "object": "organization.admin_api_key",
        "id": id_,
        "name": name,
        "redacted_value": f"{value[:20]}...{value[-4:]}",
        "created_at": now_s,
        "expires_at": None if expires is None else now_s + expires,
        "last_used_at": None,
        "owner": {
            "type": "user",
            "object": "organization.user",
            "id": "user-owner",
            "name": "Owner",
            "created_at": now_s,
            "role": "owner",
        },
    }
    account.make("admin_keys", id_, shown_body, value=value)
    account.create_credential(value=value, name=id_)
    return {**shown_body, "value": value}


def listed(account: Account, request: AdminRequest) -> dict[str, Any]:
    entries = account.listed("admin_keys")
    return page(request, entries[::-1] if request.text("order") == "desc" else entries, lambda entry: entry.body)


def shown(account: Account, request: AdminRequest) -> dict[str, Any]:
    return found(account, "admin_keys", request.params["key"], what="admin API key").body


def delete(account: Account, request: AdminRequest) -> dict[str, Any]:
    entry = found(account, "admin_keys", request.params["key"], what="admin API key")
    account.credentials.pop(entry.more["value"], None)
    account.remove("admin_keys", entry.id)
    return {"object": "organization.admin_api_key.deleted", "id": entry.id, "deleted": True}


def expired(account: Account, credential: Credential) -> bool:
    entry = account.shelves["admin_keys"].get(credential.name)
    expires = entry.body["expires_at"] if entry is not None else None
    return expires is not None and expires * NANOSECONDS <= account.now_ns()


ROUTES = (
    ("GET", "/admin_api_keys", "admin_keys.list", "api.admin_keys.read", listed),
    ("POST", "/admin_api_keys", "admin_keys.create", "api.admin_keys.write", create),
    ("GET", "/admin_api_keys/{key}", "admin_keys.get", "api.admin_keys.read", shown),
    ("DELETE", "/admin_api_keys/{key}", "admin_keys.delete", "api.admin_keys.write", delete),
)
