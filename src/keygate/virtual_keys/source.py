"""Compiled key states out of the database: the gateway's `KeySource`."""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keygate.kit.clock import Clock
from keygate.kit.coalescing import Coalesced
from keygate.kit.secret import Secret
from keygate.policies import KeyState, OwnerDirectory, compile_key
from keygate.virtual_keys.model import VirtualKey
from keygate.virtual_keys.token import digest, parse

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.kit.database import Database
    from keygate.policies.repository import PolicyRepository
    from keygate.virtual_keys.repository import VirtualKeyRepository

CHUNK = 500


class DatabaseKeySource:
    """Also the `KeyDirectory` of policies. Each load is one snapshot: a key never meets the rules of another moment."""

    def __init__(
        self,
        *,
        database: Database,
        keys: VirtualKeyRepository,
        policies: PolicyRepository,
        owners: OwnerDirectory,
        clock: Clock,
        pepper: bytes,
    ) -> None:
        self._database = database
        self._keys = keys
        self._policies = policies
        self._owners = owners
        self._clock = clock
        self._pepper = pepper
        self._stamped = 0
        self._wanted: Coalesced[str, KeyState | None] = Coalesced(self._load)

    def _stamp(self) -> int:
        """The version of states read from now on. Taken before the snapshot opens: a load that follows a change gets a higher one than
        any load that may have missed it."""
        self._stamped = max(self._stamped + 1, self._clock.now_ns())
        return self._stamped

    async def load(self, public_id: str) -> KeyState | None:
        """The key with this public id in any status, or None. Raises `Unavailable` when the database can't be asked."""
        return await self._wanted.ask(public_id)

    async def _load(self, public_ids: Sequence[str]) -> list[KeyState | None]:
        version = self._stamp()
        async with self._database.read() as connection:
            keys = await self._keys.by_public_ids(connection, list(set(public_ids)))
            states = {state.public_id: state for state in await self._compiled(connection, keys, version)}
        return [states.get(public_id) for public_id in public_ids]

    async def load_by_ids(self, key_ids: Sequence[str]) -> list[KeyState]:
        """The current states of these ids; unknown ids are left out."""
        version = self._stamp()
        states: list[KeyState] = []
        async with self._database.read() as connection:
            for start in range(0, len(key_ids), CHUNK):
                states += await self._compiled(connection, await self._keys.by_ids(connection, key_ids[start : start + CHUNK]), version)
        return states

    async def load_active_page(self, *, after: str | None = None, limit: int = CHUNK) -> tuple[list[KeyState], str | None]:
        """Keys that are neither revoked nor expired, in the order of ids, for filling a cache; and where to go on, None at the end."""
        version = self._stamp()
        async with self._database.read() as connection:
            keys = await self._keys.active_page(connection, now_ns=self._clock.now_ns(), after=after, limit=min(limit, CHUNK))
            states = await self._compiled(connection, keys, version)
        return states, keys[-1].id if len(keys) == min(limit, CHUNK) else None

    async def compiled(self, connection: AsyncConnection, key: VirtualKey, *, version: int = 0) -> KeyState | None:
        """The state of a key just read on this connection; without a `version` it is for looking at, not for the gateway."""
        states = await self._compiled(connection, [key], version)
        return states[0] if states else None

    async def authenticated(self, token: Secret) -> KeyState | None:
        """The key whose token this is, in any status. Tokens of a rotation's overlap count until it ends."""
        public_id = parse(token.open())
        state = None if public_id is None else await self.load(public_id)
        if state is None:
            return None
        seen = digest(self._pepper, token.open())
        now = self._clock.now_ns()
        valid = [known for known in state.digests if known.expires_at_ns is None or known.expires_at_ns > now]
        return state if any(hmac.compare_digest(known.digest, seen) for known in valid) else None

    # KeyDirectory

    async def key_exists(self, connection: AsyncConnection, organization_id: str, key_id: str) -> bool:
        return await self._keys.get(connection, organization_id, key_id) is not None

    async def keys_with_policy(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> int:
        return await self._keys.count_with_policy(connection, organization_id, policy_id)

    async def state_by_id(self, organization_id: str, key_id: str) -> KeyState | None:
        async with self._database.read() as connection:
            key = await self._keys.get(connection, organization_id, key_id)
            return None if key is None else await self.compiled(connection, key)

    async def state_by_token(self, organization_id: str, token: Secret) -> KeyState | None:
        state = await self.authenticated(token)
        return state if state is not None and state.organization_id == organization_id else None

    async def _compiled(self, connection: AsyncConnection, keys: Sequence[VirtualKey], version: int) -> list[KeyState]:
        by_organization: dict[str, list[VirtualKey]] = defaultdict(list)
        for key in keys:
            by_organization[key.organization_id].append(key)
        states = []
        for organization_id, several in by_organization.items():
            above = await self._policies.governance(
                connection,
                organization_id,
                self._owners,
                owner_ids={key.owner.scope_id for key in several if key.owner is not None},
                policy_ids={key.policy_id for key in several if key.policy_id is not None},
                key_ids=[key.id for key in several],
            )
            if above is not None:
                now = self._clock.now_ns()
                states += [compile_key(key.facts(), above, now_ns=now, version=version) for key in several]
        return states
