"""Walks a chain and names the first bad entry. Pure: entries in, one fault or none out; memory bounded by `SPAN`.

A valid signature vouches for everything before it, so only every `SPAN`th entry's signature is checked while all is well. Where
something does not fit, the signatures since the last good one tell which entry was the first to change.
"""

from __future__ import annotations

from keygate.audit.chain import body_digest, head_bytes, link
from keygate.audit.model import GENESIS, AuditEntry, Fault, FaultKind, SignedHead
from keygate.audit.signing import Checker

SPAN = 500


class ChainVerifier:
    """Feed entries in order, then `finish`. After a fault the chain is done: later answers repeat it."""

    def __init__(self, organization_id: str, checker: Checker, *, first: int = 1, anchor: str = GENESIS) -> None:
        self._organization_id = organization_id
        self._checker = checker
        self._expected = first
        self._previous = anchor
        self._at_ns = 0
        self._unsigned: list[AuditEntry] = []  # linked, signature not looked at yet
        self.entries = 0
        self.last: AuditEntry | None = None
        self.fault: Fault | None = None

    def feed(self, entry: AuditEntry) -> Fault | None:
        if self.fault:
            return self.fault
        suspicion = self._suspicion(entry)
        if suspicion:
            self.fault = self._first_forged() or suspicion
            return self.fault
        self._expected += 1
        self._previous = entry.hash
        self._at_ns = entry.at_ns
        self._unsigned.append(entry)
        self.last = entry
        self.entries += 1
        if len(self._unsigned) >= SPAN:
            self._check_signatures()
        return self.fault

    def finish(self) -> Fault | None:
        """Call after the last entry."""
        if not self.fault:
            self._check_signatures()
        return self.fault

    def _suspicion(self, entry: AuditEntry) -> Fault | None:
        if entry.organization_id != self._organization_id:
            return _fault(FaultKind.MISPLACED, entry, "the entry belongs to another organisation")
        if entry.sequence > self._expected:
            return Fault(FaultKind.MISSING, self._expected, None, f"entry {self._expected} is missing; entry {entry.sequence} follows")
        if entry.sequence < self._expected:
            return _fault(FaultKind.MISPLACED, entry, f"entry {entry.sequence} stands where entry {self._expected} belongs")
        digest = body_digest(entry)
        if entry.hash != link(digest, _raw(entry.signature)) or entry.signature != entry.signature.lower():
            return _fault(FaultKind.EDITED, entry, "the entry does not have the hash that it was written with")
        if entry.previous_hash != self._previous:
            return _fault(FaultKind.EDITED, entry, "the entry does not follow the one before it")
        if entry.at_ns < self._at_ns:
            return _fault(FaultKind.EDITED, entry, "the entry is older than the one before it")
        return None

    def _check_signatures(self) -> None:
        if self._unsigned and not self._signed(self._unsigned[-1]):
            self.fault = self._first_forged()
        self._unsigned.clear()

    def _first_forged(self) -> Fault | None:
        for entry in self._unsigned:
            if not self._signed(entry):
                return _fault(FaultKind.FORGED, entry, f"the entry is not signed by the key {self._checker.key_id}")
        return None

    def _signed(self, entry: AuditEntry) -> bool:
        return self._checker.valid(entry.signature, body_digest(entry))


def check_head(head: SignedHead | None, last: AuditEntry | None, checker: Checker) -> Fault | None:
    """Whether the stored head is signed and is that of the chain's last entry."""
    end = last.sequence if last else 0
    if head is None:
        return None if last is None else Fault(FaultKind.HEAD, end, last.id, "the chain has entries but its signed head is gone")
    if not head_signed(head, checker):
        return Fault(FaultKind.HEAD, head.sequence, last.id if last else None, f"the head is not signed by the key {checker.key_id}")
    if head.sequence > end:
        return Fault(FaultKind.TRUNCATED, end + 1, None, f"the signed head names {head.sequence} entries; the chain ends after {end}")
    if last is None or head.sequence < end or head.hash != last.hash:
        return Fault(
            FaultKind.HEAD, end, last.id if last else None, f"the head is that of entry {head.sequence}, not of the last entry {end}"
        )
    return None


def head_signed(head: SignedHead, checker: Checker) -> bool:
    return head.key_id == checker.key_id and checker.valid(head.signature, head_bytes(head))


def _raw(signature: str) -> bytes:
    try:
        return bytes.fromhex(signature)
    except ValueError:
        return b""


def _fault(kind: FaultKind, entry: AuditEntry, detail: str) -> Fault:
    return Fault(kind, entry.sequence, entry.id, detail)
