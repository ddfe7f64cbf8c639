"""`keygate credentials`: vendor keys in the vault."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from keygate.cli import output
from keygate.cli.client import Exit, api, fail, one

commands = typer.Typer(no_args_is_help=True, help="Vendor keys in the vault.")
_COLUMNS = {"id": "ID", "vendor": "VENDOR", "name": "NAME", "hint": "HINT", "base_url": "BASE URL", "weight": "WEIGHT", "status": "STATUS"}


@commands.command("list")
def list_credentials(*, as_json: output.JsonOption = False) -> None:
    """All credentials; secrets are never shown."""
    with api() as client:
        rows = client.pages("/api/v1/credentials")
    output.as_json(rows) if as_json else output.table(rows, _COLUMNS, empty="No credentials yet: `keygate credentials add openai`.")


@commands.command("add")
def add(
    vendor: Annotated[str, typer.Argument(help="openai, anthropic …")],
    name: Annotated[str, typer.Option(help="A name of your own.")] = "default",
    base_url: Annotated[str | None, typer.Option(help="API root, where it is not the vendor's own.")] = None,
    weight: Annotated[int | None, typer.Option(help="Share of the traffic among several.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Put a vendor key into the vault. The key is asked for, or read from standard input; never given as an argument."""
    secret = typer.prompt("Vendor key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not secret:
        fail("no key on standard input", Exit.USAGE)
    body = {"vendor": vendor, "name": name, "secret": secret, "base_url": base_url, "weight": weight}
    with api() as client:
        made = client.request("POST", "/api/v1/credentials", body={key: value for key, value in body.items() if value is not None})
        beside = [each for each in client.pages("/api/v1/credentials") if each["vendor"] == vendor and each["name"] == "sandbox"]
    output.as_json(made) if as_json else output.card(made, _COLUMNS)
    for each in beside:
        if each["status"] == "enabled":
            output.note(f"The sandbox still takes its share of the calls to {vendor}: `keygate credentials remove {each['id']}`.")


@commands.command("test")
def prove(credential_id: str, *, as_json: output.JsonOption = False) -> None:
    """Make the least call at the vendor that proves the credential."""
    with api() as client:
        result = client.request("POST", f"{one('credentials', credential_id)}/test")
    output.as_json(result) if as_json else output.card(result)
    if not result.get("ok"):
        raise typer.Exit(Exit.FAILED)


@commands.command("remove")
def remove(credential_id: str, *, yes: output.YesOption = False) -> None:
    """Take a credential out of the vault; calls stop using it at once."""
    if not yes:
        typer.confirm(f"Remove {credential_id}?", abort=True)
    with api() as client:
        client.request("DELETE", one("credentials", credential_id))
    output.note(f"Removed {credential_id}.")
