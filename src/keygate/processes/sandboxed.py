"""The sandbox vendor inside of `keygate serve --sandbox`: at an address that stays, with its state in the data directory.

So what KeyGate made there outlives a restart of both, and a `kill -9`. It answers as long as KeyGate runs: a vendor that goes on alone is
`keygate sandbox`.
"""

from __future__ import annotations

import errno
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keygate.errors import StartRefused

if TYPE_CHECKING:
    from keygate.sandbox import SandboxState

FILE = "sandbox.db"
_HOST = "127.0.0.1"
_CALLS = 1000  # how many calls it remembers
_FIRST, _COUNT = 18_000, 10_000  # below what systems give to outgoing connections, so that a port is free again at the next start
_TRIES = 50
_log = logging.getLogger("keygate.sandbox")


@dataclass(frozen=True, slots=True)
class Sandboxed:
    """`former`: its address at the last start, where that was another one."""

    address: str
    state: SandboxState
    former: str | None
    stop: Callable[[], Awaitable[None]]


async def start_sandboxed(directory: Path, port: int | None) -> Sandboxed:
    """Serves on the running loop: on `port`, or on that of the last start; where this is taken, on another one. Raises `StartRefused` for a
    port of the operator's that is taken, and for a state that can't be read."""
    from keygate.sandbox import SandboxState, StateRefusedError, Store, start_sandbox  # noqa: PLC0415  (only those need it who use it)

    try:
        store = Store(directory / FILE)
        state = SandboxState(keep_calls=_CALLS, store=store)
    except StateRefusedError as error:
        raise StartRefused(str(error)) from None
    former = store.noted("address")
    listener = _chosen(port) if port is not None else _former(former) or _any()
    address, _, stop_server = await start_sandbox(state=state, listener=listener)
    store.note("address", address)

    async def stop() -> None:
        await stop_server()
        store.close()

    return Sandboxed(address, state, former if former != address else None, stop)


def _chosen(port: int) -> socket.socket:
    from keygate.sandbox import listen  # noqa: PLC0415  (as above)

    try:
        return listen(_HOST, port)
    except OSError as error:
        raise StartRefused(f"KEYGATE_SANDBOX_PORT {port} can't be used: {error.strerror}; name another, or none") from None


def _former(address: str | None) -> socket.socket | None:
    from keygate.sandbox import listen  # noqa: PLC0415  (as above)

    if address is None:
        return None
    try:
        return listen(_HOST, int(address.rpartition(":")[2]))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise StartRefused(f"the sandbox can't listen on {address}: {error.strerror}; set KEYGATE_SANDBOX_PORT") from None
    _log.warning(
        "the sandbox's address %s is taken by another process: it moves, and so do KeyGate's accounts and credentials there", address
    )
    return None


def _any() -> socket.socket:
    from keygate.sandbox import listen  # noqa: PLC0415  (as above)

    for _ in range(_TRIES):
        with suppress(OSError):
            return listen(_HOST, _FIRST + secrets.randbelow(_COUNT))
    return listen(_HOST, 0)
