"""`keygate keys`: virtual keys."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keygate.cli import output
from keygate.cli.client import NONE, Api, Exit, api, changes, fail, one
from keygate.cli.shell import Shell, exports

commands = typer.Typer(no_args_is_help=True, help="Virtual keys.")
_COLUMNS = {
    "id": "ID",
    "name": "NAME",
    "hint": "KEY",
    "status": "STATUS",
    "owner": "OWNER",
    "expires_at": "EXPIRES",
    "last_used_at": "LAST USED",
}
_CHANGED = {
    **{name: _COLUMNS[name] for name in ("id", "name", "status", "owner", "expires_at")},
    "policy_id": "POLICY",
    "models": "MODELS",
    "vendors": "VENDORS",
    "limits": "LIMITS",
    "tags": "TAGS",
}
LIMITS = ("requests_per_minute", "requests_per_day", "tokens_per_minute", "tokens_per_day", "concurrent_requests")


def _owner(row: dict[str, Any]) -> dict[str, Any]:
    owner = row.get("owner") or {}
    return {**row, "owner": next((value for value in owner.values() if value), None)}


def budget_terms(text: str) -> dict[str, str]:
    """`10.00/month`, `10.00/month/soft`."""
    amount, _, rest = text.partition("/")
    period, _, mode = rest.partition("/")
    if not period:
        fail(f"{text}: write AMOUNT/PERIOD[/soft], such as 10.00/month", Exit.USAGE)
    return {"amount_usd": amount, "period": period, "mode": mode or "hard"}


def limit_amount(text: str) -> tuple[str, int]:
    name, amount = _limit(text)
    if not (amount.isascii() and amount.isdecimal()):
        fail(f"{text}: write NAME=NUMBER", Exit.USAGE)
    return name, int(amount)


def _limit(text: str) -> tuple[str, str]:
    name, _, amount = text.partition("=")
    name = name.replace("-", "_")
    if name not in LIMITS:
        fail(f"{text}: write NAME=NUMBER with one of {', '.join(LIMITS)}", Exit.USAGE)
    return name, amount


def budgets_after(former: list[dict[str, Any]], texts: list[str]) -> list[dict[str, Any]]:
    """All budgets of a thing once those in `texts` are changed, added, or with `none` for the amount taken away. A budget is named by its
    period and mode; what is not named stays as it is."""
    after = [{member: value for member, value in row.items() if member != "id"} for row in former]
    for text in texts:
        terms = budget_terms(text)
        alike = [row for row in after if (row["period"], row["mode"]) == (terms["period"], terms["mode"])]
        if len(alike) > 1:
            fail(
                f"{text}: {len(alike)} budgets are of this period and mode; change one by its id, with `keygate budgets change`", Exit.USAGE
            )
        if terms["amount_usd"] == NONE and not alike:
            fail(f"{text}: there is no budget of this period and mode", Exit.NOT_FOUND)
        if terms["amount_usd"] == NONE:
            after.remove(alike[0])
        elif alike:
            alike[0]["amount_usd"] = terms["amount_usd"]
        else:
            after.append(dict(terms))
    return after


def limits_named(texts: list[str]) -> dict[str, int | None]:
    """`requests_per_minute=60`, or `requests_per_minute=none` for None."""
    return {name: None if amount == NONE else limit_amount(text)[1] for text in texts for name, amount in [_limit(text)]}


@commands.command("list")
def list_keys(
    developer: Annotated[str | None, typer.Option(help="Only this developer's.")] = None,
    team: Annotated[str | None, typer.Option(help="Only this team's.")] = None,
    status: Annotated[str | None, typer.Option(help="active, owner_inactive, expired or revoked.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Virtual keys; the keys themselves are shown only once, when made."""
    with api() as client:
        rows = client.pages("/api/v1/virtual-keys", query={"developer_id": developer, "team_id": team, "status": status})
    output.as_json(rows) if as_json else output.table(map(_owner, rows), _COLUMNS, empty="No keys yet: `keygate keys create my-key`.")


