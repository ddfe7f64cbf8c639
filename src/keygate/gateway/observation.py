"""What an observer (traces) is told of a request: plain values, no content and no secret."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from keygate.ledger import Outcome, TokenUsage

if TYPE_CHECKING:
    from keygate.gateway.dialects.interface import Reading
    from keygate.gateway.incoming import Incoming
    from keygate.gateway.metrics import Metrics
    from keygate.gateway.pipeline import Plan
    from keygate.gateway.ports import Observer

_log = logging.getLogger("keygate.gateway")


_WORDS = {  # other bad ends are logged where their reason is known
    Outcome.CLIENT_GONE: "the caller left before the end",
    Outcome.CUT: "a request was ended by a change of its key",
    Outcome.UPSTREAM_ERROR: "the vendor answered with an error",
}


def note(metrics: Metrics, exchange: Incoming, plan: Plan, *, outcome: Outcome) -> None:
    """An end that is not as it should be: counted, and logged. The caller finds the same request id in its answer."""
    metrics.unfinished(outcome.value)
    if outcome in _WORDS:
        fields = {"request_id": exchange.request_id, "outcome": outcome.value, "status": exchange.status, "vendor": plan.vendor}
        _log.info(_WORDS[outcome], extra=fields)


class Ended(NamedTuple):
    """One request, from its head to its end. What is not known is None; a request that never came to the vendor has no outcome."""

    request_id: str
    began_at_ns: int  # since the epoch
    latency_ns: int
    first_byte_ns: int | None  # of the vendor's answer, after the head of the request
    method: str
    route: str | None  # the vendor's own path, with names for ids in it: `/v1/chat/completions`, `/v1/models/{model}`
    endpoint: str | None  # EndpointGroup value
    vendor: str | None
    model_asked: str | None  # as the caller wrote it
    model: str | None  # as the vendor knows it
    model_served: str | None
    streamed: bool
    status: int  # of the answer that the caller got or would have got; 0: none
    outcome: Outcome | None
    rule: str | None  # that refused the request or ended it: a code as in the caller's error
    usage: TokenUsage | None
    cost_nano: int | None
    organization_id: str | None
    team_id: str | None
    developer_id: str | None
    app_id: str | None
    key_id: str | None
    credential_id: str | None
    traceparent: bytes | None  # as the caller sent it


def tell(
    observer: Observer,
    exchange: Incoming,
    *,
    status: int,
    outcome: Outcome | None = None,
    reading: Reading | None = None,
    first_byte_ns: int | None = None,
) -> None:
    try:
        observer.ended(_ended(exchange, status, outcome, reading, first_byte_ns))
    except Exception:  # noqa: BLE001  (an observer's fault is not the request's)
        _log.exception("an observer failed", extra={"request_id": exchange.request_id})


def _ended(exchange: Incoming, status: int, outcome: Outcome | None, reading: Reading | None, first_byte_ns: int | None) -> Ended:
    latency = time.monotonic_ns() - exchange.began_ns
    route, plan, refused = exchange.route, exchange.plan, exchange.refused
    endpoint = route.endpoint
    state = exchange.caller.entry.state if exchange.caller is not None else None
    facts = getattr(exchange, "facts", None)  # no body was read yet
    return Ended(
        request_id=exchange.request_id,
        began_at_ns=time.time_ns() - latency,
        latency_ns=latency,
        first_byte_ns=first_byte_ns,
        method=exchange.method.decode("latin-1"),
        route=endpoint.path if endpoint is not None else None,
        endpoint=endpoint.group.value if endpoint is not None else None,
        vendor=plan.vendor if plan is not None else None,
        model_asked=facts.model if facts is not None else None,
        model=plan.model if plan is not None else None,
        model_served=reading.model_served if reading is not None else None,
        streamed=facts is not None and facts.stream,
        status=status,
        outcome=outcome,
        rule=None if refused is None else refused.code or refused.problem.value,
        usage=reading.usage if reading is not None else None,
        cost_nano=exchange.cost,
        organization_id=state.organization_id if state is not None else None,
        team_id=state.team_id if state is not None else None,
        developer_id=state.developer_id if state is not None else None,
        app_id=state.app_id if state is not None else None,
        key_id=state.id if state is not None else None,
        credential_id=exchange.target.credential_id if exchange.target is not None else None,
        traceparent=exchange.head.traceparent,
    )
