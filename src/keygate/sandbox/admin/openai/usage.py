"""Usage in tokens by minute, hour or day, and costs by day, as late and as preliminary as the account's settings say.

Limits and defaults of buckets: SDK `usage_completions_params.py` and `usage_costs_params.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.books import PICO, Cell
from keygate.sandbox.admin.openai import projects
from keygate.sandbox.catalogue import MODELS, Use, find
from keygate.sandbox.errors import invalid
from keygate.sandbox.model import Usage, Vendor

_WIDTHS = {"1m": (60, 60, 1_440), "1h": (3_600, 24, 168), "1d": (86_400, 7, 31)}  # seconds, default and most buckets
_COST_GROUPS = frozenset({"project_id", "user_id", "line_item", "api_key_id", "api_source"})
_USAGE_GROUPS = frozenset({"project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "api_source"})
_LINES = {
    "input": "input_tokens",
    "cache_read": "cached_input_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_tokens",
    "output": "output_tokens",
}

Rows = Callable[[Iterable[Cell]], list[dict[str, Any]]]


def _epoch(request: AdminRequest, name: str) -> int | None:
    shown = request.text(name)
    if shown is None:
        return None
    if not shown.isdigit() or len(shown) > 11:
        raise invalid(f"Invalid '{name}': expected Unix seconds.", name, code="invalid_value")
    return int(shown)


def _groups(request: AdminRequest, known: frozenset[str]) -> list[str]:
    groups = request.many("group_by")
    if not known.issuperset(groups):
        raise invalid("Invalid value for 'group_by'.", "group_by", code="invalid_value")
    return groups


def _buckets(account: Account, request: AdminRequest, *, width: int, default: int, most: int, rows: Rows) -> dict[str, Any]:
    """One page: every bucket of the range, those without use too. `page` is the start of the next bucket."""
    start, end = _epoch(request, "start_time"), _epoch(request, "end_time")
    if start is None:
        raise invalid("Missing required parameter: 'start_time'.", "start_time", code="missing_required_parameter")
    now = account.clock.now_s()
    end = min(end if end is not None else now + 1, now + width)  # the second that has just begun is in a bucket too
    limit = request.number("limit", default, most=most)
    page = request.text("page")
    if page is not None and not (page.startswith("page_") and page[5:].isdigit()):
        raise invalid("Invalid 'page'.", "page", code="invalid_value")
    first = int(page[5:]) if page is not None else start // width * width
    last = min(first + limit * width, max(first, -(-end // width) * width))
    shown: defaultdict[int, list[Cell]] = defaultdict(list)
    for cell in _filtered(account, request, first, last):
        shown[cell.minute_s // width * width].append(cell)
    data = [
        {"object": "bucket", "start_time": at, "end_time": at + width, "results": rows(shown[at]) if at in shown else []}
        for at in range(first, last, width)
    ]
    more = last < end
    return {"object": "page", "data": data, "has_more": more, "next_page": f"page_{last}" if more else None}


def _project(cell: Cell) -> str:
    return cell.container or projects.DEFAULT


def _filtered(account: Account, request: AdminRequest, first: int, last: int) -> list[Cell]:
    wanted_projects, keys, models = request.many("project_ids"), request.many("api_key_ids"), request.many("models")
    now, settings = account.now_ns(), account.settings
    return [
        cell
        for cell in account.books.cells(since_s=first, until_s=last)
        if cell.reported_pico(now, settings) is not None
        and (not wanted_projects or _project(cell) in wanted_projects)
        and (not keys or cell.key_id in keys)
        and (not models or cell.model in models)
    ]


def _grouped(cells: Iterable[Cell], groups: list[str]) -> dict[tuple[Any, ...], list[Cell]]:
    grouped: defaultdict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        values: dict[str, Any] = {"project_id": _project(cell), "api_key_id": cell.key_id, "model": cell.model}
        values |= {"service_tier": "default", "batch": False, "api_source": "unlabeled"}
        grouped[tuple(values.get(name) for name in groups)].append(cell)
    return grouped


def costs(account: Account, request: AdminRequest) -> dict[str, Any]:
    if request.text("bucket_width") not in {None, "1d"}:
        raise invalid("Invalid value for 'bucket_width'.", "bucket_width", code="invalid_value")
    groups, lines = _groups(request, _COST_GROUPS), request.many("line_items")

    def rows(cells: Iterable[Cell]) -> list[dict[str, Any]]:
        sums: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
        others = [name for name in groups if name != "line_item"]
        for key, members in _grouped(cells, others).items():
            for cell in members:
                for line, pico, quantity in _parts(account, cell):
                    if lines and line not in lines:
                        continue
                    total = sums[(*key, line if "line_item" in groups else None)]
                    total[0] += pico
                    total[1] += quantity
        return [_cost_row(dict(zip((*others, "line_item"), key, strict=True)), pico, quantity) for key, (pico, quantity) in sums.items()]

    return _buckets(account, request, width=86_400, default=7, most=180, rows=rows)


def _parts(account: Account, cell: Cell) -> list[tuple[str, int, int]]:
    """`(line item, pico-dollars, tokens)`, which together are what the report shows of the cell."""
    shown = cell.reported_pico(account.now_ns(), account.settings) or 0
    if cell.price is None or not cell.cost_pico:
        return [(f"{cell.model}, adjustment" if cell.line == "correction" else f"{cell.model}, input_tokens", shown, 0)]
    usage = cell.usage
    plain = usage.input - usage.cache_read - usage.cache_write - usage.cache_write_1h
    tokens = {"input": plain, "cache_read": usage.cache_read, "output": usage.output}
    tokens |= {"cache_write": usage.cache_write, "cache_write_1h": usage.cache_write_1h}
    parts = cell.price.parts_pico(usage)
    rows = [(f"{cell.model}, {_LINES[name]}", pico * shown // cell.cost_pico, tokens[name]) for name, pico in parts.items() if tokens[name]]
    rest = shown - sum(row[1] for row in rows)
    return [(rows[0][0], rows[0][1] + rest, rows[0][2]), *rows[1:]]


def _cost_row(names: dict[str, Any], pico: int, quantity: int) -> dict[str, Any]:
    by_line = names.get("line_item") is not None
    return {
        "object": "organization.costs.result",
        "amount": {"value": float(Decimal(pico) / PICO), "currency": "usd"},  # a JSON number, as the vendor has it
        "line_item": names.get("line_item"),
        "project_id": names.get("project_id"),
        "api_key_id": names.get("api_key_id"),
        "quantity": quantity if by_line else None,
        "quantity_unit": "tokens" if by_line else None,
    }


def _usage(use: Use, kind: str) -> Callable[[Account, AdminRequest], dict[str, Any]]:
    def handler(account: Account, request: AdminRequest) -> dict[str, Any]:
        width_name = request.text("bucket_width") or "1d"
        if width_name not in _WIDTHS:
            raise invalid("Invalid value for 'bucket_width'.", "bucket_width", code="invalid_value")
        width, default, most = _WIDTHS[width_name]
        groups = _groups(request, _USAGE_GROUPS)

        def rows(cells: Iterable[Cell]) -> list[dict[str, Any]]:
            ours = (cell for cell in cells if cell.line == "use" and _use_of(cell.model) is use)
            return [_usage_row(kind, dict(zip(groups, key, strict=True)), members) for key, members in _grouped(ours, groups).items()]

        return _buckets(account, request, width=width, default=default, most=most, rows=rows)

    return handler


def _use_of(name: str) -> Use:
    model = find(MODELS, Vendor.OPENAI, name)
    return Use.CHAT if model is None or model.use is Use.COMPLETIONS else model.use


def _usage_row(kind: str, names: dict[str, Any], cells: list[Cell]) -> dict[str, Any]:
    total = Usage()
    for cell in cells:
        total.add(cell.usage)
    row: dict[str, Any] = {
        "object": f"organization.usage.{kind}.result",
        "input_tokens": total.input,
        "num_model_requests": sum(cell.requests for cell in cells),
        "project_id": names.get("project_id"),
        "user_id": None,
        "api_key_id": names.get("api_key_id"),
        "model": names.get("model"),
    }
    if kind == "completions":
        written = total.cache_write + total.cache_write_1h
        plain = total.input - total.cache_read - written
        row |= {
            "output_tokens": total.output,
            "input_cached_tokens": total.cache_read,
            "input_cache_write_tokens": written,
            "input_uncached_tokens": plain,
            "input_text_tokens": plain,
            "input_cached_text_tokens": total.cache_read,
            "output_text_tokens": total.output,
            "input_audio_tokens": 0,
            "output_audio_tokens": 0,
            "batch": names.get("batch"),
            "service_tier": names.get("service_tier"),
        }
    return row


ROUTES = (
    ("GET", "/costs", "costs.list", "api.usage.read", costs),
    ("GET", "/usage/completions", "usage.list", "api.usage.read", _usage(Use.CHAT, "completions")),
    ("GET", "/usage/embeddings", "usage.list", "api.usage.read", _usage(Use.EMBEDDINGS, "embeddings")),
    ("GET", "/usage/moderations", "usage.list", "api.usage.read", _usage(Use.MODERATIONS, "moderations")),
)
