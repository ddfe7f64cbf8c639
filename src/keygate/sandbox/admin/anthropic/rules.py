"""Why Anthropic's inference side refuses a key or token of a workspace: money spent, rate limits."""

from __future__ import annotations

from typing import Any

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.books import PICO
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.shelf import Entry, Eventual
from keygate.sandbox.errors import VendorError

GROUPS = {
    "rl_opus": ("claude-opus", "Claude Opus"),
    "rl_sonnet": ("claude-sonnet", "Claude Sonnet"),
    "rl_haiku": ("claude-haiku", "Claude Haiku"),
}
ORGANIZATION_LIMITS = {
    "requests_per_minute": 4_000,
    "input_tokens_per_minute_cache_aware": 2_000_000,
    "output_tokens_per_minute": 400_000,
}
_CENT_PICO = PICO // 100


def no_limit() -> Eventual[Any]:
    return Eventual(None)


def group_of(model: str) -> str | None:
    return next((id_ for id_, (prefix, _) in GROUPS.items() if model.startswith(prefix)), None)


def refuses(secret: IssuedSecret, model: str) -> VendorError | None:
    account = secret.account
    workspace = account.shelves["workspaces"].get(secret.container or "")
    if workspace is None:
        return VendorError(403, "This workspace does not exist.")
    return _money(account, workspace) or _rate(account, workspace, model)


def _money(account: Account, workspace: Entry) -> VendorError | None:
    """400, not 429: developersdigest.tech/errors/api/anthropic-api/400-spend-limit-reached, read 2026-11-20."""
    cents = workspace.more["spend"].at(account.now_ns())
    month = account.books.month(account.now_ns() // NANOSECONDS)
    if cents is None or account.books.month_pico(month, workspace.id) < cents * _CENT_PICO:
        return None
    return VendorError(
        400, "You have reached your specified workspace API usage limits. You will regain access at the start of next month."
    )


def _rate(account: Account, workspace: Entry, model: str) -> VendorError | None:
    group, now = group_of(model), account.now_ns()
    changed = workspace.more["rate_limits"].get(group)
    own = changed.at(now) if changed is not None else {}
    name = f"{workspace.id}/{group}"
    requests, _ = account.meter.minute(name, now)
    most = min(own.get("requests_per_minute", ORGANIZATION_LIMITS["requests_per_minute"]), ORGANIZATION_LIMITS["requests_per_minute"])
    if requests >= most:
        return VendorError(429, "This request would exceed your workspace's rate limit.", retry_after="20")
    account.meter.count(name, now, requests=1)
    return None
