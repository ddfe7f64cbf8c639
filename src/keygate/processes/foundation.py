"""What every process stands on: data directory, database, vault, audit log. Opened in this order, each relying on the one before."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from keygate.audit import AuditService, HeadsFile, Signer
from keygate.audit.repository import AuditRepository
from keygate.config import Settings
from keygate.issued_keys import SEALED as ISSUED_SEALED
from keygate.kit.clock import Clock, SystemClock
from keygate.kit.database import Database
from keygate.kit.secret import Secret
from keygate.ledger.content import SEALED
from keygate.processes.node import DataDirectory
from keygate.processes.store import open_store
from keygate.vault import SEALED_COLUMNS, LocalKeySource, Vault
from keygate.vault.repository import VaultRepository

PEPPER = "token-pepper"  # keys the digests of tokens
DIGESTS = "digest-key"  # keys the digests that stand for secrets in the audit log, and those by which equal credentials are known
SIGNING = "audit-signing"  # seed of the key that signs audit heads


@dataclass(frozen=True, slots=True)
class Foundation:
    settings: Settings
    directory: Path
    clock: Clock
    database: Database
    keys: LocalKeySource
    vault: Vault
    audit: AuditService
    signer: Signer
    pepper: bytes
    digest_key: bytes

    async def close(self) -> None:
        await self.database.close()


def master_key_source(settings: Settings, directory: Path) -> LocalKeySource:
    text = Secret(settings.master_key.get_secret_value()) if settings.master_key else None
    return LocalKeySource(directory, text=text, file=settings.master_key_file)


async def raw_secret(vault: Vault, name: str) -> bytes:
    """The 32 bytes of one of KeyGate's own secrets."""
    text = (await vault.system_secret(name)).open()
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def lay(settings: Settings, directory: DataDirectory) -> Foundation:
    """Opens all of it on a migrated database. Raises `StartRefused` with the remedy."""
    clock = SystemClock()
    database = open_store(settings, directory.path)
    try:
        keys = master_key_source(settings, directory.path)
        vault = Vault(database, VaultRepository(), source=keys, clock=clock, columns=(*SEALED_COLUMNS, SEALED, *ISSUED_SEALED))
        await vault.start()
        digest_key = await raw_secret(vault, DIGESTS)
        signer = Signer.from_secret(await vault.system_secret(SIGNING))
        audit = AuditService(
            database,
            AuditRepository(),
            signer=signer,
            digest_key=digest_key,
            heads=HeadsFile(directory.path),
            clock=clock,
        )
        pepper = await raw_secret(vault, PEPPER)
    except BaseException:
        await database.close()
        raise
    return Foundation(settings, directory.path, clock, database, keys, vault, audit, signer, pepper, digest_key)
