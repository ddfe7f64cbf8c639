"""`keygate rotation-policies`: how old issued keys may be."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keygate.cli import output
from keygate.cli.client import Exit, api, fail, one
from keygate.cli.issuing import days, seconds

commands = typer.Typer(no_args_is_help=True, help="Rotation policies: no issued key older than so many days.")

_COLUMNS = {"id": "ID", "max_age_days": "DAYS", "overlap_seconds": "OVERLAP S", "team_id": "TEAM", "vendor": "VENDOR"}
_COVERAGE = {"keys": "KEYS", "due": "ROTATED AT ONCE", "too_old": "TOO OLD", "by_person": "BY HAND ONLY"}

MaxAge = Annotated[str, typer.Argument(help="No key older than: 90d, 12w.")]
Overlap = Annotated[str | None, typer.Option(help="How long both keys work, once the new one was fetched: 24h, 7d.")]


@commands.command("list")
def list_policies(*, as_json: output.JsonOption = False) -> None:
    """All rotation policies."""
    with api() as client:
        rows = client.pages("/api/v1/rotation-policies")
    output.as_json(rows) if as_json else output.table(rows, _COLUMNS, empty="None yet: `keygate rotation-policies create 90d`.")


@commands.command("create")
def create(
    max_age: MaxAge,
    team: Annotated[str | None, typer.Option(help="Only keys of this team (id), its developers and apps.")] = None,
    vendor: Annotated[str | None, typer.Option(help="Only keys at this vendor.")] = None,
    overlap: Overlap = None,
    *,
    check: Annotated[bool, typer.Option("--check", help="Only tell what it would mean for the keys that there are.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """No issued key older than this: KeyGate rotates them in time, and reminds of those that only a person can replace."""
    body: dict[str, Any] = {"max_age_days": days(max_age), "team_id": team, "vendor": vendor, "overlap_seconds": _seconds(overlap)}
    body = {name: value for name, value in body.items() if value is not None}
    with api() as client:
        made = client.request("POST", f"/api/v1/rotation-policies{'/check' if check else ''}", body=body)
    output.as_json(made) if as_json else output.card(made, _COVERAGE if check else _COLUMNS)


@commands.command("show")
def show(policy_id: str, *, as_json: output.JsonOption = False) -> None:
    """One policy, and how the keys that it covers stand."""
    with api() as client:
        row = client.request("GET", one("rotation-policies", policy_id))
    output.as_json(row) if as_json else output.card({**row, **row["coverage"]}, _COLUMNS | _COVERAGE)


@commands.command("change")
def change(
    policy_id: str,
    max_age: Annotated[str | None, typer.Option(help="No key older than: 90d, 12w.")] = None,
    overlap: Overlap = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Another age or overlap."""
    if max_age is None and overlap is None:
        fail("say --max-age, --overlap or both", Exit.USAGE)
    body = {"max_age_days": None if max_age is None else days(max_age), "overlap_seconds": _seconds(overlap)}
    with api() as client:
        body = {name: value for name, value in body.items() if value is not None}
        row = client.request("PATCH", one("rotation-policies", policy_id), body=body)
    output.as_json(row) if as_json else output.card(row, _COLUMNS)


@commands.command("remove")
def remove(policy_id: str, *, yes: output.YesOption = False) -> None:
    """Remove a policy; rotations that have begun go on."""
    if not yes:
        typer.confirm(f"Remove {policy_id}?", abort=True)
    with api() as client:
        client.request("DELETE", one("rotation-policies", policy_id))
    output.note(f"Removed {policy_id}.")


def _seconds(text: str | None) -> int | None:
    return None if text is None else seconds(text)
