"""`keygate provision`, `rotate`, `revoke`, `receive` and `issued-keys`: real vendor keys."""

from __future__ import annotations

import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from keygate.cli import bulk, output
from keygate.cli.client import Api, Exit, Refused, api, fail, one
from keygate.cli.roster import in_days
from keygate.cli.shell import Shell, exports

commands = typer.Typer(no_args_is_help=True, help="Issued keys: real vendor keys that KeyGate made.")
COLUMNS = {
    "id": "ID",
    "vendor": "VENDOR",
    "name": "NAME",
    "hint": "KEY",
    "state": "STATE",
    "budget_usd": "BUDGET $",
    "rate_limit_rpm": "RPM",
    "expires_at": "EXPIRES",
    "rotates": "ROTATES",
    "error": "TROUBLE",
}
_LEFT = {  # what the vendor does not enforce, and who sees to it
    "expiry": "The vendor keeps no end of it: KeyGate revokes it then.",
    "budget": "The vendor does not enforce its budget: KeyGate watches its bill, where that can be told by key, and acts late. "
    "`keygate watch {id}` shows how.",
}
_HINDRANCES = {
    "by_person": "by hand only",
    "rotation_open": "is open now",
    "disabled_for_budget": "once it may go on",
    "secret_not_fetched": "once its secret is fetched",
    "ends_first": "ends before",
}
_WAIT = 20  # seconds that one call waits for the vendor; then the command asks again
_PATIENCE = 600
_CAME_TO_NOTHING = "upstream_failed"  # the vendor did not make the key, and what was made of it is undone: nothing goes on


def days(text: str) -> int:
    """`90d`, `12w`, `90`."""
    try:
        return in_days(text)
    except ValueError as error:
        fail(f"{text}: {error}", Exit.USAGE)


def seconds(text: str) -> int:
    """`3600`, `90m`, `24h`, `2d`."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    if found is None:
        fail(f"{text}: write a time such as 90m, 24h or 2d", Exit.USAGE)
    return int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}[found[2]]


def developer_id(client: Api, text: str) -> str:
    """A developer by id, e-mail address or name."""
    if text.startswith("dev_"):
        return text
    rows = client.pages("/api/v1/developers", query={"status": "active"})
    found = [row for row in rows if text.lower() in {row["email"], row["name"].lower(), row["email"].partition("@")[0]}]
    if len(found) != 1:
        fail(f"{text}: {'no active developer' if not found else f'{len(found)} developers'} with this name or address", Exit.NOT_FOUND)
    return str(found[0]["id"])


def provision(
    vendor: Annotated[str, typer.Option(help="Where: openai, anthropic, google …")],
    dev: Annotated[str | None, typer.Option(help="Owner: a developer's id, e-mail address or name.")] = None,
    team: Annotated[str | None, typer.Option(help="Owner: a team's id.")] = None,
    app: Annotated[str | None, typer.Option(help="Owner: an app's id.")] = None,
    account: Annotated[str | None, typer.Option(help="Vendor account by id or name.")] = None,
    name: Annotated[str | None, typer.Option(help="What the key is called.")] = None,
    budget: Annotated[str | None, typer.Option(help="Dollars a month, or AMOUNT/PERIOD.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Requests per minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens per minute.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Permitted model, in the vendor's words; may be repeated.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Scope, in the vendor's words; may be repeated.")] = None,
    expires: Annotated[str | None, typer.Option(help="90d, 12w.")] = None,
    rotate_every: Annotated[str | None, typer.Option(help="KeyGate makes its next key so often: 30d, 12w.")] = None,
    rotate_overlap: Annotated[str | None, typer.Option(help="How long both keys work then, once the new one was fetched: 24h, 7d.")] = None,
    option: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE that only this vendor has.")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="One key for each line: developer[,name,budget,rpm,tpm,models,expires].", exists=True, dir_okay=False),
    ] = None,
    members_of: Annotated[str | None, typer.Option(help="One key for each active developer of this team (id).")] = None,
    batch: Annotated[str, typer.Option(help="Tells a bulk order from an earlier one for the same people.")] = "",
    report: Annotated[Path | None, typer.Option(help="Where the report of a bulk order goes, with its one-time links.")] = None,
    *,
    create_developers: Annotated[bool, typer.Option("--create-developers", help="Make developers of a CSV that are not there.")] = False,
    allow_unenforced: Annotated[bool, typer.Option("--allow-unenforced", help="Also where the vendor can't enforce a term.")] = False,
    fit: Annotated[bool, typer.Option("--fit", help="Where the vendor has no room for all of a bulk order: as many as fit.")] = False,
    request_id: Annotated[str | None, typer.Option(help="Take an order up again whose answer got lost: the id that it named.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Print a one-time link in place of the key.")] = False,
    env: Annotated[bool, typer.Option("--env", help="Print only what to export.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Make a real key at a vendor, with its limits set there. It is shown this once; or, for many, behind one-time links."""
    common: dict[str, Any] = {
        "vendor": vendor,
        "account": account,
        "rate_limit_rpm": rpm,
        "rate_limit_tpm": tpm,
        "models": model,
        "scopes": scope,
        "expires_in_days": None if expires is None else days(expires),
        "rotate_every_days": None if rotate_every is None else days(rotate_every),
        "rotate_overlap_seconds": None if rotate_overlap is None else seconds(rotate_overlap),
        "options": dict(_pair(text) for text in option or []) or None,
        "allow_unenforced": allow_unenforced or None,
    }
    if budget is not None:
        amount, _, period = budget.partition("/")
        common |= {"budget_usd": amount, "budget_period": period or "month"}
    common = {key: value for key, value in common.items() if value is not None}
    of_many = {"--batch": batch, "--report": report, "--create-developers": create_developers, "--fit": fit}
    if csv is not None or members_of is not None:
        of_one = {"--dev": dev, "--team": team, "--app": app, "--name": name, "--request-id": request_id, "--link": link, "--env": env}
        _refuse(of_one, "goes with one key, not with --csv or --members-of")
        with api() as client:
            bulk.run(
                client,
                common,
                csv_file=csv,
                team=members_of,
                report=report,
                batch=batch,
                create_developers=create_developers,
                fit=fit,
                as_json=as_json,
            )
        return
    _refuse(of_many, "goes with --csv or --members-of")
    if sum(value is not None for value in (dev, team, app)) > 1:
        fail("name one of --dev, --team and --app", Exit.USAGE)
    with api() as client:
        owner = {"developer_id": None if dev is None else developer_id(client, dev), "team_id": team, "app_id": app, "name": name}
        body = common | {key: value for key, value in owner.items() if value is not None}
        made = _asked(client, "/api/v1/keys/provision", body | {"deliver": "link" if link else "answer"}, request_id)
    show_new(made, env=env, as_json=as_json)


