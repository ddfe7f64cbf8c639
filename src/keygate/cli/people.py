"""`keygate teams`, `developers`, `apps`: who keys belong to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from keygate.cli import output
from keygate.cli.client import api, changes, one

teams = typer.Typer(no_args_is_help=True, help="Teams.")
developers = typer.Typer(no_args_is_help=True, help="Developers: people who hold keys.")
apps = typer.Typer(no_args_is_help=True, help="Apps: services and CI jobs that hold keys.")

_REMOVABLE = frozenset({"policy_id", "team_id", "developer_id"})
NewPolicy = Annotated[str | None, typer.Option("--policy", help="Policy id (pol_…), for every key below.")]
Policy = Annotated[str | None, typer.Option("--policy", help="Policy id (pol_…), for every key below; none takes it away.")]
Name = Annotated[str | None, typer.Option(help="Another name.")]
Team = Annotated[str | None, typer.Option(help="Team id (team_…); none: in no team.")]

_TEAM = {"id": "ID", "name": "NAME", "policy_id": "POLICY"}
_DEVELOPER = {"id": "ID", "name": "NAME", "email": "E-MAIL", "team_id": "TEAM", "policy_id": "POLICY", "status": "STATUS"}
_APP = {"id": "ID", "name": "NAME", "team_id": "TEAM", "developer_id": "DEVELOPER", "policy_id": "POLICY", "status": "STATUS"}


class Members(StrEnum):
    """What becomes of a team's active developers and apps."""

    DEACTIVATE = "deactivate"
    DETACH = "detach"


_ASKED = {
    None: "Archive {team} and revoke every key of its own?",
    Members.DEACTIVATE: "Archive {team}, deactivate its developers and apps, and revoke every key of all of them?",
    Members.DETACH: "Archive {team}, let its developers stay without a team, and revoke every key of its own and of apps that are its own?",
}
_DONE = {
    None: "its keys are revoked.",
    Members.DEACTIVATE: "its keys, and those of its developers and apps, are revoked.",
    Members.DETACH: "its keys are revoked; its developers are in no team.",
}


def _change(noun: str, thing: str, named: Mapping[str, Any], columns: Mapping[str, str], *, as_json: bool) -> None:
    body = changes(named, removable=_REMOVABLE)
    with api() as client:
        row = client.request("PATCH", one(noun, thing), body=body)
    output.as_json(row) if as_json else output.card(row, columns)


def _tell(receipt: str | None) -> None:
    if receipt is not None:
        output.note(f"What the vendors confirm, and what remains: keygate receipts show {receipt}")


@teams.command("list")
def list_teams(*, as_json: output.JsonOption = False) -> None:
    """All teams."""
    with api() as client:
        rows = client.pages("/api/v1/teams")
    output.as_json(rows) if as_json else output.table(rows, _TEAM, empty="No teams yet: `keygate teams create research`.")


@teams.command("create")
def create_team(name: str, policy: NewPolicy = None, *, as_json: output.JsonOption = False) -> None:
    """Make a team."""
    with api() as client:
        made = client.request("POST", "/api/v1/teams", body={"name": name} | ({"policy_id": policy} if policy else {}))
    output.as_json(made) if as_json else output.card(made, _TEAM)


@teams.command("change")
def change_team(team_id: str, name: Name = None, policy: Policy = None, *, as_json: output.JsonOption = False) -> None:
    """Change what is named; keys below follow at once."""
    _change("teams", team_id, {"name": name, "policy_id": policy}, _TEAM, as_json=as_json)


