"""A gateway on real sockets, with ports in memory: keys, credentials and a small engine that keeps the promises of `Accounts`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import uvicorn
from tests.gateway.upstream import Upstream

from keygate.errors import Unavailable
from keygate.gateway.gateway import Gateway, GatewaySettings
from keygate.gateway.proxies import ProxySettings
from keygate.kit.secret import Secret
from keygate.ledger import Ask, Hold, Outcome, Refusal, RefusalKind, Settlement
from keygate.policies import BudgetMode, BudgetRule, KeyDigest, KeyState, KeyStatus, Period, Scope
from keygate.virtual_keys import digest, mint

PEPPER = b"pepper-of-the-tests-32-bytes-long"
NOT_BILLED = {Outcome.NOT_SENT, Outcome.UPSTREAM_ERROR}


class MemoryAccounts:
    """One hard budget per key, requests counted: a token costs 1000 nano-dollars."""

    def __init__(self) -> None:
        self.open: dict[str, Hold] = {}
        self.asks: dict[str, Ask] = {}
        self.settled: dict[str, tuple[int, Settlement]] = {}
        self.spent: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.bound: list[KeyState] = []
        self.ready: set[str] = set()  # ids of keys that are bound now
        self.changed = asyncio.Condition()
        self.hold_wait = 0.3
        self.broken = False

    async def bind(self, state: KeyState) -> None:
        self.bound.append(state)
        self.ready.add(state.id)

    def unbind(self, key_ids: Iterable[str]) -> None:
        self.ready.difference_update(key_ids)

    def begin(self, state: KeyState, vendor: str, model: str, ask: Ask) -> Hold | Refusal:
        if self.broken:
            raise Unavailable("the journal is full")
        assert state.id in self.ready, f"{state.id} begins unbound"
        nano = 1000 * (ask.input_bound + (ask.output_max or 0))
        output_set = None
        if ask.output_max is None and not ask.output_free:
            output_set = 100
            nano += 1000 * output_set
        for rule in state.budgets:
            spent, held = self.spent.get(rule.id, 0), self.held.get(rule.id, 0)
            if spent + held + nano > rule.amount_nano:
                kind = RefusalKind.BUDGET_SPENT if spent + nano > rule.amount_nano else RefusalKind.BUDGET_HELD
                return Refusal(kind, rule.scope, rule.scope_id, rule.id, f"budget {rule.id}: spent {spent}, held {held}", 1000)
        hold = Hold(ask.request_id, nano, ask.input_bound, output_set=output_set, state=state)
        for rule in state.budgets:
            self.held[rule.id] = self.held.get(rule.id, 0) + nano
        self.open[hold.id] = hold
        self.asks[hold.id] = ask
        return hold

    async def begin_waiting(self, state: KeyState, vendor: str, model: str, ask: Ask) -> Hold | Refusal:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.hold_wait
        while True:
            answer = self.begin(state, vendor, model, ask)
            if isinstance(answer, Hold) or answer.kind is not RefusalKind.BUDGET_HELD or loop.time() >= until:
                return answer
            await asyncio.sleep(0.01)

    def settle(self, hold: Hold, settlement: Settlement) -> int:
        assert hold.id in self.open, f"{hold.id} settled twice or never begun: {self.settled.get(hold.id)}"
        del self.open[hold.id]
        usage = settlement.usage
        cost = 0 if settlement.outcome in NOT_BILLED else hold.nano if usage is None else 1000 * (usage.input + usage.output)
        for rule in hold.state.budgets:
            self.held[rule.id] -= hold.nano
            self.spent[rule.id] = self.spent.get(rule.id, 0) + cost
        self.settled[hold.id] = (cost, settlement)
        return cost

    def exceeded(self, hold: Hold, state: KeyState) -> Refusal | None:
        for rule in state.budgets:
            spent, held = self.spent.get(rule.id, 0), self.held.get(rule.id, 0)
            if spent + held > rule.amount_nano:
                return Refusal(RefusalKind.BUDGET_SPENT, rule.scope, rule.scope_id, rule.id, f"budget {rule.id} was lowered")
        return None

    @property
    def last(self) -> Settlement:
        return list(self.settled.values())[-1][1]


class MemoryPrices:
    def models(self, vendor: str) -> Sequence[str]:
        return {"openai": ["gpt-4.1", "gpt-4.1-mini"], "anthropic": ["claude-opus-4-8"]}.get(vendor, [])

    def context_window(self, vendor: str, model: str) -> int | None:
        return 1000 if model == "gpt-4.1" else None


class MemoryKeys:
    def __init__(self) -> None:
        self.states: dict[str, KeyState] = {}
        self.loads = 0
        self.delay = 0.0
        self.down = False

    async def load(self, public_id: str) -> KeyState | None:
        self.loads += 1
        found = self.states.get(public_id)
        await asyncio.sleep(self.delay)
        if self.down:
            raise Unavailable("down")
        return found

    async def load_by_ids(self, key_ids: Sequence[str]) -> list[KeyState]:
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("down")
        return [state for state in self.states.values() if state.id in key_ids]


@dataclass
class Credential:
    id: str
    organization_id: str
    vendor: str
    base_url: str
    secret: Secret
    weight: int = 1
    models: tuple[str, ...] | None = None


class MemoryCredentials:
    def __init__(self) -> None:
        self.all: list[Credential] = []

    async def load(self) -> Sequence[Credential]:
        return list(self.all)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Rig:
    gateway: Gateway
    upstream: Upstream
    accounts: MemoryAccounts
    keys: MemoryKeys
    credentials: MemoryCredentials
    port: int = 0
    server: uvicorn.Server | None = None
    asgi: list[str] = field(default_factory=list)

    def key(self, **changes: Any) -> tuple[str, KeyState]:
        """A key in the database, and its token."""
        token = mint()
        text = token.text.open()
        number = len(self.keys.states) + 1
        state = KeyState(
            id=f"vk_{number}",
            public_id=token.public_id,
            name=f"key {number}",
            organization_id="org_1",
            team_id=None,
            developer_id=None,
            app_id=None,
            status=KeyStatus.ACTIVE,
            digests=(KeyDigest(digest(PEPPER, text)),),
            expires_at_ns=None,
            rules=(),
            limits=(),
            budgets=(),
        )
        state = replace(state, **changes)
        self.keys.states[token.public_id] = state
        return text, state

    async def change(self, state: KeyState, **changes: Any) -> KeyState:
        """What the control plane does: the row, then the call."""
        new = replace(state, **changes)
        self.keys.states[new.public_id] = new
        await self.gateway.keys_changed([new.id])
        return new

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def raw(self, data: bytes, *, timeout: float = 5) -> bytes:
        """Everything that comes back on one connection, until it closes."""
        reader, writer = await self.open()
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(-1), timeout)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def call(
        self, token: str, body: dict[str, Any] | None = None, *, path: str = "/openai/v1/chat/completions", **headers: str
    ) -> Reply:
        data = request(token, chat() if body is None else body, path=path, **headers)
        reader, writer = await self.open()
        writer.write(data)
        try:
            return await asyncio.wait_for(read_reply(reader), 15)
        finally:
            writer.close()

    async def settled(self, count: int = 1, timeout: float = 5) -> None:
        """Waits until nothing is open and at least `count` requests are settled."""
        async with asyncio.timeout(timeout):
            while self.accounts.open or len(self.accounts.settled) < count:  # noqa: ASYNC110  (a dict tells nobody)
                await asyncio.sleep(0.01)

    def nothing_leaks(self) -> None:
        assert not self.accounts.open
        assert not any(self.accounts.held.values())
        assert not self.gateway.in_flight
        assert not self.gateway.draining
        assert self.gateway.buffered_bytes == 0
        for state in self.keys.states.values():
            entry = self.gateway.ring.get(state.public_id)
            assert entry is None or not entry.open


def chat(**members: Any) -> dict[str, Any]:
    return {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]} | members


def request(token: str, body: dict[str, Any], *, path: str = "/openai/v1/chat/completions", **headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: gw",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head[:-4].split("\r\n")
    return int(line.split(" ")[1]), {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)}


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readline(), 16)
    data = await reader.readexactly(size)
    await reader.readexactly(2)
    return data


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    status, headers = await read_head(reader)
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while piece := await read_chunk(reader):
            body += piece
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read(-1)
    return Reply(status, headers, body)


def budget(amount: int, name: str = "bud_1") -> BudgetRule:
    return BudgetRule(name, Scope.KEY, "vk_1", None, Period.DAY, BudgetMode.HARD, amount)


@asynccontextmanager
async def running(*, proxies: ProxySettings | None = None, keep_alive: int = 75, **settings: Any) -> AsyncIterator[Rig]:
    upstream = Upstream()
    await upstream.start()
    accounts, keys, credentials = MemoryAccounts(), MemoryKeys(), MemoryCredentials()
    credentials.all = [
        Credential("cred_1", "org_1", "openai", f"{upstream.url}/v1", Secret("sk-upstream-openai-secret")),
        Credential("cred_2", "org_1", "anthropic", upstream.url, Secret("sk-upstream-anthropic-secret")),
    ]
    gateway = Gateway(
        GatewaySettings(**settings),
        keys=keys,
        credentials=credentials,
        accounts=accounts,
        prices=MemoryPrices(),
        pepper=PEPPER,
        proxies=proxies,
    )
    rig = Rig(gateway, upstream, accounts, keys, credentials)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    await gateway.start()
                    await send({"type": "lifespan.startup.complete"})
                else:
                    await gateway.stop()
                    await send({"type": "lifespan.shutdown.complete"})
                    return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        rig.asgi.append(scope["path"])
        await asyncio.sleep(0.02)
        answer = b"asgi " + scope["path"].encode() + b" " + body
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
        await send({"type": "http.response.body", "body": answer})

    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=gateway.http_class,
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=max(1, int(settings.get("shutdown_timeout", 2))),
    )
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
        if task.done():
            task.result()
    rig.port = server.servers[0].sockets[0].getsockname()[1]
    rig.server = server
    try:
        yield rig
    finally:
        server.should_exit = True
        await task
        await upstream.stop()


class _no_signals:  # noqa: N801  (takes the place of a context manager method)
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass
