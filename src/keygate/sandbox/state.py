"""What the sandbox vendor remembers: keys, models, default behaviour, every call that it saw, and the admin side (`admin/`)."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from keygate.sandbox.admin.state import AdminState
from keygate.sandbox.catalogue import MODELS, Model, find
from keygate.sandbox.kept import Kept
from keygate.sandbox.model import Behaviour, Call, FaultPlan, Key, KeyStatus, Usage, Vendor
from keygate.sandbox.store import Store

KEEP_CALLS = 10_000


class SandboxState:
    """Lives in memory, on one event loop, and with a `store` in that file too. Totals count every call; the calls themselves are kept up to
    `keep_calls`. Raises `StateRefusedError` where the file can't be read."""

    def __init__(self, *, keep_calls: int = KEEP_CALLS, store: Store | None = None) -> None:
        self.keys: dict[str, Key] = {}
        self.models: dict[str, Model] = dict(MODELS)
        self.admin = AdminState(self.keys, self.models)
        self.own: dict[str, str] = {}  # vendor → the key of whoever runs the sandbox
        self.behaviour = Behaviour()
        self.calls: deque[Call] = deque(maxlen=keep_calls)
        self.served: dict[tuple[str, str], Totals] = {}
        self._run = secrets.token_hex(4)
        self._count = 0
        self._kept = None if store is None else Kept(self, store)
        if self._kept is not None:
            self._kept.load()
            self.admin.keep(self._kept)

    def keep(self) -> None:
        """Writes down what was changed in this process, past the APIs, where there is a file."""
        if self._kept is not None:
            with self.admin.lock:
                self._kept.everything()

    def own_key(self, vendor: Vendor) -> Key:
        """The key of whoever runs the sandbox: made the first time, and the same again after that."""
        key = self.keys.get(self.own.get(vendor, ""))
        if key is None or key.status is KeyStatus.REVOKED:
            key = self.create_key(vendor)
            self.own[vendor] = key.value
            self.keep()
        return key

    def create_key(
        self, vendor: Vendor, *, value: str | None = None, status: KeyStatus = KeyStatus.VALID, settings: Mapping[str, Any] | None = None
    ) -> Key:
        """A new key; without `value`, `sandbox-<vendor>-…`. Replaces a key of the same value. ValueError: a setting doesn't fit."""
        settings = dict(settings or {})
        Behaviour().with_settings(settings)
        key = Key(value or f"sandbox-{vendor}-{secrets.token_hex(16)}", vendor, status, settings)
        self.keys[key.value] = key
        return key

    def revoke_key(self, value: str) -> None:
        """From now on the key is refused as one that never was. KeyError: there is none."""
        self.keys[value].status = KeyStatus.REVOKED

    def plan_fault(self, value: str, plan: FaultPlan) -> None:
        """Adds a plan to a key; the first plan that strikes decides a call. KeyError: no such key."""
        self.keys[value].plans.append(plan)

    def add_model(self, model: Model) -> None:
        self.models[model.name] = model

    def find_model(self, vendor: Vendor, name: str) -> Model | None:
        return find(self.models, vendor, name)

    def behaviour_of(self, key: Key) -> Behaviour:
        """Defaults, the key's own settings, and the first of its plans that strikes this call. Counts the call in every plan asked."""
        behaviour = self.behaviour.with_settings(key.settings)
        if key.plans:  # counted, and with a file kept, when the call is over: see `used`
            struck = next((plan for plan in key.plans if plan.strikes()), None)
            key.plans = [plan for plan in key.plans if plan.calls != 0]
            if struck is not None:
                behaviour = behaviour.with_settings(struck.settings)
        return behaviour

    def used(self, call: Call) -> None:
        """A call is about to be answered: what it changed of its key is written down, where there is a file."""
        key = self.keys.get(call.key or "")
        if key is not None and self._kept is not None:
            with self.admin.lock:
                self._kept.key(key)

    def open_call(self, vendor: Vendor, path: str) -> Call:
        self._count += 1
        call = Call(id=f"req_{self._run}{self._count:010d}", vendor=vendor, path=path, key=None, at_ns=time.time_ns())
        self.calls.append(call)
        return call

    def bill(self, call: Call, usage: Usage) -> None:
        """Tokens that were produced this moment."""
        call.usage.add(usage)
        self.admin.bill(call, usage)
        self.used(call)
        totals = self.served.get((call.key or "", call.model or ""))
        if totals is None:
            totals = self.served[call.key or "", call.model or ""] = Totals()
        if not call.produced:
            call.produced = True
            totals.requests += 1
        totals.usage.add(usage)

    def report(self, *, key: str | None = None, calls: bool = True) -> dict[str, Any]:
        """`{"totals": [{key, model, requests, usage}], "calls": [...], "seen": n}`: of one key, or of all."""
        return {
            "seen": self._count,
            "totals": [
                {"key": owner, "model": model, "requests": totals.requests, "usage": asdict(totals.usage)}
                for (owner, model), totals in self.served.items()
                if key is None or owner == key
            ],
            "calls": [call.as_dict() for call in self.calls if key is None or call.key == key] if calls else [],
        }

    def reset(self) -> None:
        """Forgets what was served and seen; keys and behaviour stay."""
        self.calls.clear()
        self.served.clear()
        self._count = 0


class Totals:
    """What one key was served of one model."""

    __slots__ = ("requests", "usage")

    def __init__(self) -> None:
        self.requests = 0
        self.usage = Usage()
