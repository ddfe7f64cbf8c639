"""Where the SDKs are pointed: straight at the sandbox vendor, or at a running KeyGate in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from tests.running import RunningKeyGate

from keygate.sandbox import Fault, FaultPlan, KeyStatus, SandboxServer, Vendor

CHAT = {Vendor.OPENAI: "gpt-4.1-mini", Vendor.ANTHROPIC: "claude-sonnet-4-6"}


class Kind(StrEnum):
    """What a key is good for."""

    VALID = "valid"
    AUTHENTICATION = "authentication"  # 401
    PERMISSION = "permission"  # 403
    PAYMENT = "payment"  # 402
    RATE_LIMIT = "rate_limit"  # 429
    RETRIED = "retried"  # 429 with a short retry-after once, then served


class Target(Protocol):
    """`key(kind)` gives a key whose every call ends as the kind says."""

    openai_base_url: str
    anthropic_base_url: str
    sandbox: SandboxServer

    def key(self, vendor: Vendor, kind: Kind) -> str: ...


class SandboxTarget:
    """The vendor itself: the proof that the sandbox is one."""

    def __init__(self, sandbox: SandboxServer) -> None:
        self.sandbox = sandbox
        self.openai_base_url = sandbox.openai_base_url
        self.anthropic_base_url = sandbox.anthropic_base_url

    def key(self, vendor: Vendor, kind: Kind) -> str:
        state = self.sandbox.state
        match kind:
            case Kind.AUTHENTICATION:
                return state.create_key(vendor, status=KeyStatus.REVOKED).value
            case Kind.PERMISSION:
                return state.create_key(vendor, status=KeyStatus.FORBIDDEN).value
            case Kind.RATE_LIMIT:
                return state.create_key(vendor, status=KeyStatus.RATE_LIMITED).value
            case Kind.PAYMENT:
                return state.create_key(vendor, settings={"fault": Fault.STATUS, "status": 402}).value
            case Kind.RETRIED:
                value = state.create_key(vendor).value
                state.plan_fault(value, FaultPlan({"fault": Fault.STATUS, "status": 429, "retry_after": "1"}))
                return value
        return state.create_key(vendor).value


class GatewayTarget:
    """KeyGate with a credential of the sandbox for each vendor; every kind of key is made through its control API."""

    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer) -> None:
        self.keygate = keygate
        self.sandbox = sandbox
        self.openai_base_url = f"{keygate.url}/openai/v1"
        self.anthropic_base_url = f"{keygate.url}/anthropic"
        self._upstream = {vendor: sandbox.state.create_key(vendor).value for vendor in Vendor}
        keygate.credential("openai", sandbox.openai_base_url, self._upstream[Vendor.OPENAI])
        keygate.credential("anthropic", sandbox.anthropic_base_url, self._upstream[Vendor.ANTHROPIC])

    def key(self, vendor: Vendor, kind: Kind) -> str:
        match kind:
            case Kind.AUTHENTICATION:
                made = self._made(kind)
                self.keygate.call("POST", f"/virtual-keys/{made['id']}/revoke")
                return str(made["key"])
            case Kind.PERMISSION:
                return str(self._made(kind, models=["openai/gpt-none", "anthropic/claude-none"])["key"])
            case Kind.PAYMENT:
                return str(self._made(kind, budgets=[{"amount_usd": "0.000000001", "period": "lifetime", "mode": "hard"}])["key"])
            case Kind.RATE_LIMIT:
                return str(self._made(kind, limits={"tokens_per_minute": 1})["key"])
            case Kind.RETRIED:
                plan = FaultPlan({"fault": Fault.STATUS, "status": 429, "retry_after": "1"})
                self.sandbox.state.plan_fault(self._upstream[vendor], plan)
                return str(self._made(kind)["key"])
        return str(self._made(kind)["key"])

    def _made(self, kind: Kind, **body: Any) -> dict[str, Any]:
        return self.keygate.key(f"sdk-{kind}", **body)


@contextmanager
def sandbox_target() -> Iterator[Target]:
    with SandboxServer() as sandbox:
        yield SandboxTarget(sandbox)


@contextmanager
def gateway_target(folder: Path) -> Iterator[Target]:
    with SandboxServer() as sandbox, RunningKeyGate(folder) as keygate:
        yield GatewayTarget(keygate, sandbox)
