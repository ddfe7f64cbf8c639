"""Limits of a workspace: requests a minute for each group of models, and a monthly spend limit where the organization may set one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from keygate.kit.money import NANO
from keygate.vendors.admin.anthropic.calls import by_cursor, call, probe
from keygate.vendors.admin.anthropic.facts import BILLING, WORKSPACES_READ, WORKSPACES_WRITE
from keygate.vendors.admin.bounds import monthly_cents
from keygate.vendors.admin.errors import MissingRight, Rejected
from keygate.vendors.admin.interface import Desk, Period

_REQUESTS = "requests_per_minute"
_CENT_NANO = NANO // 100
_READS_BETA = "spend-limit-reads-2026-09-26"


def _rows(desk: Desk, workspace: str) -> AsyncIterator[dict[str, Any]]:
    path = f"/workspaces/{workspace}/rate_limits"
    wanted: dict[str, Any] = {"include_inherited": True, "group_type": "model_group"}
    return by_cursor(desk, path, what="read rate limits", right=WORKSPACES_READ, **wanted)


async def set_requests(desk: Desk, workspace: str, per_minute: int | None) -> None:
    """None takes the workspace's own limits away."""
    async for row in _rows(desk, workspace):
        own = _own(row)
        if own == per_minute:
            continue
        body = {"limits": [{"type": _REQUESTS, "value": per_minute}]}
        path = f"/workspaces/{workspace}/rate_limits/{row['rate_limit_id']}"
        await call(desk, "POST", path, what="limit requests", right=WORKSPACES_WRITE, json=body, repeatable=True)


async def requests(desk: Desk, workspace: str) -> int | None:
    """What holds for every group of models alike; None where groups differ or one has no limit of the workspace's own."""
    told = {_own(row) async for row in _rows(desk, workspace)}
    return told.pop() if len(told) == 1 else None


def _own(row: dict[str, Any]) -> int | None:
    for limit in row.get("limits") or []:
        if limit.get("type") == _REQUESTS and (limit.get("source") or {}).get("type") == "workspace":
            value = limit.get("value")
            return value if isinstance(value, int) else None
    return None


async def set_budget(desk: Desk, workspace: str, amount_nano: int | None, period: Period) -> None:
    """Raises `MissingRight` where the organization is not in the vendor's early access."""
    if amount_nano is None:
        standing = await _limit(desk, workspace)
        if standing is not None:
            path = f"/spend_limits/{standing['id']}"
            await call(desk, "DELETE", path, what="remove the spend limit", right=BILLING, accept={404})
        return
    scope = {"type": "workspace", "workspace_id": workspace}
    body = {"amount": str(monthly_cents("Anthropic", amount_nano, period)), "period": "monthly", "scope": scope}
    await call(desk, "POST", "/spend_limits", what="set the spend limit", right=BILLING, json=body, repeatable=True)


async def may_set_budgets(desk: Desk) -> bool:
    """Whether the organization is in the vendor's early access, with this credential: it lists spend limits, and one that says nothing is
    invalid rather than forbidden."""
    listed = await probe(desk, "GET", "/spend_limits", right=BILLING, beta=_READS_BETA, params={"limit": 1})
    return listed == 200 and await probe(desk, "POST", "/spend_limits", right=BILLING, json={}) in {400, 422}


async def budget(desk: Desk, workspace: str) -> tuple[int | None, bool]:
    """Nano-dollars a month, None where there is no limit; and whether the vendor lets it be read at all."""
    try:
        standing = await _limit(desk, workspace)
    except (MissingRight, Rejected):
        return None, False
    amount = None if standing is None else standing.get("amount")
    return int(amount) * _CENT_NANO if isinstance(amount, str) and amount.isdecimal() else None, True


async def _limit(desk: Desk, workspace: str) -> dict[str, Any] | None:
    path, params = "/spend_limits", {"workspace_id": workspace}
    async for row in by_cursor(desk, path, what="read the spend limit", right=BILLING, beta=_READS_BETA, **params):
        scope = row.get("scope") or {}
        if scope.get("workspace_id") == workspace and row.get("period") == "monthly":
            return row
    return None
