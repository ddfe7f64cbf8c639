"""The data directory of one node: made for its owner only, and owned by one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from keygate.errors import StartRefused


class DataDirectory:
    """Promises: exists with mode 0700; while open, no other KeyGate process serves from it. The lock ends with the process."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self._lock: int | None = None

    def prepare(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
        except OSError as error:
            raise StartRefused(
                f"KEYGATE_DATA_DIR {self.path} can't be used ({error.strerror}); name a directory that this user may write"
            ) from error
        return self

    def lock(self) -> Self:
        """Refuses the start when another process serves from here."""
        handle = os.open(self.path / "node.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise StartRefused(
                f"another KeyGate process serves from {self.path}; stop it first, or give this one a KEYGATE_DATA_DIR of its own"
            ) from None
        self._lock = handle
        return self

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
