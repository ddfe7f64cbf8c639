"""`keygate vendors`: what KeyGate knows of each vendor, and the admin credentials that keys are made with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from keygate.cli import output
from keygate.cli.client import Exit, api, fail, one

commands = typer.Typer(no_args_is_help=True, help="Vendors, and the admin credentials that keys are made with.")
_ACCOUNTS = {
    "id": "ID",
    "vendor": "VENDOR",
    "name": "NAME",
    "hint": "KEY",
    "status": "STATUS",
    "missing_rights": "MISSING RIGHTS",
    "also_confirms": "ALSO ENFORCES",
    "verified_at": "VERIFIED",
}
_SHARED = {
    "base_url": "API root, where it is not the vendor's own (--base-url)",
    "calls_per_minute": "how many calls KeyGate allows itself, where yours differs",
    "ceiling": "how many containers your organisation may have, where yours differs",
}
_VENDORS = {"name": "VENDOR", "gateway": "GATEWAY", "makes_keys": "MAKES KEYS", "container": "CONTAINER", "enforces": "ENFORCES"}


@commands.command("list")
def list_vendors(*, as_json: output.JsonOption = False) -> None:
    """What can be done at each vendor."""
    with api() as client:
        rows = client.request("GET", "/api/v1/vendors")["items"]
    output.as_json(rows) if as_json else output.table(map(_summary, rows), _VENDORS, empty="No vendors.")


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    issuing = row.get("issuing") or {}
    way = str((row.get("keys") or {}).get("way"))
    return {
        "name": row["name"],
        "gateway": row["mount"] is not None,
        "makes_keys": {"made": "yes", "by_hand": "no: by hand there", "none": "no"}.get(way, "–"),
        "container": issuing.get("container"),
        "enforces": [*issuing.get("confirms", []), *(f"{term} (some accounts)" for term in issuing.get("confirms_for_some", {}))],
    }


@commands.command("show")
def show(vendor: str, *, as_json: output.JsonOption = False) -> None:
    """One vendor: which way to a key is open there and why; what to enter as admin key, the rights it needs, what the vendor can't do and
    what KeyGate does instead.
    """
    with api() as client:
        rows = client.request("GET", "/api/v1/vendors")["items"]
    row = next((each for each in rows if each["name"] == vendor.lower()), None)
    if row is None:
        fail(f"{vendor}: not a vendor that KeyGate knows; `keygate vendors list`", Exit.NOT_FOUND)
    if as_json:
        output.as_json(row)
        return
    issuing = row.pop("issuing") or {}
    output.card({name: row[name] for name in ("name", "title", "mount")})
    keys = row["keys"]
    if keys:
        output.out.print("\n[bold]keys[/bold]")
        output.card(keys, {name: name for name in ("way", "vendor_api", "why", "instead")})
        if not issuing:
            output.card({f"source: {name}": source for name, source in keys["sources"].items()})
    if issuing:
        issuing["settings"] = {**issuing["settings"], **_SHARED}
    for member in ("rights", "settings", "options", "needs", "confirms_for_some", "cannot", "spend", "sources"):
        told = issuing.pop(member, {})
        if told:
            output.out.print(f"\n[bold]{member}[/bold]")
            output.card(told, {name: name for name in told})  # as `--set` takes them
    if issuing:
        output.out.print()
        output.card(issuing)


@commands.command("configure")
def configure(
    vendor: Annotated[str, typer.Argument(help="openai, anthropic, google …")],
    name: Annotated[str, typer.Option(help="A name of your own, where there are several.")] = "default",
    base_url: Annotated[str | None, typer.Option(help="API root, where it is not the vendor's own.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, as `keygate vendors show` lists them.")] = None,
    admin_key_file: Annotated[
        Path | None, typer.Option(help="File that holds the admin credential (a service account's JSON).", exists=True, dir_okay=False)
    ] = None,
    body_file: Annotated[
        typer.FileText | None,
        typer.Option("--from", help="JSON file with admin_key and settings, as the API takes them; -: standard input."),
    ] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Enter an admin credential. It is asked for, or read from standard input or a file; never given as an argument."""
    given = {} if body_file is None else _body(body_file.read())
    settings = {**given.get("settings", {}), **dict(_pair(text) for text in setting or [])}
    if base_url is not None:
        settings["base_url"] = base_url
    if "admin_key" in given:
        secret = given["admin_key"]
    elif admin_key_file is not None:
        secret = admin_key_file.read_text(encoding="utf-8").strip()
    else:
        secret = typer.prompt("Admin key", hide_input=True) if sys.stdin.isatty() else sys.stdin.read().strip()
    if not secret:
        fail("no admin key on standard input", Exit.USAGE)
    with api() as client:
        body = {"vendor": vendor, "name": name, "admin_key": secret, "settings": settings}
        made = client.request("POST", "/api/v1/vendors/configure", body=body)
    _tell(made, as_json=as_json)


def _body(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("settings", {}), dict):
        fail('--from: a JSON object is wanted, {"admin_key": "…", "settings": {…}}', Exit.USAGE)
    return body


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        fail(f"{text}: write NAME=VALUE", Exit.USAGE)
    return name, value


@commands.command("issuer")
def issuer() -> None:
    """KeyGate as an issuer of identity tokens, as JSON: what an admin enters in Anthropic's Console."""
    with api() as client:
        output.as_json(client.request("GET", "/api/v1/vendors/issuer"))


@commands.command("accounts")
def accounts(*, as_json: output.JsonOption = False) -> None:
    """The admin credentials; secrets are never shown."""
    with api() as client:
        rows = client.pages("/api/v1/vendors/accounts")
    if as_json:
        output.as_json(rows)
        return
    output.table(rows, _ACCOUNTS, empty="None yet: `keygate vendors configure openai`.")
    for row in rows:
        if row["status"] == "refused":
            said = row["notes"][0] if row["notes"] else "the vendor does not know it any more"
            output.note(f"{row['vendor']} {row['name']}: {said} (`keygate vendors configure {row['vendor']} --name {row['name']}`)")


@commands.command("room")
def room(
    account_id: str,
    region: Annotated[str | None, typer.Option(help="Another than the setting's, where a vendor counts by region.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """How many keys still fit. The vendor is asked where its API can tell; nothing is made."""
    with api() as client:
        row = client.request("GET", f"{one('vendors/accounts', account_id)}/room", query={"region": region})
    if as_json:
        output.as_json(row)
        return
    output.card(row)
    if row["room"] == 0:
        output.note(f"There is no room: {row['remedy']}.")


@commands.command("verify")
def verify(account_id: str, *, as_json: output.JsonOption = False) -> None:
    """Ask the vendor again which rights an admin credential has."""
    with api() as client:
        made = client.request("POST", f"{one('vendors/accounts', account_id)}/verify")
    _tell(made, as_json=as_json)


@commands.command("remove")
def remove(account_id: str, *, yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False) -> None:
    """Forget an admin credential; refused while keys made with it are alive."""
    if not yes:
        typer.confirm(f"Remove {account_id}?", abort=True)
    with api() as client:
        client.request("DELETE", one("vendors/accounts", account_id))
    output.note(f"Removed {account_id}.")


def _tell(made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.as_json(made)
    else:
        output.card(made, _ACCOUNTS)
        for right in made["rights"]:
            held = {True: "yes", False: "MISSING", None: "not known"}[right["held"]]
            output.note(f"  {held.ljust(10)} {right['name']}: {right['needed_for']}")
        for note in made["notes"]:
            output.note(f"  {note}")
    if made["status"] != "ready":
        raise typer.Exit(Exit.FAILED)
