"""What README and the guides say is there."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from tests.running import RunningKeyGate

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
