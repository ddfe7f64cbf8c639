"""The whole product before a vendor that can't be trusted, and what must be true of it after every test."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psutil
from tests.hostile import wire
from tests.hostile.evil import EvilVendor
from tests.running import RunningKeyGate

SETTINGS = {
    "KEYGATE_CLIENT_TIMEOUT": "2",
    "KEYGATE_FIRST_BYTE_TIMEOUT": "2",
    "KEYGATE_IDLE_TIMEOUT": "2",
    "KEYGATE_DRAIN_TIMEOUT": "3",
    "KEYGATE_MAX_BODY_BYTES": str(2**20),
    "KEYGATE_LOG_LEVEL": "info",
}
CHAT_PATH = "/openai/v1/chat/completions"
_SLOTS = 500


@dataclass
class House:
    keygate: RunningKeyGate
    vendor: EvilVendor
    key: dict[str, Any]

    @property
    def port(self) -> int:
        return self.keygate.port

    @property
    def token(self) -> str:
        return str(self.key["key"])

    async def chat(self, mode: str = "", *, stream: bool = False, path: str = CHAT_PATH, seconds: float = wire.PATIENCE) -> bytes:
        """One call, to the end of its connection."""
        headers = [f"x-mode: {mode}"] if mode else []
        body = wire.chat(**({"stream": True} if stream else {}))
        return await wire.raw(self.port, wire.post(path, self.token, body, *headers), seconds=seconds)

    async def raw(self, data: bytes, *, seconds: float = wire.PATIENCE, half_close: bool = False) -> bytes:
        return await wire.raw(self.port, data, seconds=seconds, half_close=half_close)

    async def usage(self) -> dict[str, Any]:
        return await asyncio.to_thread(self.keygate.usage, self.key["id"])

    async def calm(self, *, seconds: float = 10) -> dict[str, Any]:
        """Waits until nothing is held and every slot is free. AssertionError: something leaked."""
        until = time.monotonic() + seconds
        while True:
            found = await self.usage()
            slots = [limit["used"] for limit in found["limits"] if limit["kind"] == "concurrent_requests"]
            assert slots, "the key has a limit on concurrency"
            if Decimal(found["held_usd"]) == 0 and not any(slots) and not any(Decimal(each["held_usd"]) for each in found["budgets"]):
                return found
            assert time.monotonic() < until, f"held for longer than any request lives: {found}"
            await asyncio.sleep(0.05)

    def resident(self) -> int:
        """Bytes of memory."""
        assert self.keygate.process is not None
        return int(psutil.Process(self.keygate.process.pid).memory_info().rss)

    def is_up(self) -> bool:
        return self.keygate.process is not None and self.keygate.process.poll() is None


def furnish(keygate: RunningKeyGate, vendor: EvilVendor) -> House:
    """Credentials that lead to `vendor`, and a key with a hard budget and a limit on concurrency."""
    keygate.credential("openai", f"{vendor.url}/v1", "sk-evil-openai-secret-000000")
    keygate.credential("anthropic", vendor.url, "sk-ant-evil-secret-000000")
    key = keygate.key(
        "hostile",
        budgets=[{"amount_usd": "100000.00", "period": "day", "mode": "hard"}],
        limits={"concurrent_requests": _SLOTS},
    )
    return House(keygate, vendor, key)
