"""What a batch of settled requests adds up to: rows of entries, spend per budget window, use per limit and day. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from keygate.ledger.journal import Context, Settle
from keygate.ledger.model import TokenUsage

HOUR_NS = 3_600 * 10**9
DAY_NS = 24 * HOUR_NS
BUCKET_NS = 300 * 10**9  # five minutes: the grain in which limits per day survive a restart

_NO_USAGE = TokenUsage()
_MILLISECOND = 1_000_000

LAST_SEQ = "last_seq"  # counter: the number of the newest entry
ROLLED_SEQ = "rolled_seq"  # counter: the newest entry that the roll-ups contain

Row = tuple[object, ...]


class AlreadyPosted(Exception):
    """A settled request of the batch stands in the ledger already."""


@dataclass(slots=True)
class Postings:
    """Rows for one transaction. `rows` are in the order of `tables.POSTED`."""

    rows: list[Row] = field(default_factory=list)
    spend: dict[tuple[str, int], tuple[str, int, int]] = field(default_factory=dict)  # → (organization, spent, in doubt)
    use: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)  # → (organization, amount)

    def add(self, settles: Iterable[Settle], first_seq: int) -> int:
        """Adds settled requests, numbered from `first_seq`; returns the next number. Every microsecond here is paid by every request."""
        seq = first_seq
        append = self.rows.append
        together: dict[int, tuple[Context, list[int]]] = {}  # of requests in the same context → spent, in doubt
        for s in settles:
            context = s.context
            cost = s.cost_nano
            append(
                (
                    seq,
                    s.request_id,
                    s.began_at_ns,
                    s.model_served,
                    s.credential_id,
                    s.status,
                    s.outcome,
                    *(s.usage or _NO_USAGE),
                    s.service_tier,
                    cost,
                    s.hold_nano,
                    1 if s.in_doubt else 0,
                    s.latency_ns // _MILLISECOND,
                    None if s.first_token_ns is None else s.first_token_ns // _MILLISECOND,
                    s.upstream_request_id,
                    json.dumps(context.budgets) if s.in_doubt else None,
                    *(context.row or _row_of(context)),
                )
            )
            seq += 1
            if cost and context.budgets:
                found = together.get(id(context))
                if found is None:
                    found = together[id(context)] = (context, [0, 0])
                found[1][0] += cost
                if s.in_doubt:
                    found[1][1] += cost
            if context.day_limits:
                bucket = s.began_at_ns - s.began_at_ns % BUCKET_NS
                for limit_id, amount in s.day_limits:
                    counted = self.use.get((limit_id, bucket))
                    self.use[limit_id, bucket] = (context.organization_id, amount if counted is None else counted[1] + amount)
        for context, (spent, doubted) in together.values():
            for window in context.budgets:
                _, before, doubted_before = self.spend.get(window, (context.organization_id, 0, 0))
                self.spend[window] = (context.organization_id, before + spent, doubted_before + doubted)
        return seq


def _row_of(context: Context) -> Row:
    """The values of `SHARED`."""
    context.row = (
        context.organization_id,
        context.key_id,
        context.team_id,
        context.developer_id,
        context.app_id,
        context.vendor,
        context.endpoint,
        context.model_asked,
        context.model,
        context.price_id,
        1 if context.streamed else 0,
        json.dumps(context.tags) if context.tags else None,
    )
    return context.row
