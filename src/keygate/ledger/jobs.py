"""What the worker does for the ledger, and how often. Each is safe to call at any time and to repeat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from keygate.ledger.content import ContentRecorder
from keygate.ledger.fold import INTERVAL, Fold
from keygate.ledger.retention import Retention
from keygate.ledger.spend import WholeGrant

THRESHOLDS_SECONDS = 0.5
RENEW_SECONDS = 20.0
RETENTION_SECONDS = 3_600.0
CONTENT_SECONDS = 1.0


class Job(NamedTuple):
    name: str
    every_seconds: float
    tick: Callable[[], Awaitable[object]]


def jobs(*, fold: Fold, grant: WholeGrant, retention: Retention, recorder: ContentRecorder) -> tuple[Job, ...]:
    return (
        Job("ledger.fold", INTERVAL, fold.tick),
        Job("ledger.thresholds", THRESHOLDS_SECONDS, fold.announce),
        Job("ledger.grant", RENEW_SECONDS, grant.renew),
        Job("ledger.retention", RETENTION_SECONDS, retention.tick),
        Job("ledger.content", CONTENT_SECONDS, recorder.tick),
    )
