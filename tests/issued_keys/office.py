"""A running KeyGate with an admin credential at the sandbox's OpenAI, and what a test looks at there."""

from __future__ import annotations

from typing import Any

import httpx
from tests.issued_keys.houses import KeyHouse
from tests.running import ApiError, RunningKeyGate

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account

MODEL = "gpt-4.1-mini"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}


class Office(KeyHouse):
    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer) -> None:
        super().__init__(keygate, sandbox)
        self.admin_key = self.account.create_credential().value

    @property
    def account(self) -> Account:
        return self.sandbox.state.admin[Vendor.OPENAI]

    def configure(self, admin_key: str | None = None, **settings: str) -> dict[str, Any]:
        wanted = {"base_url": self.sandbox.openai_base_url, "calls_per_minute": "100000", "last_use_delay_seconds": "1", **settings}
        body = {"vendor": "openai", "admin_key": admin_key or self.admin_key, "settings": wanted}
        return self.call("POST", "/vendors/configure", body)  # type: ignore[no-any-return]  # JSON

    def developer(self, name: str = "priya") -> str:
        return str(self.call("POST", "/developers", {"name": name, "email": f"{name}@example.com"})["id"])

    def provision(self, **body: Any) -> dict[str, Any]:
        return self.call("POST", "/keys/provision", {"vendor": "openai", **body})  # type: ignore[no-any-return]  # JSON

    def key(self, key_id: str) -> dict[str, Any]:
        return self.call("GET", f"/keys/{key_id}")  # type: ignore[no-any-return]  # JSON

    def works(self, key: str) -> bool:
        """Straight at the vendor, with no KeyGate in the path."""
        answer = httpx.post(
            f"{self.sandbox.openai_base_url}/chat/completions", json=CHAT, headers={"authorization": f"Bearer {key}"}, timeout=10
        )
        assert answer.status_code in {200, 401}, answer.text
        return answer.status_code == 200

    def standing(self) -> dict[str, int]:
        """What stands at the vendor: projects that are not archived, and keys in them that work."""
        account = self.account
        with self.sandbox.state.admin.lock:
            projects = {each.id for each in account.shelves["projects"] if each.body["status"] == "active" and each.id != "proj_default"}
            keys = [each for each in account.shelves["keys"] if each.parent in projects and each.grant is not None]
            return {"projects": len(projects), "keys": len(keys)}

    def fault(self, operation: str, **fault: Any) -> None:
        answer = httpx.post(f"{self.sandbox.address}/_sandbox/admin/openai/faults", json={"operation": operation, **fault}, timeout=10)
        assert answer.status_code == 201, answer.text

    def heal(self) -> None:
        httpx.delete(f"{self.sandbox.address}/_sandbox/admin/openai/faults", timeout=10)

    def pass_time(self, seconds: float) -> None:
        """At the vendor only."""
        httpx.post(f"{self.sandbox.address}/_sandbox/admin/clock", json={"advance_seconds": seconds}, timeout=10)


__all__ = ["ApiError", "Office"]