def _refuse(options: dict[str, Any], why: str) -> None:
    """An option that would be passed over is a mistake, told before anything is made."""
    for name, value in options.items():
        if value:
            fail(f"{name} {why}", Exit.USAGE)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        fail(f"{text}: write NAME=VALUE", Exit.USAGE)
    return name, value


def _asked(client: Api, path: str, body: dict[str, Any], request_id: str | None) -> dict[str, Any]:
    """The answer once the vendor is done. It is asked for under a request id, so that asking again makes nothing twice and a secret in an
    answer that got lost can still be had."""
    request_id = request_id or f"cli-{secrets.token_hex(8)}"
    wanted = body | {"request_id": request_id, "wait_seconds": _WAIT}
    ends = time.monotonic() + _PATIENCE
    noted = False
    with _resumable(request_id):
        while True:
            made: dict[str, Any] = client.request("POST", path, body=wanted)
            if made["state"] not in {"requested", "creating"} and not _next_is_made(made):
                return made
            if time.monotonic() > ends:
                fail(f"{made['id']}: the vendor is not done yet", Exit.TRY_LATER)
            if not noted:
                output.note(f"{made['id']}: the vendor takes its time" + (f" ({made['error']})" if made["error"] else ""))
            noted = True
            time.sleep(1)


@contextmanager
def _resumable(request_id: str) -> Iterator[None]:
    """Says how an order is taken up again where its answer doesn't arrive, or what has come of it is not known."""
    try:
        yield
    except (KeyboardInterrupt, typer.Exit) as end:
        over = isinstance(end, Refused) and end.problem == _CAME_TO_NOTHING
        if isinstance(end, KeyboardInterrupt) or (not over and end.exit_code in {Exit.FAILED, Exit.UNREACHABLE, Exit.TRY_LATER}):
            output.note(f"The order may go on. To take it up again and have the key: the same command with --request-id {request_id}")
        raise


