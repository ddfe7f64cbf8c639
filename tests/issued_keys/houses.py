"""A running KeyGate beside a sandbox, as the tests of each vendor's keys use it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.running import RunningKeyGate

from keygate.sandbox import SandboxServer

SECONDS = 90.0


class KeyHouse:
    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer) -> None:
        self.keygate, self.sandbox, self.call = keygate, sandbox, keygate.call

    def order(self, **body: Any) -> dict[str, Any]:
        """A key for a developer of its own."""
        name = f"dev{time.monotonic_ns()}"
        developer = self.call("POST", "/developers", {"name": name, "email": f"{name}@example.com"})
        return self.call("POST", "/keys/provision", {"developer_id": developer["id"], **body})  # type: ignore[no-any-return]  # JSON

    def until(
        self,
        key_id: str,
        holds: Callable[[dict[str, Any]], bool],
        *,
        meanwhile: Callable[[], None] = lambda: None,
        seconds: float = SECONDS,
    ) -> dict[str, Any]:
        """The key, once it is so; `meanwhile` runs between two looks."""
        ends = time.monotonic() + seconds
        while True:
            key: dict[str, Any] = self.call("GET", f"/keys/{key_id}")
            if holds(key):
                return key
            meanwhile()
            assert time.monotonic() < ends, key
            time.sleep(0.1)
