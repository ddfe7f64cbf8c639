"""`keygate serve` that ends itself with SIGKILL at a step of an issued key's life. A file named by DRILL_FILE says at which, in JSON: the
n-th (`left`) of the steps that begin with `at`, those of the keys `but` not counted; for as long as there is none, nothing happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from keygate.processes.serve import main

FILE = Path(os.environ["DRILL_FILE"])
STEPS = FILE.with_suffix(".steps")


async def at_step(step: str) -> None:
    task = asyncio.current_task()
    _count(step, "" if task is None else task.get_name().removeprefix("issued-key:"))


def _count(step: str, key_id: str) -> None:
    try:
        told = json.loads(FILE.read_text())
    except (FileNotFoundError, ValueError):
        return
    if key_id in told["but"] or not step.startswith(told["at"]):
        return
    with STEPS.open("a") as file:
        file.write(step + "\n")
    if told["left"] > 1:
        FILE.write_text(json.dumps({**told, "left": told["left"] - 1}))
        return
    FILE.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], at_step=at_step))
