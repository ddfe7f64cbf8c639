"""A request on its way in: judged by its head, received, led through the pipeline's steps, and sent to the vendor.

Only what must wait is a task: a key that isn't loaded, a hold that others stand in the way of, a new connection to the vendor.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from keygate.errors import Unavailable
from keygate.gateway.answers import own, worded
from keygate.gateway.connector import NotSent
from keygate.gateway.dialects.interface import Answer, Problem
from keygate.gateway.http1 import RequestHead
from keygate.gateway.keyring import FOREVER
from keygate.gateway.observation import tell
from keygate.gateway.pipeline import MONEY, Caller, Plan, Refuse, Route, named_twice, refuse_held
from keygate.gateway.recording import Kept
from keygate.gateway.upstream import Receiver, UpstreamConnection
from keygate.ledger import Hold, Outcome, Refusal, RefusalKind

if TYPE_CHECKING:
    from keygate.gateway.credentials import Target
    from keygate.gateway.dialects.interface import Facts
    from keygate.gateway.gateway import Gateway
    from keygate.ledger import Ask

log = logging.getLogger("keygate.gateway")

_EAGER: Final = 256 << 10  # request bodies above this are not read before the key is known, nor to the end after a refusal
_ROUTE_PROBLEMS = {403: Problem.FORBIDDEN, 404: Problem.NOT_FOUND, 405: Problem.METHOD_NOT_ALLOWED}
_NOTHING: list[bytes] = []  # never appended to
_PROBE = Answer(200, ((b"content-type", b"application/json"),), b"")


# The phases: plain numbers, which compile to constants.
RECEIVING: Final = 0
PREPARING: Final = 1
SENT: Final = 2
PASSING: Final = 3
DRAINING: Final = 4
DONE: Final = 5


class CallerConnection(ABC):
    """The caller's connection, as an exchange needs it."""

    __slots__ = ()

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Bytes for the caller; sent in the order of the calls."""

    @abstractmethod
    def proceed(self, exchange: Incoming) -> None:
        """The exchange can go on: start it if it is its turn."""

    @abstractmethod
    def finished(self, exchange: Incoming, *, close: bool) -> None:
        """The answer has been written whole."""

    @abstractmethod
    def abort(self) -> None:
        """The answer can't be written whole: let the caller see that."""


