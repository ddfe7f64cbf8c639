"""`keygate reconciliation`, `keygate watch` and `keygate resume`: what vendors bill, against what KeyGate knows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keygate.cli import output
from keygate.cli.client import TURN_SECONDS, Api, Exit, api, fail

_DAYS = {
    "day": "DAY",
    "vendor": "VENDOR",
    "account": "ACCOUNT",
    "verdict": "VERDICT",
    "final": "FINAL",
    "ledger_usd": "LEDGER $",
    "bill_usd": "BILL $",
    "issued_usd": "ISSUED $",
    "difference_usd": "DIFFERENCE $",
    "bypassed_usd": "BYPASSED $",
    "missing_usd": "MISSING $",
    "pending_usd": "PENDING $",
    "in_doubt_usd": "IN DOUBT $",
}
_KEYS = {"day": "DAY", "vendor": "VENDOR", "vendor_key": "KEY AT THE VENDOR", "place": "PLACE", "amount_usd": "BILLED $"}
_UNASSIGNED = {"vendor": "VENDOR", "credential_id": "CREDENTIAL", "requests": "REQUESTS", "cost_usd": "COST $"}


def reconciliation(
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339; thirty days when left out.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="RFC 3339.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this vendor account, by id or name.")] = None,
    *,
    fresh: Annotated[bool, typer.Option("--import", help="Read the vendors' bills first.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Also what the bills name that KeyGate did not make.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """KeyGate's ledger against the vendors' bills, by account and UTC day: what agrees, what is not billed yet, what bypassed KeyGate."""
    query = {"from": since, "to": until, "account": account}
    with api() as client:
        if fresh:
            _import(client, account)
        answer = client.request("GET", "/api/v1/reconciliation", query=query)
    if as_json:
        output.as_json(answer)
        return
    output.table(answer["items"], _DAYS, empty="Nothing was spent or billed in this time.")
    if keys:
        rows = [{**day, **key} for day in answer["items"] for key in day["unknown_keys"]]
        output.table(rows, _KEYS, empty="The bills name nothing that KeyGate did not make.")
    if answer["unassigned"]:
        output.note("Spent with credentials that belong to none of these accounts (name one: keygate credentials, `account`):")
        output.table(answer["unassigned"], _UNASSIGNED, empty="")
    for bill in answer["bills"]:
        output.note(_told(bill))


def _import(client: Api, account: str | None) -> None:
    accounts = client.request("GET", "/api/v1/vendors/accounts")["items"]
    chosen = [each for each in accounts if account in {None, each["id"], each["name"]}]
    if account is not None and not chosen:
        fail(f"{account}: no vendor account has this id or name", Exit.NOT_FOUND)
    reported = {bill["account_id"] for bill in client.request("GET", "/api/v1/reconciliation")["bills"] if bill["reported"]}
    for each in chosen:
        if each["id"] in reported:
            path = f"/api/v1/vendors/accounts/{each['id']}/import-spend"
            state, refused = client.attempt("POST", path, body={}, patience=TURN_SECONDS)
            if refused or state["error"]:  # it may be read just now: what was read before is shown all the same
                output.error(f"{each['vendor']} ({each['name']}): {refused or state['error']}")
            elif not state["complete"]:
                output.note(f"{each['vendor']} ({each['name']}): a long bill; the rest of it is being read.")


def _told(bill: dict[str, Any]) -> str:
    name = f"{bill['vendor']} ({bill['account']})"
    if not bill["reported"]:
        return f"{name}: no bill is read. {bill['why_not']}."
    late = "how late its numbers come it does not say" if bill["delay_seconds"] is None else f"up to {bill['delay_seconds']} s late"
    read = f"read at {bill['as_of']}" if bill["as_of"] else "not read yet"
    trouble = f" Trouble: {bill['error']}" if bill["error"] else ""
    return f"{name}: {read}, {late}, may change for {bill['restated_days']} days. A number is {bill['means']}.{trouble}"


def watch(
    key: Annotated[str, typer.Argument(help="Issued key (ik_…).")],
    warn: Annotated[str | None, typer.Option(help="Percents of the budget at which an event is raised: 50,80.")] = None,
    lower_at: Annotated[
        int | None, typer.Option(help="From this percent on the key's limits are lowered; 0: never.", min=0, max=99)
    ] = None,
    lower_to: Annotated[int | None, typer.Option(help="… to this percent of them.", min=1, max=99)] = None,
    at_end: Annotated[str | None, typer.Option(help="default, warn, disable or revoke.")] = None,
    *,
    as_json: output.JsonOption = False,
) -> None:
    """A key's budget by the vendor's bill. Where the vendor does not enforce it: what KeyGate does as it is used up."""
    path = f"/api/v1/keys/{key}/watch"
    with api() as client:
        standing = client.request("GET", path)
        if (warn, lower_at, lower_to, at_end) != (None, None, None, None):
            body = {name: standing[name] for name in ("warn_at_percent", "lower_at_percent", "lower_to_percent", "at_end")}
            if warn is not None:
                body["warn_at_percent"] = [_percent(each) for each in warn.split(",") if each]
            if lower_at is not None:
                body["lower_at_percent"] = lower_at or None
            body |= {name: value for name, value in (("lower_to_percent", lower_to), ("at_end", at_end)) if value is not None}
            standing = client.request("PUT", path, body=body)
    if as_json:
        output.as_json(standing)
        return
    output.card(standing)
    if standing["enforced_by"] == "keygate":
        output.note("This budget is watched, not hard: what the vendor tells late may be spent above it.")


def resume(
    key: Annotated[str, typer.Argument(help="Issued key (ik_…).")],
    budget: Annotated[str | None, typer.Option(help="Another budget from now on, in USD.")] = None,
    extra: Annotated[str | None, typer.Option(help="So much more in this period, in USD.")] = None,
    *,
    ignore: Annotated[bool, typer.Option("--ignore", help="Whatever comes until the period ends.")] = False,
    as_json: output.JsonOption = False,
) -> None:
    """Lets a key go on that was disabled because its watched budget was spent. Once what you allow is spent too, it is disabled again."""
    if (budget is not None) + (extra is not None) + ignore != 1:
        fail("say how it may go on: --budget 80, --extra 20, or --ignore until the period ends", Exit.USAGE)
    body = {"budget_usd": budget, "extra_usd": extra, "ignore_until_period_end": ignore}
    with api() as client:
        standing = client.request("POST", f"/api/v1/keys/{key}/resume", body=body)
    if as_json:
        output.as_json(standing)
        return
    output.card(standing)


def _percent(text: str) -> int:
    if not text.strip().isdecimal():
        fail(f"{text}: write percents such as 50,80", Exit.USAGE)
    return int(text)
