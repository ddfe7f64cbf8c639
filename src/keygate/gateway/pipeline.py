"""The life of a request, as plain functions in the order in which they run. Nothing here knows a socket.

    route          what does this path mean?                        vendors.routes
    authenticate   whose key is this, and is it good now?           KeyRing
    read           what does the body ask for, and at most how much? dialects
    plan           which vendor and model; may this key use it?     policies
    bound          the request as the ledger's question             Ask
    hold           room in every limit and budget, or a refusal     Accounts
    pick           the credential that serves it                    CredentialBook
    compose        the bytes that go to the vendor
    (forward, tap and settle: `incoming.py` and `exchange.py` drive these steps and own the request while it is in flight)

Each step returns what the next one needs, or raises `Refuse`. A refusal is a value for the caller;
`answers.py` words it in the caller's dialect.
"""

from __future__ import annotations

from typing import final
from urllib.parse import unquote_plus

from keygate.gateway.credentials import CredentialBook, Target
from keygate.gateway.dialects.bodies import replace
from keygate.gateway.dialects.interface import BadBody, Codec, Facts, Problem
from keygate.gateway.dialects.refusals import MAX_RETRY_AFTER_MS
from keygate.gateway.dialects.registry import codec, resolved
from keygate.gateway.http1 import RequestHead
from keygate.gateway.keyring import KeyEntry, KeyRing
from keygate.gateway.metrics import Metrics, Tally
from keygate.gateway.ports import Accounts, Prices, Recorder
from keygate.ledger import Ask, Hold, Refusal, RefusalKind
from keygate.policies import Deny, KeyState, evaluate, resolve_alias, standing
from keygate.vendors import VENDORS, Endpoint, ErrorStyle, Match, Refused, Vendor, resolve, split_model

_MAX_ROUTES = 1024


