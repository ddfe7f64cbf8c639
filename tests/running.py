"""A real `keygate serve` in a process of its own, for tests that treat the product as its users do."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

KEYGATE = str(Path(sys.executable).with_name("keygate"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ApiError(AssertionError):
    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:500]}")
        self.status = answer.status_code
        self.problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}


class RunningKeyGate:
    """Starts, signs in, kills and restarts one KeyGate; the data directory stays. Use as a context manager."""

    EMAIL = "owner@example.com"

    def __init__(self, folder: Path, *, sandbox: bool = False, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.password = f"pw-{secrets.token_urlsafe(18)}"
        self.log = folder / "keygate.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.command = [KEYGATE]
        self._arguments = ["serve", "--sandbox"] if sandbox else ["serve"]
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "KEYGATE_DATA_DIR": str(self.data_dir),
            "KEYGATE_PORT": str(self.port),
            "KEYGATE_ADMIN_EMAIL": self.EMAIL,
            "KEYGATE_ADMIN_PASSWORD": self.password,
            **(environment or {}),
        }
        self._http = httpx.Client(base_url=f"{self.url}/api/v1", timeout=30)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._http.close()

    def start(self, *, seconds: float = 60) -> float:
        """Starts and waits until ready; returns how long that took, in seconds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self.command, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                cwd=self.folder,
            )
        while time.monotonic() - began < seconds:
            if self.process.poll() is not None:
                raise AssertionError(f"keygate ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}")
            try:
                if self._http.get(f"{self.url}/ready", timeout=1).status_code == 200:
                    return time.monotonic() - began
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"keygate is not ready after {seconds} s:\n{self.log.read_text()[-4000:]}")

    def stop(self, *, seconds: float = 20) -> float:
        """Ends it as Ctrl-C does; returns how long that took, in seconds."""
        if self.process is None:
            return 0.0
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"keygate did not end within {seconds} s:\n{self.log.read_text()[-4000:]}") from None
        self.process = None
        return time.monotonic() - began

    def kill(self) -> None:
        """`kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def sign_in(self) -> str:
        answer = httpx.post(f"{self.url}/api/v1/auth/login", json={"email": self.EMAIL, "password": self.password}, timeout=30)
        if answer.is_error:
            raise ApiError(answer)
        token: str = answer.json()["access_token"]
        self._http.headers["authorization"] = f"Bearer {token}"
        return token

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """A call of the control API (below `/api/v1`), signed in as the owner; raises `ApiError`."""
        if "authorization" not in self._http.headers:
            self.sign_in()
        answer = self._http.request(method, path, json=body, params=query or None)
        if answer.is_error:
            raise ApiError(answer)
        return answer.json() if answer.content else None

    def credential(self, vendor: str, base_url: str, secret: str) -> dict[str, Any]:
        body = {"vendor": vendor, "name": f"{vendor}-{secrets.token_hex(3)}", "secret": secret, "base_url": base_url}
        return self.call("POST", "/credentials", body)

    def key(self, name: str = "test", **body: Any) -> dict[str, Any]:
        """A virtual key: `{id, key, …}`."""
        return self.call("POST", "/virtual-keys", {"name": name, **body})

    def usage(self, key_id: str) -> dict[str, Any]:
        return self.call("GET", f"/virtual-keys/{key_id}/usage")
