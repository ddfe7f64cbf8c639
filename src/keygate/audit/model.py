"""Entries of the audit log, signed heads, and what a verification finds. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GENESIS = "0" * 64  # `previous_hash` of the first entry of a chain


class AuditOutcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry before it has a place in the chain. `before` and `after` are canonical JSON text."""

    id: str  # aud_…
    actor_kind: str
    actor_id: str
    address: str | None
    request_id: str | None
    action: str  # noun.verb
    outcome: AuditOutcome
    target: str
    before: str | None = None
    after: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One link of an organisation's chain. Sequences begin at 1 and have no gaps; times never go back along the chain."""

    organization_id: str
    sequence: int
    id: str
    at_ns: int
    actor_kind: str
    actor_id: str
    address: str | None
    request_id: str | None
    action: str
    outcome: str
    target: str
    before: str | None
    after: str | None
    detail: str | None
    previous_hash: str  # `hash` of the entry before, in hex
    signature: str  # Ed25519 over the digest of everything above, in base64
    hash: str  # SHA-256 over that digest and the signature, in hex: covers every field of the entry


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The end of a chain at one moment, signed: proof that entries up to `sequence` existed."""

    organization_id: str
    sequence: int
    hash: str
    at_ns: int
    key_id: str
    signature: str


class FaultKind(StrEnum):
    """What is wrong with a chain."""

    EDITED = "edited"  # the entry is not what was written
    FORGED = "forged"  # consistent in itself, but not signed by this KeyGate
    MISSING = "missing"  # an entry was removed or moved away
    MISPLACED = "misplaced"  # an entry stands where it does not belong: inserted, repeated or moved
    TRUNCATED = "truncated"  # entries at the end are gone
    HEADS_LOST = "heads_lost"  # the heads file lacks more than a crash explains: what was cut off then can't be found
    HEAD = "head"  # the signed head is missing, damaged, or not that of the chain
    UNREADABLE = "unreadable"  # an export's line is not one that we wrote


@dataclass(frozen=True, slots=True)
class Fault:
    """The first bad entry of a chain. `entry_id` is None where there is no entry left to name."""

    kind: FaultKind
    sequence: int
    entry_id: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Result for one chain. `entries` counts those read and found good; `key_known` is False where an export's signatures were
    checked only against the key that the export itself carries. `witnessed` is the newest entry that the heads file names: from there on,
    entries that were cut off would not be missed; 0: it names none, None: an export has no such file. `witnessed_from` is the oldest."""

    organization_id: str
    entries: int
    head: SignedHead | None
    fault: Fault | None
    key_id: str | None
    key_known: bool = True
    witnessed: int | None = None
    witnessed_from: int | None = None

    @property
    def ok(self) -> bool:
        return self.fault is None
