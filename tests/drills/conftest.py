"""Each drill's line is printed when all have run."""

from __future__ import annotations

import json
import time

import pytest
from tests.drills.figures import FOLDER

_BEGAN = time.time()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for path in sorted(FOLDER.glob("*.json")):
        if path.stat().st_mtime >= _BEGAN:
            record = json.loads(path.read_text())
            terminalreporter.write_line(f"drill {record['drill']}: {record['line']}")