@commands.command("create")
def create(
    name: str,
    developer: Annotated[str | None, typer.Option(help="Owner: developer id (dev_…).")] = None,
    team: Annotated[str | None, typer.Option(help="Owner: team id (team_…).")] = None,
    app: Annotated[str | None, typer.Option(help="Owner: app id (app_…).")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy id (pol_…).")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Allowed models, such as 'openai/gpt-4.1*'; may be repeated.")] = None,
    vendor: Annotated[list[str] | None, typer.Option(help="Allowed vendors; may be repeated.")] = None,
    budget: Annotated[list[str] | None, typer.Option(help="AMOUNT/PERIOD[/soft], such as 10.00/month; may be repeated.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER, such as requests_per_minute=60; may be repeated.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="RFC 3339, such as 2027-01-01T00:00:00Z.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tag, such as project=x; may be repeated.")] = None,
    *,
    env: Annotated[bool, typer.Option("--env", help='Print only what to export: eval "$(keygate keys create ci --env)".')] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Make a virtual key. It is shown this once."""
    body: dict[str, Any] = {"name": name}
    owner = {"developer_id": developer, "team_id": team, "app_id": app}
    if any(owner.values()):
        body["owner"] = {key: value for key, value in owner.items() if value}
    optional = {
        "policy_id": policy,
        "models": model,
        "vendors": vendor,
        "budgets": [budget_terms(text) for text in budget or []],
        "limits": dict(limit_amount(text) for text in limit or []),
        "expires_at": expires_at,
        "tags": tag,
    }
    body |= {key: value for key, value in optional.items() if value}
    with api() as client:
        made = client.request("POST", "/api/v1/virtual-keys", body=body)
    _show_new(made, env=env, as_json=as_json)


def _show_new(made: dict[str, Any], *, env: bool, as_json: bool) -> None:
    if as_json:
        output.as_json(made)
    elif env:
        output.plain(exports(made["env"], Shell.SH))
    else:
        output.card({"id": made["id"], "name": made.get("name"), "key": made["key"]})
        output.note("\nThe key is shown this once. To use it:\n")
        output.plain(exports(made["env"], Shell.SH))


@commands.command("change")
def change(
    key_id: str,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy id (pol_…); none takes it away.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="All allowed models; may be repeated. '*' is any.")] = None,
    vendor: Annotated[list[str] | None, typer.Option(help="All allowed vendors; may be repeated. none: no such rule any more.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="AMOUNT/PERIOD[/soft]; none/PERIOD[/soft] takes it away. Others stay; may be repeated.")
    ] = None,
    limit: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER; NAME=none takes it away. Others stay; may be repeated.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="RFC 3339, such as 2027-01-01T00:00:00Z; none: it does not expire.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="All tags, such as project=x; may be repeated. none takes them away.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Change what is named, from the next request on. A budget that is changed keeps what is spent."""
    named: dict[str, Any] = {"name": name, "policy_id": policy, "models": model, "vendors": vendor, "expires_at": expires_at, "tags": tag}
    named["limits"] = limits_named(limit) if limit else None
    with api() as client:
        named["budgets"] = _budgets(client, key_id, budget) if budget else None
        body = changes(named, removable=frozenset({"policy_id", "vendors", "expires_at", "tags"}))
        row = client.request("PATCH", one("virtual-keys", key_id), body=body)
    output.as_json(row) if as_json else output.card(_owner(row), _CHANGED)


def _budgets(client: Api, key_id: str, texts: list[str]) -> list[dict[str, Any]]:
    return budgets_after(client.request("GET", one("virtual-keys", key_id))["budgets"], texts)


@commands.command("show")
def show(key_id: str, *, as_json: output.JsonOption = False) -> None:
    """One key: what it may, what it has used."""
    with api() as client:
        row = client.request("GET", one("virtual-keys", key_id))
        usage = client.request("GET", f"{one('virtual-keys', key_id)}/usage")
    if as_json:
        output.as_json({**row, "usage": usage})
        return
    output.card({name: value for name, value in _owner(row).items() if name not in {"env", "limits", "budgets"}})
    output.out.print()
    output.card({name: usage.get(name) for name in ("requests", "input_tokens", "output_tokens", "spent_usd", "held_usd", "in_doubt_usd")})
    columns = {
        "scope": "BUDGET OF",
        "period": "PERIOD",
        "mode": "MODE",
        "amount_usd": "AMOUNT $",
        "spent_usd": "SPENT $",
        "held_usd": "HELD $",
        "resets_at": "RESETS",
    }
    output.out.print()
    output.table(usage.get("budgets", []), columns, empty="No budget applies.")
    output.out.print()
    limits = {"scope": "LIMIT OF", "kind": "KIND", "amount": "AMOUNT", "used": "USED"}
    output.table(usage.get("limits", []), limits, empty="No limit applies.")


@commands.command("rotate")
def rotate(
    key_id: str,
    grace_seconds: Annotated[int | None, typer.Option(help="How long the former key goes on working.")] = None,
    *,
    env: Annotated[bool, typer.Option("--env", help="Print only what to export.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Replace the key; limits, budgets and history stay."""
    body = {} if grace_seconds is None else {"grace_seconds": grace_seconds}
    with api() as client:
        made = client.request("POST", f"{one('virtual-keys', key_id)}/rotate", body=body)
    _show_new(made, env=env, as_json=as_json)


@commands.command("revoke")
def revoke(key_id: str, *, yes: output.YesOption = False) -> None:
    """Revoke a key: the next request is refused, open streams are cut."""
    if not yes:
        typer.confirm(f"Revoke {key_id}?", abort=True)
    with api() as client:
        client.request("POST", f"{one('virtual-keys', key_id)}/revoke")
    output.note(f"Revoked {key_id}.")


@commands.command("explain")
def explain(
    key_id: str,
    model: Annotated[str, typer.Option(help="For example openai/gpt-4.1.")],
    endpoint: Annotated[str, typer.Option(help="chat, responses, embeddings …")] = "chat",
    *,
    as_json: output.JsonOption = False,
) -> None:
    """What would happen to a call with this key, and why; nothing is called. Ends with 10 where it would be refused."""
    with api() as client:
        answer = client.request("POST", "/api/v1/policies/explain", body={"key_id": key_id, "model": model, "endpoint": endpoint})
    output.as_json(answer) if as_json else _show_answer(answer)
    if not answer["allowed"]:
        raise typer.Exit(Exit.WOULD_BE_REFUSED)


def _show_answer(answer: dict[str, Any]) -> None:
    refused, hold = answer.get("refused_by") or {}, answer.get("hold") or {}
    found = {
        "allowed": answer["allowed"],
        "status": answer["status"],
        "why": refused.get("detail"),
        "rule": refused.get("rule"),
        "code": answer.get("code"),
        "would hold $": hold.get("amount_usd"),
        "price": hold.get("price_id"),
    }
    output.card({name: value for name, value in found.items() if value is not None})
    output.out.print()
    output.table(answer.get("layers", []), {"scope": "RULES OF", "name": "NAME", "allows": "ALLOWS"}, empty="No rules apply.")
    output.out.print()
    budgets = {"scope": "BUDGET OF", "period": "PERIOD", "mode": "MODE", "amount_usd": "AMOUNT $", "spent_usd": "SPENT $", "fits": "FITS"}
    output.table(answer.get("budgets", []), budgets, empty="No budget applies.")
