"""What the worker does for rotation, and how often. Safe to call at any time and to repeat."""

from __future__ import annotations

from keygate.issued_keys.jobs import Job
from keygate.issued_keys.rotation.scheduling import RotationScheduler

TICK_SECONDS = 15.0


def jobs(scheduler: RotationScheduler) -> tuple[Job, ...]:
    return (Job("issued-keys.rotation", TICK_SECONDS, scheduler.tick),)