class Incoming(Receiver):
    """The first half of an exchange. Never raises towards the connection; every hold that it takes is handed to `_settle` in the end."""

    __slots__ = (
        "_body_size",
        "_charged",
        "_g",
        "_parts",
        "_payload",
        "ask",
        "began_ns",
        "caller",
        "connection",
        "cost",
        "early",
        "facts",
        "head",
        "hold",
        "http10",
        "keep_alive",
        "kept",
        "loading",
        "method",
        "observed",
        "phase",
        "plan",
        "query",
        "received",
        "refused",
        "request_id",
        "route",
        "settled",
        "status",
        "target",
        "upstream",
        "valid_until",
    )

    def __init__(
        self, gateway: Gateway, connection: CallerConnection, route: Route, method: bytes, query: bytes, *, http10: bool, keep_alive: bool
    ) -> None:
        self._g = gateway
        self.connection: CallerConnection | None = connection
        self.route = route
        self.method = method
        self.query = query
        self.http10 = http10
        self.keep_alive = keep_alive
        self.request_id = gateway.request_ids.next()
        self.began_ns = time.monotonic_ns()
        self.phase: int = RECEIVING
        self.received = self.early = self.loading = self.settled = self.observed = False
        self.refused: Refuse | None = None
        self.caller: Caller | None = None
        self.plan: Plan | None = None
        self.hold: Hold | None = None
        self.upstream: UpstreamConnection | None = None
        self.target: Target | None = None
        self.kept: Kept | None = None
        self.cost: int | None = None
        self.status = 0
        self.valid_until = FOREVER
        self._parts: list[bytes] = []
        self._body_size = self._charged = 0
        self._payload: tuple[bytes, bytes] | None = None
        self.head: RequestHead
        self.facts: Facts
        self.ask: Ask

    # RECEIVING: from the caller's connection

    def begin(self, head: RequestHead, known: Caller | None = None) -> None:
        """Judges what can be judged before the body comes. `known` sent this very head on this connection before."""
        self.head = head
        try:
            self._admit(head, known)
        except Refuse as refused:
            self.refused = refused
            self.early = head.chunked or head.expect_continue or (head.content_length or 0) > _EAGER

    def _admit(self, head: RequestHead, known: Caller | None) -> None:
        g = self._g
        refused = self.route.refused
        if self.method == b"HEAD":
            return  # a probe: answered, unbilled, whoever asks
        if head.websocket:
            raise Refuse(Problem.UPGRADE_REQUIRED, "WebSockets are not served here. Use HTTP requests and event streams.")
        if refused is not None:
            raise Refuse(_ROUTE_PROBLEMS.get(refused.status, Problem.NOT_FOUND), refused.message, code=refused.code, allow=refused.allow)
        if head.encoding is not None:
            raise Refuse(Problem.UNSUPPORTED_MEDIA_TYPE, "Compressed request bodies are not read. Send the body without Content-Encoding.")
        if head.content_length is not None and head.content_length > g.max_body_bytes:
            raise self._too_large()
        if known is not None and b"key=" not in self.query and known.holds(time.time_ns()):
            self._belongs_to(known)
            return
        token = g.pipeline.token(head, self.query)
        found = g.pipeline.authenticate(token, time.time_ns())
        if isinstance(found, str):
            self.loading = True
            g.spawn(self._load(found, token))
        else:
            self._belongs_to(found)

    def _belongs_to(self, caller: Caller) -> None:
        self.caller = caller
        self.valid_until = caller.valid_until
        entry = caller.entry
        entry.used = True
        entry.open.add(self)

    async def _load(self, public_id: str, token: bytes) -> None:
        g = self._g
        try:
            entry = await g.ring.load(public_id)
            now_ns = time.time_ns()
            found = g.pipeline.authenticate(token, now_ns) if entry is None else g.pipeline.verify(entry, token, now_ns)
            if isinstance(found, str):
                self.refused = Refuse(Problem.UNAVAILABLE, "The key could not be looked up.")
            elif self.phase != DONE:
                self._belongs_to(found)
        except Refuse as refused:
            self.refused = refused
        except Unavailable:
            self.refused = Refuse(Problem.UNAVAILABLE, "The key could not be looked up just now.")
        except Exception:  # logged, and answered: a request always ends
            log.exception("looking up a key failed", extra={"request_id": self.request_id})
            self.refused = Refuse(Problem.INTERNAL, "Something went wrong on our side.")
        self.loading = False
        if self.connection is not None:
            self.connection.proceed(self)

    def wants_continue(self) -> bool:
        return self.head.expect_continue and self.refused is None and not self.received

    def body_received(self, data: bytes) -> None:
        if self.refused is not None:
            return  # read to the end, kept nowhere
        g = self._g
        size = len(data)
        self._body_size += size
        if self._body_size > g.max_body_bytes:
            self._refuse_early(self._too_large())
        elif g.buffered_bytes + size > g.max_buffered_bytes:
            self._refuse_early(Refuse(Problem.UNAVAILABLE, "Too many large requests are in flight."))
        else:
            g.buffered_bytes += size
            self._charged += size
            self._parts.append(data)

    def _refuse_early(self, refused: Refuse) -> None:
        self.refused = refused
        self.early = True
        self._release_body()

    def _release_body(self) -> None:
        if self._charged:
            self._g.buffered_bytes -= self._charged
            self._charged = 0
        self._parts = _NOTHING
        self._payload = None

    def _too_large(self) -> Refuse:
        return Refuse(Problem.BODY_TOO_LARGE, f"The request body is larger than {self._g.max_body_bytes} bytes.")

    @property
    def greedy(self) -> bool:
        """More body has come than is taken from a caller who isn't known yet."""
        return self.loading and self._body_size > _EAGER

    @property
    def ready(self) -> bool:
        """It can be started: the request is whole and its caller known, or it is refused without that."""
        return self.phase == RECEIVING and not self.loading and (self.received or self.early)

    # PREPARING

    def start(self) -> None:
        """Runs the pipeline. The request goes out before this returns, unless something has to be waited for."""
        self.phase = PREPARING
        try:
            if self.refused is not None:
                self._refuse(self.refused)
                return
            caller = self.caller
            if self.method == b"HEAD":
                self._answer(_PROBE)
                return
            assert caller is not None  # noqa: S101  (not refused, so authenticated)
            now_ns = time.time_ns()
            if now_ns >= self.valid_until:
                self._refuse(self._g.pipeline.why_not(caller, now_ns))
                return
            parts = self._parts
            self._prepare(caller, parts[0] if len(parts) == 1 else b"".join(parts), now_ns)
        except Refuse as refused:
            self._refuse(refused)
        except Exception as error:  # noqa: BLE001  (logged, and answered: a request always ends)
            self._fail(error)

    def go(self, head: RequestHead, caller: Caller, body: bytes, now_ns: int) -> None:
        """`begin`, `body_received` and `start` in one, for a request whose head and caller are known to be good and whose body is small."""
        self.head = head
        self.phase = PREPARING
        self.received = True
        self._belongs_to(caller)
        try:
            self._prepare(caller, body, now_ns)
        except Refuse as refused:
            self._refuse(refused)
        except Exception as error:  # noqa: BLE001  (logged, and answered: a request always ends)
            self._fail(error)

    def _prepare(self, caller: Caller, body: bytes, now_ns: int) -> None:
        g = self._g
        pipeline = g.pipeline
        route = self.route
        entry = caller.entry
        state = entry.state
        if route.codec is None:
            self._answer(g.catalogue.answer(route, state, self.query))
            return
        self.facts = facts = pipeline.read(route.codec, body, self.head.content_type)
        self.plan = plan = pipeline.plan(entry, route, facts.model, now_ns)
        self.ask = ask = pipeline.bound(state, plan, facts, self.request_id, now_ns)
        hold = pipeline.hold(state, plan, ask)
        if isinstance(hold, Refusal) and hold.kind in MONEY:
            tight = pipeline.tightened(plan, facts, ask, body)
            if tight is not None:
                self.ask = tight
                hold = pipeline.hold(state, plan, tight)
        if not isinstance(hold, Refusal):
            self._held(hold, caller, plan, body)
        elif hold.kind is RefusalKind.BUDGET_HELD:
            g.spawn(self._hold_waiting(caller, plan, body))
        else:
            raise refuse_held(hold, named_twice(plan.vendor, plan.model) if hold.kind is RefusalKind.UNPRICED else "")

    async def _hold_waiting(self, caller: Caller, plan: Plan, body: bytes) -> None:
        """Only money of requests in flight stands in the way: one of them may settle in a moment."""
        try:
            hold = await self._g.accounts.begin_waiting(caller.entry.state, plan.vendor, plan.model, self.ask)
            if isinstance(hold, Refusal):
                self._refuse(refuse_held(hold))
            else:
                self._held(hold, caller, plan, body)
        except Refuse as refused:
            self._refuse(refused)
        except Exception as error:  # noqa: BLE001  (logged, and answered: a request always ends)
            self._fail(error)

    def _held(self, hold: Hold, caller: Caller, plan: Plan, body: bytes) -> None:
        """From here on, whatever happens ends in a settlement."""
        self.hold = hold
        g = self._g
        g.in_flight.add(self)
        if self.refused is not None:  # cut while it waited
            raise self.refused
        if self.connection is None:
            self._end(Outcome.NOT_SENT)
            return
        if plan.readers is not None and g.recorder is not None:
            self.kept = Kept(body, g.recorder.max_bytes)
        pipeline = g.pipeline
        self.target = target = pipeline.pick(caller.entry.state, plan)
        body = pipeline.body(plan, self.facts, hold, body)
        query = self.query
        head = b"%bcontent-length: %d\r\n%b\r\n" % (
            target.head(self.method, plan.upstream_path, pipeline.query(query) if query else query),
            len(body),
            self.head.forward,
        )
        self._payload = (head, body)
        self._parts = _NOTHING
        upstream = target.pool.take()
        if upstream is None:
            g.spawn(self._connect())
        else:
            self.upstream = upstream
            self.phase = SENT
            upstream.send(self, head, body)

    async def _connect(self) -> None:
        target, payload = self.target, self._payload
        assert target is not None  # noqa: S101  (picked)
        assert payload is not None  # noqa: S101  (composed)
        try:
            upstream = await self._g.connector.connect(target.pool)
        except NotSent as error:
            log.warning("not sent: %s", error, extra={"request_id": self.request_id})
            self._end(Outcome.NOT_SENT)
            self._refuse(Refuse(Problem.UNAVAILABLE, f"The vendor can't be reached: {error}.", code="vendor_unreachable"))
            return
        except Exception as error:  # noqa: BLE001  (logged, and answered: a request always ends)
            self._fail(error)
            return
        if self.phase != PREPARING or self.connection is None or self.refused is not None:
            target.pool.give_back(upstream)
            self._end(Outcome.NOT_SENT)
            if self.refused is not None:
                self._refuse(self.refused)
            return
        self.upstream = upstream
        self.phase = SENT
        upstream.send(self, *payload)

    # answers of our own

    def _answer(self, answer: Answer) -> None:
        """A whole answer of our own; the exchange ends with it."""
        self.phase = DONE
        self._release_body()
        self._leave()
        self._count(answer.status)
        if self._g.observer is not None and not self.observed:
            self.observed = True
            tell(self._g.observer, self, status=answer.status, outcome=Outcome.NOT_SENT if self.hold is not None else None)
        connection = self.connection
        if connection is None:
            return
        close = not self.keep_alive or not self.received
        connection.write(own(answer, self.request_id, close=close, body=self.method != b"HEAD"))
        connection.finished(self, close=close)

    def _refuse(self, refused: Refuse) -> None:
        self._end(Outcome.NOT_SENT)
        if self.phase == DONE:
            return
        self.refused = refused
        self._g.metrics.refused(refused.code or refused.problem.value)
        self._answer(worded(refused, self.route.style, self.request_id))

    def _leave(self) -> None:
        if self.caller is not None:
            self.caller.entry.open.discard(self)

    def _count(self, status: int) -> None:
        plan = self.plan
        endpoint = self.route.endpoint
        self._g.metrics.tally(plan.vendor if plan is not None else "-", endpoint.group.value if endpoint is not None else "-").answered(
            status
        )

    # of the second half

    @abstractmethod
    def recheck(self) -> None:
        """What is in flight is judged again by the rules of now."""

    @abstractmethod
    def cut(self, rule: str, detail: str) -> None:
        """Ends it because of a rule that no longer allows it."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it because the gateway stops."""

    @abstractmethod
    def _end(self, outcome: Outcome) -> None:
        """Settles what is held, and lets the vendor go."""

    @abstractmethod
    def _fail(self, error: BaseException) -> None:
        """An error of ours: logged, settled and answered."""
