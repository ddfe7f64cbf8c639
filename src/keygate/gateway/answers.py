"""The bytes of answers: heads that are passed on, and whole answers of our own. Pure."""

from __future__ import annotations

from keygate.gateway.dialects.interface import Answer
from keygate.gateway.dialects.refusals import refusal
from keygate.gateway.http1 import STATUS_LINES
from keygate.gateway.pipeline import Refuse
from keygate.vendors import ErrorStyle


def worded(refused: Refuse, style: ErrorStyle, request_id: str) -> Answer:
    return refusal(
        style,
        refused.problem,
        refused.message,
        request_id=request_id,
        code=refused.code,
        param=refused.param,
        retry_after_ms=refused.retry_after_ms,
        should_retry=refused.should_retry,
        allow=refused.allow,
    )


def own(answer: Answer, request_id: str, *, close: bool, body: bool = True) -> bytes:
    """A whole answer of the gateway's own; `body` False for HEAD."""
    lines = [STATUS_LINES[answer.status]]
    names = set()
    for name, value in answer.headers:
        names.add(name)
        lines.append(b"%b: %b\r\n" % (name, value))
    own_id = request_id.encode()
    lines += [b"%b: %b\r\n" % (name, own_id) for name in (b"x-request-id", b"request-id") if name not in names]
    if answer.status >= 400:
        lines.append(b"x-keygate-origin: gateway\r\n")
    if close:
        lines.append(b"connection: close\r\n")
    lines.append(b"content-length: %d\r\n\r\n" % len(answer.body))
    if body:
        lines.append(answer.body)
    return b"".join(lines)


def passed_lines(
    forward: bytes, request_id: str, upstream_id: bytes | None, *, status: int, output_set: int | None, keep_alive: bool, http10: bool
) -> bytes:
    """The vendor's header lines with ours; without framing. The vendor's own request id stands in a header of its own."""
    own_id = request_id.encode()
    lines = b"%b%bx-request-id: %b\r\nrequest-id: %b\r\n" % (STATUS_LINES[status], forward, own_id, own_id)
    if upstream_id is not None:
        lines += b"x-upstream-request-id: %b\r\n" % upstream_id
    if output_set is not None:
        lines += b"x-keygate-max-output-tokens: %d\r\n" % output_set
    if status >= 400:
        lines += b"x-keygate-origin: upstream\r\n"
    if not keep_alive:
        lines += b"connection: close\r\n"
    elif http10:
        lines += b"connection: keep-alive\r\n"
    return lines
