"""What the worker does for issued keys, and how often. Each is safe to call at any time and to repeat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from keygate.issued_keys.inspection import InspectionService
from keygate.issued_keys.operations import Operations
from keygate.issued_keys.spend import VendorSpend

TICK_SECONDS = 2.0
FORGET_SECONDS = 60.0
INSPECT_SECONDS = 300.0  # looks for keys that were not read for hours
SPEND_SECONDS = 300.0  # looks whether an account is due; each is read once an hour


class Job(NamedTuple):
    name: str
    every_seconds: float
    tick: Callable[[], Awaitable[object]]


def jobs(operations: Operations, spend: VendorSpend, inspection: InspectionService) -> tuple[Job, ...]:
    return (
        Job("issued-keys", TICK_SECONDS, operations.tick),
        Job("issued-keys.forget", FORGET_SECONDS, operations.forget),
        Job("issued-keys.inspect", INSPECT_SECONDS, inspection.tick),
        Job("issued-keys.spend", SPEND_SECONDS, spend.tick),
    )
