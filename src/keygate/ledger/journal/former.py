"""Records of format version 1, in which every begin and every settle carried its whole context. Read, never written."""

from __future__ import annotations

import msgspec

from keygate.ledger.journal.records import Amounts, Begin, Context, Settle
from keygate.ledger.model import TokenUsage

BEGIN_1 = 1
SETTLE_1 = 2


class _Begin(msgspec.Struct, frozen=True, array_like=True):
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
    model: str
    endpoint: str
    streamed: bool
    price_id: str | None
    hold_nano: int
    hold_tokens: int
    budgets: Amounts
    minute_limits: Amounts
    day_limits: Amounts
    service_tier: str | None = None


class _Settle(msgspec.Struct, frozen=True, array_like=True):
    request_id: str
    at_ns: int
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
    cost_nano: int | None
    in_doubt: bool
    usage: TokenUsage | None
    status: int
    outcome: str
    budgets: Amounts
    minute_limits: Amounts
    day_limits: Amounts
    model_served: str | None = None
    service_tier: str | None = None
    credential_id: str | None = None
    latency_ns: int = 0
    first_token_ns: int | None = None
    upstream_request_id: str | None = None


_BEGIN = msgspec.msgpack.Decoder(_Begin)
_SETTLE = msgspec.msgpack.Decoder(_Settle)


def begin(data: bytes | memoryview) -> Begin:
    """Raises `msgspec.DecodeError`."""
    old = _BEGIN.decode(data)
    return Begin(_context(old, 1), old.request_id, old.at_ns, old.hold_nano, old.hold_tokens, old.service_tier)


def settle(data: bytes | memoryview) -> Settle:
    """Raises `msgspec.DecodeError`."""
    old = _SETTLE.decode(data)
    requests = 0 if old.outcome == "not_sent" else 1
    tokens = next((amount for _, amount in (*old.minute_limits, *old.day_limits) if amount != requests), requests)
    return Settle(
        _context(old, requests),
        old.request_id,
        old.at_ns,
        old.began_at_ns,
        old.hold_nano,
        old.cost_nano,
        old.in_doubt,
        old.usage,
        old.status,
        old.outcome,
        requests,
        tokens,
        old.model_served,
        old.service_tier,
        old.credential_id,
        old.latency_ns,
        old.first_token_ns,
        old.upstream_request_id,
    )


def _context(old: _Begin | _Settle, requests: int) -> Context:
    """A limit counted requests or tokens; which of them shows in what it counted, and where both are the same it makes no difference."""
    return Context(
        old.organization_id,
        old.key_id,
        old.team_id,
        old.developer_id,
        old.app_id,
        old.tags,
        old.vendor,
        old.model_asked,
        old.model,
        old.endpoint,
        old.streamed,
        old.price_id,
        old.budgets,
        tuple((limit_id, amount != requests) for limit_id, amount in old.minute_limits),
        tuple((limit_id, amount != requests) for limit_id, amount in old.day_limits),
    )
