"""Rate limits per model, permitted models and hard monthly spend limits of projects; the organization's spend limit."""

from __future__ import annotations

from typing import Any

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.openai import rules
from keygate.sandbox.admin.openai.projects import open_project
from keygate.sandbox.admin.openai.reading import found, page, texts, whole
from keygate.sandbox.admin.shelf import Entry, Eventual
from keygate.sandbox.catalogue import MODELS
from keygate.sandbox.errors import VendorError, invalid
from keygate.sandbox.model import Vendor

_LIMITS = (
    "max_requests_per_1_minute",
    "max_tokens_per_1_minute",
    "max_images_per_1_minute",
    "max_audio_megabytes_per_1_minute",
    "max_requests_per_1_day",
    "batch_1_day_max_input_tokens",
)


def _row(project: Entry, model: str) -> dict[str, Any]:
    changed = project.more["rate_limits"].get(model)
    own = changed.last() if changed is not None else {}
    return {"object": "project.rate_limit", "id": f"rl-{model}", "model": model, **rules.DEFAULT_LIMITS, **own}


def list_rates(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Rows stand from the beginning, one per model; they can only be changed."""
    project = found(account, "projects", request.params["project"], what="project")
    models = [model.name for model in MODELS.values() if model.vendor is Vendor.OPENAI]
    return page(request, [Entry(f"rl-{model}", _row(project, model), 0) for model in models], lambda entry: entry.body, default=100)


def update_rate(account: Account, request: AdminRequest) -> dict[str, Any]:
    project = open_project(account, request)
    id_ = request.params["limit"]
    model = id_.removeprefix("rl-")
    if model == id_ or model not in MODELS or MODELS[model].vendor is not Vendor.OPENAI:
        raise VendorError(404, f"No such rate limit: {id_[:100]}", code="not_found")
    body = request.json()
    changed = project.more["rate_limits"].setdefault(model, Eventual({}))
    values = dict(changed.last())
    for name in _LIMITS:
        value = whole(body, name, least=0, most=rules.DEFAULT_LIMITS.get(name))
        if value is not None:
            values[name] = value
    changed.set(values, at_ns=account.later_ns(account.settings.limits_s))
    return _row(project, model)


def show_models(account: Account, request: AdminRequest) -> dict[str, Any]:
    """A project without a list of its own has, as the list that denies nothing."""
    project = found(account, "projects", request.params["project"], what="project")
    permissions = project.more["models"].last() or {"mode": "deny_list", "model_ids": []}
    return {"object": "project.model_permissions", **permissions}


def update_models(account: Account, request: AdminRequest) -> dict[str, Any]:
    project = open_project(account, request)
    body = request.json()
    mode, models = body.get("mode"), texts(body, "model_ids")
    if mode not in {"allow_list", "deny_list"} or models is None:
        raise invalid("Missing required parameter: 'mode' and 'model_ids'.", "mode", code="missing_required_parameter")
    project.more["models"].set({"mode": mode, "model_ids": models}, at_ns=account.later_ns(account.settings.limits_s))
    return {"object": "project.model_permissions", "mode": mode, "model_ids": models}


def delete_models(account: Account, request: AdminRequest) -> dict[str, Any]:
    open_project(account, request).more["models"].set(None, at_ns=account.later_ns(account.settings.limits_s))
    return {"object": "project.model_permissions.deleted", "deleted": True}


def _organization(account: Account) -> Entry:
    return account.shelves["organization"].get("spend") or account.make("organization", "spend", {}, spend=Eventual(None))


def _holder(account: Account, request: AdminRequest, *, change: bool) -> Entry:
    if "project" not in request.params:
        return _organization(account)
    if change:
        return open_project(account, request)
    return found(account, "projects", request.params["project"], what="project")


def _prefix(request: AdminRequest) -> str:
    return "project" if "project" in request.params else "organization"


def _limit(account: Account, request: AdminRequest, limit: dict[str, Any]) -> dict[str, Any]:
    enforcing = rules.enforcing(account, limit, request.params.get("project"))
    status = {"status": "enforcing" if enforcing else "inactive"}
    return {"object": f"{_prefix(request)}.spend_limit", **limit, "enforcement": status}


def show_spend(account: Account, request: AdminRequest) -> dict[str, Any]:
    limit = _holder(account, request, change=False).more["spend"].last()
    if limit is None:
        raise VendorError(404, "No spend limit is set.", code="not_found")
    return _limit(account, request, limit)


def update_spend(account: Account, request: AdminRequest) -> dict[str, Any]:
    holder = _holder(account, request, change=True)
    body = request.json()
    cents = whole(body, "threshold_amount", required=True)
    if body.get("currency") != "USD" or body.get("interval") != "month":
        raise invalid("'currency' must be USD and 'interval' must be month.", "interval", code="invalid_value")
    limit = {"threshold_amount": cents, "currency": "USD", "interval": "month"}
    holder.more["spend"].set(limit, at_ns=account.later_ns(account.settings.limits_s))
    return _limit(account, request, limit)


def delete_spend(account: Account, request: AdminRequest) -> dict[str, Any]:
    holder = _holder(account, request, change=True)
    if holder.more["spend"].last() is None:
        raise VendorError(404, "No spend limit is set.", code="not_found")
    holder.more["spend"].set(None, at_ns=account.later_ns(account.settings.limits_s))
    return {"object": f"{_prefix(request)}.spend_limit.deleted", "deleted": True}


_P = "/projects/{project}"
ROUTES = (
    ("GET", f"{_P}/rate_limits", "rate_limits.list", "api.management.read", list_rates),
    ("POST", f"{_P}/rate_limits/{{limit}}", "rate_limits.update", "api.limits.write", update_rate),
    ("GET", f"{_P}/model_permissions", "model_permissions.get", "api.management.read", show_models),
    ("POST", f"{_P}/model_permissions", "model_permissions.update", "api.limits.write", update_models),
    ("DELETE", f"{_P}/model_permissions", "model_permissions.delete", "api.limits.write", delete_models),
    ("GET", f"{_P}/spend_limit", "spend_limits.get", "api.management.read", show_spend),
    ("POST", f"{_P}/spend_limit", "spend_limits.update", "api.limits.write", update_spend),
    ("DELETE", f"{_P}/spend_limit", "spend_limits.delete", "api.limits.write", delete_spend),
    ("GET", "/spend_limit", "spend_limits.get", "api.management.read", show_spend),
    ("POST", "/spend_limit", "spend_limits.update", "api.limits.write", update_spend),
    ("DELETE", "/spend_limit", "spend_limits.delete", "api.limits.write", delete_spend),
)
