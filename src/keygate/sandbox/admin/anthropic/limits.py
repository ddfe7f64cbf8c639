"""Rate limits of workspaces by group of models, and monthly spend limits where the organization is in the vendor's early access."""

from __future__ import annotations

import secrets
from typing import Any

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.anthropic import rules, workspaces
from keygate.sandbox.admin.anthropic.reading import ORGANIZATION, flag, found, page_by_cursor, stamp
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.shelf import Entry, Eventual
from keygate.sandbox.catalogue import MODELS
from keygate.sandbox.errors import VendorError, invalid
from keygate.sandbox.model import Vendor

_TYPES = frozenset(
    {
        "fast_itpmca",
        "fast_otpm",
        "input_tokens_per_minute",
        "input_tokens_per_minute_cache_aware",
        "output_tokens_per_minute",
        "requests_per_minute",
        "tokens_per_day",
        "tokens_per_minute",
        "tool_uses_per_second",
    }
)
READS_BETA = b"spend-limit-reads-2026-09-26"


def _models(group: str) -> list[str]:
    prefix = rules.GROUPS[group][0]
    return [model.name for model in MODELS.values() if model.vendor is Vendor.ANTHROPIC and model.name.startswith(prefix)]


def _row(workspace: Entry, group: str, *, inherited: bool) -> dict[str, Any]:
    changed = workspace.more["rate_limits"].get(group)
    own = changed.last() if changed is not None else {}
    limits = [
        {"type": name, "value": value, "org_limit": rules.ORGANIZATION_LIMITS.get(name), "source": {"type": "workspace"}}
        for name, value in own.items()
    ]
    if inherited:
        limits += [
            {"type": name, "value": value, "org_limit": value, "source": {"type": "organization"}}
            for name, value in rules.ORGANIZATION_LIMITS.items()
            if name not in own
        ]
    return {
        "type": "workspace_rate_limit",
        "workspace_id": workspace.id,
        "rate_limit_id": group,
        "group": {"type": "model_group", "id": f"rlg_{group}", "display_name": rules.GROUPS[group][1]},
        "models": _models(group),
        "limits": limits,
    }


def list_organization(_: Account, request: AdminRequest) -> dict[str, Any]:
    def row(group: str) -> dict[str, Any]:
        return {
            "type": "rate_limit",
            "id": group,
            "group": {"type": "model_group", "id": f"rlg_{group}", "display_name": rules.GROUPS[group][1]},
            "models": _models(group),
            "limits": [{"type": name, "value": value} for name, value in rules.ORGANIZATION_LIMITS.items()],
        }

    return page_by_cursor(request, list(rules.GROUPS), row, default=1_000)


def list_workspace(account: Account, request: AdminRequest) -> dict[str, Any]:
    workspace = found(account, "workspaces", request.params["workspace"], "Workspace")
    inherited = flag(request, "include_inherited")
    rows = [_row(workspace, group, inherited=inherited) for group in rules.GROUPS]
    return page_by_cursor(request, [row for row in rows if row["limits"]], lambda row: row, default=1_000)


def update_workspace(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Takes effect within about an hour at the vendor (SDK docstring): here, as late as `limits_s`."""
    workspace = workspaces.open_workspace(account, request.params["workspace"])
    group = request.params["limit"]
    if group not in rules.GROUPS:
        raise VendorError(404, f"Rate limit not found: {group[:100]}")
    given = request.json().get("limits")
    if not isinstance(given, list):
        raise invalid("limits: Field required")
    changed = workspace.more["rate_limits"].setdefault(group, Eventual({}))
    values = dict(changed.last())
    for limit in given:
        name, value = (limit.get("type"), limit.get("value")) if isinstance(limit, dict) else (None, None)
        if name not in _TYPES or (value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0)):
            raise invalid("limits: each has a type of ours and a value that is a whole number or null")
        if value is None:
            values.pop(name, None)
        else:
            values[name] = value
    changed.set(values, at_ns=account.later_ns(account.settings.limits_s))
    return _row(workspace, group, inherited=False)


# ---- spend


def enrol(account: Account, *, enabled: bool) -> None:
    found(account, "organization", ORGANIZATION, "Organization").more["spend_limits"] = enabled


def _enrolled(account: Account) -> None:
    if not found(account, "organization", ORGANIZATION, "Organization").more.get("spend_limits"):
        message = "Setting spend limits through the API is not enabled for your organization."
        raise VendorError(403, message, code="spend_limits_admin_api_writes_not_enabled")


def set_spend(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Creates or replaces the limit of a workspace and month. `amount` null: no limit."""
    _enrolled(account)
    body = request.json()
    scope, amount = body.get("scope"), body.get("amount")
    if not isinstance(scope, dict) or scope.get("type") != "workspace" or body.get("period", "monthly") != "monthly":
        raise invalid("scope: the sandbox has monthly limits of workspaces")
    workspace = workspaces.open_workspace(account, str(scope.get("workspace_id")))
    if amount is not None and not (isinstance(amount, str) and amount.isdigit() and len(amount) < 13):
        raise invalid("amount: must be a non-negative integer as a string, in cents")
    standing = next((entry for entry in account.shelves["spend"] if entry.parent == workspace.id), None)
    now = stamp(account.now_ns())
    if standing is None:
        id_ = f"spndl_{secrets.token_hex(12)}"
        names = {"id": id_, "type": "spend_limit", "scope": {"type": "workspace", "workspace_id": workspace.id}, "created_at": now}
        standing = account.make("spend", id_, names, parent=workspace.id)
    standing.body.update(amount=amount, currency="USD", period="monthly", is_enabled=True, updated_at=now)
    workspace.more["spend"].set(None if amount is None else int(amount), at_ns=account.later_ns(account.settings.limits_s))
    return standing.body


def list_spend(account: Account, request: AdminRequest) -> dict[str, Any]:
    if READS_BETA not in request.headers.get(b"anthropic-beta", b""):
        raise invalid("anthropic-beta: spend-limit-reads-2026-09-26 is required")
    _enrolled(account)
    return page_by_cursor(request, account.listed("spend", parent=request.text("workspace_id")), lambda entry: entry.body)


def show_spend(account: Account, request: AdminRequest) -> dict[str, Any]:
    return found(account, "spend", request.params["limit"], "Spend limit").body


def delete_spend(account: Account, request: AdminRequest) -> dict[str, Any]:
    _enrolled(account)
    entry = found(account, "spend", request.params["limit"], "Spend limit")
    workspace = account.shelves["workspaces"].get(entry.parent or "")
    if workspace is not None:
        workspace.more["spend"].set(None, at_ns=account.later_ns(account.settings.limits_s))
    account.remove("spend", entry.id)
    return {"id": entry.id, "type": "spend_limit_deleted"}


_W = "/workspaces/{workspace}/rate_limits"
ROUTES = (
    ("GET", "/rate_limits", "rate_limits.list", "workspaces:read", list_organization),
    ("GET", _W, "rate_limits.list", "workspaces:read", list_workspace),
    ("POST", f"{_W}/{{limit}}", "rate_limits.update", "workspaces:write", update_workspace),
    ("GET", "/spend_limits", "spend_limits.list", "billing:read", list_spend),
    ("POST", "/spend_limits", "spend_limits.set", "billing:write", set_spend),
    ("GET", "/spend_limits/{limit}", "spend_limits.get", "billing:read", show_spend),
    ("DELETE", "/spend_limits/{limit}", "spend_limits.delete", "billing:write", delete_spend),
)
