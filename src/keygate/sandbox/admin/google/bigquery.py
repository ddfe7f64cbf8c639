"""BigQuery, as far as reading Cloud Billing's export needs it: one table of costs by hour, asked in a small part of GoogleSQL.

Calls and shapes: bigquery.v2 20261009. Columns: docs.cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/standard-usage. A
query chooses, groups and adds up what `_COLUMNS` and `_SUMS` name; conditions are those of `_CONDITIONS`. Anything else is refused as a
query that is not valid, so nothing is answered that was not understood. Rows are as late as the books are.
"""

from __future__ import annotations

import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from keygate.sandbox.admin.books import PICO, Cell
from keygate.sandbox.admin.google.cloud import GoogleCloud, Operation, Request
from keygate.sandbox.admin.google.errors import GoogleError, invalid, no_such
from keygate.sandbox.admin.google.model import Json

LOCATION = "US"
SHARED = "sandbox-project"  # where use stands that no key of a project's own made
_SERVICE = "Gemini API"
_PATH = re.compile(r"bigquery/v2/projects/([^/]+)/queries(?:/([^/]+))?")
_QUERY = re.compile(r"SELECT (.+?) FROM `([^`]+)` WHERE (.+?)(?: GROUP BY ([\w, ]+?))?(?: ORDER BY ([\w, ]+))?")
_SUMS = frozenset({"CAST(SUM(CAST(cost AS NUMERIC)) AS STRING)", "SUM(CAST(cost AS NUMERIC))"})
_COLUMNS: Mapping[str, Callable[[Cell], str]] = {
    "FORMAT_TIMESTAMP('%F', usage_start_time)": lambda cell: datetime.fromtimestamp(cell.minute_s, UTC).strftime("%Y-%m-%d"),
    "project.id": lambda cell: cell.container or SHARED,
    "service.description": lambda _: _SERVICE,
    "sku.description": lambda cell: f"Generate content {cell.model}",
    "currency": lambda _: "USD",
}
_OWN = frozenset({"project", "sku", "service", "cost", "usage", "labels", "credits", "location", "invoice", "tags", "usage_start_time"})
_CONDITIONS: Mapping[str, Callable[[Cell, Mapping[str, Any]], bool]] = {
    "(_PARTITIONTIME >= @begin OR _PARTITIONTIME IS NULL)": lambda cell, given: cell.last_at_ns >= given["begin"] * 10**9,
    "usage_start_time >= @begin": lambda cell, given: cell.minute_s // 3600 * 3600 >= given["begin"],
    "usage_start_time < @end": lambda cell, given: cell.minute_s // 3600 * 3600 < given["end"],
    "(service.description IN UNNEST(@services) OR service.id = @service)": lambda _, given: _SERVICE in given["services"],
    "service.description IN UNNEST(@services)": lambda _, given: _SERVICE in given["services"],
    "cost_type != 'tax'": lambda _cell, _given: True,
}


def export_table(billing_account: str, project: str) -> str:
    """Switches the standard export on: its table, in a dataset of the project."""
    return f"{project}.billing.gcp_billing_export_v1_{billing_account.replace('-', '_')}"


def serve(cloud: GoogleCloud, request: Request) -> Json:
    found = _PATH.fullmatch(request.path)
    if found is None:
        raise no_such("This method")
    project, job = found.groups()
    cloud.project(project)
    cloud.need(request, "bigquery.jobs.create", f"projects/{project}")
    if job is not None:
        return _page(
            cloud, project, job, request.query.get("pageToken"), int(request.query.get("maxResults") or 10_000), "getQueryResultsResponse"
        )
    body = request.body
    if body.get("useLegacySql") is not False:
        raise invalid("the sandbox knows GoogleSQL only")
    names, rows = _answer(cloud, request, str(body.get("query", "")), _parameters(body.get("queryParameters")))
    if body.get("dryRun"):
        return {"kind": "bigquery#queryResponse", "jobComplete": True, "totalBytesProcessed": "0", "jobReference": {"projectId": project}}
    job = f"job_{secrets.token_urlsafe(20)}"
    fields = [{"name": name, "type": "STRING", "mode": "NULLABLE"} for name in names]
    result = {"fields": fields, "rows": [{"f": [{"v": value} for value in row]} for row in rows]}
    cloud.operations[job] = Operation(cloud.now() + cloud.book.settings.operations_s, result)
    return _page(cloud, project, job, None, int(body.get("maxResults") or 10_000), "queryResponse")


