"""As `test_silence.py`, with Python's debug mode and asyncio's, several times as slow: every step of it at full length (`make drill`)."""

from __future__ import annotations

import pytest
from tests.drills import figures
from tests.silence.observed import Mode, Run
from tests.silence.searching import nothing_comes_out

MODE = Mode("debug as text, on SQLite, with Python's debug mode", "sqlite", "debug", "text", whole=figures.FULL, debug=True)


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("mode", [MODE], ids=lambda mode: mode.name)
def test_no_marked_secret_comes_out_anywhere(run: Run) -> None:
    nothing_comes_out(run)
