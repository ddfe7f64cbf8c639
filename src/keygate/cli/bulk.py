"""Many keys in one order: checked whole before the first call, resumable, with a progress bar and a report.

Each line is ordered under a request id made of the batch, the vendor, the account and the developer, so the same command again orders
only what is missing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keygate.cli import output
from keygate.cli.client import Api, Exit, fail

MAX_LINES = 20_000
MAX_BYTES = 4 * 1024 * 1024
_COLUMNS = ("developer", "name", "budget", "rpm", "tpm", "models", "expires")
_REPORT = ("developer", "key_id", "state", "link", "link_expires_at", "error")
_UNDER_WAY = frozenset({"requested", "creating"})
_POLL_SECONDS = 2.0
_STALLED_SECONDS = 900.0  # without any progress at all


@dataclass(slots=True)
class Line:
    number: int
    developer: str  # as written: id, e-mail address or name
    body: dict[str, Any]
    developer_id: str = ""
    request_id: str = ""
    key: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def run(
    client: Api,
    common: dict[str, Any],
    *,
    csv_file: Path | None,
    team: str | None,
    report: Path | None,
    batch: str,
    create_developers: bool,
) -> None:
    people = client.pages("/api/v1/developers", query={"status": "active"})
    if csv_file is not None:
        lines = _read(csv_file)
    else:
        lines = [Line(number, row["id"], {}) for number, row in enumerate((row for row in people if row["team_id"] == team), start=1)]
    if not lines:
        fail("there is nobody to make a key for", Exit.NOT_FOUND)
    account = _account(client, common)
    missing = _find_people(lines, people, create=create_developers)
    known = {row["request_id"]: row for row in client.pages("/api/v1/keys", query={"vendor": common["vendor"]}) if row["request_id"]}

    def wanting() -> list[Line]:
        for line in lines:
            text = f"{batch}\n{common['vendor']}\n{account['id']}\n{line.developer_id}\n{line.body.get('name', '')}"
            line.request_id = "bulk-" + hashlib.sha256(text.encode()).hexdigest()[:40]
        return [line for line in lines if line.request_id not in known or known[line.request_id]["state"] == "failed"]

    _check_room(client, account, len(wanting()))
    for line in missing:
        name = line.body.get("name") or line.developer.partition("@")[0]
        line.developer_id = client.request("POST", "/api/v1/developers", body={"name": name, "email": line.developer})["id"]
    to_order = wanting()
    target = report or Path(f"keygate-{common['vendor']}-{time.strftime('%Y%m%d-%H%M%S')}.csv")
    output.note(f"{len(lines)} keys at {common['vendor']}: {len(lines) - len(to_order)} ordered before, {len(to_order)} to order.")
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=output.err, transient=False
    ) as bar:
        ordering = bar.add_task("ordering", total=len(to_order))
        for line in to_order:
            body = common | line.body | {"developer_id": line.developer_id, "account": account["id"], "request_id": line.request_id}
            made, line.error = client.attempt("POST", "/api/v1/keys/provision", body=body | {"deliver": "later", "wait_seconds": 0})
            line.key = made or {}
            bar.advance(ordering)
        _await(client, common["vendor"], lines, bar)
    _write(client, target, lines)
    failed = [line for line in lines if line.error or line.key.get("state") not in {"active", "rotating"}]
    output.note(f"{len(lines) - len(failed)} of {len(lines)} keys are made. Report with one-time links: {target}")
    for line in failed[:20]:
        output.note(f"  line {line.number}, {line.developer}: {line.error or line.key.get('error') or line.key.get('state')}")
    if failed:
        output.note("The same command again orders what is missing.")
        raise typer.Exit(Exit.FAILED)


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


def _account(client: Api, common: dict[str, Any]) -> dict[str, Any]:
    accounts = client.pages("/api/v1/vendors/accounts", query={"vendor": common["vendor"]})
    wanted = common.get("account")
    found = [each for each in accounts if wanted in {None, each["id"], each["name"]}]
    chosen = found if len(found) == 1 else [each for each in found if each["name"] == "default"]
    if not chosen:
        fail(
            f"which vendor account? `keygate vendors accounts` lists {len(accounts)} at {common['vendor']}; name one with --account",
            Exit.USAGE,
        )
    return chosen[0]


def _find_people(lines: list[Line], people: list[dict[str, Any]], *, create: bool) -> list[Line]:
    """Everybody is known before the first key is ordered. Returns the lines of those who are to be made."""
    by_name: dict[str, list[str]] = {}
    for row in people:
        for name in {row["id"], row["email"], row["name"].lower()}:
            by_name.setdefault(name, []).append(row["id"])
    mistakes, missing = [], []
    for line in lines:
        found = by_name.get(line.developer if line.developer.startswith("dev_") else line.developer.lower(), [])
        if len(found) == 1:
            line.developer_id = found[0]
        elif found:
            mistakes.append(f"line {line.number}: {len(found)} developers are called {line.developer}")
        elif create and "@" in line.developer:
            missing.append(line)
        else:
            mistakes.append(f"line {line.number}: no active developer {line.developer}")
    if mistakes:
        fail("\n".join(["nothing was ordered:", *mistakes[:20]]), Exit.NOT_FOUND)
    return missing


def _check_room(client: Api, account: dict[str, Any], wanted: int) -> None:
    """The ceiling is told before the first call."""
    if account["status"] != "ready":
        fail(f"the admin credential {account['name']} is {account['status']}: {', '.join(account['missing_rights'])}", Exit.NOT_VALID)
    room = client.request("GET", f"/api/v1/vendors/accounts/{account['id']}/room")
    if room["room"] is not None and wanted > room["room"]:
        fail(
            f"nothing was ordered: {wanted} keys need as many {room['container']}s, and there is room for {room['room']} "
            f"({room['alive']} of {room['ceiling']} are taken)",
            Exit.NOT_VALID,
        )


def _await(client: Api, vendor: str, lines: list[Line], bar: Progress) -> None:
    making = bar.add_task("making", total=len(lines))
    changed_at, before = time.monotonic(), -1
    while True:
        rows = {row["request_id"]: row for row in client.pages("/api/v1/keys", query={"vendor": vendor}) if row["request_id"]}
        for line in lines:
            line.key = rows.get(line.request_id, line.key)
        done = sum(bool(line.error) or line.key.get("state") not in _UNDER_WAY for line in lines)
        bar.update(making, completed=done)
        if done == len(lines):
            return
        if done != before:
            changed_at, before = time.monotonic(), done
        if time.monotonic() - changed_at > _STALLED_SECONDS:
            output.note("no progress for a quarter of an hour; the server goes on, and the same command shows what has come of it")
            return
        time.sleep(_POLL_SECONDS)


def _write(client: Api, path: Path, lines: Iterable[Line]) -> None:
    """Readable by its owner only: it holds one-time links."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _REPORT)
        writer.writeheader()
        for line in lines:
            key = line.key
            link: dict[str, Any] = {}
            if key.get("secret") == "waiting":
                made, problem = client.attempt("POST", f"/api/v1/keys/{key['id']}/link", body={"expires_in_seconds": 7 * 86_400})
                link, line.error = made or {}, line.error or problem
            writer.writerow(
                {
                    "developer": line.developer,
                    "key_id": key.get("id"),
                    "state": key.get("state"),
                    "link": link.get("url"),
                    "link_expires_at": link.get("expires_at"),
                    "error": line.error or key.get("error"),
                }
            )
