"""When keys and credentials were last used: gathered as the journal is folded, written together now and then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keygate.ledger.journal import Settle

if TYPE_CHECKING:
    from keygate.kit.database import Database
    from keygate.vault.credential_repository import CredentialRepository
    from keygate.virtual_keys.repository import VirtualKeyRepository

EVERY_SECONDS = 5.0


class LastUse:
    def __init__(self, *, database: Database, keys: VirtualKeyRepository, credentials: CredentialRepository) -> None:
        self._database = database
        self._keys = keys
        self._credentials = credentials
        self._used_keys: dict[str, int] = {}
        self._used_credentials: dict[str, dict[str, int]] = {}

    def saw(self, settles: Sequence[Settle]) -> None:
        """Settles come in the order in which they ended, so the last one stands."""
        for settle in settles:
            context = settle.context
            self._used_keys[context.key_id] = settle.at_ns
            if settle.credential_id is not None:
                self._used_credentials.setdefault(context.organization_id, {})[settle.credential_id] = settle.at_ns

    async def write(self) -> None:
        if not self._used_keys:
            return
        keys, self._used_keys = self._used_keys, {}
        credentials, self._used_credentials = self._used_credentials, {}
        async with self._database.unit() as work:
            await self._keys.touch(work.connection, keys)
            for organization_id, used in credentials.items():
                await self._credentials.mark_used(work.connection, organization_id, used)
