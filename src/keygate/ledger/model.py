"""What the gateway asks of the ledger and what it reports back. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from keygate.policies import Scope


class TokenUsage(NamedTuple):
    """What a vendor says it used. `input` is the whole prompt, cached and written parts included; `output` includes reasoning.

    Same meaning for every vendor (Anthropic's `input_tokens` excludes cache counts: the dialect adds them).
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0  # written for five minutes, or where the vendor names no time
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    input_audio: int = 0
    output_audio: int = 0
    web_searches: int = 0


class Outcome(StrEnum):
    """How a request ended, for the ledger."""

    FINISHED = "finished"
    CLIENT_GONE = "client_gone"  # the caller left; upstream was drained
    CUT = "cut"  # we ended it: key revoked, expired, budget lowered
    UPSTREAM_ERROR = "upstream_error"  # the vendor answered with an error status; not billed by vendors
    UPSTREAM_LOST = "upstream_lost"  # no usage could be read: reset, time-out, garbage
    NOT_SENT = "not_sent"  # the request never reached the vendor


class Ask(NamedTuple):
    """What one request may use at most. Bounds, not estimates: the vendor must not be able to bill more."""

    request_id: str  # req_…
    at_ns: int
    endpoint: str  # EndpointGroup value
    model_asked: str  # as the caller wrote it
    input_bound: int  # tokens; never less than the vendor will count
    output_max: int | None  # the caller's own maximum for one answer; None: the caller set none
    answers: int = 1  # `n`, `best_of`, prompts in one call: output_max counts this many times
    output_free: bool = False  # the endpoint produces no billed output (embeddings)
    cache_write_possible: bool = False
    extra_output: int = 0  # further tokens billable at output rates (predicted outputs)
    service_tier: str | None = None
    unbounded: tuple[str, ...] = ()  # features whose cost tokens do not bound: `web_search`, `code_interpreter`, …
    streamed: bool = False
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class Hold:
    """Money, tokens and slots reserved for one request in flight. Ends by exactly one `settle`."""

    id: str  # the request id
    nano: int
    tokens: int
    output_set: int | None = None  # the maximum that the gateway must write into the request, where the caller set none
    tier_set: str | None = None  # the service tier that the gateway must write into it: the hold covers no dearer one
    state: object = field(default=None, repr=False)  # the engine's own


class RefusalKind(StrEnum):
    BUDGET_SPENT = "budget_spent"  # 402: what is spent leaves no room
    BUDGET_HELD = "budget_held"  # 429, short retry-after: only holds of requests in flight stand in the way
    RATE_LIMIT = "rate_limit"  # 429
    CONCURRENCY = "concurrency"  # 429
    UNPRICED = "unpriced"  # 403: unknown price under a hard budget
    UNBOUNDED = "unbounded_cost"  # 403: a cost that a hold can't bound, under a hard budget


@dataclass(frozen=True, slots=True)
class Refusal:
    kind: RefusalKind
    scope: Scope
    scope_id: str
    rule_id: str  # bud_… or lim_…
    detail: str  # one or two sentences: which rule of which scope; for money spent, held and limit
    retry_after_ms: int | None = None


class Settlement(NamedTuple):
    """How a request ended. `usage` None: unknown; then the hold is charged, in doubt, unless `outcome` says nothing was billed."""

    outcome: Outcome
    status: int  # what the caller got, 0 when nothing
    usage: TokenUsage | None
    model_served: str | None = None
    service_tier: str | None = None
    credential_id: str | None = None
    latency_ns: int = 0
    first_token_ns: int | None = None
    upstream_request_id: str | None = None


class Recording(NamedTuple):
    """One exchange whose content a policy keeps, as bytes on the wire."""

    request_id: str
    organization_id: str
    key_id: str
    at_ns: int
    prompt: bytes
    answer: bytes
    readers: tuple[str, ...]  # roles and user ids
