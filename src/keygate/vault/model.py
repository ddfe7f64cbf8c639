"""Keys as the vault stores them, and what can be said of it. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM = "system"  # the organisation of KeyGate's own secrets


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key of an organisation, wrapped. The one with the highest generation seals; older ones still open."""

    id: str  # dk_…
    organization_id: str
    generation: int
    kek_id: str
    wrapped: bytes
    created_at_ns: int
    wrapped_at_ns: int

    @property
    def context(self) -> bytes:
        """Bound to the wrapped key: it opens only as the key of this id, organisation and generation."""
        return f"{self.id}\n{self.organization_id}\n{self.generation}".encode()


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column that holds sealed values, for the re-encryption of rows. `id_column` holds the row id of their `Place`."""

    table: str
    id_column: str
    column: str


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """What `keygate vault status` shows of one data key."""

    id: str
    organization_id: str
    generation: int
    kek_id: str
    created_at_ns: int
    wrapped_at_ns: int
