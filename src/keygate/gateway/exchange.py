"""One request in flight, from its parsed head to its settled hold: a small state machine that drives the pipeline's steps.

    RECEIVING ─► PREPARING ─► SENT ─► PASSING ─► DONE
        │            │          │        │
        └────────────┴──────────┴────────┴──► (caller gone, or cut) DRAINING ─► DONE

Everything happens in plain callbacks: of the caller's connection (`body_received`, `start`, `caller_gone`, `pause`, `resume`) and of the
vendor's (`upstream_*`). Only what must wait (a key that isn't loaded, a hold that others stand in the way of, a new connection) is a task.
Every ending settles exactly once, and the settlement is on record before the last byte leaves.
"""

from __future__ import annotations

import logging
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from keygate.errors import Unavailable
from keygate.gateway.connector import NotSent
from keygate.gateway.credentials import Target
from keygate.gateway.dialects.interface import Answer, Facts, Problem, Reading, Tap
from keygate.gateway.dialects.refusals import refusal
from keygate.gateway.http1 import LAST_CHUNK, STATUS_LINES, RequestHead, ResponseHead
from keygate.gateway.keyring import FOREVER
from keygate.gateway.pipeline import MONEY, Caller, Plan, Refuse, Route, refuse_held
from keygate.gateway.upstream import UpstreamConnection
from keygate.kit.money import format_usd
from keygate.ledger import Ask, Hold, Outcome, RefusalKind

if TYPE_CHECKING:
    from keygate.gateway.gateway import Gateway

log = logging.getLogger("keygate.gateway")

_BUFFERED = 1 << 20  # whole answers up to here are read before their head leaves, so that the cost can stand in it
_EAGER = 256 << 10  # request bodies above this are not read before the key is known, nor to the end after a refusal


class Phase(IntEnum):
    RECEIVING = 0
    PREPARING = 1
    SENT = 2
    PASSING = 3
    DRAINING = 4
    DONE = 5


class Connection(Protocol):
    """The caller's connection, as an exchange needs it."""

    def write(self, data: bytes) -> None: ...

    def proceed(self, exchange: Exchange) -> None:
        """The exchange can go on: start it if it is its turn."""

    def finished(self, exchange: Exchange, *, close: bool) -> None:
        """The answer has been written whole."""

    def abort(self) -> None:
        """The answer can't be written whole: let the caller see that."""


