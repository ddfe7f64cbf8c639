"""A client that repeats itself: on one connection SDKs send the same head again and again, but for the length of the body.

A head that was parsed and accepted once is kept as bytes with two gaps, the key and the length. When the next request's bytes are the same
around the gaps, the key is the same (compared in constant time) and the length is a plain number, then parsing them again could only
come to the same result, so it is left out. Whatever differs in any byte goes to the parser.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, Final, final

from keygate.gateway.http1 import Header, RequestHead, Spellings

if TYPE_CHECKING:
    from keygate.gateway.pipeline import Caller, Route

_MAX_DIGITS: Final = 9
_KEY: Final = 9  # http1.Kind, as plain numbers
_LENGTH: Final = 2


@final
class Request:
    """What a parsed head came to."""

    __slots__ = (
        "caller",
        "head",
        "method",
        "query",
        "route",
    )

    def __init__(
        self,
        head: RequestHead,
        route: Route,
        method: bytes,
        query: bytes,
        caller: Caller,
    ) -> None:
        self.head = head
        self.route = route
        self.method = method
        self.query = query
        self.caller = caller


@final
class HeadTemplate:
    __slots__ = ("_after", "_before", "_between", "_key", "_key_first", "request")

    def __init__(self, before: bytes, between: bytes, after: bytes, key: bytes, *, key_first: bool, request: Request) -> None:
        self._before = before
        self._between = between
        self._after = after
        self._key = key
        self._key_first = key_first
        self.request = request

    @classmethod
    def of(cls, data: bytes, headers: list[Header], spellings: Spellings, request: Request) -> HeadTemplate | None:
        """`data` begins with the head that was parsed into `headers`. None where the gaps can't be told for certain."""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        raw = data[:end]
        gaps = []
        for wanted in (_KEY, _LENGTH):
            found = [(name, value) for name, value in headers if spellings[name] == wanted]
            if len(found) != 1:
                return None
            name, value = found[0]
            line = b"\r\n%b: %b\r\n" % (name, value)
            at = raw.find(line)
            if at < 0:
                return None
            gaps.append((at + len(name) + 4, value))
        (key_at, key), (length_at, length) = gaps
        first, second = ((key_at, key), (length_at, length)) if key_at < length_at else ((length_at, length), (key_at, key))
        return cls(
            raw[: first[0]],
            raw[first[0] + len(first[1]) : second[0]],
            raw[second[0] + len(second[1]) :],
            key,
            key_first=key_at < length_at,
            request=request,
        )

    def match(self, data: bytes) -> tuple[int, int]:
        """(length of the body, where it begins in `data`), if `data` begins with this head; else (-1, 0)."""
        before, between, after, key = self._before, self._between, self._after, self._key
        if not data.startswith(before):
            return -1, 0
        at = len(before)
        if self._key_first:
            behind = at + len(key)
            if not data.startswith(between, behind) or not compare_digest(data[at:behind], key):
                return -1, 0
            at = behind + len(between)
            end = data.find(b"\r", at, at + _MAX_DIGITS + 1)
            if end < 0:
                return -1, 0
            length = data[at:end]
        else:
            end = data.find(b"\r", at, at + _MAX_DIGITS + 1)
            if end < 0 or not data.startswith(between, end):
                return -1, 0
            length = data[at:end]
            at = end + len(between)
            end = at + len(key)
            if not compare_digest(data[at:end], key):
                return -1, 0
        if not length.isdigit() or not data.startswith(after, end):
            return -1, 0
        return int(length), end + len(after)
