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
    ISSUED_KEY_SECRET_WAITS = "issued_key.secret_waits"  # noqa: S105  (of a rotation that nobody asked for: its owner is to fetch it)
    ISSUED_KEY_FORMER_IN_USE = "issued_key.former_in_use"  # a rotation can't end: somebody still uses the former key
    ISSUED_KEY_ROTATED = "issued_key.rotated"  # the former key is gone, the vendor has confirmed
    ISSUED_KEY_ROTATION_DUE = "issued_key.rotation_due"  # only a person can replace this key, and a policy wants it
    INVENTORY_FOUND = "inventory.found"  # something at a vendor that somebody should look at
    KEY_ENDS_SOON = "issued_key.ends_soon"  # a reminder: only a person can renew it
    BULK_DONE = "bulk_order.done"
    BULK_HALTED = "bulk_order.halted"  # it goes on once somebody has mended what its note says
    ISSUED_KEY_DRIFTED = "issued_key.drifted"  # at the vendor it is not what it was made as
    VENDOR_REFUSED = "vendor.refused"  # the vendor does not know the admin credential any more: nothing can be made or ended with it
    ISSUED_KEY_IRREVOCABLE = "issued_key.irrevocable"  # the vendor does not end it: somebody must look
    ISSUED_KEY_LEAKED = "issued_key.leak_reported"  # somebody found a secret of it; what was done is in the payload
    ISSUED_KEY_BUDGET_THRESHOLD_REACHED = "issued_key.budget_threshold_reached"  # as the vendor bills, late
    ISSUED_KEY_BUDGET_SPENT = "issued_key.budget_spent"
    ISSUED_KEY_RESTRICTED = "issued_key.restricted"  # limits lowered, or disabled: the vendor has confirmed
    ISSUED_KEY_RESTORED = "issued_key.restored"
    ISSUED_KEY_RESTRAINT_FAILED = "issued_key.restraint_failed"  # its budget calls for it, and the vendor did not do it: tried again


@dataclass(frozen=True, slots=True)
class Event:
    id: str  # evt_…; sorts by the time of creation
    organization_id: str
    type: str
    subject: str  # id of what it is about
    payload: str  # JSON object
    at_ns: int