class Refuse(Exception):
    """The gateway's own answer instead of the vendor's. `code` is stable; `message` is for the caller and holds no secret."""

    def __init__(
        self,
        problem: Problem,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_ms: int | None = None,
        should_retry: bool | None = None,
        allow: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_ms = retry_after_ms
        self.should_retry = should_retry
        self.allow = allow  # methods that the path is served for, with 405


@final
class Route:
    """What a path means. Compared by identity: one object per known path."""

    __slots__ = ("codec", "endpoint", "match", "refused", "style")

    def __init__(self, match: Match | Refused) -> None:
        self.style: ErrorStyle = match.style
        if isinstance(match, Match):
            self.match: Match | None = match
            self.endpoint: Endpoint | None = match.endpoint
            self.codec: Codec | None = None if match.endpoint.local else codec(match.endpoint.dialect)
            self.refused: Refused | None = None
        else:
            self.match = self.endpoint = self.codec = None
            self.refused = match


@final
class Routes:
    """Remembers routes by method and path, within a bound; paths with an id in them are not kept."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], Route] = {}

    def find(self, method: bytes, path: bytes) -> Route | None:
        """None: not a gateway path."""
        route = self._known.get((method, path))
        if route is None:
            match = resolve(method, path)
            if match is None:
                return None
            route = Route(match)
            if isinstance(match, Match) and match.parameter is None and len(self._known) < _MAX_ROUTES:
                self._known[method, path] = route
        return route


@final
class Plan:
    """Where a request of one key on one route for one model goes. Made once per state of the key."""

    __slots__ = (
        "codec",
        "endpoint",
        "model",
        "readers",
        "renamed",
        "tally",
        "upstream_path",
        "vendor",
    )

    def __init__(
        self,
        vendor: str,
        model: str,
        endpoint: str,
        renamed: bool,
        upstream_path: bytes,
        codec: Codec,
        tally: Tally,
        readers: tuple[str, ...] | None = None,
    ) -> None:
        self.vendor = vendor
        self.model = model  # as the vendor knows it
        self.endpoint = endpoint
        self.renamed = renamed  # the body must name another model than the caller wrote
        self.upstream_path = upstream_path
        self.codec = codec
        self.tally = tally
        self.readers = readers  # of the recorded content; None: nothing is recorded


@final
class Caller:
    __slots__ = (
        "digest",
        "entry",
        "state",
        "valid_until",
    )

    def __init__(
        self,
        entry: KeyEntry,
        digest: bytes,
        valid_until: int,
        state: KeyState,
    ) -> None:
        self.entry = entry
        self.digest = digest
        self.valid_until = valid_until  # nanoseconds; the key or this token of it ends then
        self.state = state  # under which this was found

    def holds(self, now_ns: int) -> bool:
        """True while nothing has changed that could make it wrong."""
        entry = self.entry
        return entry.state is self.state and not entry.stale and now_ns < self.valid_until


@final
class Pipeline:
    def __init__(
        self,
        *,
        ring: KeyRing,
        accounts: Accounts,
        book: CredentialBook,
        prices: Prices,
        metrics: Metrics,
        recorder: Recorder | None = None,
    ) -> None:
        self.ring = ring
        self.accounts = accounts
        self.book = book
        self.prices = prices
        self.metrics = metrics
        self.recorder = recorder

    # authenticate

    def token(self, head: RequestHead, query: bytes) -> bytes:
        """The caller's key, from whichever header it came in. Two different keys are refused: none of them is clearly meant."""
        token = head.token
        if query and b"key=" in query:
            for pair in query.split(b"&"):
                if pair.startswith(b"key="):
                    found = unquote_plus(pair[4:].decode("latin-1")).encode("latin-1", "replace")
                    if token is not None and token != found:
                        raise _conflict()
                    token = found
        if head.token_conflict:
            raise _conflict()
        if not token:
            raise _missing()
        return token

    def authenticate(self, token: bytes, now_ns: int) -> Caller | str:
        """The caller, or the public id of a key that must be loaded first. Made-up keys cost no look-up."""
        ring = self.ring
        public_id = ring.public_id(token)
        if public_id is None:
            raise _invalid()
        entry = ring.get(public_id)
        if entry is None:
            if ring.is_unknown(public_id):
                raise _invalid()
            return public_id
        return self.verify(entry, token, now_ns)

    def verify(self, entry: KeyEntry, token: bytes, now_ns: int) -> Caller:
        """Compares in constant time; only who holds the secret learns that the key was revoked or has expired."""
        token_digest = self.ring.digest(token)
        until = entry.valid_until(token_digest)
        if now_ns >= until:
            raise _invalid() if until == 0 else _rotated()
        if entry.good_until < until:
            until = entry.good_until
            if now_ns >= until:
                denied = standing(entry.state, now_ns=now_ns)
                raise refuse_denied(denied) if denied is not None else _invalid()
        return Caller(entry, token_digest, until, entry.state)

    def still_valid_until(self, caller: Caller) -> int:
        """As `verify`, for a request in flight whose key has another state now."""
        return min(caller.entry.good_until, caller.entry.valid_until(caller.digest))

    def why_not(self, caller: Caller, now_ns: int) -> Refuse:
        """What to tell a caller whose key was good when the request began."""
        denied = standing(caller.entry.state, now_ns=now_ns)
        return refuse_denied(denied) if denied is not None else _rotated()

    # read

    def read(self, codec: Codec, body: bytes, content_type: bytes | None) -> Facts:
        try:
            return codec.read(body, content_type)
        except BadBody as error:
            problem = Problem.UNSUPPORTED_MEDIA_TYPE if error.code == "unsupported_media_type" else Problem.BAD_REQUEST
            raise Refuse(problem, str(error), code=error.code, param=error.field or None) from None

    # plan (choose the vendor, then ask the rules)

    def plan(self, entry: KeyEntry, route: Route, model: str, now_ns: int) -> Plan:
        """Remembered per key, route and model for as long as the key's state lasts; so are refusals by rule."""
        remembered = entry.plans.get((route, model))
        if remembered is None:
            remembered = self._plan(entry.state, route, model, now_ns)
            entry.remember(route, model, remembered)
        if type(remembered) is Plan:
            return remembered
        assert isinstance(remembered, Deny)  # noqa: S101  (plans hold nothing else)
        raise refuse_denied(remembered)

    def _plan(self, state: KeyState, route: Route, asked: str, now_ns: int) -> Plan | Deny:
        assert route.match is not None  # noqa: S101  (refused routes end earlier)
        vendor, model = self._choose(state, route.match.vendor, asked)
        match = route.match if route.match.vendor is not None else route.match.for_vendor(vendor)
        if match is None:
            raise Refuse(
                Problem.BAD_REQUEST,
                f"{vendor.title} does not serve this endpoint. Call it under /{vendor.name} with its own SDK.",
                code="endpoint_not_served",
                param="model",
            )
        group = match.endpoint.group.value
        decision = evaluate(state, vendor=vendor.name, model=model or None, endpoint=group, now_ns=now_ns)
        if isinstance(decision, Deny):
            hint = named_twice(vendor.name, model) if decision.rule == "model_not_allowed" else ""
            return Deny(decision.rule, decision.scope, decision.scope_id, decision.detail + hint) if hint else decision
        return Plan(
            vendor.name,
            model,
            group,
            model != asked,
            match.upstream_path,
            codec(match.endpoint.dialect),
            self.metrics.tally(vendor.name, group),
            self.recorder.readers(state) if self.recorder is not None else None,
        )

    def _choose(self, state: KeyState, vendor: Vendor | None, asked: str) -> tuple[Vendor, str]:
        """An alias of the organisation first; then, where the mount names no vendor, `vendor/model` or a name that one vendor owns."""
        target = resolve_alias(state.aliases, asked)
        if vendor is not None:
            name, _, model = (target or "").partition("/")
            return (vendor, model) if name == vendor.name and model else (vendor, asked)
        chosen, model = split_model(target or asked)
        if chosen is None:
            shown = asked if len(asked) <= 80 else asked[:80] + "…"
            raise Refuse(
                Problem.NOT_FOUND,
                f"No vendor is known for the model '{shown}'. Write vendor/model; vendors are {', '.join(VENDORS)}.",
                code="model_not_found",
                param="model",
            )
        return chosen, model

    # bound

    def bound(self, state: KeyState, plan: Plan, facts: Facts, request_id: str, at_ns: int) -> Ask:
        """What the request may use at most, as the ledger's question. Input that the body doesn't show is bounded by the model's window."""
        if plan.renamed:
            facts = resolved(facts, plan.model)
        input_bound = facts.input_bound
        unbounded = facts.unbounded
        if facts.input_unknown:
            window = self.prices.context_window(plan.vendor, plan.model)
            if window is None:
                unbounded = (*unbounded, "stored_input")
            elif window > input_bound:
                input_bound = window
        return Ask(
            request_id,
            at_ns,
            plan.endpoint,
            facts.model,
            input_bound,
            facts.output_max,
            facts.answers,
            facts.output_free,
            facts.cache_write_possible,
            facts.extra_output,
            facts.service_tier,
            unbounded,
            facts.stream,
            state.tags,
        )

    # hold

    def hold(self, state: KeyState, plan: Plan, ask: Ask) -> Hold | Refusal:
        return self.accounts.begin(state, plan.vendor, plan.model, ask)

    def tightened(self, plan: Plan, facts: Facts, ask: Ask, body: bytes) -> Ask | None:
        """The same question with the input counted instead of estimated, where that is less; for when the cheap bound doesn't fit."""
        if facts.input_unknown:
            return None
        tight = plan.codec.tight_input_bound(body)
        return ask.tighter(tight) if tight < ask.input_bound else None

    # pick

    def pick(self, state: KeyState, plan: Plan) -> Target:
        target = self.book.pick(state.organization_id, plan.vendor, plan.model)
        if target is None:
            raise Refuse(
                Problem.UNAVAILABLE,
                f"There is no {plan.vendor} credential for the model '{plan.model[:80]}'. An administrator adds one."
                + named_twice(plan.vendor, plan.model),
                code="no_credential",
                should_retry=False,
            )
        return target

    # compose

    def body(self, plan: Plan, facts: Facts, hold: Hold, body: bytes) -> bytes:
        """The caller's bytes, but for a resolved alias, a maximum or a tier that the hold covers, and the request for usage on a stream."""
        if plan.renamed or hold.output_set is not None or facts.usage_on_request:
            body = plan.codec.rewrite(
                body,
                facts,
                model=plan.model if plan.renamed else None,
                max_output=hold.output_set,
                include_usage=facts.usage_on_request,
            )
        return body if hold.tier_set is None else replace(body, {"service_tier": hold.tier_set})

    def query(self, query: bytes) -> bytes:
        """The caller's query without its key."""
        if b"key=" not in query:
            return query
        return b"&".join(pair for pair in query.split(b"&") if not pair.startswith(b"key="))


# refusals


def refuse_denied(denied: Deny) -> Refuse:
    problem = Problem.UNAUTHENTICATED if denied.rule in {"key_revoked", "key_expired", "owner_inactive"} else Problem.FORBIDDEN
    return Refuse(problem, denied.detail, code=denied.rule)


_PROBLEMS = {
    RefusalKind.BUDGET_SPENT: Problem.BUDGET_SPENT,
    RefusalKind.BUDGET_HELD: Problem.HELD,
    RefusalKind.RATE_LIMIT: Problem.RATE_LIMITED,
    RefusalKind.CONCURRENCY: Problem.RATE_LIMITED,
    RefusalKind.UNPRICED: Problem.FORBIDDEN,
    RefusalKind.UNBOUNDED: Problem.FORBIDDEN,
}
MONEY = frozenset({RefusalKind.BUDGET_SPENT, RefusalKind.BUDGET_HELD})


def named_twice(vendor: str, model: str) -> str:
    """A hint for a refusal, where the caller wrote the vendor before the model although the path, or another prefix, names it already.
    No more than a hint: a server that speaks a vendor's API may have models with such names."""
    own = model.removeprefix(f"{vendor}/")
    return "" if own == model else f" Write '{own[:80]}' without '{vendor}/' if that is meant: the vendor is known here."


def refuse_held(refusal: Refusal, hint: str = "") -> Refuse:
    """A refusal of the ledger. Its own code where the SDKs have none they look at (402 keeps `insufficient_quota`). SDKs sleep and try
    again on 429; where no wait that they accept helps (a limit of the day, a request larger than the limit), they are told not to."""
    code = None if refusal.kind is RefusalKind.BUDGET_SPENT else refusal.kind.value
    wait = refusal.retry_after_ms
    # A limit per minute may ask for a moment more than the minute that SDKs sleep at most: they try twice.
    hopeless = refusal.kind is RefusalKind.RATE_LIMIT and (wait is None or wait > 2 * MAX_RETRY_AFTER_MS)
    return Refuse(_PROBLEMS[refusal.kind], refusal.detail + hint, code=code, retry_after_ms=wait, should_retry=False if hopeless else None)


# New each time: an exception that is raised again and again gathers tracebacks.


def _conflict() -> Refuse:
    return Refuse(Problem.UNAUTHENTICATED, "Two different keys were sent. Send one.", code="invalid_api_key")


def _missing() -> Refuse:
    message = "No key was sent. Send a KeyGate key (sk-kg-…) as Authorization: Bearer, or as x-api-key."
    return Refuse(Problem.UNAUTHENTICATED, message, code="invalid_api_key")


def _invalid() -> Refuse:
    return Refuse(Problem.UNAUTHENTICATED, "This is not a KeyGate key that we know.", code="invalid_api_key")


def _rotated() -> Refuse:
    return Refuse(Problem.UNAUTHENTICATED, "This key was rotated, and the overlap is over. Use the new one.", code="key_rotated")
