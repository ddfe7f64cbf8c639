"""What keys and workspaces cost by day and model. Use of federated tokens is told without a key, by the workspace that each has alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keygate.kit.clock import NANOSECONDS, rfc3339
from keygate.vendors.admin.anthropic.calls import call, moment
from keygate.vendors.admin.anthropic.facts import USAGE
from keygate.vendors.admin.bills import SpendRow
from keygate.vendors.admin.errors import Unavailable
from keygate.vendors.admin.interface import Desk
from keygate.vendors.admin.money import dollars_only, nano_of

_BETA = "analytics-usage-cost-2026-08-24"
_DAY_NS = 86_400 * NANOSECONDS
_RANGE_NS = 31 * _DAY_NS  # the most that one report spans
_GROUPS = ("api_key_id", "workspace_id", "model")


async def page(desk: Desk, from_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:
    """`cursor`: the day a report begins at, and the page of it."""
    start_ns, _, at = (cursor or f"{from_ns // _DAY_NS * _DAY_NS}|").partition("|")
    begins = int(start_ns)
    ends = min(begins + _RANGE_NS, -(-until_ns // _DAY_NS) * _DAY_NS)
    params: list[tuple[str, Any]] = [
        ("starting_at", rfc3339(begins)),
        ("ending_at", rfc3339(ends)),
        ("time_bucket_width", "1d"),
        ("limit", 1_000),
        ("page", at or None),
        *(("group_by[]", name) for name in _GROUPS),
    ]
    shown = await call(desk, "GET", "/analytics/cost", what="read costs", right=USAGE, beta=_BETA, params=params, exact=True)
    rows = tuple(_row(item) for item in shown.get("data") or [])
    following = shown.get("next_page")
    if following is not None:
        return rows, f"{begins}|{following}"
    return rows, f"{ends}|" if ends < until_ns else None


def _row(item: Mapping[str, Any]) -> SpendRow:
    group, cost = item.get("group") or {}, item.get("cost") or {}
    workspace = group.get("workspace_id")
    start_ns = moment(item.get("starting_at"))
    if start_ns is None:
        raise Unavailable("read costs: the vendor tells a cost without its day")
    dollars_only(cost.get("currency"), what="read costs")
    return SpendRow(
        place={} if workspace is None else {"workspace": str(workspace)},
        key=group.get("api_key_id"),
        start_ns=start_ns,
        end_ns=moment(item.get("ending_at")) or start_ns + _DAY_NS,
        item=str(group.get("model") or ""),
        amount_nano=nano_of(cost.get("amount"), what="read costs", per_dollar=100),  # fractional cents
        requests=cost.get("requests"),
    )
