"""`keygate login`, `logout`, `status`: who am I, and is the server well?"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from keygate.cli import output
from keygate.cli.client import Api, Exit, api, fail, login_file, resolve_url, save_login
from keygate.client_config import client_settings
from keygate.kit.secret import Secret


def login(
    email: Annotated[str | None, typer.Option(help="E-mail address; asked for when left out.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of the server, for example https://keys.example.com.")] = None,
    *,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
) -> None:
    """Sign in, and keep the sign-in for later commands."""
    address = resolve_url(url)
    if not password_stdin and not sys.stdin.isatty():
        fail("there is no terminal to ask for the password on; write it to standard input with --password-stdin", Exit.USAGE)
    email = email or typer.prompt("E-mail")
    password = typer.get_text_stream("stdin").readline().rstrip("\n") if password_stdin else typer.prompt("Password", hide_input=True)
    client = Api(url=address, token=None)
    answer = client.request("POST", "/api/v1/auth/login", body={"email": email, "password": password})
    path = save_login(client_settings(), url=address, token=Secret(answer["access_token"]))
    output.note(f"Signed in to {address} for {answer['expires_in'] // 3600} hours; kept in {path}")


def logout() -> None:
    """End the sign-in here and at the server."""
    with api() as client:
        client.request("POST", "/api/v1/auth/logout")
    login_file(client_settings()).unlink(missing_ok=True)
    output.note("Signed out.")


def status(*, as_json: output.JsonOption = False) -> None:
    """Is the server well, who am I there, what has been spent today?"""
    with api() as client:
        ready = client.request("GET", "/ready")
        me = client.request("GET", "/api/v1/auth/me")
        stats = client.request("GET", "/api/v1/dashboard/stats")
    if as_json:
        output.as_json({"url": client.url, "ready": ready, "me": me, "stats": stats})
        return
    output.card(
        {
            "server": client.url,
            "ready": ready.get("status"),
            "signed in as": me.get("email") or me.get("name") or me.get("id"),
            "role": me.get("role"),
        }
    )
    output.out.print()
    rows = [{"time": name.replace("_", " "), **stats[name]} for name in ("today", "yesterday", "last_30_days")]
    columns = {"time": "", "requests": "REQUESTS", "errors": "ERRORS", "input_tokens": "INPUT", "output_tokens": "OUTPUT"}
    output.table(rows, columns | {"cost_usd": "COST $", "in_doubt_usd": "IN DOUBT $"}, empty="")
