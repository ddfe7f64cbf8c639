"""One product under observation: whatever comes out of it, by any way that the tests use, is evidence."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.running import KEYGATE, RunningKeyGate
from tests.silence.canaries import Evidence
from tests.silence.routes import Made
from tests.silence.speaker import SpeakingVendor

from keygate.sandbox import SandboxServer

CHAT, RESPONSES, MESSAGES = "/openai/v1/chat/completions", "/openai/v1/responses", "/anthropic/v1/messages"
PUBLIC_OF_KEY = 18  # `sk-kg-` and the public id
FULL = os.environ.get("KEYGATE_DRILL") == "full"
PUBLIC_OF_TOKEN = 4  # `kga_`, `kgt_`


@dataclass(frozen=True)
class Mode:
    name: str
    database: str
    level: str
    form: str
    whole: bool = False  # every step, every wrong call
    debug: bool = False  # Python's debug mode and asyncio's: several times as slow


@dataclass
class Run:
    """One product under observation."""

    evidence: Evidence
    keygate: RunningKeyGate
    vendor: SpeakingVendor
    sandbox: SandboxServer
    folder: Path
    database_url: str
    mode: Mode
    made: Made
    token: str = ""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=20, trust_env=False))
    called: set[str] = field(default_factory=set)

    def mark(self, name: str, value: str, **how: Any) -> str:
        self.made[name] = value
        return self.evidence.mark(name, value, **how)

    def send(self, method: str, path: str, *, allowed: tuple[str, ...] = (), seen: str = "", **how: Any) -> httpx.Response | None:
        """Whatever comes back is evidence; None where the connection broke."""
        signed_in = {"authorization": f"Bearer {self.token}"} if self.token else {}
        headers = {name: value for name, value in (signed_in | how.pop("headers", {})).items() if value}
        try:
            answer = self.client.request(method, self.keygate.url + path, headers=headers, **how)
        except httpx.HTTPError as error:
            self.evidence.add(f"error of {method} {path}", repr(error))
            return None
        head = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
        self.evidence.add(f"answer {answer.status_code} to {method} {seen or path}", head.encode() + answer.content, allowed=allowed)
        return answer

    def api(self, method: str, path: str, body: Any = None, **how: Any) -> Any:
        answer = self.send(method, f"/api/v1{path}", json=body, **how)
        assert answer is not None, self.evidence.seen[-1][:2]
        assert answer.is_success, (method, path, answer.text)
        return answer.json() if answer.content else None

    def issued(self, name: str, method: str, path: str, body: Any, member: str = "key", public: int = PUBLIC_OF_KEY) -> dict[str, Any]:
        """A call whose answer is the one place where the new secret may stand. It is marked from then on."""
        made = self.api(method, path, body, allowed=(name,))
        self.mark(name, made[member], public=public)
        return dict(made)

    def command(self, *arguments: str, allowed: tuple[str, ...] = (), text: str = "", **environment: str) -> tuple[int, str]:
        """A `keygate` command of its own process: its output and its command line are evidence."""
        settings = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "KEYGATE_URL": self.keygate.url,
            "KEYGATE_DATA_DIR": str(self.keygate.data_dir),
            "KEYGATE_DATABASE_URL": self.database_url,
            **environment,
        }
        settings = {name: value for name, value in settings.items() if value}
        with subprocess.Popen(
            [KEYGATE, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings, cwd=self.folder
        ) as process:
            with contextlib.suppress(psutil.Error):
                typed = [name for name, value in self.made.items() if value in arguments]  # by the person, not by us
                self.evidence.add(f"command line of {arguments[:2]}", "\0".join(psutil.Process(process.pid).cmdline()), allowed=typed)
            output, errors = process.communicate(text.encode(), 60)
        self.evidence.add(f"output of keygate {' '.join(arguments[:3])}", output, allowed=allowed)
        self.evidence.add(f"errors of keygate {' '.join(arguments[:3])}", errors, allowed=allowed)
        return process.returncode, output.decode() + errors.decode()
