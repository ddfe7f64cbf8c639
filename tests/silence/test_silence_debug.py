"""As `test_silence.py`, every step of it, with Python's debug mode and asyncio's, several times as slow."""

from __future__ import annotations

import pytest
from tests.silence.observed import Mode, Run
from tests.silence.searching import nothing_comes_out

MODE = Mode("debug as text, on SQLite, with Python's debug mode", "sqlite", "debug", "text", whole=True, debug=True)


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("mode", [MODE], ids=lambda mode: mode.name)
def test_no_marked_secret_comes_out_anywhere(run: Run) -> None:
    nothing_comes_out(run)
