"""`keygate serve` that ends itself with SIGKILL at a step of an issued key's life: the n-th after a file named by DRILL_FILE holds n."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from keygate.processes.serve import main

FILE = Path(os.environ["DRILL_FILE"])
STEPS = FILE.with_suffix(".steps")


async def at_step(step: str) -> None:
    _count(step)


def _count(step: str) -> None:
    try:
        left = int(FILE.read_text())
    except (FileNotFoundError, ValueError):
        return
    with STEPS.open("a") as file:
        file.write(step + "\n")
    if left > 1:
        FILE.write_text(str(left - 1))
        return
    FILE.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], at_step=at_step))
