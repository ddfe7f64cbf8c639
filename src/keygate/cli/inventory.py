"""`keygate inventory`: what stands at the vendors against what KeyGate knows, and what is done about it."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from keygate.cli import output
from keygate.cli.client import Api, Exit, api, fail, one
from keygate.cli.issuing import days, developer_id

commands = typer.Typer(invoke_without_command=True, help="What stands at the vendors, and what is the matter with it.")
_COLUMNS = {
    "id": "ID",
    "vendor": "VENDOR",
    "kind": "KIND",
    "name": "NAME",
    "owner": "OWNER THERE",
    "hint": "KEY",
    "presence": "PRESENCE",
    "standing": "STANDING",
    "findings": "FINDINGS",
    "last_used_at": "LAST USED",
}
_SUMMARY = {
    "account_id": "ACCOUNT",
    "vendor": "VENDOR",
    "ours": "OURS",
    "adopted": "ADOPTED",
    "unknown": "UNKNOWN",
    "orphaned": "ORPHANED",
    "findings": "FINDINGS",
    "attention": "TO LOOK AT",
    "scanned": "SCANNED",
}
_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 3_600.0
_OVER = frozenset({"done", "failed"})


@commands.callback()
def inventory(
    context: typer.Context,
    account: Annotated[str | None, typer.Option(help="Only this vendor account (id).")] = None,
    vendor: Annotated[str | None, typer.Option(help="Only this vendor.")] = None,
    standing: Annotated[str | None, typer.Option(help="ours, adopted, orphaned or unknown.")] = None,
    finding: Annotated[str | None, typer.Option(help="stale, no_limit, leaver, drift, disabled, missing, overdue or foreign.")] = None,
    kind: Annotated[str | None, typer.Option(help="key or container.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also what nothing is the matter with.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """What somebody should look at; with --all everything that the last scans saw."""
    if context.invoked_subcommand is not None:
        return
    query = {"account_id": account, "vendor": vendor, "standing": standing, "finding": finding, "kind": kind}
    narrowed = everything or standing or finding
    with api() as client:
        rows = client.pages("/api/v1/inventory", query={**query, "attention": None if narrowed else "true"})
        scanned = bool(rows) or bool(client.request("GET", "/api/v1/inventory/scans", query={"limit": 1})["items"])
    if as_json:
        output.as_json(rows)
        return
    empty = "Nothing to look at." if scanned else "No vendor was looked at yet: `keygate inventory scan`."
    output.table(rows, _COLUMNS, empty=empty)
    for row in rows:
        for each in row["drift"]:
            output.note(f"{row['id']}: {each['term']} is {each['found']}, agreed is {each['agreed']}")


@commands.command("summary")
def summary(*, as_json: output.JsonOption = False) -> None:
    """Each vendor account in numbers."""
    with api() as client:
        rows = client.pages("/api/v1/inventory/summary")
    output.as_json(rows) if as_json else output.table(map(_counted, rows), _SUMMARY, empty="Nothing yet: `keygate inventory scan`.")


def _counted(row: dict[str, Any]) -> dict[str, Any]:
    scan = row["last_scan"] or {}
    when = scan.get("ended_at") or scan.get("state")
    return {**row, **row["standings"], "scanned": scan["error"] if scan.get("state") == "failed" else when}


@commands.command("scan")
def scan(
    account: Annotated[str | None, typer.Argument(help="Vendor account by id or name; left out: all.")] = None,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is done.")] = True,
    as_json: output.JsonOption = False,
) -> None:
    """Look at the vendors now. Changes nothing there."""
    with api() as client:
        begun = client.request("POST", "/api/v1/inventory/scans", body={"account": account})["items"]
        rows = _awaited(client, begun) if wait else begun
    columns = {
        "id": "SCAN",
        "vendor": "VENDOR",
        "account_id": "ACCOUNT",
        "state": "STATE",
        "seen": "SEEN",
        "read": "READ",
        "error": "TROUBLE",
    }
    output.as_json(rows) if as_json else output.table(rows, columns, empty="Nothing to scan.")
    if any(row["state"] == "failed" for row in rows):
        raise typer.Exit(Exit.FAILED)


def _awaited(client: Api, begun: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wanted = {row["id"] for row in begun}
    ends, told = time.monotonic() + _PATIENCE_SECONDS, ""
    while True:
        rows = [row for row in client.pages("/api/v1/inventory/scans", most=500) if row["id"] in wanted]
        if all(row["state"] in _OVER for row in rows):
            return rows
        said = "; ".join(map(_progress, (row for row in rows if row["state"] not in _OVER)))
        if said != told:
            output.note(said)
            told = said
        if time.monotonic() > ends:
            output.note("The scan goes on; `keygate inventory summary` shows it.")
            return rows
        time.sleep(_POLL_SECONDS)


def _progress(row: dict[str, Any]) -> str:
    said = f"{row['vendor']} {row['state']}: {row['seen']} seen, {row['read']} read"
    return f"{said}; {row['error']}; tried again at {row['next_try_at']}" if row["error"] else said


@commands.command("show")
def show(item_id: str, *, as_json: output.JsonOption = False) -> None:
    """One thing at a vendor."""
    with api() as client:
        _tell(client.request("GET", one("inventory", item_id)), as_json=as_json)


@commands.command("adopt")
def adopt(
    item_id: str,
    dev: Annotated[str | None, typer.Option(help="Owner: a developer's id, e-mail address or name.")] = None,
    team: Annotated[str | None, typer.Option(help="Owner: a team's id.")] = None,
    app: Annotated[str | None, typer.Option(help="Owner: an app's id.")] = None,
    name: Annotated[str | None, typer.Option(help="What the key is called here.")] = None,
    expires: Annotated[str | None, typer.Option(help="90d, 12w: KeyGate revokes it then.")] = None,
    remind: Annotated[list[int] | None, typer.Option(help="Days before the end; may be repeated.")] = None,
    *,
    keep_name: Annotated[bool, typer.Option("--keep-name", help="Leave the key's name at the vendor as it is.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Give a key that somebody made by hand an owner, an end and reminders here."""
    with api() as client:
        body = _adoption(client, dev=dev, team=team, app=app, name=name, expires=expires, remind=remind) | {"rename": not keep_name}
        made = client.request("POST", f"{one('inventory', item_id)}/adopt", body=body)
    _tell(made, as_json=as_json)
    if made["note"]:
        output.note(made["note"])


