"""The keys that the gateway knows: loaded when first used, replaced when they change, never older than the last change.

A request whose key is here waits for nothing. A key that changed is marked before its new state is read, so between the two no
request passes under the old state. A load that began before a change is thrown away: nothing old is ever written back.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Iterable, Sequence
from typing import Protocol, final

from keygate.errors import Unavailable
from keygate.gateway.ports import Accounts, KeySource
from keygate.gateway.ticker import Ticker
from keygate.policies import KeyState, KeyStatus
from keygate.virtual_keys import digest, parse

log = logging.getLogger("keygate.gateway")

FOREVER = 2**63 - 1
_MAX_ATTEMPTS = 8
_MAX_LOADS = 64  # at once, and so in one read; the database has better to do than to look up made-up keys
_MAX_WAITING = 2000
_MAX_PLANS = 256  # per key


class OpenExchange(Protocol):
    """A request in flight, as its key knows it."""

    def recheck(self) -> None:
        """The key's state is another now: end, unless everything about this request is still allowed."""

    def cut(self, rule: str, detail: str) -> None:
        """End now, at the next byte."""


@final
class KeyEntry:
    """A key in memory. The object stays the same while its state changes; requests stand in `open` from authentication to end."""

    __slots__ = ("digests", "good_until", "id", "open", "plans", "stale", "state", "used")

    def __init__(self, state: KeyState) -> None:
        self.id = state.id
        self.open: set[OpenExchange] = set()
        self.used = True
        self.replace(state)

    def replace(self, state: KeyState) -> None:
        self.state = state
        self.stale = False
        self.good_until = 0 if state.status is not KeyStatus.ACTIVE else FOREVER if state.expires_at_ns is None else state.expires_at_ns
        self.digests = tuple((d.digest, FOREVER if d.expires_at_ns is None else d.expires_at_ns) for d in state.digests)
        self.plans: dict[tuple[object, str], object] = {}  # what the pipeline decided under this state

    def remember(self, route: object, model: str, plan: object) -> None:
        """Keeps a decision for as long as this state of the key lasts."""
        if len(self.plans) >= _MAX_PLANS:
            self.plans.clear()
        self.plans[route, model] = plan

    def valid_until(self, token_digest: bytes) -> int:
        """Until when (nanoseconds) a token with this digest opens this key, expiry of the key aside; 0: it doesn't."""
        for known, until in self.digests:
            if hmac.compare_digest(known, token_digest):
                return until
        return 0


