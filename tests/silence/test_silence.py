"""The whole product runs with marked secrets, over every endpoint, every error path, each log level, both log formats and the debug mode;
afterwards everything that came out of it is searched: answers, logs, metrics, command lines, every file and every row. Here with fewer
steps; `test_silence_whole.py` does all of them, and at full length `test_silence_debug.py` too: in files of their own, which run side by
side."""

from __future__ import annotations

import pytest
from tests.silence.calls import furnish
from tests.silence.canaries import marked
from tests.silence.observed import Mode, Run
from tests.silence.operator import collect
from tests.silence.searching import nothing_comes_out

MODES = [
    Mode("info as JSON, on SQLite", "sqlite", "info", "json"),
    Mode("warning as text, on PostgreSQL", "postgresql", "warning", "text"),
    Mode("error as JSON, on SQLite", "sqlite", "error", "json"),
]


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_no_marked_secret_comes_out_anywhere(run: Run) -> None:
    nothing_comes_out(run)


@pytest.mark.parametrize("mode", MODES[:2], ids=lambda mode: mode.name)
def test_search_finds_what_is_planted_in_the_product(run: Run) -> None:
    """A secret as the name of a team is in answers, in the database and in the audit log: the search must see it in each."""
    furnish(run)
    planted = run.evidence.mark("planted", marked())
    run.api("POST", "/teams", {"name": planted})
    run.send("GET", "/api/v1/audit/export")
    collect(run)
    found = " ".join(leak.split(":")[0] for leak in run.evidence.leaks())
    for where in ("answer 201 to POST /api/v1/teams", "answer 200 to GET /api/v1/audit/export", "table teams", "table audit_entries"):
        assert where in found
    assert "file data/keygate.db" in found or run.database_url
