"""What stands in the journal: frozen records, written as MessagePack arrays.

The byte format is a contract with files that outlive the process: fields are only ever added at the end, with a default.
No secret, no prompt and no answer is ever part of a record.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from keygate.ledger.model import TokenUsage

BOOT = 0
BEGIN = 1
SETTLE = 2


class Position(NamedTuple):
    """A place between two records: everything before it has been read. `START` is before the first record."""

    segment: int
    offset: int


START = Position(0, 0)


class Boot(msgspec.Struct, frozen=True, array_like=True):
    """The first record of a process's first segment."""

    boot_id: str
    at_ns: int
    version: str


class Begin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request is about to be sent. Holds all that is needed to charge it if no settle ever follows."""

    request_id: str
    at_ns: int
    organization_id: str
    key_id: str
    team_id: str | None
    developer_id: str | None
    app_id: str | None
    tags: tuple[str, ...]
    vendor: str
    model_asked: str
    model: str  # as routed, without the vendor
    endpoint: str
    streamed: bool
    price_id: str | None  # None: no price is known
    hold_nano: int
    hold_tokens: int
    budgets: tuple[tuple[str, int], ...]  # (budget id, start of the window or bucket that the spend belongs to)
    minute_limits: tuple[tuple[str, int], ...]  # (limit id, requests or tokens taken), limits per minute
    day_limits: tuple[tuple[str, int], ...]  # the same for limits per day
    service_tier: str | None = None


class Settle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a request ended. Needs nothing else to become a ledger entry."""

    request_id: str
    at_ns: int  # when it ended
    began_at_ns: int
    organization_id: str
    key_id: str
    team_id: str | None
    developer_id: str | None
    app_id: str | None
    tags: tuple[str, ...]
    vendor: str
    model_asked: str
    model: str
    endpoint: str
    streamed: bool
    price_id: str | None
    hold_nano: int
    cost_nano: int | None  # None: unpriced, which is not zero
    in_doubt: bool  # charged at its hold because the true usage is unknown
    usage: TokenUsage | None
    status: int
    outcome: str
    budgets: tuple[tuple[str, int], ...]  # (budget id, window start) that `cost_nano` is posted to
    minute_limits: tuple[tuple[str, int], ...]  # (limit id, what it counted in the end)
    day_limits: tuple[tuple[str, int], ...]  # the same for limits per day, at `began_at_ns`
    model_served: str | None = None
    service_tier: str | None = None
    credential_id: str | None = None
    latency_ns: int = 0
    first_token_ns: int | None = None
    upstream_request_id: str | None = None


Record = Boot | Begin | Settle

TYPES: dict[int, type[Record]] = {BOOT: Boot, BEGIN: Begin, SETTLE: Settle}
