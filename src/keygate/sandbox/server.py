"""The sandbox on a socket: in a loop that runs already, in a thread of its own, or as the whole process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keygate.sandbox.app import Sandbox, create_app
from keygate.sandbox.model import Vendor
from keygate.sandbox.state import SandboxState
from keygate.sandbox.store import Store
from keygate.sandbox.wire import TRANSPORT

_BACKLOG = 4096
_KEEP_ALIVE = 120
_ADMIN_KEYS = {
    Vendor.OPENAI: "OPENAI_ADMIN_KEY",
    Vendor.ANTHROPIC: "ANTHROPIC_ADMIN_KEY",
    Vendor.OPENROUTER: "OPENROUTER_MANAGEMENT_KEY",
    Vendor.XAI: "XAI_MANAGEMENT_KEY",
}


class _Protocol(HttpToolsProtocol):
    """uvicorn's, which also hands the application the connection itself, so that it can break it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]  # an extension of our own


class _Server(uvicorn.Server):
    """Signals stay with whoever owns the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def _config(app: Sandbox) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=1,
    )


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def start_sandbox(
    host: str = "127.0.0.1", port: int = 0, *, state: SandboxState | None = None, listener: socket.socket | None = None
) -> tuple[str, SandboxState, Callable[[], Awaitable[None]]]:
    """Serves on the running loop, on `listener` where it is given; port 0 takes a free one. Returns `(address, state, stop)`; OSError: the
    port is taken.

    `address` has no path: the vendors' base URLs are `{address}/openai/v1` and `{address}/anthropic`.
    """
    state = state or SandboxState()
    listener = listener or listen(host, port)
    server = _Server(_config(create_app(state)))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():  # noqa: ASYNC110  (uvicorn has a flag, not an event)
        await asyncio.sleep(0.005)

    async def stop() -> None:
        server.should_exit = server.force_exit = True  # whoever called it has gone already: no answer is waited for
        await task
        listener.close()

    return _address(listener), state, stop


class SandboxServer:
    """The sandbox in a thread with a loop of its own: `with SandboxServer() as sandbox: sandbox.openai_base_url`.

    `state` may be read at any time and changed between calls; both sides only ever assign whole values.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, keep_calls: int = 1_000_000, store: Store | None = None) -> None:
        self.state = SandboxState(keep_calls=keep_calls, store=store)
        self._listener = listen(host, port)
        self.address = _address(self._listener)
        self._server = _Server(_config(create_app(self.state)))
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)

    @property
    def openai_base_url(self) -> str:
        return f"{self.address}/openai/v1"

    @property
    def anthropic_base_url(self) -> str:
        return f"{self.address}/anthropic"

    @property
    def openrouter_base_url(self) -> str:
        return f"{self.address}/openrouter/api/v1"

    @property
    def google_base_url(self) -> str:
        return f"{self.address}/google"

    @property
    def xai_base_url(self) -> str:
        return f"{self.address}/xai/v1"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._server.serve(sockets=[self._listener]))

    def start(self) -> Self:
        """Returns when the sandbox answers."""
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.005)
        return self

    def stop(self) -> None:
        """Returns when its port is free again; answers in flight are given a second."""
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def run(host: str = "127.0.0.1", port: int = 8001, *, state_file: Path | None = None, say: Callable[[str], None] = lambda _: None) -> None:
    """Serves until SIGINT or SIGTERM. `say` is given base URLs, a key and admin keys, line by line: with a `state_file` the same ones as
    the last time. Raises `StateRefusedError`, and OSError where the port is taken."""
    listener = listen(host, port)
    state = SandboxState(store=None if state_file is None else Store(state_file))
    address = _address(listener)
    admin = {vendor: account.own_credential() for vendor, account in state.admin.accounts().items() if vendor in _ADMIN_KEYS}
    say(f"OPENAI_BASE_URL={address}/openai/v1")
    say(f"OPENAI_API_KEY={state.own_key(Vendor.OPENAI).value}")
    say(f"ANTHROPIC_BASE_URL={address}/anthropic")
    say(f"ANTHROPIC_API_KEY={state.own_key(Vendor.ANTHROPIC).value}")
    say(f"OPENROUTER_BASE_URL={address}/openrouter/api/v1")
    say(f"GOOGLE_GEMINI_BASE_URL={address}/google")
    say(f"GEMINI_API_KEY={state.own_key(Vendor.GOOGLE).value}")
    for vendor, name in _ADMIN_KEYS.items():
        say(f"{name}={admin[vendor].value}")
    state.keep()
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(_config(create_app(state))).run(sockets=[listener])
    listener.close()
