"""What the worker does for issued keys, and how often. Each is safe to call at any time and to repeat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from keygate.issued_keys.accounts import VendorAccountService
from keygate.issued_keys.inspection import InspectionService
from keygate.issued_keys.operations import Operations

TICK_SECONDS = 2.0
FORGET_SECONDS = 60.0
RETRY_SECONDS = 300.0
INSPECT_SECONDS = 60.0  # looks for keys that were not read for hours


class Job(NamedTuple):
    name: str
    every_seconds: float
    tick: Callable[[], Awaitable[object]]


def jobs(operations: Operations, inspection: InspectionService, accounts: VendorAccountService) -> tuple[Job, ...]:
    return (
        Job("issued-keys", TICK_SECONDS, operations.tick),
        Job("issued-keys.forget", FORGET_SECONDS, operations.forget),
        Job("issued-keys.inspect", INSPECT_SECONDS, inspection.tick),
        Job("vendor-accounts.retry", RETRY_SECONDS, accounts.retry),
    )
