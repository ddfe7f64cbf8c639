"""The worker's side of issued keys: takes a key whose time has come, and works on it until it has to wait. Safe to call at any time, from
several processes, and to kill: what was begun is found again in the rows and at the vendor."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.errors import KeyGateError
from keygate.issued_keys import ending, making, rotating
from keygate.issued_keys.bench import LEASE_NS, Bench, Handler, LeaseLost, Overtaken, Tools
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.life import ENDED, LIVE, State
from keygate.issued_keys.model import TOKEN_MEMORY_NS, Ending, IssuedKey
from keygate.kit.clock import NANOSECONDS
from keygate.vault import EnvelopeBroken
from keygate.vendors.admin import AdminKeyRefused, Provisioner

if TYPE_CHECKING:
    from keygate.issued_keys.account_repository import VendorAccountRepository

_log = logging.getLogger(__name__)

AT_ONCE = 8  # of one account: one whose vendor does not answer takes no other's turn
MOST = 256  # of all accounts together
LOOK_SECONDS = 1.0  # while some are at work, what has become due meanwhile is looked for so often
_SWEPT = 100
_MAX_TURNS = 40
_STUMBLE_NS = 60 * NANOSECONDS

_HANDLERS: dict[State, Handler] = {
    State.REQUESTED: making.begin,
    State.CREATING: making.make,
    State.ROTATING: rotating.rotate,
    State.REVOKING: ending.end,
    State.IRREVOCABLE: ending.end,
}


class Operations:
    def __init__(
        self, tools: Tools, *, accounts: VendorAccountRepository, desks: Desks, provisioners: Mapping[str, Provisioner], node_id: str
    ) -> None:
        self._tools = tools
        self._accounts = accounts
        self._desks = desks
        self._provisioners = provisioners
        self._node_id = node_id[:24]
        self._count = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._accounts_of: dict[str, str] = {}  # of the keys at work, as far as known

    async def recover(self) -> None:
        """Before the first turn: what a former process of this node held is free again."""
        async with self._tools.database.unit() as work:
            await self._tools.repository.release_all(work.connection, by_node=self._node_id)

    async def tick(self) -> None:
        """Starts work on every key that is due, at most `AT_ONCE` of an account at a time; returns when none is left. For the worker."""
        while True:
            await self._take_up()
            if not self._tasks:
                return
            await asyncio.wait(list(self._tasks.values()), timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)

    async def _take_up(self) -> None:
        """First every key whose time is over is told to end, which needs no vendor; then as many as there is room for are begun."""
        swept = False
        while True:
            busy = Counter(self._accounts_of.values())
            room = MOST - sum(min(count, AT_ONCE) for count in busy.values())
            full = [account_id for account_id, count in busy.items() if count >= AT_ONCE]
            async with self._tools.database.read() as connection:
                due = await self._tools.repository.due(
                    connection, now_ns=self._tools.clock.now_ns(), limit=max(0, room), but=set(self._tasks), full=full
                )
            if not swept and (due or self._tasks):
                swept = True
                await self._sweep()
            for organization_id, key_id, account_id in due:
                if busy[account_id] < AT_ONCE:
                    busy[account_id] += 1
                    self.start(organization_id, key_id, account_id=account_id)
            if len(due) < room or room <= 0:
                return

    def start(self, organization_id: str, key_id: str, *, account_id: str | None = None) -> asyncio.Task[None]:
        """Work on this key now, unless it is going on. The task goes on where whoever started it stops waiting."""
        running = self._tasks.get(key_id)
        if running is not None:
            return running
        task = asyncio.create_task(self._run(organization_id, key_id), name=f"issued-key:{key_id}")
        self._tasks[key_id] = task
        if account_id is not None:
            self._accounts_of[key_id] = account_id
        task.add_done_callback(lambda _: self._ended(key_id))
        return task

    def _ended(self, key_id: str) -> None:
        self._tasks.pop(key_id, None)
        self._accounts_of.pop(key_id, None)

    async def told(self) -> None:
        """A secret was told in a transaction that is committed, and the answer is not yet under way."""
        await self._tools.at_step("told the secret")

    async def stop(self) -> None:
        """Ends every work where it waits; leases are given back."""
        running = list(self._tasks.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def forget(self) -> None:
        """Erases secrets that were told a while ago, or that nobody fetched in time, and what is known of tokens long over. For the
        worker."""
        now = self._tools.clock.now_ns()
        async with self._tools.database.unit() as work:
            await self._tools.repository.forget_secrets(work.connection, now_ns=now)
            await self._tools.repository.forget_tokens(work.connection, ended_before_ns=now - TOKEN_MEMORY_NS)

    async def _run(self, organization_id: str, key_id: str) -> None:
        tools = self._tools
        self._count += 1
        lease = f"{self._node_id}:{self._count}"
        now = tools.clock.now_ns()
        async with tools.database.unit() as work:
            taken = await tools.repository.lease(work.connection, organization_id, key_id, by=lease, until_ns=now + LEASE_NS, now_ns=now)
        if not taken:
            return
        try:
            for _ in range(_MAX_TURNS):
                if not await self._turn(organization_id, key_id, lease):
                    break
        except LeaseLost:
            _log.warning("issued key %s: another process has taken over", key_id)
        except KeyGateError as error:
            _log.warning("issued key %s: %s", key_id, error.detail)
        except Exception:  # noqa: BLE001  (one key's trouble must not stop the others)
            _log.exception("issued key %s: the work on it failed; it is tried again", key_id)
            await self._stumbled(organization_id, key_id)
        finally:
            async with tools.database.unit() as work:
                await tools.repository.release(work.connection, organization_id, key_id, by=lease)

    async def _turn(self, organization_id: str, key_id: str, lease: str) -> bool:
        """One step of the key's life. False: nothing is due."""
        tools = self._tools
        async with tools.database.read() as connection:
            key = await tools.repository.get(connection, organization_id, key_id)
        if key is None or key.due_at_ns is None or key.due_at_ns > tools.clock.now_ns():
            return False
        self._accounts_of[key_id] = key.account_id
        bench = Bench(tools, key, lease)
        try:
            if key.state in LIVE and await self._lapsed(bench):
                return True
            handler = self._handler(key)
            if handler is not making.begin and not await self._open(bench):
                return True
            await handler(bench)
        except Overtaken:
            _log.info("issued key %s was told something else meanwhile", key_id)
        return True

    def _handler(self, key: IssuedKey) -> Handler:
        if key.state in ENDED:
            return making.clean
        return _HANDLERS.get(key.state, making.check)

    async def _sweep(self) -> None:
        """Every key whose time is over is told to end: also where all that may be at work at its account wait for a vendor that does not
        answer, and where somebody works on the key itself. Whoever does reads it anew, as where it is revoked."""
        async with self._tools.database.read() as connection:
            keys = await self._tools.repository.lapsed(connection, now_ns=self._tools.clock.now_ns(), limit=_SWEPT)
        for key in keys:
            try:
                await self._lapsed(Bench(self._tools, key, lease=""))
            except Overtaken:
                _log.info("issued key %s was told something else meanwhile", key.id)
            except Exception:  # noqa: BLE001  (one key's trouble must not stop the others)
                _log.exception("issued key %s: its end could not be written down; it is tried again", key.id)
                await self._stumbled(key.organization_id, key.id)

    async def _lapsed(self, bench: Bench) -> bool:
        """A key whose time is over is told to end."""
        key, now = bench.key, bench.now
        if key.expires_at_ns is None or now < key.expires_at_ns:
            return False
        told = ending.told_to_end(key, ending=Ending.EXPIRED, reason="its time was over", by="worker", now=now)
        await bench.save(told, action="issued_key.lapse")
        return True

    async def _open(self, bench: Bench) -> bool:
        """Opens the vendor account for the bench. False: it can't be, which is noted on the key."""
        key = bench.key
        async with self._tools.database.read() as connection:
            account = await self._accounts.get(connection, key.organization_id, key.account_id)
        problem = None
        if account is None:
            problem = "The vendor account that this key was made with is gone; configure it again"
        elif key.vendor not in self._provisioners:
            problem = "This version of KeyGate makes no keys at this vendor"
        else:
            try:
                bench.desk = await self._desks.open(account, watcher=bench)
            except EnvelopeBroken as error:
                problem = f"The vendor account's admin credential can't be opened: {error.detail}; enter it again"
        if problem is None:
            bench.account, bench.provisioner = account, self._provisioners[key.vendor]
            return True
        waiting = replace(key, error_code=AdminKeyRefused.code, error=problem, due_at_ns=bench.now + _STUMBLE_NS)
        await bench.save(waiting)
        return False

    async def _stumbled(self, organization_id: str, key_id: str) -> None:
        """Something unforeseen: the key waits a minute, so that it does not fail in a circle."""
        tools = self._tools
        async with tools.database.unit() as work:
            key = await tools.repository.get(work.connection, organization_id, key_id, lock=True)
            if key is None:
                return
            now = tools.clock.now_ns()
            note = "Something went wrong on our side; the log has the cause"
            after = replace(key, error_code="internal", error=note, due_at_ns=now + _STUMBLE_NS, version=key.version + 1)
            await tools.repository.save(work.connection, after)
