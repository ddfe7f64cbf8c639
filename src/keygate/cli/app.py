"""The command line, a file a noun.

All but `serve`, `sandbox`, `db`, `vault` `audit verify` and `receipts verify` speak the REST API and nothing else.
"""

from __future__ import annotations

from typing import Annotated

import typer

import keygate
from keygate.cli import (
    bills,
    bulk,
    credentials,
    inventory,
    issuing,
    keys,
    login,
    operator,
    people,
    receipts,
    reports,
    rotation,
    rules,
    shell,
    vendors,
)

app = typer.Typer(
    name="keygate",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Where an organisation's LLM keys live.",
)
app.command()(operator.serve)
app.command()(operator.sandbox)
app.command()(login.login)
app.command()(login.logout)
app.command()(login.status)
app.command()(shell.env)
app.command()(reports.usage)
app.command()(bills.reconciliation)
app.command()(bills.watch)
app.command()(bills.resume)
app.command()(issuing.provision)
app.command()(issuing.rotate)
app.command()(issuing.revoke)
app.command()(issuing.receive)
app.add_typer(vendors.commands, name="vendors")
app.add_typer(credentials.commands, name="credentials")
app.add_typer(people.teams, name="teams")
app.add_typer(people.developers, name="developers")
app.add_typer(people.apps, name="apps")
app.add_typer(keys.commands, name="keys")
app.add_typer(issuing.commands, name="issued-keys")
app.add_typer(bulk.commands, name="bulk")
app.add_typer(inventory.commands, name="inventory")
app.add_typer(receipts.commands, name="receipts")
app.add_typer(rotation.commands, name="rotation-policies")
app.add_typer(rules.policies, name="policies")
app.add_typer(rules.budgets, name="budgets")
app.add_typer(rules.limits, name="limits")
app.add_typer(reports.audit, name="audit")
app.add_typer(operator.vault, name="vault")
app.add_typer(operator.db, name="db")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(keygate.__version__)


def _tell_version(*, asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_tell_version, is_eager=True)] = False,
) -> None:
    """Options of `keygate` itself."""
