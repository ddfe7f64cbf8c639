"""`/audit`: read, verify, export. Nothing writes here; entries come from the actions that they record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query
from fastapi.responses import StreamingResponse

from keygate.audit.model import AuditOutcome
from keygate.audit.ports import EntryFilter
from keygate.audit.schemas import AuditEntryOut, AuditVerificationOut
from keygate.audit.service import AuditService
from keygate.errors import InvalidInput
from keygate.identities import Actor
from keygate.kit.clock import to_ns
from keygate.kit.routes import Page, PageQuery, Routes, current_actor, service

routes = Routes("/audit", tag="audit")

_Audit = Annotated[AuditService, service(AuditService)]
_Actor = Annotated[Actor, Depends(current_actor)]
_From = Annotated[datetime | None, Query(alias="from", description="Entries at or after this time (RFC 3339)")]
_To = Annotated[datetime | None, Query(alias="to", description="Entries before this time (RFC 3339)")]
_Text = Annotated[str | None, Query(max_length=200)]


@routes.get("", permission="audit.read")
async def list_entries(
    audit: _Audit,
    by: _Actor,
    page: Annotated[PageQuery, Depends()],
    start: _From = None,
    end: _To = None,
    actor: _Text = None,
    action: _Text = None,
    target: _Text = None,
    outcome: Annotated[AuditOutcome | None, Query()] = None,
) -> Page[AuditEntryOut]:
    """Entries of the organisation, newest first."""
    for name, text in (("actor", actor), ("action", action), ("target", target)):
        if text is not None and "\0" in text:
            raise InvalidInput(f"{name}: holds a NUL character", field=name)
    wanted = EntryFilter(from_ns=_ns(start, "from"), to_ns=_ns(end, "to"), actor=actor, action=action, target=target, outcome=outcome)
    rows = await audit.find(by.organization_id, wanted, before=_sequence(page.after), limit=page.limit + 1)
    kept, cursor = page.page(rows, key=lambda entry: str(entry.sequence))
    return Page(items=[AuditEntryOut.of(entry) for entry in kept], next_cursor=cursor)


@routes.get("/verify", permission="audit.verify")
async def verify(audit: _Audit, by: _Actor) -> AuditVerificationOut:
    """Reads the organisation's whole chain and says whether anything was edited, removed, moved or cut off, and where first."""
    return AuditVerificationOut.of(await audit.verify(by.organization_id), public_key=audit.public_key())


@routes.get(
    "/export",
    permission="audit.read",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/x-ndjson": {}}, "description": "One entry a line, oldest first; the last line is the signed end"}
    },
)
async def export(audit: _Audit, by: _Actor, start: _From = None, end: _To = None) -> StreamingResponse:
    """JSON lines for archives and SIEM systems; `keygate audit verify FILE` checks them."""
    lines = audit.export(by.organization_id, from_ns=_ns(start, "from"), to_ns=_ns(end, "to"))
    return StreamingResponse(
        lines, media_type="application/x-ndjson", headers={"content-disposition": 'attachment; filename="keygate-audit.jsonl"'}
    )


def _ns(moment: datetime | None, field: str) -> int | None:
    if moment is None:
        return None
    instant = to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    if abs(instant) >= 2**63:
        raise InvalidInput(f"{field}: out of range", field=field)
    return instant


def _sequence(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdecimal() or not cursor.isascii() or len(cursor) > 18:
        raise InvalidInput("cursor: not one that we gave out; start again without it", field="cursor")
    return int(cursor)