@teams.command("archive")
def archive_team(
    team_id: str,
    developers: Annotated[
        Members | None,
        typer.Option(
            help="What becomes of its active developers and apps. deactivate: they end with it, with every key of theirs. detach: "
            "developers and their apps stay, without a team; apps that no developer answers for end."
        ),
    ] = None,
    *,
    yes: output.YesOption = False,
) -> None:
    """Archive a team: every key that it holds is revoked at once. One that has active developers or apps only with --developers."""
    if not yes:
        typer.confirm(_ASKED[developers].format(team=team_id), abort=True)
    with api() as client:
        receipt = client.end(one("teams", team_id), query={"developers": developers})
    output.note(f"Archived {team_id}; {_DONE[developers]}")
    _tell(receipt)


@developers.command("list")
def list_developers(*, as_json: output.JsonOption = False) -> None:
    """All developers."""
    with api() as client:
        rows = client.pages("/api/v1/developers")
    output.as_json(rows) if as_json else output.table(rows, _DEVELOPER, empty="No developers yet: `keygate developers create`.")


@developers.command("create")
def create_developer(
    name: str,
    email: Annotated[str, typer.Option(help="E-mail address.")],
    team: Annotated[str | None, typer.Option(help="Team id (team_…).")] = None,
    policy: NewPolicy = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Make a developer."""
    above = {"team_id": team, "policy_id": policy}
    body = {"name": name, "email": email} | {member: value for member, value in above.items() if value}
    with api() as client:
        made = client.request("POST", "/api/v1/developers", body=body)
    output.as_json(made) if as_json else output.card(made, _DEVELOPER)


@developers.command("change")
def change_developer(
    developer_id: str,
    name: Name = None,
    email: Annotated[str | None, typer.Option(help="Another e-mail address.")] = None,
    team: Team = None,
    policy: Policy = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Change what is named; their keys follow at once."""
    named = {"name": name, "email": email, "team_id": team, "policy_id": policy}
    _change("developers", developer_id, named, _DEVELOPER, as_json=as_json)


@developers.command("deactivate")
def deactivate_developer(developer_id: str, *, yes: output.YesOption = False) -> None:
    """Deactivate a developer: every key of theirs is revoked at once."""
    if not yes:
        typer.confirm(f"Deactivate {developer_id} and revoke every key of theirs?", abort=True)
    with api() as client:
        receipt = client.end(one("developers", developer_id))
    output.note(f"Deactivated {developer_id}; their keys are revoked.")
    _tell(receipt)


@apps.command("list")
def list_apps(*, as_json: output.JsonOption = False) -> None:
    """All apps."""
    with api() as client:
        rows = client.pages("/api/v1/apps")
    output.as_json(rows) if as_json else output.table(rows, _APP, empty="No apps yet: `keygate apps create`.")


@apps.command("create")
def create_app(
    name: str,
    team: Annotated[str | None, typer.Option(help="Team id (team_…).")] = None,
    developer: Annotated[str | None, typer.Option(help="Developer id (dev_…): whose app it is.")] = None,
    policy: NewPolicy = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Make an app."""
    above = {"team_id": team, "developer_id": developer, "policy_id": policy}
    with api() as client:
        made = client.request("POST", "/api/v1/apps", body={"name": name} | {field: value for field, value in above.items() if value})
    output.as_json(made) if as_json else output.card(made, _APP)


@apps.command("change")
def change_app(
    app_id: str,
    name: Name = None,
    team: Team = None,
    developer: Annotated[str | None, typer.Option(help="Developer id (dev_…): whose app it is; none: nobody's.")] = None,
    policy: Policy = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Change what is named; its keys follow at once."""
    named = {"name": name, "team_id": team, "developer_id": developer, "policy_id": policy}
    _change("apps", app_id, named, _APP, as_json=as_json)


@apps.command("deactivate")
def deactivate_app(app_id: str, *, yes: output.YesOption = False) -> None:
    """Deactivate an app: every key that it holds is revoked at once."""
    if not yes:
        typer.confirm(f"Deactivate {app_id} and revoke every key that it holds?", abort=True)
    with api() as client:
        receipt = client.end(one("apps", app_id))
    output.note(f"Deactivated {app_id}; its keys are revoked.")
    _tell(receipt)
