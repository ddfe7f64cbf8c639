"""A person at a shell: every command is a `keygate` process of its own, with a home of its own, against a running server."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.running import KEYGATE, RunningKeyGate

from keygate.cli.client import Exit


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Desk:
    keygate: RunningKeyGate
    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, text: str = "", seconds: float = 60, **settings: str) -> Said:
        """Settings of the call win over the desk's; an empty one is taken away."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "COLUMNS": "200", **self.settings, **settings}
        done = subprocess.run(
            [KEYGATE, *words],
            input=text.encode(),
            capture_output=True,
            env={name: value for name, value in environment.items() if value},
            cwd=self.home,
            timeout=seconds,
            check=False,
        )
        said = Said(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in said.err, said.err
        return said

    def ok(self, *words: str, text: str = "", **settings: str) -> Said:
        said = self.run(*words, text=text, **settings)
        assert said.code == Exit.OK, (words, said)
        return said

    def made(self, *words: str, text: str = "") -> Any:
        return self.ok(*words, "--json", text=text).json()

    def sign_in(self) -> Said:
        return self.ok(
            "login", "--email", self.keygate.EMAIL, "--url", self.keygate.url, "--password-stdin", text=self.keygate.password + "\n"
        )
