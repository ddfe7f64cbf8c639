"""The audit log on the wire."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from keygate.audit.model import AuditEntry, Fault, FaultKind, Verification
from keygate.kit.clock import rfc3339
from keygate.kit.routes import Schema


class AuditActorOut(Schema):
    kind: str
    id: str


class AuditEntryOut(Schema):
    id: str
    sequence: int
    time: str
    actor: AuditActorOut
    action: str = Field(description="noun.verb")
    outcome: str = Field(description="`done` or `refused`")
    target: str
    address: str | None
    request_id: str | None
    before: Any = None
    after: Any = None
    detail: str | None
    previous_hash: str
    hash: str

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditEntryOut:
        return cls(
            id=entry.id,
            sequence=entry.sequence,
            time=rfc3339(entry.at_ns) or "",
            actor=AuditActorOut(kind=entry.actor_kind, id=entry.actor_id),
            action=entry.action,
            outcome=entry.outcome,
            target=entry.target,
            address=entry.address,
            request_id=entry.request_id,
            before=_values(entry.before),
            after=_values(entry.after),
            detail=entry.detail,
            previous_hash=entry.previous_hash,
            hash=entry.hash,
        )


class AuditFaultOut(Schema):
    kind: FaultKind
    sequence: int = Field(description="Of the first bad entry")
    entry_id: str | None = Field(description="Null where there is no entry left to name")
    detail: str

    @classmethod
    def of(cls, fault: Fault) -> AuditFaultOut:
        return cls(kind=fault.kind, sequence=fault.sequence, entry_id=fault.entry_id, detail=fault.detail)


class AuditVerificationOut(Schema):
    ok: bool
    entries: int = Field(description="How many entries were read and found good")
    head_sequence: int | None
    head_hash: str | None
    heads_file_sequence: int | None = Field(
        description="Up to which entry the heads file outside the database vouches that none was cut off; 0: it names none"
    )
    public_key: str = Field(description="Ed25519, base64: what exports are verified with")
    fault: AuditFaultOut | None

    @classmethod
    def of(cls, found: Verification, *, public_key: str) -> AuditVerificationOut:
        return cls(
            ok=found.ok,
            entries=found.entries,
            head_sequence=found.head.sequence if found.head else None,
            head_hash=found.head.hash if found.head else None,
            heads_file_sequence=found.witnessed,
            public_key=public_key,
            fault=AuditFaultOut.of(found.fault) if found.fault else None,
        )


def _values(text: str | None) -> Any:
    """An entry that somebody has edited is still shown: verification tells, a list does not fail."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
