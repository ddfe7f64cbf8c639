"""`keygate policies`, `budgets`, `limits`: what keys may do and spend, beyond what stands on a key itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keygate.cli import output
from keygate.cli.client import Exit, api, changes, fail, one
from keygate.cli.keys import LIMITS, budget_terms, budgets_after, limit_amount, limits_named

policies = typer.Typer(no_args_is_help=True, help="Policies: reusable sets of rules that keys carry.")
budgets = typer.Typer(no_args_is_help=True, help="Budgets over all keys of a team, developer, app, vendor, model or tag.")
limits = typer.Typer(no_args_is_help=True, help="Limits on requests, tokens and concurrency over all keys of a scope.")

_POLICY = {"id": "ID", "name": "NAME", "models": "MODELS", "vendors": "VENDORS", "endpoints": "ENDPOINTS", "limits": "LIMITS"}
_SCOPED = {"id": "ID", "scope": "SCOPE", "scope_id": "OF", "selector": "SELECTOR"}
_BUDGET = {**_SCOPED, "amount_usd": "AMOUNT $", "period": "PERIOD", "mode": "MODE"}
_LIMIT = {**_SCOPED, "kind": "KIND", "amount": "AMOUNT"}

Scope = Annotated[str, typer.Argument(help="organization, team, developer, app, key, vendor, model or tag.")]
Of = Annotated[str | None, typer.Option("--of", help="The team's, developer's, app's or key's id; vendor, model pattern or tag.")]
_SELECTED = frozenset({"vendor", "model", "tag"})


def _scoped(scope: str, of: str | None) -> dict[str, Any]:
    return {"scope": scope} | ({} if of is None else {"selector" if scope in _SELECTED else "scope_id": of})


def _list(path: str, columns: dict[str, str], *, as_json: bool, empty: str) -> None:
    with api() as client:
        rows = client.pages(f"/api/v1/{path}")
    output.as_json(rows) if as_json else output.table(rows, columns, empty=empty)


def _create(path: str, body: dict[str, Any], columns: dict[str, str], *, as_json: bool) -> None:
    with api() as client:
        made = client.request("POST", f"/api/v1/{path}", body=body)
    output.as_json(made) if as_json else output.card(made, columns)


def _change(path: str, thing: str, named: dict[str, Any], columns: dict[str, str], *, as_json: bool) -> None:
    with api() as client:
        row = client.request("PATCH", one(path, thing), body=changes(named))
    output.as_json(row) if as_json else output.card(row, columns)


def _remove(path: str, thing: str, *, yes: bool) -> None:
    if not yes:
        typer.confirm(f"Remove {thing}?", abort=True)
    with api() as client:
        client.request("DELETE", one(path, thing))
    output.note(f"Removed {thing}.")


@policies.command("list")
def list_policies(*, as_json: output.JsonOption = False) -> None:
    """All policies."""
    _list("policies", _POLICY, as_json=as_json, empty="No policies yet: `keygate policies create`.")


@policies.command("create")
def create_policy(
    name: str,
    model: Annotated[list[str] | None, typer.Option(help="Allowed models, such as 'openai/gpt-4.1*'; may be repeated.")] = None,
    deny: Annotated[list[str] | None, typer.Option(help="Denied models: win over everything that allows; may be repeated.")] = None,
    vendor: Annotated[list[str] | None, typer.Option(help="Allowed vendors; may be repeated.")] = None,
    endpoint: Annotated[list[str] | None, typer.Option(help="Allowed endpoint groups: chat, responses …; may be repeated.")] = None,
    budget: Annotated[list[str] | None, typer.Option(help="For each key: AMOUNT/PERIOD[/soft]; may be repeated.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="For each key: NAME=NUMBER; may be repeated.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Make a policy. Keys, apps, developers and teams carry it: `keygate keys create --policy`, `keygate teams change --policy`."""
    optional = {
        "models": model,
        "models_deny": deny,
        "vendors": vendor,
        "endpoints": endpoint,
        "budgets": [budget_terms(text) for text in budget or []],
        "limits": dict(limit_amount(text) for text in limit or []),
        "description": description,
    }
    _create("policies", {"name": name} | {key: value for key, value in optional.items() if value}, _POLICY, as_json=as_json)


