"""What happened, for those who want to be told. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EventType(StrEnum):
    BUDGET_THRESHOLD_REACHED = "budget.threshold_reached"
    BUDGET_SPENT = "budget.spent"
    KEY_REVOKED = "virtual_key.revoked"
    DEVELOPER_DEACTIVATED = "developer.deactivated"
    ISSUED_KEY_ACTIVE = "issued_key.active"
    ISSUED_KEY_FAILED = "issued_key.failed"
    ISSUED_KEY_ENDED = "issued_key.ended"  # the vendor has confirmed
    ISSUED_KEY_BUDGET_REACHED = "issued_key.budget_reached"
    ISSUED_KEY_DRIFTED = "issued_key.drifted"  # at the vendor it is not what it was made as
    ISSUED_KEY_IRREVOCABLE = "issued_key.irrevocable"  # the vendor does not end it: somebody must look


@dataclass(frozen=True, slots=True)
class Event:
    id: str  # evt_…; sorts by the time of creation
    organization_id: str
    type: str
    subject: str  # id of what it is about
    payload: str  # JSON object
    at_ns: int
