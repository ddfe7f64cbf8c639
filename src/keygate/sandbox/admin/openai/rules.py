"""Why OpenAI's inference side refuses a key of a project: access, permitted models, money, rate limits; in this order."""

from __future__ import annotations

from typing import Any

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.books import PICO
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.shelf import Entry
from keygate.sandbox.errors import VendorError

DEFAULT_LIMITS = {"max_requests_per_1_minute": 10_000, "max_tokens_per_1_minute": 2_000_000}
_CENT_PICO = PICO // 100


def has_access(account: Account, key: Entry) -> bool:
    """Whether the key's owner still has a role in the project."""
    id_ = key.more["service_account"]
    if id_ is None:
        return True
    owner = account.shelves["service_accounts"].get(id_)
    return owner is not None and owner.body["role"] != "none"


def refuses(secret: IssuedSecret, model: str) -> VendorError | None:
    """The refusal of a call of this model now. Of money: developers.openai.com/api/docs/guides/spend-limits, read 2026-11-20."""
    account = secret.account
    project = account.shelves["projects"].get(secret.container or "")
    key = account.shelves["keys"].get(secret.id)
    if project is None:
        return VendorError(401, "No such project.", code="invalid_project")
    if key is not None:  # a key that was deleted and works for a while yet has no scopes any more
        if not has_access(account, key):
            return VendorError(403, "The owner of this API key has no access to the project.", code="permission_denied")
        if key.more["scopes"] and all(scope.endswith(".read") for scope in key.more["scopes"]):
            message = "You have insufficient permissions for this operation. Missing scopes: model.request."
            return VendorError(403, message, code="missing_scope")
    return _model(project, model, account) or _money(project, account) or _rate(project, model, account)


def _model(project: Entry, model: str, account: Account) -> VendorError | None:
    permissions = project.more["models"].at(account.now_ns())
    if permissions is None or (model in permissions["model_ids"]) == (permissions["mode"] == "allow_list"):
        return None
    return VendorError(403, f"Project `{project.id}` does not have access to model `{model[:100]}`.", code="model_not_found")


def enforcing(account: Account, limit: dict[str, Any] | None, project_id: str | None) -> bool:
    """Whether a hard limit is reached; None as project: the organization's."""
    if limit is None:
        return False
    month = account.books.month(account.now_ns() // NANOSECONDS)
    return account.books.month_pico(month, project_id) >= int(limit["threshold_amount"]) * _CENT_PICO


def _money(project: Entry, account: Account) -> VendorError | None:
    now = account.now_ns()
    if enforcing(account, project.more["spend"].at(now), project.id):
        message = "You exceeded the spend limit of this project."
        return VendorError(429, message, kind="insufficient_quota", code="project_spend_limit_exceeded")
    organization = account.shelves["organization"].get("spend")
    if organization is not None and enforcing(account, organization.more["spend"].at(now), None):
        message = "You exceeded the spend limit of this organization."
        return VendorError(429, message, kind="insufficient_quota", code="organization_spend_limit_exceeded")
    return None


def _rate(project: Entry, model: str, account: Account) -> VendorError | None:
    name, now = f"{project.id}/{model}", account.now_ns()
    changed = project.more["rate_limits"].get(model)
    limits = {**DEFAULT_LIMITS, **(changed.at(now) if changed is not None else {})}
    requests, tokens = account.meter.minute(name, now)
    if requests >= limits["max_requests_per_1_minute"] or tokens >= limits["max_tokens_per_1_minute"]:
        message = f"Rate limit reached for {model[:100]} in project {project.id}."
        return VendorError(429, message, kind="requests", code="rate_limit_exceeded", retry_after="20")
    account.meter.count(name, now, requests=1)
    return None
