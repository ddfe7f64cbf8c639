"""The vault: seals and opens with a data key per organisation, and rotates keys while others go on.

Data keys are kept open in memory, so a rotation of the master key disturbs no request. Which key seals is asked of the database
within the caller's transaction; a key that another process has made is fetched when a value names it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.errors import KeyGateError, StartRefused, Unavailable
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret
from keygate.vault.envelope import KEY_BYTES, DataKey, EnvelopeBroken, Place, key_id_of, open_sealed, seal
from keygate.vault.model import SYSTEM, KeyStatus, SealedColumn, WrappedKey
from keygate.vault.ports import KeyEncryptionProvider, KeyEncryptionSource

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.kit.database import Database, UnitOfWork
    from keygate.vault.repository import VaultRepository

SEALED_COLUMNS: tuple[SealedColumn, ...] = (
    SealedColumn("vault_secrets", "name", "sealed"),
    SealedColumn("credentials", "id", "secret"),
)
_BATCH = 200


class Vault:
    """Call `start` once before anything else. `columns` are all columns with sealed values: what a rotation of a data key seals anew."""

    def __init__(
        self,
        database: Database,
        repository: VaultRepository,
        *,
        source: KeyEncryptionSource,
        clock: Clock,
        columns: Sequence[SealedColumn] = SEALED_COLUMNS,
    ) -> None:
        self._database = database
        self._repository = repository
        self._source = source
        self._clock = clock
        self._columns = tuple(columns)
        self._keys: dict[str, DataKey] = {}
        self._provider: KeyEncryptionProvider | None = None

    async def start(self) -> None:
        """Opens every data key; makes the first one in a new database. Raises `StartRefused` with the remedy."""
        async with self._database.unit() as work:
            await self._repository.lock(work.connection)
            stored = await self._repository.keys(work.connection)
            kek_id = await self._repository.kek_id(work.connection)
            self._provider = await self._source.provider(kek_id)
            for key in stored:
                await self._open_key(key)
            if not any(key.organization_id == SYSTEM for key in stored):
                await self._make_key(work.connection, SYSTEM, generation=1)

    async def seal(self, work: UnitOfWork, plain: Secret, place: Place) -> bytes:
        """Sealed by the current key of the place's organisation; the first value of an organisation makes its key."""
        key = await self._current(work.connection, place.organization_id)
        return seal(key, plain.open().encode(), place)

    async def open(self, sealed: bytes, place: Place) -> Secret:
        """Raises `EnvelopeBroken` where the value was changed or moved, or its key is gone."""
        key_id = key_id_of(sealed)
        key = self._keys.get(key_id)
        if key is None:
            async with self._database.read() as connection:
                stored = await self._repository.key(connection, key_id, organization_id=place.organization_id)
            if stored is None:
                raise EnvelopeBroken("The key that the value is sealed by is gone")
            key = await self._open_key(stored)
        return Secret(open_sealed(key, sealed, place).decode())

    async def system_secret(self, name: str) -> Secret:
        """One of KeyGate's own secrets (pepper, signing key): 32 random bytes in URL-safe base64, made when first asked for.

        All processes get the same one, also where they ask at the same moment.
        """
        place = Place("vault_secrets", name, SYSTEM, "sealed")
        async with self._database.read() as connection:
            sealed = await self._repository.secret(connection, name)
        if sealed is None:
            async with self._database.unit() as work:
                fresh = await self.seal(work, Secret(secrets.token_urlsafe(KEY_BYTES)), place)
                await self._repository.add_secret(work.connection, name, fresh, at_ns=self._clock.now_ns())
                sealed = await self._repository.secret(work.connection, name)
        if sealed is None:
            raise Unavailable("A secret of KeyGate's own can't be stored")
        return await self.open(sealed, place)

    async def status(self) -> list[KeyStatus]:
        """Every data key, without its material."""
        async with self._database.read() as connection:
            stored = await self._repository.keys(connection)
        return [KeyStatus(key.id, key.organization_id, key.generation, key.kek_id, key.created_at_ns, key.wrapped_at_ns) for key in stored]

    async def rewrap(self, work: UnitOfWork, new: KeyEncryptionProvider) -> int:
        """Wraps every data key by another key-encryption key, in the caller's transaction. Returns how many there are. Safe to repeat."""
        await self._repository.lock(work.connection)
        stored = await self._repository.keys(work.connection)
        for key in stored:
            if key.kek_id == new.id:
                continue
            old = await self._provider_for(key.kek_id)
            material = await old.unwrap(key.wrapped, key.context)
            wrapped = await new.wrap(material, key.context)
            await self._repository.rewrap(work.connection, replace(key, kek_id=new.id, wrapped=wrapped, wrapped_at_ns=self._clock.now_ns()))

        async def adopt() -> None:
            self._provider = new

        work.after_commit(adopt)
        return len(stored)

    async def rotate_data_key(self, work: UnitOfWork, organization_id: str) -> int:
        """A new data key for an organisation; every sealed value of its is sealed anew, in the caller's transaction. Returns how many.

        The former key stays, so that a process that has just read a value can still open it.
        """
        await self._repository.lock(work.connection)
        current = await self._repository.current_key(work.connection, organization_id)
        fresh = await self._make_key(work.connection, organization_id, generation=current.generation + 1 if current else 1)
        count = 0
        for where in self._columns:
            after = ""
            while rows := await self._repository.sealed_batch(work.connection, where, organization_id, after=after, limit=_BATCH):
                for row_id, sealed in rows:
                    place = Place(where.table, row_id, organization_id, where.column)
                    key = self._keys.get(key_id_of(sealed)) or await self._fetch(work.connection, key_id_of(sealed), organization_id)
                    anew = seal(fresh, open_sealed(key, sealed, place), place)
                    await self._repository.replace_sealed(work.connection, where, organization_id, row_id, anew)
                    count += 1
                after = rows[-1][0]
        return count

    async def _current(self, connection: AsyncConnection, organization_id: str) -> DataKey:
        stored = await self._repository.current_key(connection, organization_id)
        if stored is None:
            await self._repository.lock(connection)
            stored = await self._repository.current_key(connection, organization_id)
        if stored is None:
            return await self._make_key(connection, organization_id, generation=1)
        return self._keys.get(stored.id) or await self._open_key(stored)

    async def _fetch(self, connection: AsyncConnection, key_id: str, organization_id: str) -> DataKey:
        stored = await self._repository.key(connection, key_id, organization_id=organization_id)
        if stored is None:
            raise EnvelopeBroken("The key that the value is sealed by is gone")
        return await self._open_key(stored)

    async def _make_key(self, connection: AsyncConnection, organization_id: str, *, generation: int) -> DataKey:
        """Call under the lock: the new key must be wrapped by the key-encryption key that all others are wrapped by."""
        provider = await self._provider_for(await self._repository.kek_id(connection))
        now = self._clock.now_ns()
        draft = WrappedKey(new_id("dk"), organization_id, generation, provider.id, b"", now, now)
        material = os.urandom(KEY_BYTES)
        await self._repository.add_key(connection, replace(draft, wrapped=await provider.wrap(material, draft.context)))
        key = DataKey(draft.id, material)
        self._keys[key.id] = key  # where the transaction fails nothing will ever name it
        return key

    async def _open_key(self, stored: WrappedKey) -> DataKey:
        provider = await self._provider_for(stored.kek_id)
        try:
            material = await provider.unwrap(stored.wrapped, stored.context)
        except EnvelopeBroken as error:
            raise EnvelopeBroken(f"The data key {stored.id} does not open: its row was changed") from error
        key = DataKey(stored.id, material)
        self._keys[stored.id] = key
        return key

    async def _provider_for(self, kek_id: str | None) -> KeyEncryptionProvider:
        """The provider in use, or after another process has rotated the master key, the new one."""
        if self._provider is None:
            raise KeyGateError("the vault has not been started")
        if kek_id is None or self._provider.id == kek_id:
            return self._provider
        try:
            self._provider = await self._source.provider(kek_id)
        except StartRefused as error:
            raise Unavailable("The master key was rotated; restart this process with the new one") from error
        return self._provider
