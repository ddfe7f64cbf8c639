"""Many keys in one order: checked whole before the first call, made by the server, with a progress bar and a report.

The server does the work: this command may be cut off at any time, and the same command again shows how far it is, or orders what is
missing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keygate.cli import output
from keygate.cli.client import Api, Exit, api, fail

MAX_LINES = 5_000  # of one order
MAX_BYTES = 4 * 1024 * 1024
_COLUMNS = ("developer", "name", "budget", "rpm", "tpm", "models", "expires")
_REPORT = ("line", "developer", "key_id", "state", "link", "link_expires_at", "error")
_POLL_SECONDS = 1.0
_SHOWN = 20
_LINK_SECONDS = 7 * 86_400

commands = typer.Typer(no_args_is_help=True, help="Bulk orders: made with `keygate provision --csv` or `--members-of`.")
_ORDERS = {
    "id": "ID",
    "vendor": "VENDOR",
    "state": "STATE",
    "total": "ROWS",
    "made": "MADE",
    "waiting": "TO DO",
    "failed": "FAILED",
    "left_out": "LEFT OUT",
    "note": "NOTE",
}


@dataclass(slots=True)
class Line:
    number: int
    developer: str  # as written: id, e-mail address or name
    body: dict[str, Any]


def run(
    client: Api,
    common: dict[str, Any],
    *,
    csv_file: Path | None,
    team: str | None,
    report: Path | None,
    batch: str,
    create_developers: bool,
    fit: bool,
) -> None:
    lines = [] if csv_file is None else _read(csv_file)
    if csv_file is not None and not lines:
        fail("there is nobody to make a key for", Exit.NOT_FOUND)
    body: dict[str, Any] = common | {"rows": _rows(client, lines), "create_developers": create_developers, "fit": fit}
    body |= {"team_id": team} if team else {}
    body |= {"batch": batch} if batch else {}
    request_id = "cli-" + hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:40]
    known = next((row for row in client.pages("/api/v1/bulk", most=500) if row["request_id"] == request_id), None)
    if known is None or known["state"] == "cancelled" or _stale(client, known):
        plan = client.request("POST", "/api/v1/bulk/check", body=body)
        _require(plan, fit=fit)
        output.note(
            f"{plan['wanted'] + plan['left_out']} keys at {plan['vendor']}: {plan['left_out']} ordered before, {plan['wanted']} to order; "
            f"about {plan['minutes']} minutes at {plan['calls_per_minute']} calls a minute."
        )
        body |= {"request_id": request_id if known is None else f"{request_id}-{int(time.time())}"}
        order = client.request("POST", "/api/v1/bulk", body=body)
    else:
        order = known
        output.note(f"This was ordered before, as {order['id']}.")
        if order["state"] == "halted" or (order["state"] == "done" and order["counts"]["failed"]):
            order = client.request("POST", f"/api/v1/bulk/{order['id']}/resume")
    _finish(client, order, report)


def _stale(client: Api, order: dict[str, Any]) -> bool:
    """An order that is done, and of which keys have ended since: whoever asks again wants them again."""
    if order["state"] != "done":
        return False
    alive = {row["id"] for row in client.pages("/api/v1/keys", query={"vendor": order["vendor"]}) if row["state"] in {"active", "rotating"}}
    made = client.pages(f"/api/v1/bulk/{order['id']}/rows", query={"state": "made"})
    return any(row["key_id"] not in alive for row in made)


def _finish(client: Api, order: dict[str, Any], report: Path | None) -> None:
    """Waits for the order, writes the report, and ends with what has come of it."""
    order = _awaited(client, order)
    target = report or Path(f"keygate-{order['vendor']}-{time.strftime('%Y%m%d-%H%M%S')}.csv")
    rows = client.pages(f"/api/v1/bulk/{order['id']}/rows")
    _write(client, target, order, rows)
    standing = sum(row["state"] == "made" or (row["state"] == "left_out" and row["key_id"] is not None) for row in rows)
    output.note(f"{standing} of {len(rows)} keys are made. Report with one-time links: {target}")
    if order["note"]:
        output.note(f"The order was halted: {order['note']}.")
    failed = [row for row in rows if row["state"] not in {"made", "left_out"}]
    for row in failed[:_SHOWN]:
        output.note(f"  line {row['line']}, {row['email']}: {row['error'] or row['state']}")
    if failed:
        output.note("The same command again tries what is missing.")
        raise typer.Exit(Exit.FAILED)


@commands.command("list")
def list_orders(*, as_json: output.JsonOption = False) -> None:
    """Bulk orders, newest first."""
    with api() as client:
        rows = client.pages("/api/v1/bulk", most=500)
    output.as_json(rows) if as_json else output.table(({**row, **row["counts"]} for row in rows), _ORDERS, empty="No bulk orders yet.")


@commands.command("watch")
def watch(
    order_id: str, report: Annotated[Path | None, typer.Option(help="Where the report goes, with its one-time links.")] = None
) -> None:
    """Wait for an order and write its report."""
    with api() as client:
        _finish(client, client.request("GET", f"/api/v1/bulk/{order_id}"), report)


@commands.command("resume")
def resume(order_id: str) -> None:
    """Go on with a halted order, and try failed rows again."""
    with api() as client:
        order = client.request("POST", f"/api/v1/bulk/{order_id}/resume")
    output.note(f"{order['id']} is {order['state']}; `keygate bulk watch {order['id']}` waits for it.")


@commands.command("cancel")
def cancel(order_id: str, *, yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False) -> None:
    """Make no further keys of an order; those that are made stay."""
    if not yes:
        typer.confirm(f"Cancel {order_id}?", abort=True)
    with api() as client:
        client.request("POST", f"/api/v1/bulk/{order_id}/cancel")
    output.note(f"Cancelled {order_id}.")


def _read(path: Path) -> list[Line]:
    if path.stat().st_size > MAX_BYTES:
        fail(f"{path}: more than {MAX_BYTES} bytes", Exit.USAGE)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    if len(rows) > MAX_LINES:
        fail(f"{path}: more than {MAX_LINES} lines", Exit.USAGE)
    names = set(rows[0]) if rows else set()
    if "developer" not in names or not names <= set(_COLUMNS):
        fail(f"{path}: the first line names the columns: developer, and any of {', '.join(_COLUMNS[1:])}", Exit.USAGE)
    lines, mistakes = [], []
    for number, row in enumerate(rows, start=2):
        try:
            lines.append(Line(number, (row["developer"] or "").strip(), _body(row)))
            if not lines[-1].developer:
                mistakes.append(f"line {number}: no developer")
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
    if mistakes:
        fail("\n".join([f"{path} was not ordered:", *mistakes[:20]]), Exit.NOT_VALID)
    return lines


def _body(row: dict[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if row.get("name"):
        body["name"] = row["name"].strip()
    if row.get("budget"):
        body["budget_usd"] = row["budget"].strip()
    for column, member in (("rpm", "rate_limit_rpm"), ("tpm", "rate_limit_tpm")):
        if row.get(column):
            if not row[column].strip().isdecimal():
                raise ValueError(f"{column} is not a number")
            body[member] = int(row[column])
    if row.get("models"):
        body["models"] = row["models"].split()
    if row.get("expires"):
        text = row["expires"].strip().removesuffix("d")
        if not text.isdecimal():
            raise ValueError("expires is not a number of days")
        body["expires_in_days"] = int(text)
    return body


def _rows(client: Api, lines: list[Line]) -> list[dict[str, Any]]:
    """Each line names somebody by id, by address, or by a name that one developer has."""
    named: dict[str, list[str]] = {}
    if any("@" not in line.developer and not line.developer.startswith("dev_") for line in lines):
        for row in client.pages("/api/v1/developers", query={"status": "active"}):
            named.setdefault(row["name"].lower(), []).append(row["id"])
    rows, mistakes = [], []
    for line in lines:
        who = {"developer_id": line.developer} if line.developer.startswith("dev_") else {"email": line.developer}
        if "email" in who and "@" not in line.developer:
            found = named.get(line.developer.lower(), [])
            if len(found) != 1:
                mistakes.append(f"line {line.number}: {len(found) or 'no active'} developers are called {line.developer}")
                continue
            who = {"developer_id": found[0]}
        rows.append({"line": line.number, **who, **line.body})
    if mistakes:
        fail("\n".join(["nothing was ordered:", *mistakes[:_SHOWN]]), Exit.NOT_FOUND)
    return rows


def _require(plan: dict[str, Any], *, fit: bool) -> None:
    """Every problem, and the vendor's ceiling, are told before anything is made."""
    if plan["problems"]:
        told = [f"line {problem['line']}: {problem['detail']}" for problem in plan["problems"][:_SHOWN]]
        more = [f"and {len(plan['problems']) - _SHOWN} more"] if len(plan["problems"]) > _SHOWN else []
        fail("\n".join(["nothing was ordered:", *told, *more]), Exit.NOT_VALID)
    if not plan["fits"] and not fit:
        fail(
            f"nothing was ordered: {plan['wanted']} keys need as many {plan['container']}s, and there is room for {plan['room']} "
            f"({plan['standing']} of {plan['ceiling']} are taken): {plan['remedy']}; --fit orders as many as fit",
            Exit.NOT_VALID,
        )


