"""`keygate receipts`: what was ended together, and each vendor's confirmation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from keygate.cli import local, output
from keygate.cli.client import Exit, api, fail, one

commands = typer.Typer(no_args_is_help=True, help="Receipts: what an ending ended at the vendors, signed.")
_COLUMNS = {
    "id": "ID",
    "cause": "CAUSE",
    "subject_name": "OF",
    "issued_keys": "ISSUED KEYS",
    "virtual_keys": "VIRTUAL KEYS",
    "created_at": "AT",
    "created_by": "BY",
}


@commands.command("list")
def list_receipts(*, as_json: output.JsonOption = False) -> None:
    """All receipts, newest first."""
    with api() as client:
        rows = client.pages("/api/v1/receipts")
    output.as_json(rows) if as_json else output.table(rows, _COLUMNS, empty="Nobody has left yet, and no key was reported as leaked.")


@commands.command("show")
def show(receipt_id: str, file: Annotated[Path | None, typer.Argument(help="Where to; standard output when left out.")] = None) -> None:
    """One receipt as of now, signed, for `keygate receipts verify FILE`."""
    with api() as client:
        body = client.request("GET", one("receipts", receipt_id))
    if file is None:
        output.as_json(body)
        return
    try:
        file.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    except OSError as problem:
        fail(f"{file} can't be written: {problem.strerror}")
    output.note(f"Written to {file}.")


@commands.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(help="A receipt.", exists=True, dir_okay=False)],
    public_key: Annotated[
        str | None, typer.Option(help="What `keygate receipts key` shows at the KeyGate that signed it; else this data directory's own.")
    ] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Check a receipt's signature, without a server. Ends with 0 only where it is unchanged and signed by a key that you know: the one of
    --public-key, or this data directory's. Ends with 8 where it was changed, is somebody else's, or there is no key to tell that by.
    """
    report = local.verify_receipt(file, public_key)
    output.as_json(report) if as_json else output.card(report)
    if not report["ok"]:
        raise typer.Exit(Exit.VERIFICATION_FAILED)


@commands.command("key")
def key() -> None:
    """The public key that receipts are signed by. Works on the data directory itself."""
    output.plain(local.receipt_key())
