"""What the worker does for bulk orders, and how often. Safe to call at any time and to repeat."""

from __future__ import annotations

from keygate.issued_keys.bulk.runner import BulkRunner
from keygate.issued_keys.jobs import Job

TICK_SECONDS = 1.0


def jobs(runner: BulkRunner) -> tuple[Job, ...]:
    return (Job("issued-keys.bulk", TICK_SECONDS, runner.tick),)
