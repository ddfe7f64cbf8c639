"""Usage and costs: the beta reports (`analytics/…`, by key and workspace) and the older ones (`usage_report/messages`, `cost_report`).

Use of federated tokens has no key id: it is told by workspace and by service account. The default workspace is null.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.anthropic import workspaces
from keygate.sandbox.admin.anthropic.reading import page_by_cursor, stamp
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.books import PICO, Cell
from keygate.sandbox.errors import invalid
from keygate.sandbox.model import Usage

BETA = b"analytics-usage-cost-2026-08-24"
_WIDTHS = {"1m": 60, "1h": 3_600, "1d": 86_400}
_LONGEST_S = 31 * 86_400
_GROUPS = frozenset(
    {"api_key_id", "workspace_id", "actor", "actor_type", "model", "service_tier", "inference_geo", "token_type", "cost_type"}
)
_LEGACY_USAGE = {"1m": (60, 1_440), "1h": (24, 168), "1d": (7, 31)}


def _moment(request: AdminRequest, name: str) -> int | None:
    shown = request.text(name)
    if shown is None:
        return None
    try:
        moment = datetime.fromisoformat(shown)
    except ValueError:
        raise invalid(f"{name}: must be an RFC 3339 timestamp") from None
    if moment.tzinfo is None:
        raise invalid(f"{name}: must have a time zone")
    return int(moment.timestamp())


def _start(request: AdminRequest) -> int:
    start = _moment(request, "starting_at")
    if start is None:
        raise invalid("starting_at: Field required")
    return start


def _workspace(cell: Cell) -> str | None:
    return None if cell.container in {None, workspaces.DEFAULT} else cell.container


def _key(cell: Cell) -> str | None:
    return None if cell.key_id is None or cell.key_id.startswith("svac_") else cell.key_id


def _cells(account: Account, request: AdminRequest, since: int, until: int) -> list[Cell]:
    keys, wanted, models = request.many("api_key_ids"), request.many("workspace_ids"), request.many("models")
    now, settings = account.now_ns(), account.settings
    return [
        cell
        for cell in account.books.cells(since_s=since, until_s=until)
        if cell.reported_pico(now, settings) is not None
        and (not keys or _key(cell) in keys)
        and (not wanted or cell.container in wanted)
        and (not models or cell.model in models)
    ]


def _names(cell: Cell) -> dict[str, Any]:
    actor: dict[str, Any] | None = {"type": "api_actor", "api_key_id": _key(cell)}
    if _key(cell) is None:
        actor = None if cell.key_id is None else {"type": "service_account_actor", "service_account_id": cell.key_id}
    return {
        "api_key_id": _key(cell),
        "workspace_id": _workspace(cell),
        "actor": actor,
        "actor_type": None if actor is None else actor["type"].removesuffix("_actor"),
        "model": cell.model,
        "service_tier": "standard",
        "inference_geo": "global",
    }


def _cents(pico: int) -> str:
    """Fractional cents as a decimal string."""
    return format((Decimal(pico) * 100 / PICO).normalize(), "f")


def _report(account: Account, request: AdminRequest, *, cost: bool) -> dict[str, Any]:
    if BETA not in request.headers.get(b"anthropic-beta", b""):
        raise invalid(f"anthropic-beta: {BETA.decode()} is required")
    start, end, now_s = _start(request), _moment(request, "ending_at"), account.clock.now_s()
    width_name = request.text("time_bucket_width")
    if width_name is not None and (width_name not in _WIDTHS or end is None):
        raise invalid("time_bucket_width: 1m, 1h or 1d, with ending_at")
    end = min(end if end is not None else now_s + 3_600, start + _LONGEST_S) if width_name is None else end or now_s
    if end - start > (86_400 if width_name == "1m" else _LONGEST_S):
        raise invalid("ending_at: the range is too long")
    groups = request.many("group_by")
    if not _GROUPS.issuperset(groups) or len(groups) > 5 or (not cost and {"token_type", "cost_type"} & set(groups)):
        raise invalid("group_by: at most five known dimensions")
    width = _WIDTHS.get(width_name or "")
    grouped: defaultdict[tuple[int, str], list[Cell]] = defaultdict(list)
    names: dict[tuple[int, str], dict[str, Any]] = {}
    since = start // (width or 3_600) * (width or 3_600)
    for cell in _cells(account, request, since, end):
        begins = since if width is None else cell.minute_s // width * width
        chosen = {name: _names(cell).get(name) for name in groups}
        slot = (begins, str(chosen))
        grouped[slot].append(cell)
        names[slot] = chosen
    rows = []
    for slot in sorted(grouped):
        at = slot[0]
        body = {
            "starting_at": stamp(at * NANOSECONDS),
            "ending_at": stamp((at + width if width else end) * NANOSECONDS),
            "group": names[slot],
        }
        rows.append({**body, **(_cost(account, grouped[slot]) if cost else _usage(grouped[slot]))})
    late_ns = account.now_ns() - round(account.settings.costs_late_s * NANOSECONDS)
    return {**page_by_cursor(request, rows, lambda row: row, default=100), "data_refreshed_at": stamp(late_ns)}


def _cost(account: Account, cells: Iterable[Cell]) -> dict[str, Any]:
    cells = list(cells)
    pico = sum(cell.reported_pico(account.now_ns(), account.settings) or 0 for cell in cells)
    requests = sum(cell.requests for cell in cells)
    return {"cost": {"amount": _cents(pico), "list_amount": _cents(pico), "currency": "USD", "requests": requests}}


def _usage(cells: Iterable[Cell]) -> dict[str, Any]:
    cells, total = list(cells), Usage()
    for cell in cells:
        total.add(cell.usage)
    return {
        "usage": {
            "uncached_input_tokens": total.input - total.cache_read - total.cache_write - total.cache_write_1h,
            "cache_read_input_tokens": total.cache_read,
            "cache_creation": {"ephemeral_5m_input_tokens": total.cache_write, "ephemeral_1h_input_tokens": total.cache_write_1h},
            "output_tokens": total.output,
            "total_tokens": total.input + total.output,
            "requests": sum(cell.requests for cell in cells),
            "server_tool_use": {"web_search_requests": 0},
        }
    }


def cost(account: Account, request: AdminRequest) -> dict[str, Any]:
    return _report(account, request, cost=True)


def usage(account: Account, request: AdminRequest) -> dict[str, Any]:
    return _report(account, request, cost=False)


def cost_report(account: Account, request: AdminRequest) -> dict[str, Any]:
    """By day, grouped by workspace and description; it knows no keys."""
    start, end = _start(request), _moment(request, "ending_at") or account.clock.now_s()
    groups = request.many("group_by")
    days = []
    for day in range(start // 86_400 * 86_400, end, 86_400):
        sums: defaultdict[tuple[str | None, str | None], int] = defaultdict(int)
        for cell in _cells(account, request, day, day + 86_400):
            workspace = _workspace(cell) if "workspace_id" in groups else None
            description = f"{cell.model} Usage" if "description" in groups else None
            sums[workspace, description] += cell.reported_pico(account.now_ns(), account.settings) or 0
        results = [
            {"currency": "USD", "amount": _cents(pico), "workspace_id": workspace, "description": description}
            for (workspace, description), pico in sums.items()
        ]
        days.append({"starting_at": stamp(day * NANOSECONDS), "ending_at": stamp((day + 86_400) * NANOSECONDS), "results": results})
    return page_by_cursor(request, days, lambda row: row, default=7)


def usage_report(account: Account, request: AdminRequest) -> dict[str, Any]:
    width_name = request.text("bucket_width") or "1d"
    if width_name not in _WIDTHS:
        raise invalid("bucket_width: 1m, 1h or 1d")
    width, default = _WIDTHS[width_name], _LEGACY_USAGE[width_name][0]
    start, end = _start(request), _moment(request, "ending_at") or account.clock.now_s() + 1
    groups = [name for name in request.many("group_by") if name in {"api_key_id", "workspace_id", "model"}]
    buckets = []
    for at in range(start // width * width, end, width):
        grouped: defaultdict[tuple[Any, ...], list[Cell]] = defaultdict(list)
        for cell in _cells(account, request, at, at + width):
            grouped[tuple(_names(cell)[name] for name in groups)].append(cell)
        results = []
        for values, cells in grouped.items():
            row = _usage(cells)["usage"]
            dropped = ("total_tokens", "requests")
            names = {"api_key_id": None, "workspace_id": None, "model": None, **dict(zip(groups, values, strict=True))}
            results.append({**{name: value for name, value in row.items() if name not in dropped}, **names})
        buckets.append({"starting_at": stamp(at * NANOSECONDS), "ending_at": stamp((at + width) * NANOSECONDS), "results": results})
    return page_by_cursor(request, buckets, lambda row: row, default=default)


ROUTES = (
    ("GET", "/analytics/cost", "cost.list", "usage:read", cost),
    ("GET", "/analytics/usage", "usage.list", "usage:read", usage),
    ("GET", "/cost_report", "cost.list", "usage:read", cost_report),
    ("GET", "/usage_report/messages", "usage.list", "usage:read", usage_report),
)
