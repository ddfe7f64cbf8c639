"""`keygate inventory`: what stands at each vendor, against what KeyGate knows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keygate.cli import issuing, output
from keygate.cli.client import Api, Exit, api, fail, one

commands = typer.Typer(no_args_is_help=True, help="What stands at each vendor: ours, unknown, orphaned, stale.")
_COLUMNS = {
    "vendor_id": "ID AT THE VENDOR",
    "kind": "KIND",
    "name": "NAME",
    "whose": "WHOSE",
    "presence": "STATE",
    "remarks": "REMARKS",
    "last_used_at": "LAST USED",
    "issued_key_id": "ISSUED KEY",
}
_MAX_PAGES = 500

Account = Annotated[str, typer.Argument(help="Vendor, or vendor account id (va_…).")]


def _account(client: Api, text: str) -> str:
    if text.startswith("va_"):
        return text
    found = client.pages("/api/v1/vendors/accounts", query={"vendor": text})
    if len(found) != 1:
        fail(f"{text}: {len(found)} vendor accounts; name one by its id (`keygate vendors accounts`)", Exit.NOT_FOUND)
    return str(found[0]["id"])


def _remarks(row: dict[str, Any]) -> list[str]:
    told = {"stale": row["stale"], "no limit": row["without_limit"], "owner left": row["owner_left"]}
    return [name for name, holds in told.items() if holds] + ([f"accepted: {row['accepted']}"] if row["accepted"] else [])


@commands.command("list")
def list_inventory(
    account: Account,
    stale_days: Annotated[int, typer.Option(help="Unused for so long is stale.")] = 90,
    *,
    foreign: Annotated[bool, typer.Option("--foreign", help="Only what is not ours and was not accepted.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Everything at the vendor now."""
    rows: list[dict[str, Any]] = []
    with api() as client:
        path, cursor = one("inventory", _account(client, account)), None
        for _ in range(_MAX_PAGES):
            page = client.request("GET", path, query={"cursor": cursor, "stale_days": stale_days})
            rows += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    if foreign:
        rows = [row for row in rows if row["whose"] != "ours" and not row["accepted"]]
    if as_json:
        output.as_json(rows)
    else:
        output.table([{**row, "remarks": _remarks(row)} for row in rows], _COLUMNS, empty="Nothing stands there.")


@commands.command("adopt")
def adopt(
    account: Account,
    vendor_id: Annotated[str, typer.Argument(help="The key's id at the vendor, as `list` shows it.")],
    dev: Annotated[str | None, typer.Option(help="Owner: a developer's id, e-mail address or name.")] = None,
    team: Annotated[str | None, typer.Option(help="Owner: a team's id.")] = None,
    app: Annotated[str | None, typer.Option(help="Owner: an app's id.")] = None,
    name: Annotated[str | None, typer.Option(help="What the key is called.")] = None,
    expires: Annotated[str | None, typer.Option(help="90d, 12w: KeyGate revokes it then.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Enter a key that somebody made by hand: it gets an owner and an end, and is ended at the vendor when it must be."""
    with api() as client:
        body = {
            "vendor_id": vendor_id,
            "developer_id": None if dev is None else issuing.developer_id(client, dev),
            "team_id": team,
            "app_id": app,
            "name": name,
            "expires_in_days": None if expires is None else issuing.days(expires),
        }
        row = client.request("POST", f"{one('inventory', _account(client, account))}/adopt", body=body)
    output.as_json(row) if as_json else output.card(row, issuing.COLUMNS)


@commands.command("check")
def check(key_id: str, *, repair: Annotated[bool, typer.Option("--repair")] = False, as_json: output.JsonOption = False) -> None:
    """Read an issued key at its vendor: is it there, was it used, are its terms still those that were set?"""
    with api() as client:
        row = client.request("POST", f"{one('keys', key_id)}/check", body={"repair": repair})
    if as_json:
        output.as_json(row)
    else:
        output.card({name: row[name] for name in ("id", "state", "enforcement", "last_used_at", "read_at", "error")})
    if row["error"]:
        raise typer.Exit(Exit.FAILED)


@commands.command("accept")
def accept(account: Account, vendor_id: str, reason: Annotated[str, typer.Option(help="Why it may stand.")]) -> None:
    """Note why something that KeyGate did not make may stand."""
    with api() as client:
        body = {"vendor_id": vendor_id, "reason": reason}
        client.request("POST", f"{one('inventory', _account(client, account))}/accept", body=body)
    output.note(f"Accepted {vendor_id}.")


@commands.command("disable")
def disable(account: Account, vendor_id: str, *, yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False) -> None:
    """Switch off a key that is not KeyGate's, where the vendor's API can."""
    if not yes:
        typer.confirm(f"Switch {vendor_id} off at the vendor?", abort=True)
    with api() as client:
        client.request("POST", f"{one('inventory', _account(client, account))}/disable", body={"vendor_id": vendor_id})
    output.note(f"Switched off {vendor_id}.")
