"""What README and the guides say is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import httpx
import pytest
from tests.running import RunningKeyGate
from typer import Context
from typer.core import TyperGroup
from typer.main import get_command

from keygate.cli.app import app
from keygate.cli.client import Exit

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_the_page_on_observability_has_every_metric_and_no_other(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(keygate_[a-z_]+)", guide))
    assert told, "there is a table of metrics"
    with RunningKeyGate(tmp_path) as keygate:
        text = httpx.get(f"{keygate.url}/metrics").text
    served = set(re.findall(r"^# TYPE (keygate_[a-z_]+)", text, re.MULTILINE))
    assert told == served


def commands_told() -> list[tuple[str, str]]:
    """(page, command) of each `keygate …` in a code block or a code span."""
    told = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        spans = re.findall(r"`(keygate [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        lines = [found for block in blocks for found in re.findall(r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(keygate [^\n]+)", block, re.MULTILINE)]
        told += [(page.name, re.split(r" [|>#&;]", line)[0]) for line in (*lines, *spans)]
    return told


def mistake_in(line: str) -> str | None:
    """What of a command line is not there to be typed."""
    command, context = get_command(app), Context(get_command(app))
    _, *words = shlex.split(line)
    while words and isinstance(command, TyperGroup) and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        if found is None:
            return f"{line}: no such command"
        command = found
    options = {name for parameter in command.get_params(context) for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options]
    return f"{line}: no option {unknown[0]}" if unknown else None


def test_every_command_in_the_pages_can_be_typed() -> None:
    told = commands_told()
    assert len(told) > 100
    assert [(page, mistake) for page, line in told if (mistake := mistake_in(line)) is not None] == []


def test_the_page_on_the_command_line_has_every_exit_code() -> None:
    page = (ROOT / "docs" / "guides" / "command-line.md").read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == sorted(Exit)
