"""What Google bills by project, day and SKU: from Cloud Billing's export to BigQuery, as Google has no API that tells costs.

The export names projects and no keys. A key with a project of its own (`parent`) is told by that project; what keys of a shared project
used can't be told apart, and stands under `billing_project`, which is nobody's place. Costs are before credits, as Google's own spend
caps count them; taxes are left out. Amounts are cast to NUMERIC (nine decimals) and told as text: nothing is a float on the way.

Columns: docs.cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/standard-usage; calls: bigquery.v2 20261009; both read
2026-11-26. That the tables are partitioned by the day of loading is how public queries use them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from keygate.kit.clock import NANOSECONDS, rfc3339, to_ns
from keygate.vendors.admin.bills import SpendRow
from keygate.vendors.admin.errors import Rejected, Unavailable
from keygate.vendors.admin.google.calls import call, service_of, shared_project
from keygate.vendors.admin.google.facts import EXPORT_SETTING, JOBS, VERTEX
from keygate.vendors.admin.google.limits import CATALOGUE_NAME
from keygate.vendors.admin.interface import Desk
from keygate.vendors.admin.money import dollars_only, nano_of

_TABLE = re.compile(
    r"(?:[a-z0-9.-]{1,60}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]\.\w{1,300}\.gcp_billing_export_(?:resource_)?v1_\w{1,60}", re.ASCII
)
_SERVICES = {VERTEX: ("Vertex AI", "Gemini Enterprise Agent Platform")}  # the second is what Google calls it since 2026
_ROWS = 2_000
_MOST_BYTES = 20 * 1024**3  # of a query, some cents; one that would read more fails and costs nothing
_WAIT_MS = 15_000
_WAITS = 12
_WHAT = "query the billing export"
_COLUMNS = ("usage_day", "project_id", "sku_name", "currency", "amount")  # no names of the table's own: those would be ambiguous


def table_of(settings: Mapping[str, str]) -> str | None:
    """The export's table, as it may stand in a query; None: not set, or no name of such a table."""
    table = settings.get(EXPORT_SETTING, "").strip().strip("`")
    return table if _TABLE.fullmatch(table) else None


async def page(desk: Desk, from_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:
    """`cursor`: the query's job, where it ran, and the page of its result."""
    if cursor is None:
        shown = await _call(desk, "POST", "queries", json=_question(desk, from_ns, until_ns))
        job, place = _job_of(shown)
    else:
        job, place, token = json.loads(cursor)
        shown = await _results(desk, job, place, token)
    for _ in range(_WAITS):
        if shown.get("jobComplete"):
            break
        shown = await _results(desk, job, place, None)
    else:
        raise Unavailable(f"{_WHAT}: BigQuery has not finished in time")
    rows = [_row([cell.get("v") for cell in row["f"]]) for row in shown.get("rows") or []]
    following = shown.get("pageToken")
    return tuple(row for row in rows if row.amount_nano), json.dumps([job, place, following]) if following else None


async def may_read(desk: Desk) -> None:
    """Raises what a query would raise; costs nothing and reads nothing."""
    now = desk.clock.now_ns()
    await _call(desk, "POST", "queries", json={**_question(desk, now - 86_400 * NANOSECONDS, now), "dryRun": True})


def _question(desk: Desk, from_ns: int, until_ns: int) -> dict[str, Any]:
    table = table_of(desk.settings)
    if table is None:
        raise Rejected(f"The setting `{EXPORT_SETTING}` names no table of Google's billing export: project.dataset.gcp_billing_export_v1_…")
    # The table's name is one by its pattern: no quote can be in it. Everything else is a parameter.
    query = (
        "SELECT FORMAT_TIMESTAMP('%F', usage_start_time) AS usage_day, project.id AS project_id, sku.description AS sku_name, currency, "  # noqa: S608  (as said above)
        f"CAST(SUM(CAST(cost AS NUMERIC)) AS STRING) AS amount FROM `{table}` "
        "WHERE (_PARTITIONTIME >= @begin OR _PARTITIONTIME IS NULL) AND usage_start_time >= @begin AND usage_start_time < @end "
        "AND (service.description IN UNNEST(@services) OR service.id = @service) AND cost_type != 'tax' "
        "GROUP BY usage_day, project_id, sku_name, currency ORDER BY usage_day, project_id, sku_name, currency"
    )
    names = [{"value": name} for name in _SERVICES.get(service_of(desk), (CATALOGUE_NAME,))]
    id_ = "" if service_of(desk) == VERTEX else desk.settings.get("billing_service", "").removeprefix("services/")
    return {
        "query": query,
        "useLegacySql": False,
        "parameterMode": "NAMED",
        "queryParameters": [
            {"name": "begin", "parameterType": {"type": "TIMESTAMP"}, "parameterValue": {"value": rfc3339(from_ns)}},
            {"name": "end", "parameterType": {"type": "TIMESTAMP"}, "parameterValue": {"value": rfc3339(until_ns + NANOSECONDS - 1)}},
            {
                "name": "services",
                "parameterType": {"type": "ARRAY", "arrayType": {"type": "STRING"}},
                "parameterValue": {"arrayValues": names},
            },
            {"name": "service", "parameterType": {"type": "STRING"}, "parameterValue": {"value": id_}},
        ],
        "maxResults": _ROWS,
        "timeoutMs": _WAIT_MS,
        "maximumBytesBilled": str(_MOST_BYTES),
        "labels": {"keygate": "vendor-bill"},
    }


def _job_of(shown: Mapping[str, Any]) -> tuple[str, str | None]:
    reference = shown.get("jobReference")
    if not isinstance(reference, dict) or not isinstance(reference.get("jobId"), str):
        raise Unavailable(f"{_WHAT}: BigQuery names no job")
    return reference["jobId"], reference.get("location")


async def _results(desk: Desk, job: str, place: str | None, token: str | None) -> dict[str, Any]:
    params = {"location": place, "pageToken": token, "maxResults": _ROWS, "timeoutMs": _WAIT_MS}
    return await _call(desk, "GET", f"queries/{job}", params=params)


async def _call(desk: Desk, method: str, path: str, **options: Any) -> dict[str, Any]:
    where = f"bigquery/v2/projects/{shared_project(desk)}/{path}"
    return await call(desk, "bigquery", method, where, _WHAT, right=JOBS, changes=False, repeatable=True, **options) or {}


def _row(values: list[Any]) -> SpendRow:
    told = dict(zip(_COLUMNS, values, strict=True))
    dollars_only(told["currency"], what=_WHAT)
    start = to_ns(datetime.strptime(str(told["usage_day"]), "%Y-%m-%d").replace(tzinfo=UTC))
    project = told["project_id"]
    place = {} if project is None else {"project" if str(project).startswith("kg-") else "billing_project": str(project)}
    return SpendRow(place, None, start, start + 86_400 * NANOSECONDS, str(told["sku_name"] or ""), nano_of(told["amount"], what=_WHAT))
