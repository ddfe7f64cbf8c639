"""What `keygate vault rotate` does: replaces the master key while requests run, and survives a crash at any point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import StartRefused
from keygate.identities import Actor
from keygate.kit.secret import Secret
from keygate.vault.providers import LocalKeySource, LocalProvider
from keygate.vault.service import Vault

if TYPE_CHECKING:
    from keygate.kit.database import Database


_FORMER = "Backups made before now are opened by the former master key, which is kept as"
_UNTIL = "move it to where you keep your master keys, and remove it with the last of those backups"


@dataclass(frozen=True, slots=True)
class Rotation:
    """`keys` data keys are now wrapped by `kek_id`. `advice` is what is left to do, for people; None where nothing is."""

    keys: int
    kek_id: str
    advice: str | None


async def rotate_master_key(
    database: Database, vault: Vault, source: LocalKeySource, *, audit: AuditLog, actor: Actor, new: Secret | None = None
) -> Rotation:
    """`vault` has been started. Without `new` a generated key is replaced by another generated one; a master key that the operator keeps
    needs `new`. Raises `StartRefused` with the remedy. A running server goes on: its data keys are open already."""
    if new is None and not source.generated:
        raise StartRefused(f"The master key comes from {source.place}: name a file with the new one (--new-key-file)")
    with source.rotating():
        provider = LocalProvider(new) if new is not None else source.next_provider()
        async with database.unit(actor.organization_id) as work:
            keys = await vault.rewrap(work, provider)
            await audit.record(work, actor, "vault.rotate", provider.id, after={"kek_id": provider.id, "data_keys": keys})
        if new is None:
            former = source.finish_rotation()
            return Rotation(keys, provider.id, f"{_FORMER} {former}; {_UNTIL}" if former else None)
    return Rotation(
        keys,
        provider.id,
        "Set KEYGATE_MASTER_KEY_FILE (or KEYGATE_MASTER_KEY) to the new master key before the next start; "
        "a running server goes on, and should be restarted with it soon",
    )


async def rotate_data_key(database: Database, vault: Vault, organization_id: str, *, audit: AuditLog, actor: Actor) -> int:
    """A new data key for one organisation, every sealed value sealed anew. Returns how many values there were."""
    async with database.unit(actor.organization_id) as work:
        count = await vault.rotate_data_key(work, organization_id)
        await audit.record(work, actor, "vault.rotate_data_key", organization_id, after={"values": count})
    return count
