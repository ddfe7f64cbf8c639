"""One request in flight, from its parsed head to its settled hold: a small state machine that drives the pipeline's steps.

    RECEIVING ─► PREPARING ─► SENT ─► PASSING ─► DONE
        │            │          │        │
        └────────────┴──────────┴────────┴──► (caller gone, or cut) DRAINING ─► DONE

`incoming.py` is the way to the vendor; here is the way back, and every ending. Everything happens in plain callbacks: of the caller's
connection (`body_received`, `start`, `caller_gone`, `pause`, `resume`) and of the vendor's (`upstream_*`). Every ending settles exactly
once, and the settlement is on record before the last byte leaves.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

from keygate.errors import Unavailable
from keygate.gateway.answers import own, passed_lines, worded
from keygate.gateway.dialects.interface import Problem, Reading, Tap
from keygate.gateway.http1 import LAST_CHUNK, ResponseHead
from keygate.gateway.incoming import DONE, DRAINING, PASSING, PREPARING, RECEIVING, SENT, CallerConnection, Incoming, log
from keygate.gateway.keyring import FOREVER
from keygate.gateway.observation import note, tell
from keygate.gateway.pipeline import Refuse, Route, refuse_held
from keygate.gateway.recording import KeepingTap
from keygate.gateway.upstream import UpstreamConnection
from keygate.kit.money import format_usd
from keygate.ledger import Outcome, Refusal, Settlement

if TYPE_CHECKING:
    from keygate.gateway.gateway import Gateway

_BUFFERED: Final = 1 << 20  # whole answers up to here are read before their head leaves, so that the cost can stand in it
_UNPACKED = frozenset({b"gzip", b"x-gzip", b"deflate"})


@final
class Exchange(Incoming):
    __slots__ = (
        "_buffering",
        "_chunked",
        "_head",
        "_pending",
        "_pending_size",
        "_reading",
        "_retried",
        "_stream",
        "deadline",
        "first_ns",
        "lines",
        "outcome",
        "tap",
    )

    def __init__(
        self, gateway: Gateway, connection: CallerConnection, route: Route, method: bytes, query: bytes, *, http10: bool, keep_alive: bool
    ) -> None:
        super().__init__(gateway, connection, route, method, query, http10=http10, keep_alive=keep_alive)
        self.tap: Tap | None = None
        self.outcome: Outcome | None = None
        self.first_ns: int | None = None
        self._head: ResponseHead | None = None
        self._reading: Reading | None = None
        self._retried = self._stream = self._chunked = False
        self._buffering = True  # no byte of the answer has left yet
        self._pending: list[bytes]
        self._pending_size: int
        self.lines: bytes  # of the head, with ours; from `upstream_head`
        self.deadline: float  # of a drain

    # SENT and PASSING: from the vendor's connection

    def upstream_head(self, status: int, head: ResponseHead) -> None:
        self._head = head
        self._pending = []
        self._pending_size = 0
        self._release_body()
        if self.phase == SENT:
            self.phase = PASSING
        self.status = status
        kind = head.content_type
        if head.encoding is not None and head.encoding.lower() not in _UNPACKED:
            self._lost("its answer is compressed in a way that nobody asked for")
        elif 300 <= status < 400:
            self._lost(f"it answered with a redirect ({status})")
        else:
            hold = self.hold
            self.lines = passed_lines(
                head.forward if status < 400 else self._redacted(head.forward),
                self.request_id,
                head.request_id,
                status=status,
                output_set=hold.output_set if hold is not None else None,
                keep_alive=self.keep_alive,
                http10=self.http10,
            )
            if status < 400:
                assert self.plan is not None  # noqa: S101  (sent)
                self.tap = self.plan.codec.tap(self.facts, content_type=kind, content_encoding=head.encoding)
                if self.kept is not None:
                    self.tap = KeepingTap(self.tap, self.kept)
                if kind[:17].lower() == b"text/event-stream":
                    self._stream = True
                    self._pass_head(None)

    def upstream_data(self, data: bytes, *, complete: bool) -> None:
        if complete:
            self.upstream = None
        if self.phase == DONE:
            return
        if self.first_ns is None and data:
            self.first_ns = time.monotonic_ns() - self.began_ns
        tap = self.tap
        if tap is not None:
            if data:
                data = tap.feed(data)
            if complete or tap.done:
                self._reading = reading = tap.finish()
                self.tap = None
                if reading.rest:
                    data += reading.rest
                if not self._buffering or self.phase == DRAINING:
                    self._settle_read(reading)
        if self.phase == DRAINING:
            if complete or self.settled:
                self._drained()
        elif self._buffering:
            self._buffer(data, complete=complete)
        elif self.valid_until != FOREVER and time.time_ns() >= self.valid_until:
            assert self.caller is not None  # noqa: S101  (sent)
            self._cut(self._g.pipeline.why_not(self.caller, time.time_ns()))
        else:
            self._pass(data, complete=complete)

    def upstream_lost(self, reason: str, *, timed_out: bool) -> None:
        upstream, self.upstream = self.upstream, None
        if self.phase == DONE:
            return
        if self.phase == SENT and upstream is not None and not upstream.answered and not timed_out and not self._retried:
            self._retry(upstream, reason)
        else:
            self._lost(reason, timed_out=timed_out)

    def _retry(self, upstream: UpstreamConnection, reason: str) -> None:
        """Once. Where a kept connection was closed before it took the request, the hold stands. Otherwise the vendor may bill the first
        attempt: it is settled in doubt, and the second needs a hold of its own."""
        self._retried = True
        self.phase = PREPARING
        g = self._g
        log.info("trying again: %s", reason, extra={"request_id": self.request_id})
        if upstream.untaken:
            g.spawn(self._connect())
            return
        former, caller, plan = self.hold, self.caller, self.plan
        assert former is not None  # noqa: S101  (sent)
        assert caller is not None  # noqa: S101  (sent)
        assert plan is not None  # noqa: S101  (sent)
        self._settle(Outcome.UPSTREAM_LOST, None)
        self.request_id = g.request_ids.next()
        self.ask = self.ask.again(self.request_id, time.time_ns())
        try:
            hold = g.pipeline.hold(caller.entry.state, plan, self.ask)
        except Exception as error:  # noqa: BLE001  (logged, and answered: a request always ends)
            self._fail(error)
            return
        if not isinstance(hold, Refusal):
            self.hold, self.settled = hold, False
            g.in_flight.add(self)
            caller.entry.open.add(self)
            if (hold.output_set, hold.tier_set) == (former.output_set, former.tier_set):
                g.spawn(self._connect())
                return
        self._refuse(Refuse(Problem.UPSTREAM_FAILED, f"The vendor's connection broke: {reason}.", code="upstream_lost"))

    # the answer

    def upstream_whole(self, status: int, head: ResponseHead, body: bytes) -> None:
        """Head, body and end in one piece, as most plain answers come: one way through, one write."""
        if status != 200 or self.phase != SENT or head.encoding is not None or head.content_type[:17].lower() == b"text/event-stream":
            self.upstream_head(status, head)
            self.upstream_data(body, complete=True)
            return
        self.upstream = None
        self._head = head
        self._release_body()
        self.phase = PASSING
        self.status = status
        self.first_ns = time.monotonic_ns() - self.began_ns
        plan, hold, connection = self.plan, self.hold, self.connection
        assert plan is not None  # noqa: S101  (sent)
        assert hold is not None  # noqa: S101  (sent)
        tap = plan.codec.tap(self.facts, content_type=head.content_type, content_encoding=None)
        if self.kept is not None:
            tap = KeepingTap(tap, self.kept)
        body = tap.feed(body)
        self._reading = reading = tap.finish()
        if reading.rest:
            body += reading.rest
        self._settle_read(reading)
        lines = passed_lines(
            head.forward,
            self.request_id,
            head.request_id,
            status=status,
            output_set=hold.output_set,
            keep_alive=self.keep_alive,
            http10=self.http10,
        )
        self.phase = DONE
        if connection is not None:
            cost = b"" if self.cost is None else b"x-keygate-cost-usd: %b\r\n" % format_usd(self.cost).encode()
            connection.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (lines, cost, len(body), body))
            connection.finished(self, close=not self.keep_alive)

    def _pass_head(self, length: int | None) -> None:
        """The head of an answer whose body follows piece by piece."""
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
            self.connection.write(self.lines + framing)

    def _buffer(self, data: bytes, *, complete: bool) -> None:
        """A plain answer: kept until it is whole and its cost known, or passed on piece by piece once it is too large for that."""
        pending = self._pending
        head = self._head
        encoded = b"" if head is None or head.encoding is None else b"content-encoding: %b\r\n" % head.encoding
        if not complete:
            pending.append(data)
            self._pending_size += len(data)
            if self._pending_size > _BUFFERED:
                if self.status >= 400:
                    self._lost("its error is endless")
                    return
                self.lines += encoded
                self._pass_head(head.content_length if head is not None else None)
                self._pass(b"".join(pending), complete=False)
                self._pending = []
            return
        body = data if not pending else b"".join((*pending, data))
        if self._reading is not None:
            self._settle_read(self._reading)
        else:
            body = self._redacted(body)
            if self.kept is not None:
                self.kept.add(body)
            self._settle(Outcome.UPSTREAM_ERROR, None)
        self.phase = DONE
        connection = self.connection
        if connection is not None:
            cost = b"" if self.cost is None or self._reading is None else b"x-keygate-cost-usd: %b\r\n" % format_usd(self.cost).encode()
            connection.write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (self.lines, encoded, cost, len(body), body))
            connection.finished(self, close=not self.keep_alive)

    def _redacted(self, body: bytes) -> bytes:
        """A vendor's error may repeat what it was sent; our credential must not come back that way."""
        for spelling in self.target.spellings if self.target is not None else ():
            body = body.replace(spelling, b"[redacted]")
        return body

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
            self.phase = DONE
            connection.finished(self, close=not self.keep_alive)

    # endings

    def _fail(self, error: BaseException) -> None:
        """A fault of ours. What was held is settled as if the vendor had been lost, unless nothing was sent."""
        log.error("failed", exc_info=error, extra={"request_id": self.request_id})
        self._end(Outcome.NOT_SENT if self.phase in (RECEIVING, PREPARING) else Outcome.UPSTREAM_LOST)
        if isinstance(error, Unavailable):
            self._break_off(Refuse(Problem.UNAVAILABLE, "KeyGate can't take requests just now."))
        else:
            self._break_off(Refuse(Problem.INTERNAL, "Something went wrong on our side."))

    def _lost(self, reason: str, *, timed_out: bool = False) -> None:
        """The vendor's answer can't be had whole."""
        self._abandon()
        if self.phase == DRAINING:
            self._drained()
            return
        self._read_out()
        problem = Problem.UPSTREAM_TIMEOUT if timed_out else Problem.UPSTREAM_FAILED
        code = "upstream_timeout" if timed_out else "upstream_lost"
        self.refused = Refuse(problem, f"The vendor's answer was lost: {reason}.", code=code)
        if not self.settled:
            self._settle(Outcome.UPSTREAM_LOST, self._reading)
        log.warning("the vendor's answer was lost: %s", reason, extra={"request_id": self.request_id})
        self._break_off(self.refused)

    def _break_off(self, refused: Refuse) -> None:
        """Tells the caller in the best way that is left: an answer, an event on the stream, or a visible break."""
        self._release_body()
        self._abandon()
        connection = self.connection
        if connection is None or self.phase == DONE:
            self.phase = DONE
        elif self._buffering:
            self._refuse(refused)
        else:
            self._g.metrics.refused(refused.code or refused.problem.value)
            self.phase = DONE
            self._close_stream(connection, refused)

    def _close_stream(self, connection: CallerConnection, refused: Refuse) -> None:
        if self._stream and self.plan is not None:
            status = worded(refused, self.route.style, self.request_id).status
            event = self.plan.codec.stream_error(refused.message, code=refused.code or refused.problem.value, status=status)
            connection.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event) if self._chunked else event)
            connection.finished(self, close=True)
        else:
            connection.abort()

    def recheck(self) -> None:
        """From the key ring: the key's state is another now."""
        caller = self.caller
        if caller is None or self.phase in (DRAINING, DONE):
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
                        self._cut(refuse_held(over))
        except Refuse as refused:
            self._cut(refused)

    def cut(self, rule: str, detail: str) -> None:
        """From the key ring: end now."""
        self._cut(Refuse(Problem.UNAUTHENTICATED, detail, code=rule))

    def _cut(self, refused: Refuse) -> None:
        if self.phase in (DRAINING, DONE):
            return
        if self.phase in (RECEIVING, PREPARING):
            self.refused = refused  # whoever prepares it will see
            return
        self.refused = refused
        connection, self.connection = self.connection, None
        self._drain(Outcome.CUT)
        if connection is None:
            return
        self._g.metrics.refused(refused.code or refused.problem.value)
        if self._buffering:
            connection.write(own(worded(refused, self.route.style, self.request_id), self.request_id, close=True))
            connection.finished(self, close=True)
        else:
            self._close_stream(connection, refused)

    def caller_gone(self) -> None:
        """The caller's connection has ended. What the vendor still sends is read on, for its cost, and thrown away."""
        self.connection = None
        if self.phase == RECEIVING:
            self.phase = DONE
            self._release_body()
            self._leave()
        elif self.phase in (SENT, PASSING):
            self._drain(Outcome.CLIENT_GONE)

    def _drain(self, outcome: Outcome) -> None:
        self.phase = DRAINING
        self.outcome = outcome
        self._pending = []
        upstream = self.upstream
        g = self._g
        if self.settled or upstream is None or g.drain_timeout <= 0:
            self._drained()
            return
        upstream.resume()
        self.deadline = g.ticker.now + g.drain_timeout
        g.draining.add(self)

    def sweep(self, now: float) -> None:
        if now >= self.deadline:
            self._drained()

    def _drained(self) -> None:
        self._g.draining.discard(self)
        self.phase = DONE
        self._release_body()
        self._read_out()
        self._abandon()
        if not self.settled:
            failed = self.status >= 400
            self._settle(Outcome.UPSTREAM_ERROR if failed else self.outcome or Outcome.CLIENT_GONE, self._reading)

    def stop(self) -> None:
        """The process ends: settle now, with what is known."""
        connection, self.connection = self.connection, None
        self._release_body()
        self._abandon()
        self._read_out()
        self._g.draining.discard(self)
        if not self.settled:
            self._settle(Outcome.NOT_SENT if self.phase in (RECEIVING, PREPARING) else Outcome.UPSTREAM_LOST, self._reading)
        self.phase = DONE
        if connection is not None:
            connection.abort()

    def _read_out(self) -> None:
        tap, self.tap = self.tap, None
        if tap is not None:
            self._reading = tap.finish()

    def _abandon(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()

    def _end(self, outcome: Outcome) -> None:
        if self.hold is not None and not self.settled:
            self._settle(outcome, self._reading)
        if self.connection is None and self.phase != DONE:
            self.phase = DONE
            self._release_body()
            self._leave()

    def _settle_read(self, reading: Reading) -> None:
        if self.settled:
            return
        if self.outcome is not None:
            self._settle(self.outcome, reading)
        elif reading.usage is None and not reading.complete:
            self._settle(Outcome.UPSTREAM_LOST, reading)
        else:
            self._settle(Outcome.FINISHED, reading)

    def _settle(self, outcome: Outcome, reading: Reading | None) -> None:
        self.settled = True
        g = self._g
        hold, caller, plan, head = self.hold, self.caller, self.plan, self._head
        assert hold is not None  # noqa: S101  (only held requests are settled)
        assert caller is not None  # noqa: S101  (sent)
        assert plan is not None  # noqa: S101  (sent)
        g.in_flight.discard(self)
        caller.entry.open.discard(self)
        latency = time.monotonic_ns() - self.began_ns
        upstream_id = head.request_id if head is not None else None
        try:
            self.cost = g.accounts.settle(
                hold,
                Settlement(
                    outcome,
                    self.status,
                    reading.usage if reading is not None else None,
                    reading.model_served if reading is not None else None,
                    reading.service_tier if reading is not None else None,
                    self.target.credential_id if self.target is not None else None,
                    latency,
                    self.first_ns,
                    upstream_id.decode("latin-1")[:128] if upstream_id is not None else None,
                ),
            )
        except Exception:  # noqa: BLE001  (the answer must still leave; the journal charges a begin without a settle when it is read again)
            message = "the settlement could not be recorded; the hold stays until the journal is read again"
            log.exception(message, extra={"request_id": self.request_id})
        if outcome is not Outcome.NOT_SENT:
            plan.tally.settled(self.status, latency)
            if self.kept is not None and plan.readers is not None and g.recorder is not None:
                self.kept.offer(g.recorder, caller.entry.state, self.ask, plan.readers)
        if outcome is not Outcome.FINISHED:
            note(g.metrics, self, plan, outcome=outcome)
        if g.observer is not None and (outcome is not Outcome.NOT_SENT or self.connection is None):
            self.observed = True
            refused = self.refused if self._buffering else None
            status = self.status if refused is None else worded(refused, self.route.style, self.request_id).status
            tell(g.observer, self, status=status, outcome=outcome, reading=reading, first_byte_ns=self.first_ns)

    # back-pressure

    def pause(self) -> None:
        if self.upstream is not None:
            self.upstream.pause()

    def resume(self) -> None:
        if self.upstream is not None:
            self.upstream.resume()
