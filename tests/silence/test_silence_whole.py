"""As `test_silence.py`, every step of it, on PostgreSQL."""

from __future__ import annotations

import pytest
from tests.silence.observed import Mode, Run
from tests.silence.searching import nothing_comes_out

MODE = Mode("debug as JSON, on PostgreSQL", "postgresql", "debug", "json", whole=True)


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("mode", [MODE], ids=lambda mode: mode.name)
def test_no_marked_secret_comes_out_anywhere(run: Run) -> None:
    nothing_comes_out(run)
