"""HTTP/1.1 heads, both ways: what each header means to a gateway, and how the heads that we send are written.

Header names are looked up as they came (`Content-Type`, `content-type`): each spelling is classified once and kept, within a bound.
"""

from __future__ import annotations

import http
from collections.abc import Iterable
from enum import IntEnum
from typing import final

Header = tuple[bytes, bytes]

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 128
_MAX_SPELLINGS = 4096


class HeadInvalid(ValueError):
    """The head breaks a rule of framing; the message says which."""


class Kind(IntEnum):
    """What a header is to us."""

    PASS = 0
    DROP = 1
    CONTENT_LENGTH = 2
    TRANSFER_ENCODING = 3
    CONTENT_ENCODING = 4
    CONNECTION = 5
    CONTENT_TYPE = 6
    # requests
    HOST = 7
    EXPECT = 8
    KEY = 9  # carries the caller's key
    UPGRADE = 10
    # answers
    REQUEST_ID = 11
    # requests again
    TRACE = 12


_HOP_BY_HOP = frozenset(  # RFC 9110 section 7.6.1, and what proxies add
    {
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"via",
        b"forwarded",
        b"http2-settings",
    }
)
_REQUEST = {
    b"content-length": Kind.CONTENT_LENGTH,
    b"transfer-encoding": Kind.TRANSFER_ENCODING,
    b"content-encoding": Kind.CONTENT_ENCODING,
    b"connection": Kind.CONNECTION,
    b"content-type": Kind.CONTENT_TYPE,
    b"host": Kind.HOST,
    b"expect": Kind.EXPECT,
    b"upgrade": Kind.UPGRADE,
    b"x-goog-api-key": Kind.KEY,
    b"api-key": Kind.KEY,
    b"x-api-key": Kind.KEY,
    b"authorization": Kind.KEY,
    b"accept-encoding": Kind.DROP,
    b"cookie": Kind.DROP,
    b"x-real-ip": Kind.DROP,
    b"x-client-ip": Kind.DROP,
    b"true-client-ip": Kind.DROP,
    b"cdn-loop": Kind.DROP,
    # W3C Trace Context: the caller's trace is ours to join, and no business of a vendor's
    b"traceparent": Kind.TRACE,
    b"tracestate": Kind.DROP,
    b"baggage": Kind.DROP,
}
_RESPONSE = {
    b"content-length": Kind.CONTENT_LENGTH,
    b"transfer-encoding": Kind.TRANSFER_ENCODING,
    b"content-encoding": Kind.CONTENT_ENCODING,
    b"connection": Kind.CONNECTION,
    b"content-type": Kind.CONTENT_TYPE,
    b"x-request-id": Kind.REQUEST_ID,
    b"request-id": Kind.REQUEST_ID,
    b"upgrade": Kind.DROP,
    # of the vendor's organisation, not of the caller's
    b"openai-organization": Kind.DROP,
    b"openai-project": Kind.DROP,
    b"anthropic-organization-id": Kind.DROP,
    b"anthropic-workspace-id": Kind.DROP,
    # of the vendor's site, which the caller does not speak to
    b"set-cookie": Kind.DROP,
    b"strict-transport-security": Kind.DROP,
    b"alt-svc": Kind.DROP,
    b"nel": Kind.DROP,
    b"report-to": Kind.DROP,
    b"reporting-endpoints": Kind.DROP,
    b"server": Kind.DROP,
    b"access-control-allow-origin": Kind.DROP,
    b"access-control-allow-credentials": Kind.DROP,
    b"access-control-expose-headers": Kind.DROP,
}
_REQUEST_PREFIXES = (b"x-forwarded-", b"x-keygate-", b"cf-", b"sec-websocket-")
_RESPONSE_PREFIXES = (b"x-keygate-", b"cf-")


