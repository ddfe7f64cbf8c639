"""What people and machines read: tables and colours on a terminal, JSON with `--json`, messages on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Don't ask.")]
_WIDTH_WHEN_PIPED = 160

out = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else _WIDTH_WHEN_PIPED)
err = Console(stderr=True, highlight=False)


def error(message: str) -> None:
    err.print(f"[red]error:[/red] {escape(message)}", soft_wrap=True)


def note(message: str) -> None:
    """A word for people that must not mix with the output."""
    err.print(escape(message), soft_wrap=True)


def as_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def cell(value: Any) -> str:
    if value is None or value in ("", [], ()):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={cell(item)}" for name, item in value.items() if item is not None) or "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(cell(item) for item in value)
    return str(value)


def table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """`columns` maps a row's member to its heading; numbers are aligned to the right."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    listed = list(rows)
    if not listed:
        note(empty)
        return
    for member, heading in columns.items():
        numeric = all(isinstance(row.get(member), int | float) or _is_amount(row.get(member)) for row in listed)
        grid.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=member in {"id", "hint"})
    for row in listed:
        grid.add_row(*(escape(cell(row.get(member))) for member in columns))
    out.print(grid)


def _is_amount(value: Any) -> bool:
    return isinstance(value, str) and value.replace(".", "", 1).lstrip("-").isdigit()


def card(row: Mapping[str, Any], members: Mapping[str, str] | None = None) -> None:
    """One thing, a line a member."""
    names = members or {name: name.replace("_", " ") for name in row}
    width = max(map(len, names.values()), default=0)
    for member, label in names.items():
        out.print(f"[bold]{label.ljust(width)}[/bold]  {escape(cell(row.get(member)))}", soft_wrap=True)


def plain(text: str) -> None:
    """Exactly this text: for what is copied and pasted."""
    sys.stdout.write(text + "\n")