def _awaited(client: Api, order: dict[str, Any]) -> dict[str, Any]:
    """The order once the server has nothing left to do for it."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=output.err, transient=False
    ) as bar:
        making = bar.add_task("making", total=order["total"])
        while True:
            counts = order["counts"]
            bar.update(making, completed=order["total"] - counts["waiting"] - counts["ordered"])
            if order["state"] != "running" and not counts["ordered"]:
                return order
            time.sleep(_POLL_SECONDS)
            order = client.request("GET", f"/api/v1/bulk/{order['id']}")


def _write(client: Api, path: Path, order: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Readable by its owner only: it holds one-time links."""
    keys = {row["id"]: row for row in client.pages("/api/v1/keys", query={"vendor": order["vendor"]})}
    links = _links(client, order)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _REPORT)
        writer.writeheader()
        for row in rows:
            key, link = keys.get(row["key_id"], {}), links.get(row["line"], {})
            problem = row["error"]
            if not link and row["state"] == "left_out" and key.get("secret") == "waiting":
                made, problem = client.attempt("POST", f"/api/v1/keys/{key['id']}/link", body={"expires_in_seconds": _LINK_SECONDS})
                link = made or {}
            writer.writerow(
                {
                    "line": row["line"],
                    "developer": row["email"],
                    "key_id": row["key_id"],
                    "state": key.get("state") or row["state"],
                    "link": link.get("url"),
                    "link_expires_at": link.get("expires_at"),
                    "error": problem,
                }
            )


def _links(client: Api, order: dict[str, Any]) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    after: int | None = 0
    while after is not None:
        body = {"expires_in_seconds": _LINK_SECONDS, "after": after}
        page = client.request("POST", f"/api/v1/bulk/{order['id']}/links", body=body)
        found |= {link["line"]: link for link in page["items"]}
        after = page["next_after"]
    return found
