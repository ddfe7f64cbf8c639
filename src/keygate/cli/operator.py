"""`keygate serve`, `sandbox`, `db`, `vault`: run it, and work on the data directory itself, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keygate.cli import local, output, server

db = typer.Typer(no_args_is_help=True, help="The database of this data directory.")
vault = typer.Typer(no_args_is_help=True, help="The vault of this data directory.")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", min=1, max=65535)] = None,
    *,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Also run the sandbox vendor, and use it as a credential.")] = False,
) -> None:
    """Run gateway, control plane and worker in one process."""
    server.become(host=host, port=port, sandbox=sandbox)


def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8010,
    *,
    state: Annotated[Path | None, typer.Option(help="File to keep everything in, so that it is there again at the next start.")] = None,
) -> None:
    """Run a vendor on this machine: the inference and admin APIs of seven vendors, with faults on request."""
    local.run_sandbox(host=host, port=port, state=state)


@db.command("upgrade")
def upgrade() -> None:
    """Bring the database to this version's shape."""
    output.note(local.upgrade_database())


@db.command("check")
def check(*, as_json: output.JsonOption = False) -> None:
    """Is the database of this version, whole and reachable?"""
    report = local.check_database()
    output.as_json(report) if as_json else output.card(report)
    if not report["ok"]:
        raise typer.Exit(1)


@db.command("backup")
def backup(file: Annotated[Path, typer.Argument(help="Where to; must not exist yet.")]) -> None:
    """Copy the database, consistent while the server runs. The master key is not in it: keep that apart."""
    output.note(local.backup_database(file))


@vault.command("status")
def vault_status(*, as_json: output.JsonOption = False) -> None:
    """Which master key protects what."""
    report = local.vault_status()
    output.as_json(report) if as_json else output.card(report)


@vault.command("rotate")
def rotate(
    new_key_file: Annotated[
        Path | None, typer.Option(help="File with the new master key; generated when left out.", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Replace the master key while requests run."""
    output.note(local.rotate_master_key(new_key_file))
