"""What was found at a vendor, and what it is. Frozen values, pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from keygate.vendors.admin import Footprint, Presence, Terms

DAY_NS = 86_400 * 1_000_000_000
SCAN_EVERY_NS = DAY_NS
FIRST_SCAN_NS = 3_600 * 1_000_000_000  # after an account was entered
REMIND_DAYS = (30, 7, 1)  # before the end of an adopted key
MAX_REMINDERS = 10


class Kind(StrEnum):
    CONTAINER = "container"
    KEY = "key"


class Standing(StrEnum):
    """Whose it is."""

    OURS = "ours"  # KeyGate made it, and it is alive
    ADOPTED = "adopted"  # made by hand, entered here
    ORPHANED = "orphaned"  # of a key of ours that has ended or failed: it should not be there
    UNKNOWN = "unknown"


class Finding(StrEnum):
    """What is the matter with it."""

    STALE = "stale"  # unused for as many days as the setting says
    NO_LIMIT = "no_limit"  # could spend without end, as far as the vendor tells
    LEAVER = "leaver"  # its owner has left
    DRIFT = "drift"  # the vendor shows other terms than were agreed here
    DISABLED = "disabled"  # switched off at the vendor, active here
    MISSING = "missing"  # active here, gone at the vendor
    FOREIGN = "foreign"  # carries the mark of another KeyGate
    OVERDUE = "overdue"  # older than a rotation policy allows


_REMEDY: Mapping[Finding, str] = {
    Finding.STALE: "not used for {days} or longer: ask its owner, then disable or revoke it",
    Finding.NO_LIMIT: "set a limit at the vendor, or replace it by a key that KeyGate makes with one",
    Finding.LEAVER: "revoke it, or give it to somebody who is here",
    Finding.DRIFT: "repair sets the agreed terms again; accept takes over what the vendor shows",
    Finding.DISABLED: "repair switches it on again, revoke ends it",
    Finding.MISSING: "revoke it here: the vendor will confirm that it is gone; then make a new one",
    Finding.FOREIGN: "leave it to the KeyGate that made it",
    Finding.OVERDUE: "have its owner fetch the new secret, or rotate it; of one made by hand: make the next, adopt that, revoke this",
}


def remedy(finding: Finding, *, stale_days: int) -> str:
    """What helps, for people. `stale_days`: after how many days without use a key is `stale`."""
    return _REMEDY[finding].format(days="a day" if stale_days == 1 else f"{stale_days} days")


class ScanState(StrEnum):
    LISTING = "listing"
    READING = "reading"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Difference:
    """A term that is not as agreed. As people read it."""

    term: str
    agreed: str
    found: str


@dataclass(frozen=True, slots=True)
class Acceptance:
    reason: str
    by: str
    at_ns: int
    findings: tuple[str, ...]  # what it covers; for anything unknown also `unknown` or `orphaned`


@dataclass(frozen=True, slots=True)
class Item:
    id: str  # inv_…
    organization_id: str
    account_id: str
    vendor: str
    kind: Kind
    identity: str
    footprint: Footprint
    name: str
    presence: Presence
    scan_id: str  # that saw it last
    first_seen_ns: int
    seen_at_ns: int
    owner: str | None = None  # as the vendor names it
    hint: str | None = None
    created_at_ns: int | None = None
    last_used_at_ns: int | None = None
    terms: Terms | None = None  # as the vendor tells; None: not read, or it does not tell
    read_at_ns: int | None = None
    standing: Standing = Standing.UNKNOWN
    findings: tuple[Finding, ...] = ()
    drift: tuple[Difference, ...] = ()
    issued_key_id: str | None = None
    acceptance: Acceptance | None = None
    judged: bool = False

    @property
    def alive(self) -> bool:
        return self.presence in {Presence.LIVE, Presence.DISABLED}

    @property
    def matters(self) -> frozenset[str]:
        """What somebody should look at: its findings, and that it is unknown or orphaned."""
        if not self.judged:
            return frozenset()
        whose = {str(self.standing)} if self.standing in {Standing.UNKNOWN, Standing.ORPHANED} and self.alive else set()
        return frozenset({str(finding) for finding in self.findings} | whose)

    @property
    def accepted(self) -> bool:
        """Everything that is the matter with it was accepted."""
        return self.acceptance is not None and self.matters <= set(self.acceptance.findings)


@dataclass(frozen=True, slots=True)
class Scan:
    id: str  # scan_…
    organization_id: str
    account_id: str
    vendor: str
    state: ScanState
    asked_by: str
    began_at_ns: int
    updated_at_ns: int
    cursor: str | None = None
    pages: int = 0
    seen: int = 0
    read: int = 0
    attempts: int = 0
    due_at_ns: int | None = None  # None: over
    claimed_by: str | None = None
    claimed_until_ns: int | None = None
    error: str | None = None
    ended_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which items a list shows. None: any."""

    account_id: str | None = None
    vendor: str | None = None
    kind: Kind | None = None
    standing: Standing | None = None
    finding: Finding | None = None
    attention: bool = False  # only what somebody should look at


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one account."""

    account_id: str
    vendor: str
    standings: Mapping[str, int] = field(default_factory=dict)
    findings: Mapping[str, int] = field(default_factory=dict)
    attention: int = 0
    scan: Scan | None = None


def kind_of(footprint: Footprint) -> Kind:
    return Kind.CONTAINER if footprint.key is None else Kind.KEY


def identity_of(account_id: str, footprint: Footprint) -> str:
    """Of a thing at a vendor, as long as it stands in the same place."""
    text = json.dumps([account_id, sorted(footprint.place.items()), footprint.key])
    return hashlib.sha256(text.encode()).hexdigest()
