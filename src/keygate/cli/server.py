"""Becoming the server. Light, because a plain `keygate serve` loads nothing else of the command line."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

PLAIN = (["serve"], ["serve", "--sandbox"])  # arguments that need no parsing


def become(*, host: str | None = None, port: int | None = None, sandbox: bool = False) -> NoReturn:
    """Replaces this process by the server, so that nothing of the command line stays in its memory."""
    environment = dict(os.environ)
    if host is not None:
        environment["KEYGATE_HOST"] = host
    if port is not None:
        environment["KEYGATE_PORT"] = str(port)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "keygate.processes.serve", *(["--sandbox"] if sandbox else [])], environment)  # noqa: S606  (our own interpreter and module)