class KeyRing:
    """Bounded: keys that are used stay, others leave, keys with requests in flight never do."""

    def __init__(
        self,
        source: KeySource,
        accounts: Accounts,
        pepper: bytes,
        ticker: Ticker,
        *,
        max_keys: int = 20_000,
        load_timeout: float = 5.0,
        unknown_for: float = 5.0,
        max_unknown: int = 10_000,
    ) -> None:
        self._source = source
        self._accounts = accounts
        self._pepper = pepper
        self._ticker = ticker
        self._max_keys = max_keys
        self._load_timeout = load_timeout
        self._unknown_for = unknown_for
        self._max_unknown = max_unknown
        self._entries: dict[str, KeyEntry] = {}
        self._by_id: dict[str, KeyEntry] = {}
        self._unknown: dict[str, float] = {}
        self._loading: dict[str, asyncio.Task[KeyEntry | None]] = {}
        self._slots = asyncio.Semaphore(_MAX_LOADS)
        self._generation = 0

    def __len__(self) -> int:
        return len(self._entries)

    def public_id(self, token: bytes) -> str | None:
        """The public id of a well-formed token; None for what was mistyped or made up."""
        return parse(token)

    def digest(self, token: bytes) -> bytes:
        return digest(self._pepper, token)

    def get(self, public_id: str) -> KeyEntry | None:
        """The entry, if it is here and true."""
        entry = self._entries.get(public_id)
        if entry is None or entry.stale:
            return None
        entry.used = True
        return entry

    def is_unknown(self, public_id: str) -> bool:
        """True if the database said a moment ago that there is no such key."""
        until = self._unknown.get(public_id)
        return until is not None and self._ticker.now < until

    async def load(self, public_id: str) -> KeyEntry | None:
        """Reads the key's state; requests for the same key share one read. Raises Unavailable when the database can't be asked in time."""
        task = self._loading.get(public_id)
        if task is None:
            if len(self._loading) >= _MAX_WAITING:
                raise Unavailable("too many keys are being looked up at once")
            task = asyncio.get_running_loop().create_task(self._load(public_id))
            self._loading[public_id] = task
            task.add_done_callback(lambda done: self._loaded(public_id, done))
        try:
            return await asyncio.wait_for(asyncio.shield(task), self._load_timeout)
        except TimeoutError:
            raise Unavailable("the key could not be looked up in time") from None

    def _loaded(self, public_id: str, task: asyncio.Task[KeyEntry | None]) -> None:
        del self._loading[public_id]
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Unavailable):
            log.warning("a key could not be loaded: %s", error)
        elif error is not None:
            log.error("a key could not be loaded", exc_info=error)

    async def _load(self, public_id: str) -> KeyEntry | None:
        bound: set[str] = set()
        try:
            async with self._slots:
                for _ in range(_MAX_ATTEMPTS):
                    generation = self._generation
                    try:
                        async with asyncio.timeout(self._load_timeout):
                            state = await self._source.load(public_id)
                            if state is not None:
                                bound.add(state.id)
                                await self._accounts.bind(state)
                    except TimeoutError:
                        raise Unavailable("the key could not be looked up in time") from None
                    if generation == self._generation:
                        return self._keep(public_id, state)
            raise Unavailable("keys are changing too fast to be read")
        finally:
            self._release(bound)

    def _release(self, key_ids: Iterable[str]) -> None:
        """Keys that are not here need no meters."""
        self._accounts.unbind([key_id for key_id in key_ids if key_id not in self._by_id])

    def _keep(self, public_id: str, state: KeyState | None) -> KeyEntry | None:
        entry = self._entries.get(public_id)
        if state is None:
            if entry is not None:
                self._remove(entry)
            if len(self._unknown) >= self._max_unknown:
                self._unknown.clear()
            self._unknown[public_id] = self._ticker.now + self._unknown_for
            return None
        if entry is not None:
            entry.replace(state)
            self._recheck(entry)
            return entry
        self._make_room()
        entry = self._entries[public_id] = self._by_id[state.id] = KeyEntry(state)
        return entry

    def _make_room(self) -> None:
        """Second chance: whoever was used since the last round goes to the back."""
        for _ in range(len(self._entries)):
            if len(self._entries) < self._max_keys:
                return
            public_id, entry = next(iter(self._entries.items()))
            del self._entries[public_id]
            if entry.used or entry.open:
                entry.used = False
                self._entries[public_id] = entry
            else:
                del self._by_id[entry.id]
                entry.stale = True  # connections may remember it
                self._release([entry.id])

    def _remove(self, entry: KeyEntry) -> None:
        self._entries.pop(entry.state.public_id, None)
        self._by_id.pop(entry.id, None)
        entry.stale = True
        self._release([entry.id])
        for exchange in list(entry.open):
            exchange.cut("key_revoked", f"The key '{entry.state.name}' does not exist any more.")

    # changes: the half of StatePublisher that concerns keys

    async def keys_changed(self, key_ids: Sequence[str]) -> None:
        self._generation += 1
        self._unknown.clear()
        await self._reload([entry for key_id in key_ids if (entry := self._by_id.get(key_id)) is not None])

    async def organization_changed(self, organization_id: str) -> None:
        self._generation += 1
        self._unknown.clear()
        concerned = [entry for entry in self._entries.values() if entry.state.organization_id == organization_id]
        for entry in concerned:
            entry.stale = True
        await self._reload([entry for entry in concerned if entry.open])

    async def _reload(self, entries: Sequence[KeyEntry]) -> None:
        """Replaces these states now. If the database can't be asked, they stay marked, and what is in flight under them ends."""
        if not entries:
            return
        for entry in entries:
            entry.stale = True
        try:
            await self._read_again(entries)
        finally:
            self._release([entry.id for entry in entries])  # one of them may have left meanwhile

    async def _read_again(self, entries: Sequence[KeyEntry]) -> None:
        ids = [entry.id for entry in entries]
        for attempt in range(_MAX_ATTEMPTS):
            generation = self._generation
            try:
                async with asyncio.timeout(self._load_timeout):
                    states = {state.id: state for state in await self._source.load_by_ids(ids)}
                    for state in states.values():
                        await self._accounts.bind(state)
            except Exception as error:
                if attempt < 2:
                    await asyncio.sleep(0.05)
                    continue
                log.exception("changed keys could not be read again")
                self._cut(entries, f"The key's state could not be read ({type(error).__name__}).")
                return
            if generation == self._generation:
                self._replace(entries, states)
                return
        self._cut(entries, "The key's state is changing too fast to be read.")

    def _replace(self, entries: Iterable[KeyEntry], states: dict[str, KeyState]) -> None:
        for entry in entries:
            state = states.get(entry.id)
            if state is None:
                self._remove(entry)
            else:
                entry.replace(state)
                self._recheck(entry)

    def _recheck(self, entry: KeyEntry) -> None:
        for exchange in list(entry.open):
            exchange.recheck()

    def _cut(self, entries: Iterable[KeyEntry], detail: str) -> None:
        for entry in entries:
            for exchange in list(entry.open):
                exchange.cut("key_state_unknown", detail)
