"""`keygate usage` and `keygate audit`: what was spent, and who did what."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from keygate.cli import local, output
from keygate.cli.client import Exit, api, fail

audit = typer.Typer(no_args_is_help=True, help="The audit log.")


def usage(
    group_by: Annotated[str, typer.Option(help="key, team, developer, app, vendor, model, day, hour; several with commas.")] = "day",
    source: Annotated[
        str,
        typer.Option(
            help="gateway: what went through KeyGate; vendor: what vendors bill; all: one report over the gateway and issued keys."
        ),
    ] = "gateway",
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="RFC 3339.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key (vk_… or ik_…).")] = None,
    team: Annotated[str | None, typer.Option(help="Only this team.")] = None,
    *,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """What was used and spent."""
    if csv and as_json:
        fail("choose one of --csv and --json", Exit.USAGE)
    query = {"group_by": group_by, "from": since, "to": until, "key_id": key, "team_id": team, "source": source}
    with api() as client:
        if csv:
            for piece in client.text("/api/v1/usage", query={**query, "format": "csv"}):
                sys.stdout.write(piece)
            return
        answer = client.request("GET", "/api/v1/usage", query=query)
    if answer.get("truncated"):
        output.note("There are more groups than are told here: narrow the range or the filters, or take --csv.")
    if as_json:
        output.as_json(answer)
        return
    rows = [{**row.get("group", {}), **{name: value for name, value in row.items() if name != "group"}} for row in answer["items"]]
    columns = {name: name.upper() for name in group_by.split(",")}
    columns |= {
        "requests": "REQUESTS",
        "input_tokens": "INPUT",
        "output_tokens": "OUTPUT",
        "cost_usd": "COST $",
        "in_doubt_usd": "IN DOUBT $",
        **({} if source == "gateway" else {"restated_usd": "RESTATED $"}),
    }
    output.table(rows, columns, empty="Nothing was used in this time.")
    issued = answer.get("issued_keys_usd")
    if issued is not None and Decimal(issued):
        told = "Issued keys go past it, and cost {issued} USD beside that, by their vendors' bills: --source all shows both."
        output.note(f"Source: gateway. {told.format(issued=issued)}")


@audit.command("list")
def list_entries(
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="RFC 3339.")] = None,
    action: Annotated[str | None, typer.Option(help="For example virtual_key.revoke.")] = None,
    actor: Annotated[str | None, typer.Option(help="Actor's id.")] = None,
    target: Annotated[str | None, typer.Option(help="Target's id.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="How many.")] = 50,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """Entries, newest first."""
    with api() as client:
        rows = client.pages(
            "/api/v1/audit", query={"from": since, "to": until, "action": action, "actor": actor, "target": target}, most=most
        )
    columns = {
        "sequence": "#",
        "time": "TIME",
        "actor": "ACTOR",
        "action": "ACTION",
        "outcome": "OUTCOME",
        "target": "TARGET",
        "address": "ADDRESS",
    }
    if as_json:
        output.as_json(rows)
        return
    people = [{**row, "actor": row["actor"]["id"] or row["actor"]["kind"]} for row in rows]
    output.table(people, columns, empty="Nothing fits.")


@audit.command("export")
def export(file: Annotated[Path | None, typer.Argument(help="Where to; standard output when left out.")] = None) -> None:
    """JSON lines with a signed head at the end, for `keygate audit verify FILE`."""
    with api() as client:
        if file is None:
            for piece in client.text("/api/v1/audit/export"):
                sys.stdout.write(piece)
            return
        try:
            with file.open("w", encoding="utf-8", newline="") as target:
                for piece in client.text("/api/v1/audit/export"):
                    target.write(piece)
        except OSError as problem:
            fail(f"{file} can't be written: {problem.strerror}")
    output.note(f"Written to {file}.")


@audit.command("verify")
def verify(
    file: Annotated[
        Path | None, typer.Argument(help="An export; the data directory's own database when left out.", exists=True, dir_okay=False)
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option(help="Of an export: what `keygate receipts key` shows at the KeyGate that signed it; else this data directory's own."),
    ] = None,
    *,
    heads_from: Annotated[
        int, typer.Option(min=1, help="Entry from which on audit-heads.jsonl is known to be whole; what it lost before is no fault.")
    ] = 1,
    as_json: output.JsonOption = False,
) -> None:
    """Find any edit, removal, reordering or truncation. Works on the data directory itself, without a server. Ends with 8 where there is
    one, and for an export that no key here tells the signer of: without a data directory give --public-key.
    """
    if public_key is not None and file is None:
        fail("--public-key: goes with an export's FILE; the data directory's own database is checked by its own key", Exit.USAGE)
    reports = local.verify_audit(file, public_key, heads_from=heads_from)
    if as_json:
        output.as_json(reports)
    else:
        for report in reports:
            output.card(report)
    if not all(report["ok"] for report in reports):
        raise typer.Exit(Exit.VERIFICATION_FAILED)