@policies.command("change")
def change_policy(
    policy_id: str,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="All allowed models; may be repeated. '*' is any.")] = None,
    deny: Annotated[list[str] | None, typer.Option(help="All denied models; may be repeated. none: deny none.")] = None,
    vendor: Annotated[list[str] | None, typer.Option(help="All allowed vendors; may be repeated. none: no such rule any more.")] = None,
    endpoint: Annotated[list[str] | None, typer.Option(help="All allowed endpoint groups; may be repeated. none: as above.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="For each key: AMOUNT/PERIOD[/soft]; none/PERIOD[/soft] takes it away. Others stay.")
    ] = None,
    limit: Annotated[list[str] | None, typer.Option(help="For each key: NAME=NUMBER; NAME=none takes it away. Others stay.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Change what is named, from the next request on, for all that carry it. A budget that is changed keeps what is spent."""
    named: dict[str, Any] = {"name": name, "models": model, "vendors": vendor, "endpoints": endpoint, "models_deny": deny}
    named["description"] = description
    with api() as client:
        if budget or limit:
            former = client.request("GET", one("policies", policy_id))
            named["budgets"] = budgets_after(former["budgets"], budget) if budget else None
            limits_after = former["limits"] | limits_named(limit or [])
            named["limits"] = {kind: amount for kind, amount in limits_after.items() if amount is not None} if limit else None
        body = changes(named, removable=frozenset({"models_deny", "vendors", "endpoints"}))
        row = client.request("PATCH", one("policies", policy_id), body=body)
    output.as_json(row) if as_json else output.card(row, _POLICY)


@policies.command("remove")
def remove_policy(policy_id: str, *, yes: output.YesOption = False) -> None:
    """Remove a policy that nothing carries any more."""
    _remove("policies", policy_id, yes=yes)


@budgets.command("list")
def list_budgets(*, as_json: output.JsonOption = False) -> None:
    """All budgets, those of keys included."""
    _list("budgets", _BUDGET, as_json=as_json, empty="No budgets yet: `keygate budgets create team --of team_… 100.00/month`.")


@budgets.command("create")
def create_budget(
    scope: Scope,
    terms: Annotated[str, typer.Argument(help="AMOUNT/PERIOD[/soft], such as 100.00/month.")],
    of: Of = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Money over a period, shared by all keys below the scope. Counts from now on."""
    _create("budgets", _scoped(scope, of) | budget_terms(terms), _BUDGET, as_json=as_json)


@budgets.command("change")
def change_budget(
    budget_id: str,
    amount: Annotated[str | None, typer.Argument(help="Another amount, such as 200.00.")] = None,
    mode: Annotated[str | None, typer.Option(help="hard or soft.")] = None,
    threshold: Annotated[list[int] | None, typer.Option(help="All percents at which an event is raised; may be repeated.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Change what is named, from the next request on. What is spent stays counted."""
    _change("budgets", budget_id, {"amount_usd": amount, "mode": mode, "thresholds": threshold}, _BUDGET, as_json=as_json)


@budgets.command("remove")
def remove_budget(budget_id: str, *, yes: output.YesOption = False) -> None:
    """Remove a budget; what it counted stays in the ledger."""
    _remove("budgets", budget_id, yes=yes)


@limits.command("list")
def list_limits(*, as_json: output.JsonOption = False) -> None:
    """All limits, those of keys included."""
    _list("limits", _LIMIT, as_json=as_json, empty="No limits yet: `keygate limits create team requests_per_minute=600 --of team_…`.")


@limits.command("create")
def create_limit(
    scope: Scope,
    amount: Annotated[str, typer.Argument(help=f"NAME=NUMBER; NAME is one of {', '.join(LIMITS)}.")],
    of: Of = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Requests, tokens or concurrency, shared by all keys below the scope."""
    kind, number = limit_amount(amount)
    if number < 1:
        fail("a limit is at least 1; to stop keys, revoke them", Exit.USAGE)
    _create("limits", _scoped(scope, of) | {"kind": kind, "amount": number}, _LIMIT, as_json=as_json)


@limits.command("change")
def change_limit(
    limit_id: str, amount: Annotated[int, typer.Argument(help="Another number.", min=1)], *, as_json: output.JsonOption = False
) -> None:
    """Another amount, from the next request on."""
    _change("limits", limit_id, {"amount": amount}, _LIMIT, as_json=as_json)


@limits.command("remove")
def remove_limit(limit_id: str, *, yes: output.YesOption = False) -> None:
    """Remove a limit."""
    _remove("limits", limit_id, yes=yes)
