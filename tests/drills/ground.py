"""What a drill stands on: the sandbox as the vendor, a real `keygate serve` before it, and the books of both to be compared."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from tests.drills.callers import Answer, Caller, request
from tests.running import RunningKeyGate

from keygate.kit.money import parse_usd
from keygate.ledger import TokenUsage
from keygate.ledger.prices import PriceBook
from keygate.sandbox import Call, SandboxServer, Vendor

PAGE = 500


@dataclass(frozen=True, slots=True)
class Key:
    """A virtual key and what budgets above it ask for."""

    id: str
    token: str
    team_id: str | None = None
    developer_id: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """A hard budget, and which calls are to be paid from it."""

    id: str
    scope: str
    scope_id: str
    selector: str | None
    amount_nano: int

    def pays(self, key: Key, vendor: str, model: str) -> bool:
        match self.scope:
            case "organization":
                return True
            case "vendor":
                return vendor == self.selector
            case "model":
                return fnmatchcase(f"{vendor}/{model}", self.selector or "")
            case "tag":
                return self.selector in key.tags
            case _:
                return self.scope_id in (key.team_id, key.developer_id, key.id)


class Refused(AssertionError):
    """The control API said no."""

    def __init__(self, what: str, answer: Answer) -> None:
        super().__init__(f"{what}: {answer.status} {bytes(answer.body[:500])!r}")
        self.status = answer.status


class Ground:
    """Use as a context manager. `sandbox.state` is what the vendor knows, `keygate` the process."""

    def __init__(self, folder: Path, *, environment: dict[str, str] | None = None) -> None:
        self.sandbox = SandboxServer()
        self.keygate = RunningKeyGate(folder, environment=environment)
        self.prices = PriceBook()
        self.credentials: dict[str, dict[str, Any]] = {}
        self._token = ""

    def __enter__(self) -> Self:
        self.sandbox.start()
        try:
            self.keygate.start()
            self.sign_in()
            for vendor, base_url in ((Vendor.OPENAI, self.sandbox.openai_base_url), (Vendor.ANTHROPIC, self.sandbox.anthropic_base_url)):
                self.credentials[vendor] = self.keygate.credential(vendor, base_url, self.sandbox.state.create_key(vendor).value)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is not None:
                self.keygate.kill()
            self.keygate.__exit__(kind, error, trace)
        finally:
            self.sandbox.stop()

    def sign_in(self) -> None:
        self._token = self.keygate.sign_in()

    @property
    def port(self) -> int:
        return self.keygate.port

    # control

    async def api(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """A call of the control API on the test's own loop, so that what comes after its answer comes after. Raises `Refused`."""
        answer = await self.ask(method, path, body, **query)
        if not 200 <= answer.status < 300:
            raise Refused(f"{method} {path}", answer)
        return answer.json() if answer.body else None

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        control = Caller(self.port)
        try:
            target = f"/api/v1{path}" + (f"?{urlencode(query)}" if query else "")
            return await control.call(request(method, target, self._token, body))
        finally:
            control.close()

    async def key(self, name: str, **body: Any) -> Key:
        made = await self.api("POST", "/virtual-keys", {"name": name, **body})
        owner = body.get("owner", {})
        return Key(made["id"], made["key"], owner.get("team_id"), owner.get("developer_id"), tuple(body.get("tags", ())))

    async def budget(self, scope: str, scope_id: str | None, amount_usd: str, *, selector: str | None = None, **terms: Any) -> Budget:
        body = {"scope": scope, "amount_usd": amount_usd, "period": "lifetime", "mode": "hard", **terms}
        body |= {} if scope_id is None else {"scope_id": scope_id}
        body |= {} if selector is None else {"selector": selector}
        made = await self.api("POST", "/budgets", body)
        return Budget(made["id"], scope, made["scope_id"], selector, parse_usd(made["amount_usd"]))

    async def budgets(self, key: Key) -> dict[str, dict[str, Any]]:
        """The budgets that the key's usage names, by id."""
        return {each["id"]: each for each in (await self.api("GET", f"/virtual-keys/{key.id}/usage"))["budgets"]}

    async def entries(self, keys: Iterable[Key]) -> list[dict[str, Any]]:
        """All ledger entries of these keys."""
        found: list[dict[str, Any]] = []
        for key in keys:
            cursor: dict[str, Any] = {}
            while True:
                page = await self.api("GET", "/usage/entries", key_id=key.id, limit=PAGE, **cursor)
                found += page["items"]
                if page["next_cursor"] is None:
                    break
                cursor = {"cursor": page["next_cursor"]}
        return found

    async def quiet(self, keys: Iterable[Key], *, seconds: float = 30) -> None:
        """Waits until no request of these keys holds money, and the vendor is done with all it was asked."""
        until = time.monotonic() + seconds
        while True:
            usages = [await self.api("GET", f"/virtual-keys/{key.id}/usage") for key in keys]
            held = [
                f"{budget['id']} {budget['held_usd']}" for usage in usages for budget in usage["budgets"] if parse_usd(budget["held_usd"])
            ]
            flying = [call.id for call in list(self.sandbox.state.calls) if not call.ended_at_ns]
            if not held and not flying and not any(parse_usd(usage["held_usd"]) for usage in usages):
                return
            if time.monotonic() > until:
                raise AssertionError(f"after {seconds} s still held: {held}; at the vendor: {flying}")
            await asyncio.sleep(0.05)

    # the vendor's books

    def calls(self, pick: Callable[[Call], bool] = lambda call: True) -> list[Call]:
        """What the vendor produced, and so bills."""
        return [call for call in list(self.sandbox.state.calls) if call.produced and pick(call)]

    def cost(self, call: Call) -> int:
        """What the vendor bills for a call, in nano-dollars: its own count times the price."""
        assert call.model is not None
        price = self.prices.find(call.vendor, call.model, call.at_ns)
        assert price is not None, f"no price for {call.vendor}/{call.model}"
        used = call.usage
        usage = TokenUsage(used.input, used.cache_read, used.cache_write, used.cache_write_1h, used.output, used.reasoning)
        return price.cost(usage, call.service_tier)

    def served(self, calls: Iterable[Call]) -> int:
        return sum(self.cost(call) for call in calls)