def _page(cloud: GoogleCloud, project: str, job: str, token: str | None, most: int, kind: str) -> Json:
    known = cloud.operations.get(job)
    if known is None:
        raise no_such(f"Not found: Job {project}:{LOCATION}.{job}")
    shown: Json = {"kind": f"bigquery#{kind}", "jobReference": {"projectId": project, "jobId": job, "location": LOCATION}}
    if cloud.now() < known.done_at:
        return {**shown, "jobComplete": False}
    rows, start = known.result["rows"], int(token or 0)
    shown |= {"jobComplete": True, "totalRows": str(len(rows)), "schema": {"fields": known.result["fields"]}}
    shown |= {"rows": rows[start : start + most]} if rows[start : start + most] else {}
    return {**shown, "pageToken": str(start + most)} if start + most < len(rows) else shown


def _answer(cloud: GoogleCloud, request: Request, query: str, given: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows."""
    parts = _QUERY.fullmatch(" ".join(query.split()))
    if parts is None:
        raise _wrong("Syntax error")
    chosen = [(each.rpartition(" AS ")[0] or each, each.rpartition(" AS ")[2]) for each in _split(parts[1], ", ")]
    table, conditions = parts[2], _split(parts[3], " AND ")
    strange = [each for each, _ in chosen if each not in _COLUMNS and each not in _SUMS] + [
        each for each in conditions if each not in _CONDITIONS
    ]
    if strange:
        raise _wrong(f"Unrecognized name: {strange[0][:80]}")
    taken = [name for expression, name in chosen if name in _OWN and name != expression]
    if taken:  # records can't be grouped by, and which one is meant can't be told
        raise _wrong(f"Column name {taken[0]} is ambiguous")
    plain = [(expression, name) for expression, name in chosen if expression in _COLUMNS]
    if len(plain) < len(chosen) and [name for _, name in plain] != _split(parts[4] or "", ", "):
        raise _wrong("SELECT list expression references a column which is neither grouped nor aggregated")
    if table not in cloud.exports:
        raise no_such(f"Not found: Table {table}")
    if not cloud.may(request.caller, "bigquery.tables.getData", table):
        named = table.replace(".", ":", 1)
        message = f"Access Denied: Table {named}: User does not have permission to query table {named}, or perhaps it does not exist."
        raise GoogleError("PERMISSION_DENIED", message)
    sums: defaultdict[tuple[str, ...], Decimal] = defaultdict(Decimal)
    for cell in cloud.book.books.cells():
        pico = cell.reported_pico(cloud.book.now_ns(), cloud.book.settings)
        if pico is not None and all(_CONDITIONS[each](cell, given) for each in conditions):
            sums[tuple(_COLUMNS[expression](cell) for expression, _ in plain)] += Decimal(pico) / PICO
    rows = []
    for key, cost in sorted(sums.items()):
        values = iter(key)
        rows.append([next(values) if expression in _COLUMNS else _numeric(cost) for expression, _ in chosen])
    return [name for _, name in chosen], rows


def _numeric(cost: Decimal) -> str:
    """NUMERIC as text: nine decimals at most."""
    return format(round(cost, 9).normalize(), "f")


def _split(text: str, by: str) -> list[str]:
    """At the separators that stand in no brackets."""
    parts, depth, last = [], 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and at >= last and text.startswith(by, at):
            parts.append(text[last:at])
            last = at + len(by)
    return [*parts, text[last:]] if text else []


def _parameters(given: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in given or []:
        value, kind = each["parameterValue"], each["parameterType"]["type"]
        if kind == "ARRAY":
            found[each["name"]] = [member["value"] for member in value.get("arrayValues") or []]
        else:
            found[each["name"]] = int(datetime.fromisoformat(value["value"]).timestamp()) if kind == "TIMESTAMP" else value["value"]
    return found


def _wrong(message: str) -> GoogleError:
    return invalid(f"{message} at [1:1]")
