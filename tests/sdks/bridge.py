"""An official SDK in an environment of its own, driven by a test: one program, one JSON line a call."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.sdks.environments import python_environment

PROGRAMS = Path(__file__).resolve().parent / "programs"
_SECONDS = 60


class SdkError(Exception):
    """What the SDK raised, as the program tells it."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(str(told.get("message")))
        self.code = told.get("code")
        self.status = told.get("status")
        self.reason = told.get("reason")


class Bridge:
    """`program` of `programs/` under the interpreter of the SDK environment `sdk`, with `environment` and nothing of this process's own."""

    def __init__(self, sdk: str, program: str, environment: Mapping[str, str] | None = None, *, home: Path) -> None:
        self._command = [str(python_environment(sdk)), str(PROGRAMS / program)]
        own = {"PATH": os.environ["PATH"], "HOME": str(home), "NO_PROXY": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._environment = {**own, **(environment or {})}
        self._errors = home / f"{program}.stderr"

    def __enter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate(timeout=_SECONDS)  # its input ends, and so does it

    def call(self, **request: Any) -> Any:
        """The program's answer; `SdkError` where the SDK raised."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        ready, _, _ = select.select([stdout], [], [], _SECONDS)
        line = stdout.readline() if ready else b""
        assert line, f"the program gave no answer:\n{self._errors.read_text()[-4000:]}"
        told = json.loads(line)
        if "error" in told:
            raise SdkError(told["error"])
        return told
