"""When keys and credentials were last used: gathered as the journal is folded, written together now and then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keygate.kit.clock import NANOSECONDS, Clock
from keygate.ledger.journal import Settle

if TYPE_CHECKING:
    from keygate.kit.database import Database
    from keygate.vault.credential_repository import CredentialRepository
    from keygate.virtual_keys.repository import VirtualKeyRepository

EVERY_SECONDS = 5.0
AGAIN_NS = 60 * NANOSECONDS  # a key in steady use costs a row a minute


class LastUse:
    """The first use within a minute is written at once, later ones of the same minute together with the next."""

    def __init__(self, *, database: Database, keys: VirtualKeyRepository, credentials: CredentialRepository, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._keys = keys
        self._credentials = credentials
        self._used_keys: dict[str, int] = {}
        self._written: dict[str, int] = {}  # of the last minute
        self._used_credentials: dict[str, dict[str, int]] = {}

    def saw(self, settles: Sequence[Settle]) -> None:
        """Settles come in the order in which they ended, so the last one stands."""
        for settle in settles:
            context = settle.context
            self._used_keys[context.key_id] = settle.at_ns
            if settle.credential_id is not None:
                self._used_credentials.setdefault(context.organization_id, {})[settle.credential_id] = settle.at_ns

    async def write(self) -> None:
        """Writes what is due."""
        late = self._clock.now_ns() - AGAIN_NS
        self._written = {key: at for key, at in self._written.items() if at > late}
        await self._write({key: at for key, at in self._used_keys.items() if key not in self._written})

    async def close(self) -> None:
        """Writes all of it."""
        await self._write(self._used_keys)

    async def _write(self, keys: dict[str, int]) -> None:
        if not keys and not self._used_credentials:
            return
        credentials, self._used_credentials = self._used_credentials, {}
        async with self._database.unit() as work:
            await self._keys.touch(work.connection, keys)
            for organization_id, used in credentials.items():
                await self._credentials.mark_used(work.connection, organization_id, used)
        self._used_keys = {key: at for key, at in self._used_keys.items() if keys.get(key) != at}
        self._written |= keys
