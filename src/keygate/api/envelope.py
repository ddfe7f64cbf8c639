"""Around every request of the control API: an id, bounds on what comes in, headers on what goes out, and the last resort."""

from __future__ import annotations

import asyncio
import logging
import time
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keygate.api.problems import of_error, problem
from keygate.errors import InvalidInput, KeyGateError, TooLarge
from keygate.kit.ids import new_id

MAX_BODY_BYTES = 2**20
BODY_SECONDS = 30

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBES = frozenset({"/health", "/ready", "/metrics"})

_log = logging.getLogger(__name__)
_requests = logging.getLogger("keygate.api")


class Envelope:
    """Pure ASGI. The body is read here, whole and bounded in size and time, before a route sees it; addresses must be UTF-8 without NUL."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.monotonic()
        started = False
        status = 0

        async def answer(message: Message) -> None:
            nonlocal started, status
            if message["type"] == "http.response.start":
                started = True
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            _check_address(scope)
            body = await _read(scope, receive)
            await self._app(scope, body, answer)
        except KeyGateError as error:
            if started:
                raise
            await of_error(error, request_id)(scope, receive, answer)
        except Exception:
            _log.exception("request %s failed", request_id, extra={"request_id": request_id})
            if started:
                raise
            response = problem(
                request_id,
                status=500,
                code="internal",
                title=KeyGateError.title,
                detail=f"Something went wrong on our side; the log has more under {request_id}",
            )
            await response(scope, receive, answer)
        finally:
            _note(scope, request_id, status=status, seconds=time.monotonic() - began)


def _note(scope: Scope, request_id: str, *, status: int, seconds: float) -> None:
    """One line per request: the route as it is written, never the address or the query as they were sent. Probes are of no interest."""
    route = getattr(scope.get("route"), "path", "-")
    actor = scope["state"].get("actor")
    level = logging.DEBUG if route in _PROBES else logging.INFO
    fields = {"method": scope["method"] if scope["method"] in _METHODS else "-", "route": route, "status": status}
    client = scope.get("client")
    who = {"actor": getattr(actor, "id", "-"), "client": client[0] if client else "-"}
    more = {"ms": round(seconds * 1000, 1), "request_id": request_id, **who}
    _requests.log(level, "request", extra={**fields, **more})


def _check_address(scope: Scope) -> None:
    for raw in (scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass"), scope.get("query_string", b"")):
        decoded = unquote_to_bytes(raw)
        try:
            decoded.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidInput("The address is not UTF-8") from None
        if b"\0" in decoded:
            raise InvalidInput("The address contains the character U+0000")


async def _read(scope: Scope, receive: Receive) -> Receive:
    headers = Headers(scope=scope)
    length = headers.get("content-length")
    if length is None and "transfer-encoding" not in headers:
        return receive
    if length is not None and (not length.isdecimal() or int(length[:20]) > MAX_BODY_BYTES):
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    last: Message | None = None
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    last = message
                    break
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                chunks.append(chunk)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise InvalidInput(f"The body did not arrive within {BODY_SECONDS} seconds") from None
    whole: Message | None = {"type": "http.request", "body": b"".join(chunks), "more_body": False}

    async def replay() -> Message:
        nonlocal whole
        if last is not None:
            return last
        if whole is not None:
            message, whole = whole, None
            return message
        return await receive()

    return replay


def _too_large() -> TooLarge:
    return TooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes, the most that the control API takes")
