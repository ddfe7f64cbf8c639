"""What the worker does about vendors' bills, and how often. Each is safe to call at any time and to repeat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from keygate.vendor_spend.importer import SpendImporter
from keygate.vendor_spend.watching import BudgetWatch

IMPORT_SECONDS = 30.0  # looks which accounts are due
WATCH_SECONDS = 30.0


class Job(NamedTuple):
    name: str
    every_seconds: float
    tick: Callable[[], Awaitable[object]]


def jobs(importer: SpendImporter, watch: BudgetWatch) -> tuple[Job, ...]:
    return (
        Job("vendor-spend.import", IMPORT_SECONDS, importer.tick),
        Job("vendor-spend.watch", WATCH_SECONDS, watch.tick),
    )