class Spellings(dict[bytes, int]):
    """Header name as it came → kind. Subscripting classifies a new spelling; the number kept is bounded."""

    def __init__(self, known: dict[bytes, Kind], prefixes: tuple[bytes, ...], dropped: Iterable[bytes] = ()) -> None:
        super().__init__()
        self._known = known | dict.fromkeys(_HOP_BY_HOP, Kind.DROP) | dict.fromkeys(dropped, Kind.DROP)
        self._prefixes = prefixes

    def __missing__(self, name: bytes) -> int:
        lower = name.lower()
        known = self._known.get(lower)
        if known is None:
            known = Kind.DROP if lower.startswith(self._prefixes) else Kind.PASS
        kind = int(known)  # plain integers compare faster than members
        if len(self) < _MAX_SPELLINGS and len(name) <= 64:
            self[name] = kind
        return kind


def request_spellings(dropped: Iterable[str] = ()) -> Spellings:
    """`dropped`: lower-case names of headers that name the caller's own vendor organisation."""
    return Spellings(_REQUEST, _REQUEST_PREFIXES, (name.encode() for name in dropped))


RESPONSE_SPELLINGS = Spellings(_RESPONSE, _RESPONSE_PREFIXES)


@final
class RequestHead:
    __slots__ = (
        "chunked",
        "content_length",
        "content_type",
        "encoding",
        "expect_continue",
        "forward",
        "hosted",
        "token",
        "token_conflict",
        "traceparent",
        "websocket",
    )

    def __init__(
        self,
        forward: bytes,
        token: bytes | None,
        token_conflict: bool,
        content_length: int | None,
        chunked: bool,
        expect_continue: bool,
        encoding: bytes | None,
        websocket: bool,
        hosted: bool,
        content_type: bytes | None,
        traceparent: bytes | None = None,
    ) -> None:
        self.forward = forward  # header lines to send on, each ended
        self.token = token  # the caller's key
        self.token_conflict = token_conflict  # two different keys were sent
        self.content_length = content_length
        self.chunked = chunked
        self.expect_continue = expect_continue
        self.encoding = encoding  # Content-Encoding other than identity
        self.websocket = websocket
        self.hosted = hosted
        self.content_type = content_type
        self.traceparent = traceparent  # as it came

    def of_length(self, length: int) -> RequestHead:
        """The same head before a body of another length."""
        if length == self.content_length:
            return self
        return RequestHead(
            self.forward,
            self.token,
            self.token_conflict,
            length,
            self.chunked,
            self.expect_continue,
            self.encoding,
            self.websocket,
            self.hosted,
            self.content_type,
            self.traceparent,
        )


def read_request_head(headers: list[Header], spellings: Spellings) -> RequestHead:
    """Judges framing more strictly than the parser does, and keeps what goes to the vendor. Raises HeadInvalid."""
    lines: list[bytes] = []
    add = lines.append
    token: bytes | None = None
    conflict = chunked = expect = websocket = False
    length: int | None = None
    encoding: bytes | None = None
    hosts = 0
    content_type: bytes | None = None
    listed: bytes | None = None
    trace: bytes | None = None
    for name, value in headers:
        kind = spellings[name]
        if kind == 0:
            add(name + b": " + value)
        elif kind == 1:
            continue
        elif kind == 9:
            found = value.strip()
            if len(name) == 13:  # authorization
                scheme, _, found = found.partition(b" ")
                if scheme.lower() != b"bearer":
                    found = scheme if not found else b""
                found = found.strip()
            if token is None:
                token = found
            elif token != found:
                conflict = True
        elif kind == 7:
            hosts += 1
        elif kind == 2:
            if length is not None:
                raise HeadInvalid("more than one Content-Length")
            digits = value.strip(b" \t")
            if not digits.isdigit() or len(digits) > 18:
                raise HeadInvalid("Content-Length is not a number")
            length = int(digits)
        elif kind == 3:
            if chunked or value.strip(b" \t").lower() != b"chunked":
                raise HeadInvalid("Transfer-Encoding other than chunked")
            chunked = True
        elif kind == 5:
            if value.lower() not in _PLAIN_CONNECTION:
                listed = value if listed is None else listed + b"," + value
        elif kind == 6:
            content_type = value
            add(name + b": " + value)
        elif kind == 4:
            if value.strip().lower() not in (b"", b"identity"):
                encoding = value.strip()
        elif kind == 8:
            if value.strip().lower() != b"100-continue":
                raise HeadInvalid("an expectation other than 100-continue")
            expect = True
        elif kind == 10:
            websocket = value.strip().lower() == b"websocket"
        elif kind == 12:
            trace = value if trace is None else b""  # of two parents, none is one
    if chunked and length is not None:
        raise HeadInvalid("both Content-Length and Transfer-Encoding")
    if hosts > 1:
        raise HeadInvalid("more than one Host")
    lines.append(b"")
    forward = b"\r\n".join(lines)
    if listed is not None:
        forward = _without_listed(headers, spellings, listed)
    return RequestHead(forward, token, conflict, length, chunked, expect, encoding, websocket, hosts == 1, content_type, trace)


