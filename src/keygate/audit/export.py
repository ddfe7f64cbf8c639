"""Exports: JSON lines that a SIEM takes as they are, and that can be verified without KeyGate's database.

Every line but the last is one entry, fields sorted, ready to be stored. The last one is the signed end: which entries the
export holds (`first` to `last`), the hash that the first one follows (`anchor`), the hash of the last. A line has exactly one spelling, so
any changed byte is found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keygate.audit.chain import EXPORT_FORMAT, canonical, export_bytes
from keygate.audit.model import AuditEntry, Fault, FaultKind, Verification
from keygate.audit.signing import Checker, Signer
from keygate.audit.verification import ChainVerifier
from keygate.errors import InvalidInput
from keygate.kit.clock import rfc3339

LONGEST_LINE = 1_000_000  # bytes
_LONGEST_END = 8_192


@dataclass(frozen=True, slots=True)
class ExportEnd:
    """The last line of an export."""

    organization_id: str
    first: int
    last: int
    anchor: str
    last_hash: str
    at_ns: int
    key_id: str
    public_key: str
    signature: str


def entry_line(entry: AuditEntry) -> bytes:
    fields: dict[str, Any] = {
        "time": rfc3339(entry.at_ns),
        "at_ns": entry.at_ns,
        "organization_id": entry.organization_id,
        "sequence": entry.sequence,
        "id": entry.id,
        "actor": {"kind": entry.actor_kind, "id": entry.actor_id},
        "action": entry.action,
        "outcome": entry.outcome,
        "target": entry.target,
        "address": entry.address,
        "request_id": entry.request_id,
        "before": _values(entry.before),
        "after": _values(entry.after),
        "detail": entry.detail,
        "previous_hash": entry.previous_hash,
        "signature": entry.signature,
        "hash": entry.hash,
    }
    return canonical(fields).encode() + b"\n"


def _values(text: str | None) -> Any:
    """Text that somebody has edited into no JSON goes out as it is: verification of the export finds it there too."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def end_line(*, organization_id: str, first: int, last: int, anchor: str, last_hash: str, at_ns: int, signer: Signer) -> bytes:
    message = export_bytes(
        organization_id=organization_id, first=first, last=last, anchor=anchor, last_hash=last_hash, at_ns=at_ns, key_id=signer.key_id
    )
    fields = {
        "format": EXPORT_FORMAT,
        "time": rfc3339(at_ns),
        "at_ns": at_ns,
        "organization_id": organization_id,
        "first": first,
        "last": last,
        "anchor": anchor,
        "last_hash": last_hash,
        "key_id": signer.key_id,
        "public_key": signer.checker.text(),
        "signature": signer.sign(message).hex(),
    }
    return canonical(fields).encode() + b"\n"


def read_end(line: bytes) -> ExportEnd | None:
    """The last line of an export, or None where `line` is none."""
    fields = _fields(line)
    if fields is None or fields.get("format") != EXPORT_FORMAT or set(fields) != {*ExportEnd.__slots__, "format", "time"}:
        return None
    end = ExportEnd(**{name: fields[name] for name in ExportEnd.__slots__})
    numbers = all(type(number) is int for number in (end.first, end.last, end.at_ns))
    texts = all(isinstance(fields[name], str) for name in ("organization_id", "anchor", "last_hash", "key_id", "public_key", "signature"))
    try:
        spelled = numbers and fields["time"] == rfc3339(end.at_ns)
    except (ValueError, OverflowError):
        return None
    return end if spelled and texts else None


