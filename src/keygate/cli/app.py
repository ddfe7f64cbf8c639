"""The command line, a file a noun.

All but `serve`, `sandbox`, `db`, `vault` and `audit verify` speak the REST API and nothing else.
"""

from __future__ import annotations

import typer

import keygate
from keygate.cli import credentials, keys, login, operator, people, reports, rules, shell

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
app.add_typer(credentials.commands, name="credentials")
app.add_typer(people.teams, name="teams")
app.add_typer(people.developers, name="developers")
app.add_typer(people.apps, name="apps")
app.add_typer(keys.commands, name="keys")
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