_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close", b"upgrade"})


def _without_listed(headers: list[Header], spellings: Spellings, listed: bytes) -> bytes:
    """As `forward`, without the headers that Connection names as meant for one hop."""
    hop = {token.strip().lower() for token in listed.split(b",")}
    passed = (Kind.PASS, Kind.CONTENT_TYPE)
    return b"".join(b"%b: %b\r\n" % (n, v) for n, v in headers if spellings[n] in passed and n.lower() not in hop)


@final
class ResponseHead:
    __slots__ = (
        "chunked",
        "content_length",
        "content_type",
        "encoding",
        "forward",
        "request_id",
    )

    def __init__(
        self,
        forward: bytes,
        content_length: int | None,
        chunked: bool,
        content_type: bytes,
        encoding: bytes | None,
        request_id: bytes | None,
    ) -> None:
        self.forward = forward  # header lines to pass on, each ended; without framing
        self.content_length = content_length
        self.chunked = chunked
        self.content_type = content_type
        self.encoding = encoding
        self.request_id = request_id


def read_response_head(headers: list[Header]) -> ResponseHead:
    """As `read_request_head`, for a vendor's answer. Raises HeadInvalid."""
    lines: list[bytes] = []
    add = lines.append
    spellings = RESPONSE_SPELLINGS
    chunked = False
    length: int | None = None
    content_type = b""
    encoding: bytes | None = None
    request_id: bytes | None = None
    listed: bytes | None = None
    for name, value in headers:
        kind = spellings[name]
        if kind == 0:
            add(name + b": " + value)
        elif kind == 1:
            continue
        elif kind == 6:
            content_type = value
            add(name + b": " + value)
        elif kind == 2:
            digits = value.strip(b" \t")
            if length is not None or not digits.isdigit() or len(digits) > 18:
                raise HeadInvalid("Content-Length is not one number")
            length = int(digits)
        elif kind == 3:
            if chunked or value.strip(b" \t").lower() != b"chunked":
                raise HeadInvalid("Transfer-Encoding other than chunked")
            chunked = True
        elif kind == 4:
            if value.strip().lower() not in (b"", b"identity"):
                encoding = value.strip()
        elif kind == 5:
            if value.lower() not in _PLAIN_CONNECTION:
                listed = value if listed is None else listed + b"," + value
        elif kind == 11:
            request_id = value
    if chunked and length is not None:
        raise HeadInvalid("both Content-Length and Transfer-Encoding")
    lines.append(b"")
    forward = b"\r\n".join(lines) if listed is None else _without_listed(headers, spellings, listed)
    return ResponseHead(forward, length, chunked, content_type, encoding, request_id)


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: _status_line(status) for status in range(100, 1000)}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of a chunked body; `data` must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)
