"""A KeyGate that dies at a step it is told, and comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from tests.running import RunningKeyGate

MOST_STEPS = 90  # of one action
_PROGRAM = str(Path(__file__).with_name("dying.py"))


class MortalKeyGate(RunningKeyGate):
    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._file = folder / "die"
        super().__init__(folder, environment={"DRILL_FILE": str(self._file), "PYTHONPATH": str(Path.cwd()), **environment})
        self.command = [sys.executable, _PROGRAM]
        self.kind = "postgresql" if "KEYGATE_DATABASE_URL" in environment else "sqlite"
        self.deaths = 0

    def die_at(self, number: int, *, at: str = "", but: Collection[str] = ()) -> None:
        """At the `number`-th step from now on that begins with `at`; steps of the keys `but` don't count."""
        self._file.with_suffix(".steps").unlink(missing_ok=True)
        self._file.write_text(json.dumps({"left": number, "at": at, "but": list(but)}))

    def live_on(self) -> None:
        self._file.unlink(missing_ok=True)

    def died(self) -> bool:
        """Whether it has: then it is started again. Else it is no longer told to."""
        assert self.process is not None
        self.live_on()
        try:
            self.process.wait(0.3)
        except subprocess.TimeoutExpired:
            return False
        self.process = None
        self.deaths += 1
        self.start()
        return True

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def steps(self) -> list[str]:
        """Those that were counted, the last of them the one at which it died."""
        return self._file.with_suffix(".steps").read_text().splitlines()
