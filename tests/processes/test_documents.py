"""Generated documents say what the code says."""

from pathlib import Path

from keygate.processes.documents import settings_document

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_settings_is_current() -> None:
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == settings_document(), "stale: run `make docs`"
