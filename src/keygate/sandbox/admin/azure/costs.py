"""Cost Management's query: what each account cost by day and meter, as late as Azure's numbers are.

Shape: azure-mgmt-costmanagement 5.0.0 (`QueryDefinition`, `QueryResult`). Only what such a report needs: daily granularity, the sum of
the cost, up to two groupings out of ResourceId, Meter and one tag.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from keygate.kit.clock import to_ns
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminRequest, Route
from keygate.sandbox.admin.azure.model import ACCOUNTS, DELETED
from keygate.sandbox.admin.books import DAY_S, PICO, Cell
from keygate.sandbox.errors import VendorError

PAGE = 1000
_DIMENSIONS = frozenset({"ResourceId", "Meter"})


def query(account: Account, request: AdminRequest) -> dict[str, Any]:
    body = request.json()
    dataset, period = body.get("dataset"), body.get("timePeriod")
    if not isinstance(dataset, dict) or body.get("type") not in {"ActualCost", "Usage", "AmortizedCost"}:
        raise _bad("type and dataset are required.")
    if body.get("timeframe") != "Custom" or not isinstance(period, dict) or dataset.get("granularity") != "Daily":
        raise _bad("the sandbox knows the timeframe Custom and the granularity Daily only.")
    since_s, until_s = _second(period.get("from")), _second(period.get("to")) + 1
    grouping = dataset.get("grouping") or []
    if not isinstance(grouping, list) or len(grouping) > 2:
        raise _bad("a query can have up to 2 group by clauses.")
    for each in grouping:
        if not isinstance(each, dict) or (each.get("type") == "Dimension" and each.get("name") not in _DIMENSIONS):
            raise _bad(f"the dimension {str(each)[:90]} is not known.")
    sums: dict[tuple[str, ...], Decimal] = {}
    tags = {entry.more["it"].id: entry.more["it"].tags for shelf in (ACCOUNTS, DELETED) for entry in account.shelves[shelf].everything()}
    for cell in account.books.cells(since_s=since_s, until_s=until_s):
        pico = cell.reported_pico(account.now_ns(), account.settings)
        if pico is None:
            continue
        day = datetime.fromtimestamp(cell.minute_s // DAY_S * DAY_S, UTC).strftime("%Y%m%d")
        row = (day, *(part for each in grouping for part in _group(cell, each, tags)))
        sums[row] = sums.get(row, Decimal(0)) + Decimal(pico) / PICO
    columns = [{"name": "Cost", "type": "Number"}, {"name": "UsageDate", "type": "Number"}]
    for each in grouping:
        names = ("TagKey", "TagValue") if each.get("type") == "TagKey" else (each["name"],)
        columns += [{"name": name, "type": "String"} for name in names]
    rows = [[float(cost), int(day), *rest, "USD"] for (day, *rest), cost in sorted(sums.items())]
    first = request.number("$skiptoken", 0, least=0, most=10**9)
    link = None
    if len(rows) > first + PAGE:
        link = f"{request.base_url}{request.path}?api-version={request.text('api-version')}&$skiptoken={first + PAGE}"
    properties = {"nextLink": link, "columns": [*columns, {"name": "Currency", "type": "String"}], "rows": rows[first : first + PAGE]}
    return {"id": "sandbox", "name": "sandbox", "type": "Microsoft.CostManagement/query", "properties": properties}


def _group(cell: Cell, grouping: dict[str, Any], tags: dict[str, dict[str, str]]) -> tuple[str, ...]:
    name = str(grouping.get("name"))
    if grouping.get("type") == "TagKey":
        return name, tags.get(cell.container or "", {}).get(name, "")
    # Azure writes resource ids in lower case in its cost data.
    return (
        ((cell.container or "").lower(),) if name == "ResourceId" else (cell.model if cell.line == "use" else f"{cell.model} {cell.line}",)
    )


def _second(text: Any) -> int:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise _bad("timePeriod: from and to must be times.") from None
    return to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC)) // 10**9


def _bad(message: str) -> VendorError:
    return VendorError(400, f"Invalid query definition: {message}", code="BadRequest")


_PATH = "/azure/subscriptions/{scope*}/providers/Microsoft.CostManagement/query"
ROUTES = (Route("POST", _PATH, "costs.query", "Microsoft.CostManagement/query/action", query),)
