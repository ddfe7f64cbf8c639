"""The gateway's own refusals, in the shape and with the status that the dialect's SDK turns into the right exception.

OpenAI: `{"error":{message,type,param,code}}`; Anthropic: `{"type":"error","error":{type,message,details},"request_id"}`. SDKs of both
honour `x-should-retry` and `retry-after`, and sleep as long as the latter says, so it stays at most 60 s. Sources: openai 3.52.0
`_base_client.py`, anthropic 2.11.0 `_base_client.py`, `types/shared/error_type.py`, read 2026-11-20.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from keygate.gateway.dialects.interface import Answer, Problem
from keygate.vendors import ErrorStyle

MAX_RETRY_AFTER_MS = 60_000


class _Shape(NamedTuple):
    status: int
    code: str  # stable, ours; the caller's argument wins
    openai_type: str
    anthropic_type: str
    retry: bool | None  # x-should-retry; None: the SDK decides
    anthropic_status: int | None = None


_SHAPES: dict[Problem, _Shape] = {
    Problem.BAD_REQUEST: _Shape(400, "invalid_body", "invalid_request_error", "invalid_request_error", retry=False),
    Problem.UNAUTHENTICATED: _Shape(401, "invalid_api_key", "invalid_request_error", "authentication_error", retry=False),
    Problem.BUDGET_SPENT: _Shape(402, "insufficient_quota", "insufficient_quota", "billing_error", retry=False),
    Problem.FORBIDDEN: _Shape(403, "permission_denied", "invalid_request_error", "permission_error", retry=False),
    Problem.NOT_FOUND: _Shape(404, "not_found", "invalid_request_error", "not_found_error", retry=False),
    Problem.METHOD_NOT_ALLOWED: _Shape(405, "method_not_allowed", "invalid_request_error", "invalid_request_error", retry=False),
    Problem.REQUEST_TIMEOUT: _Shape(408, "request_timeout", "invalid_request_error", "timeout_error", retry=False),
    Problem.BODY_TOO_LARGE: _Shape(413, "request_too_large", "invalid_request_error", "request_too_large", retry=False),
    Problem.UNSUPPORTED_MEDIA_TYPE: _Shape(415, "unsupported_media_type", "invalid_request_error", "invalid_request_error", retry=False),
    Problem.UPGRADE_REQUIRED: _Shape(426, "websocket_not_supported", "invalid_request_error", "invalid_request_error", retry=False),
    Problem.HELD: _Shape(429, "budget_held", "rate_limit_exceeded", "rate_limit_error", retry=True),
    Problem.RATE_LIMITED: _Shape(429, "rate_limit_exceeded", "rate_limit_exceeded", "rate_limit_error", retry=None),
    Problem.INTERNAL: _Shape(500, "internal_error", "server_error", "api_error", retry=False),
    Problem.UPSTREAM_FAILED: _Shape(502, "upstream_failed", "server_error", "api_error", retry=False),
    Problem.UNAVAILABLE: _Shape(503, "unavailable", "server_error", "overloaded_error", retry=None),
    Problem.UPSTREAM_TIMEOUT: _Shape(504, "upstream_timeout", "server_error", "timeout_error", retry=False),
}
_DEFAULT_RETRY_MS = {Problem.HELD: 1_000, Problem.RATE_LIMITED: 1_000, Problem.UNAVAILABLE: 2_000}


def status_of(problem: Problem) -> int:
    return _SHAPES[problem].status


def refusal(
    style: ErrorStyle,
    problem: Problem,
    message: str,
    *,
    request_id: str,
    code: str | None = None,
    param: str | None = None,
    retry_after_ms: int | None = None,
    should_retry: bool | None = None,
    allow: bytes = b"",
) -> Answer:
    """A whole answer. `message` is for the caller; `code` is our stable code (`budget_spent`, `model_not_allowed`); `param` the field at
    fault. Retry-after stands only where trying again can help, as whole seconds (1 to 60) and as milliseconds; with `should_retry` False
    it is for people: it takes longer than SDKs should sleep."""
    shape = _SHAPES[problem]
    retry = shape.retry if should_retry is None else should_retry
    headers = [(b"content-type", b"application/json"), (b"x-request-id", _header(request_id))]
    if style is ErrorStyle.ANTHROPIC:
        headers.append((b"request-id", _header(request_id)))
    if retry is not None:
        headers.append((b"x-should-retry", b"true" if retry else b"false"))
    if problem in _DEFAULT_RETRY_MS and (retry is not False or retry_after_ms is not None):
        wait = min(max(_DEFAULT_RETRY_MS[problem] if retry_after_ms is None else retry_after_ms, 1), MAX_RETRY_AFTER_MS)
        headers += [(b"retry-after", b"%d" % -(-wait // 1000)), (b"retry-after-ms", b"%d" % wait)]
    if problem is Problem.UPGRADE_REQUIRED:
        headers.append((b"upgrade", b"HTTP/1.1"))
    if allow:
        headers.append((b"allow", allow))  # RFC 9110 section 15.5.6
    return Answer(shape.status, tuple(headers), _body(style, shape, message, code or shape.code, param, request_id))


def _body(style: ErrorStyle, shape: _Shape, message: str, code: str, param: str | None, request_id: str) -> bytes:
    error: dict[str, Any]
    if style is ErrorStyle.ANTHROPIC:
        error = {"type": shape.anthropic_type, "message": message, "details": {"error_code": code}}
        return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})
    error = {"message": message, "type": shape.openai_type, "param": param, "code": code}
    return msgspec.json.encode({"error": error})


def _header(value: str) -> bytes:
    """Header-safe: what is no visible ASCII is dropped."""
    return "".join(character for character in value if "!" <= character <= "~")[:128].encode("ascii")


def openai_stream_error(message: str, *, code: str, status: int = 500) -> bytes:
    """Chat and completions: SDKs raise on a data object with a truthy `error`."""
    error = {"message": message, "type": _type_of(status, openai=True), "param": None, "code": code}
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"


def responses_stream_error(message: str, *, code: str, status: int = 500, sequence_number: int = 0) -> bytes:
    """Responses: `ResponseErrorEvent`."""
    event: dict[str, Any] = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": sequence_number}
    event["error"] = {"message": message, "type": _type_of(status, openai=True), "param": None, "code": code}  # what SDKs check first
    return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"


def anthropic_stream_error(message: str, *, code: str, status: int = 500) -> bytes:
    error = {"type": _type_of(status, openai=False), "message": message, "details": {"error_code": code}}
    return b"event: error\ndata: " + msgspec.json.encode({"type": "error", "error": error}) + b"\n\n"


def _type_of(status: int, *, openai: bool) -> str:
    for shape in _SHAPES.values():
        if shape.status == status:
            return shape.openai_type if openai else shape.anthropic_type
    return "server_error" if openai else "api_error"