@dataclass(frozen=True, slots=True)
class Books:
    """The vendor's count against the ledger, call by call."""

    served_nano: int  # what the vendor bills
    known_nano: int  # what the ledger has for calls whose cost was read
    in_doubt_nano: int  # charged at the hold instead
    in_doubt: int
    billed_in_doubt_nano: int  # of what is served: the calls whose cost the ledger couldn't know
    calls: int
    entries: int

    @property
    def spent_nano(self) -> int:
        return self.known_nano + self.in_doubt_nano


def compare(ground: Ground, calls: Sequence[Call], entries: Sequence[dict[str, Any]]) -> Books:
    """Asserts that each call stands in the ledger once and at no less than it cost: to the nano where the cost could be read, at its hold
    and marked in doubt where it couldn't."""
    twice = [name for name, count in Counter(entry["request_id"] for entry in entries).items() if count > 1]
    assert not twice, f"requests that stand in the ledger twice: {twice}"
    named = [entry for entry in entries if entry["upstream_request_id"] is not None]
    by_upstream = {entry["upstream_request_id"]: entry for entry in named}
    assert len(by_upstream) == len(named), "a vendor's call stands in the ledger twice"
    known = in_doubt = billed_in_doubt = 0
    orphans: list[Call] = []
    for call in calls:
        entry = by_upstream.get(call.id)
        if entry is None:
            orphans.append(call)
            continue
        cost, charged = ground.cost(call), parse_usd(entry["cost_usd"])
        if entry["in_doubt"]:
            assert charged >= cost, f"{call.id}: the vendor bills {cost}, in doubt stands {charged}: {entry}"
        else:
            assert charged == cost, f"{call.id}: the vendor bills {cost}, the ledger has {charged}: {entry} {call}"
    billed = {call.id for call in calls}
    nameless: dict[tuple[str, str], list[int]] = {}
    for entry in entries:
        charged = parse_usd(entry["cost_usd"])
        if not entry["in_doubt"]:
            assert not charged or entry["upstream_request_id"] in billed, f"charged, and the vendor served nothing: {entry}"
            known += charged
            continue
        in_doubt += charged
        if entry["upstream_request_id"] is None:
            nameless.setdefault((entry["key_id"], entry["model"]), []).append(charged)
    for call in orphans:
        billed_in_doubt += ground.cost(call)
    _covered(ground, orphans, nameless)
    billed_in_doubt += sum(ground.cost(call) for call in calls if call.id in by_upstream and by_upstream[call.id]["in_doubt"])
    return Books(
        served_nano=ground.served(calls),
        known_nano=known,
        in_doubt_nano=in_doubt,
        in_doubt=sum(entry["in_doubt"] for entry in entries),
        billed_in_doubt_nano=billed_in_doubt,
        calls=len(calls),
        entries=len(entries),
    )


def _covered(ground: Ground, orphans: Iterable[Call], nameless: dict[tuple[str, str], list[int]]) -> None:
    """Each call that no entry names has a charge in doubt of its own, of the same key and model, and no smaller."""
    waiting: dict[tuple[str, str], list[Call]] = {}
    for call in orphans:
        waiting.setdefault(((call.user or "").partition(":")[0], call.model or ""), []).append(call)
    for whose, calls in waiting.items():
        charges = sorted(nameless.get(whose, ()), reverse=True)
        costs = sorted((ground.cost(call) for call in calls), reverse=True)
        missing = [cost for index, cost in enumerate(costs) if index >= len(charges) or charges[index] < cost]
        assert not missing, f"{whose}: the vendor served what the ledger doesn't name: {calls}; in doubt there: {charges}"
