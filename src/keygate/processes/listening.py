"""The server: uvicorn with the gateway's protocol class, on a socket that was bound before anything else was promised."""

from __future__ import annotations

import errno
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from keygate.errors import StartRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `StartRefused` with the remedy where the address can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise StartRefused(f"port {port} on {host} is in use; stop what listens there, or set KEYGATE_PORT to another") from None
        raise StartRefused(f"can't listen on {host} port {port} ({error}); set KEYGATE_HOST and KEYGATE_PORT") from None
    listener.setblocking(False)
    return listener


class Server(uvicorn.Server):
    """Tells when it listens, when it has begun to stop, and when a second Ctrl-C wants that at once. A third kills."""

    def __init__(
        self, config: uvicorn.Config, *, listening: Callable[[], None], stopping: Callable[[], None], hurrying: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._listening = listening
        self._stopping = stopping
        self._hurrying = hurrying

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """For the rest of the process: behind the server there is more to stop in order. uvicorn's own raises the signal again when the
        server has stopped, and SIGTERM would end the process before the journal is folded and the budgets are given back."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.force_exit:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._hurrying()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets=sockets)


def configuration(app: Any, *, http: type, shutdown_timeout: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(shutdown_timeout)),
    )
