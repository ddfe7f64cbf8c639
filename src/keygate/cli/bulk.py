"""Many keys in one order: checked whole before the first call, made by the server, with a progress bar and a report.

The server does the work: this command may be cut off at any time, and the same command again shows how far it is, or orders what is
missing.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keygate.cli import output
from keygate.cli.client import Api, Exit, api, fail, one
from keygate.cli.roster import Line, NotARoster, people
from keygate.kit.spreadsheet import cell

MAX_BYTES = 4 * 1024 * 1024
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
    as_json: bool,
) -> None:
    lines = [] if csv_file is None else _read(csv_file)
    if csv_file is not None and not lines:
        fail(f"{csv_file}: there is nobody to make a key for", Exit.NOT_FOUND)
    report = _place(report, common["vendor"])
    if csv_file is not None and report.exists() and report.samefile(csv_file):
        fail(f"{report} is the list itself; give the report another place", Exit.USAGE)
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
    _finish(client, order, report, as_json=as_json)


def _stale(client: Api, order: dict[str, Any]) -> bool:
    """An order that is done, and of which keys have ended since: whoever asks again wants them again."""
    if order["state"] != "done":
        return False
    alive = {row["id"] for row in client.pages("/api/v1/keys", query={"vendor": order["vendor"]}) if row["state"] in {"active", "rotating"}}
    made = client.pages(f"/api/v1/bulk/{order['id']}/rows", query={"state": "made"})
    return any(row["key_id"] not in alive for row in made)


def _finish(client: Api, order: dict[str, Any], report: Path, *, as_json: bool) -> None:
    """Waits for the order, writes the report, and ends with what has come of it."""
    order = _awaited(client, order)
    rows = client.pages(f"/api/v1/bulk/{order['id']}/rows")
    _write(client, report, order, rows)
    if as_json:
        output.as_json({**order, "rows": rows, "report": str(report)})
    standing = sum(row["state"] == "made" or (row["state"] == "left_out" and row["key_id"] is not None) for row in rows)
    output.note(f"{standing} of {len(rows)} keys are made. Report with one-time links: {report}")
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
    order_id: str,
    report: Annotated[Path | None, typer.Option(help="Where the report goes, with its one-time links.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Wait for an order and write its report."""
    with api() as client:
        order = client.request("GET", one("bulk", order_id))
        _finish(client, order, _place(report, order["vendor"]), as_json=as_json)


@commands.command("resume")
def resume(order_id: str, *, as_json: output.JsonOption = False) -> None:
    """Go on with a halted order, and try failed rows again."""
    with api() as client:
        order = client.request("POST", f"{one('bulk', order_id)}/resume")
    if as_json:
        output.as_json(order)
    output.note(f"{order['id']} is {order['state']}; `keygate bulk watch {order['id']}` waits for it.")


@commands.command("cancel")
def cancel(order_id: str, *, yes: output.YesOption = False, as_json: output.JsonOption = False) -> None:
    """Make no further keys of an order; those that are made stay."""
    path = one("bulk", order_id)
    if not yes:
        typer.confirm(f"Cancel {order_id}?", abort=True)
    with api() as client:
        order = client.request("POST", f"{path}/cancel")
    if as_json:
        output.as_json(order)
    output.note(f"Cancelled {order_id}.")


def _read(path: Path) -> list[Line]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            fail(f"{path}: more than {MAX_BYTES} bytes", Exit.USAGE)
        return people(data)
    except OSError as error:
        fail(f"{path} can't be read: {error.strerror}", Exit.USAGE)
    except NotARoster as error:
        more = [f"and {len(error.mistakes) - _SHOWN} more"] if len(error.mistakes) > _SHOWN else []
        fail("\n".join([f"{path} was not ordered:", *error.mistakes[:_SHOWN], *more]), Exit.NOT_VALID)


def _place(report: Path | None, vendor: str) -> Path:
    """Where the report goes. That it can't be written there is told before anything is made."""
    path = report or Path(f"keygate-{vendor}-{time.strftime('%Y%m%d-%H%M%S')}.csv")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        fail(f"{path} is no file that a report may replace", Exit.USAGE)
    try:
        with _opened(path):
            return path
    except OSError as error:
        fail(f"the report can't be written to {path}: {error.strerror}", Exit.USAGE)


@contextmanager
def _opened(path: Path, *, keep: bool = False) -> Iterator[TextIO]:
    """A file beside `path` that takes its place at the end, if it is to be kept: a former report stays until the new one is whole.
    Readable by its owner only, since it holds one-time links."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield file
        if keep:
            Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


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
    keys = {row["id"]: row for row in client.pages("/api/v1/keys", query={"vendor": order["vendor"]})}
    try:
        with _opened(path, keep=True) as file:
            _fill(client, csv.writer(file), order, rows, keys)
    except OSError as error:
        again = f"`keygate bulk watch {order['id']} --report …` writes it elsewhere"
        fail(f"the report can't be written to {path}: {error.strerror}; {again}")


def _fill(client: Api, writer: Any, order: dict[str, Any], rows: list[dict[str, Any]], keys: Mapping[str, dict[str, Any]]) -> None:
    links = _links(client, order)
    writer.writerow(_REPORT)
    for row in rows:
        key, link = keys.get(row["key_id"], {}), links.get(row["line"], {})
        problem = row["error"]
        if not link and row["state"] == "left_out" and key.get("secret") == "waiting":
            made, problem = client.attempt("POST", f"/api/v1/keys/{key['id']}/link", body={"expires_in_seconds": _LINK_SECONDS})
            link = made or {}
        state = key.get("state") or row["state"]
        told = (row["line"], row["email"], row["key_id"], state, link.get("url"), link.get("expires_at"), problem)
        writer.writerow(map(cell, told))


def _links(client: Api, order: dict[str, Any]) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    after: int | None = 0
    while after is not None:
        body = {"expires_in_seconds": _LINK_SECONDS, "after": after}
        page = client.request("POST", f"/api/v1/bulk/{order['id']}/links", body=body)
        found |= {link["line"]: link for link in page["items"]}
        after = page["next_after"]
    return found