@commands.command("enter")
def enter(
    vendor: Annotated[str, typer.Argument(help="A vendor at which KeyGate makes no keys: groq, fireworks …")],
    dev: Annotated[str | None, typer.Option(help="Owner: a developer's id, e-mail address or name.")] = None,
    team: Annotated[str | None, typer.Option(help="Owner: a team's id.")] = None,
    app: Annotated[str | None, typer.Option(help="Owner: an app's id.")] = None,
    name: Annotated[str | None, typer.Option(help="What the key is called here.")] = None,
    expires: Annotated[str | None, typer.Option(help="90d, 12w.")] = None,
    remind: Annotated[list[int] | None, typer.Option(help="Days before the end; may be repeated.")] = None,
    base_url: Annotated[str | None, typer.Option(help="API root, where it is not the vendor's own.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Enter a hand-made key of a vendor that has no API for keys. It is asked for, or read from standard input; never an argument."""
    secret = typer.prompt("Key", hide_input=True) if sys.stdin.isatty() else sys.stdin.read().strip()
    if not secret:
        fail("no key on standard input", Exit.USAGE)
    with api() as client:
        body = _adoption(client, dev=dev, team=team, app=app, name=name, expires=expires, remind=remind)
        body |= {"vendor": vendor, "key": secret, "settings": {} if base_url is None else {"base_url": base_url}}
        made = client.request("POST", "/api/v1/inventory/by-hand", body=body)
    _tell(made, as_json=as_json)
    if not as_json:
        output.note("To rotate it:")
        for number, step in enumerate(made["checklist"], 1):
            output.note(f"  {number}. {step}")


def _adoption(
    client: Api,
    *,
    dev: str | None,
    team: str | None,
    app: str | None,
    name: str | None,
    expires: str | None,
    remind: list[int] | None,
) -> dict[str, Any]:
    if sum(value is not None for value in (dev, team, app)) > 1:
        fail("name one of --dev, --team and --app", Exit.USAGE)
    body = {
        "developer_id": None if dev is None else developer_id(client, dev),
        "team_id": team,
        "app_id": app,
        "name": name,
        "expires_in_days": None if expires is None else days(expires),
        "remind_days": remind,
    }
    return {member: value for member, value in body.items() if value is not None}


@commands.command("disable")
def disable(
    item_id: str,
    reason: Annotated[str, typer.Option(help="Why: it stands in the audit log.")],
    *,
    revoke: Annotated[bool, typer.Option("--revoke", help="End it for good.")] = False,
    insist: Annotated[bool, typer.Option("--insist", help="Also what carries the mark of another KeyGate.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Switch a key off at the vendor, or end it there for good."""
    if not yes:
        typer.confirm(f"{'Revoke' if revoke else 'Disable'} {item_id} at the vendor?", abort=True)
    body = {"how": "revoke" if revoke else "disable", "reason": reason, "insist": insist}
    with api() as client:
        _tell(client.request("POST", f"{one('inventory', item_id)}/disable", body=body), as_json=as_json)


@commands.command("accept")
def accept(
    item_id: str, reason: Annotated[str, typer.Option(help="Why: it stands in the audit log.")], *, as_json: output.JsonOption = False
) -> None:
    """It is as it should be. Terms that were changed at the vendor become the agreed ones."""
    with api() as client:
        _tell(client.request("POST", f"{one('inventory', item_id)}/accept", body={"reason": reason}), as_json=as_json)


@commands.command("repair")
def repair(item_id: str, *, as_json: output.JsonOption = False) -> None:
    """Make it as agreed again at the vendor, and read it back."""
    with api() as client:
        _tell(client.request("POST", f"{one('inventory', item_id)}/repair"), as_json=as_json)


@commands.command("check")
def check(
    key_id: str,
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Set terms that differ again.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Read one issued key (ik_…) at its vendor now: is it there, was it used, are its limits those that were set?"""
    with api() as client:
        row = client.request("POST", f"{one('keys', key_id)}/check", body={"repair": repair})
    shown = ("id", "state", "enforcement", "last_used_at", "read_at", "error")
    output.as_json(row) if as_json else output.card({name: row[name] for name in shown})
    if row["error_code"] is not None:
        raise typer.Exit(Exit.FAILED)


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.as_json(row)
        return
    output.card({name: value for name, value in row.items() if name not in {"drift", "remedies", "note", "checklist"}})
    for each in row["drift"]:
        output.note(f"{each['term']} is {each['found']}, agreed is {each['agreed']}")
    for remedy in row["remedies"]:
        output.note(f"→ {remedy}")
