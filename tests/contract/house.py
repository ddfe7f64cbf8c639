"""One KeyGate in front of a recording vendor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.contract.recorder import Call, Recorder
from tests.running import RunningKeyGate

OPENAI_SECRET, ANTHROPIC_SECRET = "sk-vendor-openai-4711", "sk-ant-vendor-4712"
MODEL = "gpt-4.1-mini"
CLAUDE = "claude-sonnet-4-5"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
MESSAGE = {"model": CLAUDE, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
COST = "0.00006"  # of one answer of the recorder, at the prices set below


class House:
    def __init__(self, keygate: RunningKeyGate, vendor: Recorder) -> None:
        self.keygate = keygate
        self.vendor = vendor
        self.url = keygate.url
        self.call = keygate.call
        self.key = keygate.key
        self.client = httpx.Client(base_url=keygate.url, timeout=30)

    def furnish(self) -> None:
        self.keygate.credential("openai", f"{self.vendor.address}/v1", OPENAI_SECRET)
        self.keygate.credential("anthropic", self.vendor.address, ANTHROPIC_SECRET)
        for model in (f"openai/{MODEL}", f"anthropic/{CLAUDE}"):
            self.call("PUT", f"/prices/{model}", {"rates_usd": {"input": "1.00", "output": "10.00"}})

    def send(self, key: str | None, path: str = "/openai/v1/chat/completions", body: Any = None, **headers: str) -> httpx.Response:
        """A call of the gateway; `headers` with underscores for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            named["authorization"] = f"Bearer {key}"
        return self.client.post(path, json=CHAT if body is None else body, headers=named)

    def passed(self, key: str, path: str = "/openai/v1/chat/completions", body: Any = None, **headers: str) -> Call:
        """The same, and what of it reached the vendor."""
        before = len(self.vendor.calls)
        answer = self.send(key, path, body, **headers)
        assert answer.status_code == 200, answer.text
        [call] = self.vendor.calls[before:]
        return call

    def raw(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """A call of the control API as it answers; signed in with `token`, or not at all."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return self.client.request(method, f"/api/v1{path}", headers=headers | options.pop("headers", {}), **options)


@contextmanager
def furnished(folder: Path) -> Iterator[House]:
    with Recorder() as vendor, RunningKeyGate(folder, environment={"KEYGATE_MAX_BODY_BYTES": "1048576"}) as keygate:
        house = House(keygate, vendor)
        house.furnish()
        yield house
        house.client.close()