class Exchange:
    __slots__ = (
        "_body", "_buffering",
        "_charged", "_body_size", "_chunked", "_g", "_parts", "_passed", "_payload", "_pending", "_reading", "_retried",
        "_stream", "ask", "began_ns", "caller", "connection", "cost", "deadline", "early", "facts", "first_ns", "head", "hold", "http10",
        "keep_alive", "lines", "loading", "method", "outcome", "phase", "plan", "query", "received", "refused", "request_id", "route",
        "settled", "status", "tap", "target", "upstream", "upstream_head_", "valid_until",
    )  # fmt: skip

    def __init__(
        self, gateway: Gateway, connection: Connection, route: Route, method: bytes, query: bytes, *, http10: bool, keep_alive: bool
    ) -> None:
        self._g = gateway
        self.connection: Connection | None = connection
        self.route = route
        self.method = method
        self.query = query
        self.http10 = http10
        self.keep_alive = keep_alive
        self.request_id = gateway.request_ids.next()
        self.began_ns = time.monotonic_ns()
        self.phase = Phase.RECEIVING
        self.received = self.early = self.loading = self.settled = False
        self.refused: Refuse | None = None
        self.caller: Caller | None = None
        self.plan: Plan | None = None
        self.hold: Hold | None = None
        self.upstream: UpstreamConnection | None = None
        self.tap: Tap | None = None
        self.target: Target | None = None
        self.outcome: Outcome | None = None
        self.first_ns: int | None = None
        self.upstream_head_: ResponseHead | None = None
        self.status = 0
        self.cost: int | None = None
        self.deadline = 0.0
        self.valid_until = FOREVER
        self._parts: list[bytes] = []
        self._body_size = self._charged = 0
        self._retried = self._stream = self._chunked = False
        self._buffering = True
        self._pending: list[bytes] = []
        self._passed = 0
        self._payload: tuple[bytes, bytes] | None = None
        self._reading: Reading | None = None

    # RECEIVING: from the caller's connection

    def begin(self, head: RequestHead, known: Caller | None) -> None:
        """Judges what can be judged before the body comes. `known` sent this very head on this connection before. Never raises."""
        self.head = head
        try:
            self._admit(head, known)
        except Refuse as refused:
            self.refused = refused
        if self.refused is not None:
            length = 0 if head.content_length is None else head.content_length
            self.early = head.chunked or head.expect_continue or length > _EAGER

    def _admit(self, head: RequestHead, known: Caller | None) -> None:
        g = self._g
        route = self.route
        if self.method == b"HEAD":
            return  # a probe: answered, unbilled, whoever asks
        if head.websocket:
            raise Refuse(Problem.UPGRADE_REQUIRED, "WebSockets are not served here. Use HTTP requests and event streams.")
        if route.refused is not None:
            problem = {403: Problem.FORBIDDEN, 405: Problem.METHOD_NOT_ALLOWED}.get(route.refused.status, Problem.NOT_FOUND)
            raise Refuse(problem, route.refused.message, code=route.refused.code)
        if head.encoding is not None:
            raise Refuse(Problem.UNSUPPORTED_MEDIA_TYPE, "Compressed request bodies are not read. Send the body without Content-Encoding.")
        if head.content_length is not None and head.content_length > g.max_body_bytes:
            raise self._too_large()
        pipeline = g.pipeline
        if known is not None and b"key=" not in self.query and known.holds(time.time_ns()):
            self._belongs_to(known)
            return
        token = pipeline.token(head, self.query)
        found = pipeline.authenticate(token, time.time_ns())
        if isinstance(found, str):
            self.loading = True
            g.spawn(self._load(found, token))
        else:
            self._belongs_to(found)

    def _belongs_to(self, caller: Caller) -> None:
        self.caller = caller
        self.valid_until = caller.valid_until
        caller.entry.open.add(self)

    async def _load(self, public_id: str, token: bytes) -> None:
        g = self._g
        try:
            entry = await g.ring.load(public_id)
            found = g.pipeline.authenticate(token, time.time_ns()) if entry is None else g.pipeline.verify(entry, token, time.time_ns())
            if isinstance(found, str):
                raise Refuse(Problem.UNAVAILABLE, "The key could not be looked up.")
            if self.phase is not Phase.DONE:
                self._belongs_to(found)
        except Refuse as refused:
            self.refused = refused
        except Unavailable:
            self.refused = Refuse(Problem.UNAVAILABLE, "The key could not be looked up just now.")
        except Exception:
            log.exception("%s: looking up a key failed", self.request_id)
            self.refused = Refuse(Problem.INTERNAL, "Something went wrong on our side.")
        self.loading = False
        if self.connection is not None:
            self.connection.proceed(self)

    def wants_continue(self) -> bool:
        return self.head.expect_continue and self.refused is None and not self.received

    def body_received(self, data: bytes) -> None:
        if self.refused is not None:
            return  # read to the end, kept nowhere
        self._body_size += len(data)
        g = self._g
        if self._body_size > g.max_body_bytes:
            self._refuse_early(self._too_large())
        elif g.buffered_bytes + len(data) > g.max_buffered_bytes:
            self._refuse_early(Refuse(Problem.UNAVAILABLE, "Too many large requests are in flight."))
        else:
            g.buffered_bytes += len(data)
            self._charged += len(data)
            self._parts.append(data)

    def _refuse_early(self, refused: Refuse) -> None:
        self.refused = refused
        self.early = True
        self._release_body()

    def _release_body(self) -> None:
        self._g.buffered_bytes -= self._charged
        self._charged = 0
        self._parts = []
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
        return self.phase is Phase.RECEIVING and not self.loading and (self.received or self.early)

    # PREPARING

    def start(self) -> None:
        """Runs the pipeline. The request goes out before this returns, unless something has to be waited for. Never raises."""
        self.phase = Phase.PREPARING
        try:
            if self.refused is not None:
                raise self.refused
            if self.method == b"HEAD":
                self._answer(Answer(200, ((b"content-type", b"application/json"),), b""))
                return
            self._prepare()
        except Refuse as refused:
            self._refuse(refused)
        except Exception as error:
            self._fail(error)

    def _prepare(self) -> None:
        g = self._g
        pipeline = g.pipeline
        route = self.route
        caller = self.caller
        assert caller is not None  # noqa: S101  (not refused, so authenticated)
        assert route.endpoint is not None  # noqa: S101  (refused routes end in `begin`)
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if route.codec is None:
            self._answer(g.catalogue.answer(route, caller.entry.state, self.query))
            return
        now_ns = time.time_ns()
        if now_ns >= self.valid_until:
            raise Refuse(Problem.UNAUTHENTICATED, f"The key '{caller.entry.state.name}' has expired.", code="key_expired")
        self.facts = facts = pipeline.read(route.codec, body, self.head.content_type)
        entry = caller.entry
        self.plan = plan = pipeline.plan(entry, route, facts.model, now_ns)
        self.ask = ask = pipeline.bound(entry.state, plan, facts, self.request_id, now_ns)
        self._body = body
        hold = pipeline.hold(entry.state, plan, ask)
        if type(hold) is Hold:
            self._held(hold)
            return
        if hold.kind in MONEY:  # type: ignore[union-attr]  # `type() is` doesn't narrow the other way
            tight = pipeline.tightened(plan, facts, ask, body)
            if tight is not None:
                self.ask = ask = tight
                hold = pipeline.hold(entry.state, plan, ask)
                if type(hold) is Hold:
                    self._held(hold)
                    return
        if hold.kind is not RefusalKind.BUDGET_HELD:  # type: ignore[union-attr]
            raise refuse_held(hold)  # type: ignore[arg-type]
        g.spawn(self._hold_waiting())

    async def _hold_waiting(self) -> None:
        """Only money of requests in flight stands in the way: one of them may settle in a moment."""
        caller, plan = self.caller, self.plan
        assert caller is not None  # noqa: S101  (prepared)
        assert plan is not None  # noqa: S101
        try:
            hold = await self._g.accounts.begin_waiting(caller.entry.state, plan.vendor, plan.model, self.ask)
            if type(hold) is not Hold:
                raise refuse_held(hold)  # type: ignore[arg-type]  # not a Hold, so a Refusal
            self._held(hold)
        except Refuse as refused:
            self._refuse(refused)
        except Exception as error:
            self._fail(error)

    def _held(self, hold: Hold) -> None:
        """From here on, whatever happens ends in a settlement."""
        self.hold = hold
        g = self._g
        g.in_flight.add(self)
        if self.refused is not None:  # cut while it waited
            raise self.refused
        if self.connection is None:
            self._end(Outcome.NOT_SENT)
            return
        pipeline = g.pipeline
        caller, plan, facts = self.caller, self.plan, self.facts
        assert caller is not None  # noqa: S101  (prepared)
        assert plan is not None  # noqa: S101
        self.target = target = pipeline.pick(caller.entry.state, plan)
        body = pipeline.body(plan, facts, hold, self._body)
        head = b"%bcontent-length: %d\r\n%b\r\n" % (
            target.head(self.method, plan.upstream_path, pipeline.query(self.query)),
            len(body),
            self.head.forward,
        )
        self._payload = (head, body)
        self._body = b""
        self._parts = []
        upstream = target.pool.take()
        if upstream is None:
            g.spawn(self._connect())
        else:
            self._send(upstream)

    def _send(self, upstream: UpstreamConnection) -> None:
        assert self._payload is not None  # noqa: S101  (composed)
        self.upstream = upstream
        self.phase = Phase.SENT
        upstream.send(self, *self._payload)

    async def _connect(self) -> None:
        target = self.target
        assert target is not None  # noqa: S101  (picked)
        try:
            upstream = await self._g.connector.connect(target.pool)
        except NotSent as error:
            self._end(Outcome.NOT_SENT)
            log.warning("%s: not sent: %s", self.request_id, error)
            self._refuse(Refuse(Problem.UNAVAILABLE, f"The vendor can't be reached: {error}.", code="vendor_unreachable"))
            return
        except Exception as error:
            self._fail(error)
            return
        if self.connection is None or self.refused is not None:
            target.pool.give_back(upstream)
            self._end(Outcome.NOT_SENT)
            if self.refused is not None:
                self._refuse(self.refused)
            return
        self._send(upstream)

    # SENT and PASSING: from the vendor's connection

    def upstream_head(self, status: int, head: ResponseHead) -> None:
        self.upstream_head_ = head
        self._release_body()
        self.phase = Phase.PASSING if self.phase is Phase.SENT else self.phase
        self.status = status
        if head.encoding is not None:
            self._lost("its answer is compressed, which nobody asked for")
        elif 300 <= status < 400:
            self._lost(f"it answered with a redirect ({status})")
        else:
            self.lines = self._head_lines(head.forward, head.request_id)
            if status < 400:
                assert self.plan is not None  # noqa: S101  (sent)
                self.tap = self.plan.codec.tap(self.facts, content_type=head.content_type, content_encoding=None)
                if head.content_type[:17].lower() == b"text/event-stream":
                    self._stream = True
                    self._pass_head(None)

    def upstream_data(self, data: bytes, *, complete: bool) -> None:
        if complete:
            self.upstream = None
        if self.settled and self.phase is Phase.DONE:
            return
        if data and self.first_ns is None:
            self.first_ns = time.monotonic_ns() - self.began_ns
        tap = self.tap
        if tap is not None:
            if data:
                data = tap.feed(data)
            if complete or tap.done:
                reading = self._reading = tap.finish()
                self.tap = None
                if reading.rest:
                    data += reading.rest
                if not self._buffering or self.phase is Phase.DRAINING:
                    self._settle_read(reading)
        if self.phase is Phase.DRAINING:
            if complete or self.settled:
                self._drained()
            return
        if self._buffering:
            self._buffer(data, complete=complete)
            return
        if self.valid_until != FOREVER and time.time_ns() >= self.valid_until:
            self.cut("key_expired", "The key has expired.")
            return
        self._pass(data, complete=complete)

    def upstream_lost(self, reason: str, *, timed_out: bool) -> None:
        upstream, self.upstream = self.upstream, None
        if self.phase is Phase.DONE:
            return
        if self.phase is Phase.SENT and upstream is not None and not upstream.answered and not timed_out and not self._retried:
            self._retry(upstream, reason)
            return
        self._lost(reason, timed_out=timed_out)

    def _retry(self, upstream: UpstreamConnection, reason: str) -> None:
        """Once. Where a kept connection was closed before it took the request, the hold stands. Otherwise the vendor may bill the first
        attempt: it is settled in doubt, and the second needs a hold of its own."""
        self._retried = True
        self.phase = Phase.PREPARING
        log.info("%s: trying again: %s", self.request_id, reason)
        if upstream.untaken:
            self._g.spawn(self._connect())
            return
        self._settle(Outcome.UPSTREAM_LOST, None)
        caller, plan = self.caller, self.plan
        assert caller is not None  # noqa: S101  (sent)
        assert plan is not None  # noqa: S101
        self.request_id = self._g.request_ids.next()
        self.ask = self.ask._replace(request_id=self.request_id, at_ns=time.time_ns())
        output_set = self.hold.output_set if self.hold is not None else None
        try:
            hold = self._g.pipeline.hold(caller.entry.state, plan, self.ask)
        except Exception as error:
            self._fail(error)
            return
        if type(hold) is not Hold or hold.output_set != output_set:
            if type(hold) is Hold:
                self.hold, self.settled = hold, False
                self._settle(Outcome.NOT_SENT, None)
            self._refuse(Refuse(Problem.UPSTREAM_FAILED, f"The vendor's connection broke: {reason}.", code="upstream_lost"))
            return
        self.hold, self.settled = hold, False
        self._g.in_flight.add(self)
        caller.entry.open.add(self)
        self._g.spawn(self._connect())

    # the answer

    def _head_lines(self, forward: bytes, upstream_id: bytes | None) -> bytes:
        own = self.request_id.encode()
        lines = b"%bx-request-id: %b\r\nrequest-id: %b\r\n" % (forward, own, own)
        if upstream_id is not None:
            lines += b"x-upstream-request-id: %b\r\n" % upstream_id
        if self.hold is not None and self.hold.output_set is not None:
            lines += b"x-keygate-max-output-tokens: %d\r\n" % self.hold.output_set
        if self.status >= 400:
            lines += b"x-keygate-origin: upstream\r\n"
        if not self.keep_alive:
            lines += b"connection: close\r\n"
        elif self.http10:
            lines += b"connection: keep-alive\r\n"
        return lines

    def _pass_head(self, length: int | None) -> None:
        """The head of an answer whose body follows piece by piece."""
        assert self.connection is not None or self.phase is Phase.DRAINING  # noqa: S101
        self._buffering = False
        if length is not None:
            framing = b"content-length: %d\r\n\r\n" % length
        elif self.http10:
            self.keep_alive = False
            framing = b"\r\n"
        else:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n\r\n"
        if self.connection is not None:
            self.connection.write(STATUS_LINES[self.status] + self.lines + framing)

    def _buffer(self, data: bytes, *, complete: bool) -> None:
        """A whole answer: kept until it is whole and its cost known, or passed on piece by piece once it is too large for that."""
        pending = self._pending
        if not complete:
            if data:
                pending.append(data)
                self._passed += len(data)
                if self._passed > _BUFFERED:
                    if self.status >= 400:
                        self._lost("its error is endless")
                        return
                    head = self.upstream_head_
                    self._pass_head(head.content_length if head is not None else None)
                    self._pass(b"".join(pending), complete=False)
            return
        body = data if not pending else b"".join((*pending, data))
        if self._reading is not None:
            self._settle_read(self._reading)
            lines = b"%bx-keygate-cost-usd: %b\r\n" % (self.lines, format_usd(self.cost).encode()) if self.cost is not None else self.lines
        else:
            body = self._redacted(body)
            self._settle(Outcome.UPSTREAM_ERROR, None)
            lines = self.lines
        connection = self.connection
        self.phase = Phase.DONE
        if connection is not None:
            connection.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINES[self.status], lines, len(body), body))
            connection.finished(self, close=not self.keep_alive)

    def _redacted(self, body: bytes) -> bytes:
        """A vendor's error may repeat what it was sent; our credential must not come back that way."""
        secret = self.target.secret if self.target is not None else b""
        return body.replace(secret, b"[redacted]") if secret else body

    def _pass(self, data: bytes, *, complete: bool) -> None:
        connection = self.connection
        if connection is None:
            return
        if self._chunked:
            if data:
                data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if complete else b"%x\r\n%b\r\n" % (len(data), data)
            elif complete:
                data = LAST_CHUNK
        if data:
            connection.write(data)
        if complete:
            self.phase = Phase.DONE
            connection.finished(self, close=not self.keep_alive)

    def _answer(self, answer: Answer) -> None:
        """A whole answer of our own; the exchange ends with it."""
        self.phase = Phase.DONE
        self._release_body()
        self._leave()
        self._count(answer.status)
        connection = self.connection
        if connection is None:
            return
        close = not self.keep_alive or not self.received
        lines = [STATUS_LINES[answer.status]]
        own = self.request_id.encode()
        names = set()
        for name, value in answer.headers:
            names.add(name)
            lines.append(b"%b: %b\r\n" % (name, value))
        for name in (b"x-request-id", b"request-id"):
            if name not in names:
                lines.append(b"%b: %b\r\n" % (name, own))
        if answer.status >= 400:
            lines.append(b"x-keygate-origin: gateway\r\n")
        if close:
            lines.append(b"connection: close\r\n")
        lines.append(b"content-length: %d\r\n\r\n" % len(answer.body))
        if self.method != b"HEAD":
            lines.append(answer.body)
        connection.write(b"".join(lines))
        connection.finished(self, close=close)

    def _refuse(self, refused: Refuse) -> None:
        if self.hold is not None and not self.settled:
            self._settle(Outcome.NOT_SENT, None)
        if self.phase is Phase.DONE:
            return
        self._g.metrics.refused(refused.code or refused.problem.value)
        self._answer(self._worded(refused))

    def _worded(self, refused: Refuse) -> Answer:
        return refusal(
            self.route.style,
            refused.problem,
            refused.message,
            request_id=self.request_id,
            code=refused.code,
            param=refused.param,
            retry_after_ms=refused.retry_after_ms,
            should_retry=refused.should_retry,
        )

    def _fail(self, error: BaseException) -> None:
        """A fault of ours. What was held is settled as if the vendor had been lost, unless nothing was sent."""
        log.error("%s: failed", self.request_id, exc_info=error)
        sent = self.phase in (Phase.SENT, Phase.PASSING, Phase.DRAINING)
        self._end(Outcome.UPSTREAM_LOST if sent else Outcome.NOT_SENT)
        if isinstance(error, Unavailable):
            self._break_off(Refuse(Problem.UNAVAILABLE, "KeyGate can't take requests just now."))
        else:
            self._break_off(Refuse(Problem.INTERNAL, "Something went wrong on our side."))

    # endings

    def _lost(self, reason: str, *, timed_out: bool = False) -> None:
        """The vendor's answer can't be had whole."""
        self._abandon()
        if self.tap is not None:
            self._reading = self.tap.finish()
            self.tap = None
        if self.phase is Phase.DRAINING:
            self._drained()
            return
        if not self.settled:
            self._settle(Outcome.UPSTREAM_LOST, self._reading)
        log.warning("%s: the vendor's answer was lost: %s", self.request_id, reason)
        problem = Problem.UPSTREAM_TIMEOUT if timed_out else Problem.UPSTREAM_FAILED
        self._break_off(
            Refuse(problem, f"The vendor's answer was lost: {reason}.", code="upstream_timeout" if timed_out else "upstream_lost")
        )

    def _break_off(self, refused: Refuse) -> None:
        """Tells the caller in the best way that is left: an answer, an event on the stream, or a visible break."""
        self._release_body()
        self._abandon()
        connection = self.connection
        if connection is None or self.phase is Phase.DONE:
            self.phase = Phase.DONE
            return
        if self.phase in (Phase.RECEIVING, Phase.PREPARING, Phase.SENT) or (self.phase is Phase.PASSING and self._buffering):
            self._refuse(refused)
            return
        self._g.metrics.refused(refused.code or refused.problem.value)
        self.phase = Phase.DONE
        self._close_stream(connection, refused)

    def _close_stream(self, connection: Connection, refused: Refuse) -> None:
        if self._stream and self.plan is not None:
            answer = self._worded(refused)
            event = self.plan.codec.stream_error(refused.message, code=refused.code or refused.problem.value, status=answer.status)
            connection.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event) if self._chunked else event)
            connection.finished(self, close=True)
        else:
            connection.abort()

    def recheck(self) -> None:
        """From the key ring: the key's state is another now."""
        caller = self.caller
        if caller is None or self.phase in (Phase.DRAINING, Phase.DONE):
            return
        pipeline = self._g.pipeline
        now_ns = time.time_ns()
        self.valid_until = pipeline.still_valid_until(caller)
        try:
            if now_ns >= self.valid_until:
                raise pipeline.why_not(caller, now_ns)
            if self.plan is not None:
                self.plan = pipeline.plan(caller.entry, self.route, self.facts.model, now_ns)
                if self.hold is not None and not self.settled:
                    over = self._g.accounts.exceeded(self.hold, caller.entry.state)
                    if over is not None:
                        raise refuse_held(over)
        except Refuse as refused:
            self._cut(refused)

    def cut(self, rule: str, detail: str) -> None:
        """From the key ring, or on the stream itself: end now."""
        self._cut(Refuse(Problem.UNAUTHENTICATED, detail, code=rule))

    def _cut(self, refused: Refuse) -> None:
        if self.phase in (Phase.DRAINING, Phase.DONE):
            return
        if self.phase in (Phase.RECEIVING, Phase.PREPARING):
            self.refused = refused  # whoever prepares it will see
            return
        connection = self.connection
        unsent = self.phase is Phase.SENT or self._buffering
        self.connection = None
        self._drain(Outcome.CUT)
        if connection is None:
            return
        self._g.metrics.refused(refused.code or refused.problem.value)
        if unsent:
            self._write_refusal(connection, refused)
        else:
            self._close_stream(connection, refused)

    def _write_refusal(self, connection: Connection, refused: Refuse) -> None:
        answer = self._worded(refused)
        lines = b"".join(b"%b: %b\r\n" % header for header in answer.headers)
        connection.write(
            b"%b%bx-keygate-origin: gateway\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
            % (STATUS_LINES[answer.status], lines, len(answer.body), answer.body)
        )
        connection.finished(self, close=True)

    def caller_gone(self) -> None:
        """The caller's connection has ended. What the vendor still sends is read on, for its cost, and thrown away."""
        if self.connection is None and self.phase is Phase.DRAINING:
            return
        self.connection = None
        if self.phase is Phase.RECEIVING:
            self.phase = Phase.DONE
            self._release_body()
            self._leave()
        elif self.phase in (Phase.SENT, Phase.PASSING):
            self._drain(Outcome.CLIENT_GONE)

    def _drain(self, outcome: Outcome) -> None:
        self.phase = Phase.DRAINING
        self.outcome = outcome
        self._pending = []
        if self.settled or self.upstream is None:
            self._drained()
            return
        self.upstream.resume()
        self.deadline = self._g.ticker.now + self._g.drain_timeout
        self._g.draining.add(self)
        if self._g.drain_timeout <= 0:
            self._drained()

    def sweep(self, now: float) -> None:
        if now >= self.deadline:
            self._drained()

    def _drained(self) -> None:
        self._release_body()
        self._g.draining.discard(self)
        self.phase = Phase.DONE
        if self.tap is not None:
            self._reading = self.tap.finish()
            self.tap = None
        self._abandon()
        if not self.settled:
            failed = self.status >= 400
            self._settle(Outcome.UPSTREAM_ERROR if failed else self.outcome or Outcome.CLIENT_GONE, self._reading)

    def stop(self) -> None:
        """The process ends: settle now, with what is known."""
        self._release_body()
        connection, self.connection = self.connection, None
        self._abandon()
        if self.tap is not None:
            self._reading = self.tap.finish()
            self.tap = None
        if not self.settled:
            sent = self.phase not in (Phase.RECEIVING, Phase.PREPARING)
            self._settle(Outcome.UPSTREAM_LOST if sent else Outcome.NOT_SENT, self._reading)
        self.phase = Phase.DONE
        if connection is not None:
            connection.abort()

    def _abandon(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()

    def _end(self, outcome: Outcome) -> None:
        if self.hold is not None and not self.settled:
            self._settle(outcome, self._reading)
        if self.connection is None:
            self.phase = Phase.DONE
            self._release_body()

    def _settle_read(self, reading: Reading) -> None:
        if self.settled:
            return
        if self.outcome is not None:
            outcome = self.outcome
        elif reading.usage is None and not reading.complete:
            outcome = Outcome.UPSTREAM_LOST
        else:
            outcome = Outcome.FINISHED
        self._settle(outcome, reading)

    def _settle(self, outcome: Outcome, reading: Reading | None) -> None:
        hold = self.hold
        self.settled = True
        g = self._g
        g.in_flight.discard(self)
        if hold is None:
            return
        head = self.upstream_head_
        latency = time.monotonic_ns() - self.began_ns
        try:
            self.cost = g.accounts.settle(
                hold,
                g.pipeline.settlement(
                    outcome,
                    self.status,
                    reading,
                    target=self.target,
                    latency_ns=latency,
                    first_token_ns=self.first_ns,
                    upstream_request_id=head.request_id if head is not None else None,
                ),
            )
        except Exception:
            log.exception("%s: the settlement could not be recorded; the hold stays until the journal is read again", self.request_id)
        self._leave()
        if outcome is not Outcome.NOT_SENT and self.plan is not None:
            g.metrics.upstream(self.plan.vendor, latency / 1e9)
            self._count(self.status)

    def _leave(self) -> None:
        if self.caller is not None:
            self.caller.entry.open.discard(self)

    def _count(self, status: int) -> None:
        plan = self.plan
        endpoint = self.route.endpoint
        self._g.metrics.answered(plan.vendor if plan is not None else "-", endpoint.group.value if endpoint is not None else "-", status)

    # back-pressure

    def pause(self) -> None:
        if self.upstream is not None:
            self.upstream.pause()

    def resume(self) -> None:
        if self.upstream is not None:
            self.upstream.resume()
