"""`keygate env`: what to export so that a vendor's own SDK talks to KeyGate."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import typer

from keygate.cli import output
from keygate.cli.client import Exit, api, fail

_VIRTUAL_KEY = re.compile(r"sk-kg-[0-9A-Za-z]+")


class Shell(StrEnum):
    SH = "sh"
    FISH = "fish"
    POWERSHELL = "powershell"
    DOTENV = "dotenv"


def exports(variables: Mapping[str, str], shell: Shell) -> str:
    """One line a variable, quoted for the shell."""
    if shell is Shell.FISH:
        return "\n".join(f"set -gx {name} {shlex.quote(value)}" for name, value in variables.items())
    if shell is Shell.POWERSHELL:
        return "\n".join(f"$env:{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in variables.items())
    if shell is Shell.DOTENV:
        return "\n".join(f"{name}={value}" for name, value in variables.items())
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def env(
    key: Annotated[str, typer.Argument(help="The virtual key (sk-kg-…), or - to read it from standard input.")] = "-",
    shell: Annotated[Shell, typer.Option(help="Whose syntax.")] = Shell.SH,
) -> None:
    """Print what to export for a key. Reads the key from standard input unless given."""
    if key == "-":
        key = typer.prompt("Virtual key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not key:
        fail("no key on standard input", Exit.USAGE)
    if not _VIRTUAL_KEY.fullmatch(key):
        fail("this is no virtual key; it begins with sk-kg-, and was shown when it was made", Exit.USAGE)
    with api() as client:
        vendors = client.request("GET", "/api/v1/vendors")["items"]
    variables = {name: value.replace("{key}", key) for vendor in vendors for name, value in vendor["client_env"].items()}
    output.plain(exports(variables, shell))
