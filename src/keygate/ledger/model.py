"""What the gateway asks of the ledger and what it reports back. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, final

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


@final
class Ask:
    """What one request may use at most. Bounds, not estimates: the vendor must not be able to bill more."""

    __slots__ = (
        "answers",
        "at_ns",
        "cache_write_possible",
        "endpoint",
        "extra_output",
        "input_bound",
        "model_asked",
        "output_free",
        "output_max",
        "request_id",
        "service_tier",
        "streamed",
        "tags",
        "unbounded",
    )

    def __init__(
        self,
        request_id: str,
        at_ns: int,
        endpoint: str,
        model_asked: str,
        input_bound: int,
        output_max: int | None,
        answers: int = 1,
        output_free: bool = False,
        cache_write_possible: bool = False,
        extra_output: int = 0,
        service_tier: str | None = None,
        unbounded: tuple[str, ...] = (),
        streamed: bool = False,
        tags: tuple[str, ...] = (),
    ) -> None:
        self.request_id = request_id  # req_…
        self.at_ns = at_ns
        self.endpoint = endpoint  # EndpointGroup value
        self.model_asked = model_asked  # as the caller wrote it
        self.input_bound = input_bound  # tokens; never less than the vendor will count
        self.output_max = output_max  # the caller's own maximum for one answer; None: the caller set none
        self.answers = answers  # `n`, `best_of`, prompts in one call: output_max counts this many times
        self.output_free = output_free  # the endpoint produces no billed output (embeddings)
        self.cache_write_possible = cache_write_possible
        self.extra_output = extra_output  # further tokens billable at output rates (predicted outputs)
        self.service_tier = service_tier
        self.unbounded = unbounded  # features whose cost tokens do not bound: `web_search`, `code_interpreter`, …
        self.streamed = streamed
        self.tags = tags

    def tighter(self, input_bound: int) -> Ask:
        """The same question with a lower bound on the input."""
        return self._changed(self.request_id, self.at_ns, input_bound)

    def again(self, request_id: str, at_ns: int) -> Ask:
        """The same question for another attempt."""
        return self._changed(request_id, at_ns, self.input_bound)

    def _changed(self, request_id: str, at_ns: int, input_bound: int) -> Ask:
        return Ask(
            request_id,
            at_ns,
            self.endpoint,
            self.model_asked,
            input_bound,
            self.output_max,
            self.answers,
            self.output_free,
            self.cache_write_possible,
            self.extra_output,
            self.service_tier,
            self.unbounded,
            self.streamed,
            self.tags,
        )


@final
class Hold:
    """Money, tokens and slots reserved for one request in flight. Ends by exactly one `settle`. `id` is the request's."""

    __slots__ = ("id", "nano", "output_set", "state", "tier_set", "tokens")

    def __init__(
        self, request_id: str, nano: int, tokens: int, output_set: int | None = None, tier_set: str | None = None, state: object = None
    ) -> None:
        self.id = request_id
        self.nano = nano
        self.tokens = tokens
        self.output_set = output_set  # the maximum that the gateway must write into the request, where the caller set none
        self.tier_set = tier_set  # the service tier that the gateway must write into it: the hold covers no dearer one
        self.state = state  # the engine's own

    def __repr__(self) -> str:
        return f"Hold({self.id!r}, nano={self.nano}, tokens={self.tokens})"


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


@final
class Settlement:
    """How a request ended. `usage` None: unknown; then the hold is charged, in doubt, unless `outcome` says nothing was billed."""

    __slots__ = (
        "credential_id",
        "first_token_ns",
        "latency_ns",
        "model_served",
        "outcome",
        "service_tier",
        "status",
        "upstream_request_id",
        "usage",
    )

    def __init__(
        self,
        outcome: Outcome,
        status: int,
        usage: TokenUsage | None,
        model_served: str | None = None,
        service_tier: str | None = None,
        credential_id: str | None = None,
        latency_ns: int = 0,
        first_token_ns: int | None = None,
        upstream_request_id: str | None = None,
    ) -> None:
        self.outcome = outcome
        self.status = status  # what the caller got, 0 when nothing
        self.usage = usage
        self.model_served = model_served
        self.service_tier = service_tier
        self.credential_id = credential_id
        self.latency_ns = latency_ns
        self.first_token_ns = first_token_ns
        self.upstream_request_id = upstream_request_id


class Recording(NamedTuple):
    """One exchange whose content a policy keeps, as bytes on the wire."""

    request_id: str
    organization_id: str
    key_id: str
    at_ns: int
    prompt: bytes
    answer: bytes
    readers: tuple[str, ...]  # roles and user ids
