"""How long the drills run, and where their figures go. `python -m tests.drills.figures` shows the last ones as a table."""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

FULL = os.environ.get("KEYGATE_DRILL") == "full"
FOLDER = Path(__file__).resolve().parents[2] / "build" / "drills"


def length(short: int, full: int) -> int:
    return full if FULL else short


def seed() -> int:
    """A new one each time; `KEYGATE_DRILL_SEED` repeats a run."""
    return int(os.environ.get("KEYGATE_DRILL_SEED") or secrets.randbelow(10**6))


def write(name: str, line: str, **figures: Any) -> None:
    """Keeps the figures of one drill; `line` is what people read of them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    record = {"drill": name, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "full": FULL, "line": line, **figures}
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def usd(nano: int) -> str:
    return f"{nano / 1e9:.6f}"


def table() -> str:
    """The last figures of each drill, as Markdown."""
    rows = []
    for path in sorted(FOLDER.glob("*.json")):
        record = json.loads(path.read_text())
        rows.append(f"| {record['drill']} | {record['at']} | {'full' if record['full'] else 'short'} | {record['line']} |")
    return "\n".join(["| drill | when | length | result |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())