def _next_is_made(made: dict[str, Any]) -> bool:
    """A rotation whose next key the vendor has not made, or does not take yet."""
    return made["state"] == "rotating" and made["former"] is not None and made["former"]["works_until"] is None


def show_new(made: dict[str, Any], *, env: bool, as_json: bool) -> None:
    if as_json:
        output.as_json(made)
        return
    if env:
        output.plain(exports(made["env"], Shell.SH))
        return
    output.card({name: made.get(name) for name in ("id", "vendor", "name", "state", "enforcement", "at_vendor", "expires_at")})
    for term, word in _LEFT.items():
        if made["enforcement"].get(term) == "not_enforced":
            output.note(word.format(id=made["id"]))
    if "per_key" in made.get("enforcement", {}).values():
        output.note("\nThis vendor counts a budget for each key by itself: the new one began with a whole budget. KeyGate watches the sum.")
    if made.get("key"):
        output.note("\nThe key is shown this once. To use it, straight at the vendor:\n")
        output.plain(exports(made["env"], Shell.SH))
    elif made.get("link"):
        output.note("\nOpened once, with `keygate receive` or in a browser:\n")
        output.plain(made["link"]["url"])


def rotate(
    key_id: str,
    overlap: Annotated[str, typer.Option(help="How long both keys work: 90m, 24h, 2d.")] = "24h",
    quiet: Annotated[
        str | None, typer.Option(help="The former key is cut once the vendor shows it unused for so long: 1h where it tells.")
    ] = None,
    *,
    insist: Annotated[bool, typer.Option("--insist", help="Cut it at the end of the overlap, used or not.")] = False,
    request_id: Annotated[str | None, typer.Option(help="Take a rotation up again whose answer got lost: the id that it named.")] = None,
    env: Annotated[bool, typer.Option("--env", help="Print only what to export.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """A second key beside the first; the first is cut once nobody uses it."""
    body: dict[str, Any] = {
        "overlap_seconds": seconds(overlap),
        "quiet_seconds": None if quiet is None else seconds(quiet),
        "insist": insist,
    }
    with api() as client:
        made = _asked(client, f"{one('keys', key_id)}/rotate", body, request_id)
    show_new(made, env=env, as_json=as_json)
    if made["state"] == "rotating" and not insist and made["former"]["quiet_seconds"] is None and not env and not as_json:
        output.note(f"\nThe vendor never tells when a key was used: once nothing uses the former one, `keygate issued-keys cut {key_id}`.")


def revoke(
    key_id: str,
    reason: Annotated[str, typer.Option(help="Goes into the audit log.")] = "",
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Revoke an issued key at its vendor. Ends with 0 only where the vendor has confirmed it."""
    if not yes:
        typer.confirm(f"Revoke {key_id} at the vendor?", abort=True)
    with api() as client:
        done = client.request("POST", f"{one('keys', key_id)}/revoke", body={"reason": reason, "wait_seconds": _WAIT})
    if as_json:
        output.as_json(done)
    elif done["state"] in {"revoked", "expired"} and not done["owed"]:
        output.note(f"Revoked {key_id}: the vendor shows it gone.")
    else:
        output.note(f"{key_id} is {done['state']}: {done['error'] or 'the vendor has not confirmed yet'}; next try {done['next_try_at']}.")
    if done["owed"] or done["state"] not in {"revoked", "expired", "failed"}:
        raise typer.Exit(Exit.FAILED)


def receive(
    link: Annotated[str, typer.Argument(help="The one-time link or its token; - reads it from standard input.")] = "-",
    *,
    env: Annotated[bool, typer.Option("--env", help="Print only what to export.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Open a one-time link: prints the key, and burns the link. Needs no sign-in."""
    text = sys.stdin.readline().strip() if link == "-" else link
    token = text.rpartition("#")[2]
    with api(anonymous=True) as client:
        made = client.request("POST", "/api/v1/keys/deliveries", body={"token": token})
    show_new(made, env=env, as_json=as_json)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """With the time of its next rotation, or why there is none by itself; and whether KeyGate holds it back for its budget."""
    ahead = row["rotation"]
    when = _HINDRANCES.get(ahead["hindrance"] or "", ahead["next_at"])
    state = f"{row['state']} ({row['restraint']})" if row["restraint"] else row["state"]
    return {**row, "state": state, "rotates": f"{when or ''} (overdue)".strip() if ahead["overdue"] else when}


@commands.command("list")
def list_issued(
    vendor: Annotated[str | None, typer.Option(help="Only at this vendor.")] = None,
    developer: Annotated[str | None, typer.Option(help="Only this developer's (id).")] = None,
    state: Annotated[str | None, typer.Option(help="active, rotating, revoking, revoked, irrevocable, failed, expired …")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Issued keys; the keys themselves are never shown."""
    with api() as client:
        rows = client.pages("/api/v1/keys", query={"vendor": vendor, "developer_id": developer, "state": state})
    output.as_json(rows) if as_json else output.table(
        map(_row, rows), COLUMNS, empty="None yet: `keygate provision --vendor openai --dev …`."
    )


@commands.command("show")
def show(key_id: str, *, as_json: output.JsonOption = False) -> None:
    """One key: its terms and what stands behind them, and every call that was made at the vendor for it."""
    with api() as client:
        row = client.request("GET", one("keys", key_id))
    if as_json:
        output.as_json(row)
        return
    steps = row.pop("steps")
    output.card({name: value for name, value in row.items() if value not in (None, [], {})})
    output.out.print()
    output.table(
        steps, {"sequence": "#", "what": "AT THE VENDOR", "began_at": "BEGAN", "outcome": "OUTCOME"}, empty="Nothing was called yet."
    )


@commands.command("extend")
def extend(key_id: str, expires: Annotated[str, typer.Option(help="From now: 90d, 12w.")], *, as_json: output.JsonOption = False) -> None:
    """Give a key another end, at the vendor too where it keeps one."""
    with api() as client:
        row = client.request("POST", f"{one('keys', key_id)}/extend", body={"expires_in_days": days(expires)})
    output.as_json(row) if as_json else output.card(_row(row), COLUMNS)


@commands.command("schedule")
def schedule(
    key_id: str,
    rotate_every: Annotated[str | None, typer.Option(help="KeyGate makes its next key so often: 30d, 12w.")] = None,
    overlap: Annotated[str | None, typer.Option(help="How long both keys work then, once the new one was fetched: 24h, 7d.")] = None,
    *,
    off: Annotated[bool, typer.Option("--off", help="No schedule; rotation policies still hold.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Have a key rotated by itself, or no longer. Counts from when the key was made."""
    if off == (rotate_every is not None or overlap is not None):
        fail("say --rotate-every, --overlap or both; or --off alone", Exit.USAGE)
    body: dict[str, int | None] = {"rotate_every_days": None} if off else {}
    if rotate_every is not None:
        body["rotate_every_days"] = days(rotate_every)
    if overlap is not None:
        body["rotate_overlap_seconds"] = seconds(overlap)
    with api() as client:
        row = client.request("PATCH", one("keys", key_id), body=body)
    output.as_json(row) if as_json else output.card(_row(row), COLUMNS)


@commands.command("collect")
def collect(
    key_id: str,
    *,
    env: Annotated[bool, typer.Option("--env", help="Print only what to export.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Fetch the new secret of a key of yours that was rotated by itself. It is shown this once; the former key works on for the overlap."""
    with api() as client:
        made = client.request("POST", f"{one('keys', key_id)}/collect")
    show_new(made, env=env, as_json=as_json)


@commands.command("cut")
def cut(key_id: str, *, as_json: output.JsonOption = False) -> None:
    """During a rotation: end the former key now, used or not."""
    with api() as client:
        row = client.request("POST", f"{one('keys', key_id)}/cut")
    output.as_json(row) if as_json else output.card(_row(row), COLUMNS)


@commands.command("link")
def link(key_id: str, expires: Annotated[str, typer.Option(help="90m, 24h, 2d.")] = "24h") -> None:
    """A one-time link to a secret that nobody has fetched yet."""
    with api() as client:
        made = client.request("POST", f"{one('keys', key_id)}/link", body={"expires_in_seconds": seconds(expires)})
    output.plain(made["url"])


@commands.command("token")
def token(
    key_id: str,
    *,
    env: Annotated[bool, typer.Option("--env", help="Print only what to export.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """A fresh token for a key of a vendor that has no lasting secrets (Anthropic)."""
    with api() as client:
        made = client.request("POST", f"{one('keys', key_id)}/token")
    if not env and not as_json:
        output.note(f"Until {made['expires_at']}; shown this once. To use it, straight at the vendor:\n")
    output.as_json(made) if as_json else output.plain(exports(made["env"], Shell.SH))