def verify_export(lines: Iterable[bytes], end: ExportEnd | None, *, trusted: Checker | None = None) -> Verification:
    """Verifies a whole export. `lines` are all its lines in order, the last one included; `end` is the last one, read before.

    `trusted` is the key that this KeyGate is known to sign with. Without it the export's own key is used, and the result says
    `key_known=False`: consistent, but whoever could rewrite the file could have signed it again.
    """
    if end is None:
        return _unended(lines)
    try:
        own = Checker.from_text(end.public_key)
    except InvalidInput:
        own = None
    checker = trusted or own
    told = own is not None and own.text() == end.public_key and own.key_id == end.key_id  # one spelling: every changed letter is found
    if checker is None or checker.key_id != end.key_id or not told:
        return _result(
            end, 0, Fault(FaultKind.HEAD, end.last, None, "the export is not signed by the key that it should be signed by"), trusted
        )
    walk = ChainVerifier(end.organization_id, checker, first=end.first, anchor=end.anchor)
    number = 0
    ended = False
    for number, line in enumerate(lines, start=1):
        if ended:
            return _result(end, walk.entries, _unreadable(end.first + number - 1, "there are lines after the signed end"), trusted)
        if read_end(line) is not None:
            ended = True
            continue
        entry = _read_entry(line)
        if entry is None:
            walk.finish()
            fault = walk.fault or _unreadable(end.first + number - 1, f"line {number} is not an entry as KeyGate writes it")
            return _result(end, walk.entries, fault, trusted)
        if walk.feed(entry):
            break
    return _result(end, walk.entries, walk.finish() or _check_end(end, walk, checker), trusted)


def verify_export_file(path: Path, *, trusted: Checker | None = None) -> Verification:
    """As `verify_export`, for a file; reads it line by line. Raises OSError where it can't be read."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_END))
        tail = file.read().rstrip(b"\n").rpartition(b"\n")[2]
        file.seek(0)
        lines = iter(lambda: file.readline(LONGEST_LINE + 1), b"")
        return verify_export(lines, read_end(tail + b"\n"), trusted=trusted)


def _check_end(end: ExportEnd, walk: ChainVerifier, checker: Checker) -> Fault | None:
    reached = walk.last.sequence if walk.last else end.first - 1
    message = export_bytes(
        organization_id=end.organization_id,
        first=end.first,
        last=end.last,
        anchor=end.anchor,
        last_hash=end.last_hash,
        at_ns=end.at_ns,
        key_id=end.key_id,
    )
    if not checker.valid(end.signature, message):
        return Fault(FaultKind.HEAD, end.last, None, f"the signed end is not signed by the key {checker.key_id}")
    if reached < end.last:
        return Fault(FaultKind.TRUNCATED, reached + 1, None, f"the export should end with entry {end.last}, but ends with entry {reached}")
    if reached > end.last or (walk.last.hash if walk.last else end.anchor) != end.last_hash:
        return Fault(FaultKind.HEAD, reached, walk.last.id if walk.last else None, "the signed end is not that of the last entry")
    return None


def _unended(lines: Iterable[bytes]) -> Verification:
    last = None
    for line in lines:
        last = _read_entry(line) or last
    sequence = last.sequence + 1 if last else 1
    fault = Fault(
        FaultKind.TRUNCATED, sequence, None, "the export does not end with its signed end: lines are missing, or the end was changed"
    )
    return Verification(last.organization_id if last else "", 0, None, fault, None, key_known=False)


def _result(end: ExportEnd, entries: int, fault: Fault | None, trusted: Checker | None) -> Verification:
    return Verification(end.organization_id, entries, None, fault, end.key_id, key_known=trusted is not None)


def _unreadable(sequence: int, detail: str) -> Fault:
    return Fault(FaultKind.UNREADABLE, sequence, None, detail)


def _fields(line: bytes) -> dict[str, Any] | None:
    """The line's object, where it is spelled as `canonical` spells it."""
    if len(line) > LONGEST_LINE:
        return None
    try:
        fields = json.loads(line)
        return fields if isinstance(fields, dict) and canonical(fields).encode() + b"\n" == line else None
    except (ValueError, RecursionError):
        return None


def _read_entry(line: bytes) -> AuditEntry | None:
    fields = _fields(line)
    if fields is None:
        return None
    try:
        actor = fields.pop("actor")
        time = fields.pop("time")
        for name in ("before", "after"):
            fields[name] = None if fields[name] is None else canonical(fields[name])
        entry = AuditEntry(actor_kind=actor["kind"], actor_id=actor["id"], **fields)
        if len(actor) != 2 or time != rfc3339(entry.at_ns) or type(entry.sequence) is not int:
            return None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return entry
