"""Calls to a vendor's admin API: paced, retried with an end, told step by step, and failing with errors that say what to do.

What may have been done all the same (a time-out after a POST) is not repeated: it raises `Unavailable(uncertain=True)`, and the caller
looks with `find` what is there.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import quote_plus, urlencode, urlsplit

from keygate.kit.clock import NANOSECONDS, Clock, from_ns
from keygate.kit.outbound import Answer, Unreached
from keygate.kit.secret import Secret
from keygate.vendors.admin.errors import (
    AdminKeyRefused,
    CeilingReached,
    MissingRight,
    NotFound,
    ProvisionerError,
    RateLimited,
    Rejected,
    TermsRefused,
    Unavailable,
    quoted,
)

ATTEMPTS = 6
PATIENCE_SECONDS = 90.0  # all waits between two answers that are of use
ANSWER_SECONDS = 30.0  # for one answer
SILENCE_SECONDS = 40.0  # without any answer, over all calls of a desk since its last one: then nothing is repeated,
SILENT_SECONDS = 10.0  # and what still has to be tried is waited for so long. So one try at a dead vendor ends after about a minute
_SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_MAX_ASKED = 20_000
ASK_SECONDS = 10.0  # for an answer of the vendor's inference side
_LEAST = 16  # characters of a line that could be a secret's
_PIECE = 20  # characters of a secret's that are too many to be repeated
_MAX_ERROR = 256 * 1024  # bytes of an error that are read
_COUNTER = "x-ms-ratelimit-"
_SECRET_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "x-amz-security-token"})

Sleep = Callable[[float], Awaitable[None]]
Fault = Callable[[Answer], ProvisionerError | None]
Refused = Callable[[], Awaitable[None]]
Afresh = Callable[[], Awaitable[Mapping[str, str]]]


class Sender(Protocol):
    """`kit.outbound.Outbound`, or a fake of it."""

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, timeout: float | None = None
    ) -> Answer: ...


class Watcher(Protocol):
    """Told of every call that changes something, before and after it: what a crash must be able to tell afterwards."""

    async def before(self, what: str) -> None: ...

    async def after(self, what: str, outcome: str) -> None:
        """`outcome`: the status, or the error's code."""


class Pace:
    """No 60 seconds see more than `per_minute` calls. Share one among all who use the same vendor account."""

    def __init__(self, per_minute: int, *, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._slots: deque[int] = deque(maxlen=max(1, per_minute))
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        async with self._turn:
            now = self._clock.monotonic_ns()
            if len(self._slots) == self._slots.maxlen:
                due = self._slots[0] + 60 * NANOSECONDS
                if due > now:
                    await self._sleep((due - now) / NANOSECONDS)
                    now = max(due, self._clock.monotonic_ns())
            self._slots.append(now)


class AdminHttp:
    """`conceal`: secrets that may stand in a vendor's words and are blacked out of them. `refused`: awaited before a call fails because the
    vendor does not know the admin credential."""

    def __init__(
        self,
        sender: Sender,
        *,
        pace: Pace,
        clock: Clock,
        watcher: Watcher | None = None,
        conceal: Sequence[Secret] = (),
        sleep: Sleep = asyncio.sleep,
        refused: Refused | None = None,
    ) -> None:
        self._refused = refused
        self._sender = sender
        self._pace = pace
        self._clock = clock
        self._watcher = watcher
        self._conceal = tuple(part for secret in conceal for part in _parts(secret))
        self._pieces = tuple(part for secret in conceal for part in _secret_lines(secret) or [secret])
        self._sleep = sleep
        self._silent = 0.0  # seconds that the vendor has been asked without an answer
        self._waited = 0.0  # seconds that it has been waited for between two tries

    async def json(self, method: str, url: str, *, what: str, right: str, exact: bool = False, **options: Any) -> dict[str, Any]:
        """As `call`, for an answer that is a JSON object; an empty body is an empty object. `exact`: numbers with a point are decimals
        (money), no floats."""
        answer = await self.call(method, url, what=what, right=right, **options)
        if not answer.body.strip():
            return {}
        try:
            found = jsonlib.loads(answer.body, parse_float=Decimal if exact else float)
        except (ValueError, RecursionError, ArithmeticError):
            found = None
        if not isinstance(found, dict):
            raise Unavailable(f"{what}: the vendor's answer is not a JSON object", uncertain=method not in {"GET", "HEAD"})
        return found

    async def ask(self, method: str, url: str, *, what: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """One call of the vendor's inference side with a key that KeyGate issued: outside of the admin API's pace, short, once, and
        changing nothing. Any answer but "wait" and the vendor's own failures is returned; those, and none, are `Unavailable`."""
        lines = {name.lower(): value for name, value in headers.items()}
        if body is not None:
            lines.setdefault("content-type", "application/json")
        try:
            answer = await self._sender.send(method, url, headers=lines, body=body, timeout=ASK_SECONDS)
        except Unreached as error:
            raise Unavailable(f"{what}: {urlsplit(url).hostname} {error.detail}") from None
        if answer.status == 429 or answer.status >= 500:
            raise Unavailable(f"{what}: the vendor answers {answer.status}")
        return replace(answer, body=answer.body[:_MAX_ASKED])

    async def call(
        self,
        method: str,
        url: str,
        *,
        what: str,
        right: str,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | Sequence[tuple[str, Any]] | None = None,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        body: bytes | None = None,
        accept: Collection[int] = (),
        fault: Fault | None = None,
        repeatable: bool | None = None,
        changes: bool | None = None,
        timeout: float | None = None,
        afresh: Afresh | None = None,
    ) -> Answer:
        """`headers` hold the authorisation. `afresh`: signs in anew and gives other ones; asked where the vendor answers 401, as a token
        may have been ended early, and then the call is sent once more.

        `what`: for people, `create the project`. `right`: the vendor's name of the right it needs, for the error of a 403. `accept`:
        statuses of 400 and more that are returned and not raised. `fault`: looks at an error answer first (ceilings, a vendor's own
        codes); of a 429 only a ceiling is believed, anything else is a limit of calls and waited out. `repeatable`: may be sent again
        where its outcome is not known (default: all but POST and PATCH). `changes`: something at the vendor is changed (default: all but
        GET and HEAD); sign-ins and searches by POST say False."""
        query = urlencode([pair for pair in _pairs(params) if pair[1] is not None])
        address = url + ("&" if "?" in url else "?") + query if query else url
        lines = {name.lower(): value for name, value in (headers or {}).items()}
        if json is not None:
            body = jsonlib.dumps(json).encode()
            lines.setdefault("content-type", "application/json")
        elif form is not None:
            body = urlencode(form).encode()
            lines.setdefault("content-type", "application/x-www-form-urlencoded")
        changing = method not in {"GET", "HEAD"} if changes is None else changes
        again = (method in _SAFE or not changing) if repeatable is None else repeatable
        watcher = self._watcher if changing else None
        if watcher:
            await watcher.before(what)
        try:
            answer = await self._until_answered(
                method, address, lines, body, what=what, right=right, again=again, fault=fault, timeout=timeout
            )
            if answer.status == 401 and afresh is not None:
                lines = lines | {name.lower(): value for name, value in (await afresh()).items()}
                answer = await self._until_answered(
                    method, address, lines, body, what=what, right=right, again=again, fault=fault, timeout=timeout
                )
            if answer.status >= 300 and answer.status not in accept:
                shown = self._concealed(answer, lines)
                raise self._error(shown, what=what, right=right, fault=fault, uncertain=not again)
        except ProvisionerError as error:
            if watcher:
                await watcher.after(what, error.code)
            if isinstance(error, AdminKeyRefused) and self._refused is not None:
                await self._refused()
            raise
        if watcher:
            await watcher.after(what, str(answer.status))
        return answer

    async def _until_answered(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        what: str,
        right: str,
        again: bool,
        fault: Fault | None,
        timeout: float | None,
    ) -> Answer:
        limit = ANSWER_SECONDS if timeout is None else timeout
        for attempt in range(1, ATTEMPTS + 1):
            await self._pace.wait()
            answer: Answer | None = None
            left = SILENCE_SECONDS - self._silent
            began = self._clock.monotonic_ns()
            try:
                answer = await self._sender.send(method, url, headers=headers, body=body, timeout=min(limit, max(left, SILENT_SECONDS)))
            except Unreached as error:
                self._silent += (self._clock.monotonic_ns() - began) / NANOSECONDS
                last = attempt == ATTEMPTS or self._silent >= SILENCE_SECONDS
                if (error.sent and not again) or last:
                    host = urlsplit(url).hostname
                    raise Unavailable(f"{what}: {host} {error.detail}", uncertain=error.sent and not again) from None
                pause = _backoff(attempt)
            else:
                self._silent = 0.0
                told = _told(answer, fault)
                limited = answer.status == 429 if told is None else isinstance(told, RateLimited)  # AWS tells it as 400, Google as 403
                if not limited and (told is not None or answer.status < 500 or not again):
                    self._waited = 0.0
                    return answer  # also a ceiling that a vendor tells as 429
                # A vendor that says to wait for nothing is not asked at once again.
                pause = max(_asked_wait(answer, told, self._clock), _backoff(attempt))
            if attempt == ATTEMPTS or self._waited + pause > PATIENCE_SECONDS:
                if answer is None:
                    raise Unavailable(f"{what}: the vendor can't be reached", uncertain=False)
                shown = self._concealed(answer, headers)
                raise self._error(shown, what=what, right=right, fault=fault, uncertain=False, pause=pause)
            self._waited += pause
            await self._sleep(pause)
        raise Unavailable(f"{what}: the vendor can't be reached")  # not come to: the last attempt ends above

    def _error(
        self, answer: Answer, *, what: str, right: str, fault: Fault | None, uncertain: bool, pause: float = 60.0
    ) -> ProvisionerError:
        if (told := _told(answer, fault)) is not None:
            if isinstance(told, RateLimited):
                told.retry_after = _asked_wait(answer, told, self._clock) or pause
            return told
        status, quote = answer.status, self.quote(answer)
        said = f": {quote}" if quote else ""
        if status == 401:
            return AdminKeyRefused(f"{what}: the vendor does not know the admin credential (401){said}; enter a valid one")
        if status == 403:
            return MissingRight(
                right, f"{what}: the admin credential lacks the right {right} (403){said}; add it at the vendor and try again"
            )
        if status == 404:
            return NotFound(f"{what}: not found at the vendor (404){said}")
        if status == 429:
            return RateLimited(f"{what}: the vendor limits calls now (429){said}", retry_after=_retry_after(answer, self._clock) or pause)
        if status >= 500:
            return Unavailable(f"{what}: the vendor failed ({status}){said}", uncertain=uncertain)
        kind = TermsRefused if status in {400, 422} else Rejected
        return kind(f"{what}: the vendor refused ({status}){said}", status=status, reason=_reason(answer))

    def _concealed(self, answer: Answer, sent: Mapping[str, str]) -> Answer:
        """An error without the secrets that were sent, as they are or in JSON's spelling or a form's, and without long pieces of them, as
        vendors repeat a key with its middle or its end left out: whoever quotes it, a vendor's own `fault` among them, has nothing to give
        away."""
        secrets = [secret.open() for secret in self._conceal]
        shown = [value.rpartition(" ")[2] for name, value in sent.items() if name in _SECRET_HEADERS]
        secrets += shown
        body = answer.body[:_MAX_ERROR]
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            for form in (secret, jsonlib.dumps(secret)[1:-1], quote_plus(secret)):
                body = body.replace(form.encode(), b"[redacted]")
        return replace(answer, body=_without_pieces(body, [*(piece.open() for piece in self._pieces), *shown]))

    def quote(self, answer: Answer) -> str:
        """What the vendor said, short and without secrets: the message of the error shapes in use, else nothing."""
        text = _message(answer)
        for secret in self._conceal:
            if secret:
                text = text.replace(secret.open(), "[redacted]")
        return quoted(text)


def _parts(secret: Secret) -> list[Secret]:
    """The secret, and where it is a JSON document with a private key in it (Google's) that key, and each line of it."""
    return [secret, *map(Secret, _private_keys(secret)), *_secret_lines(secret)]


def _private_keys(secret: Secret) -> list[str]:
    try:
        document = jsonlib.loads(secret.open())
    except (ValueError, RecursionError):
        return []
    values = document.values() if isinstance(document, dict) else ()
    return [value for value in values if isinstance(value, str) and "\n" in value]


def _secret_lines(secret: Secret) -> list[Secret]:
    """Of a JSON document with a private key: what else it holds may be repeated in part."""
    lines = [line for key in _private_keys(secret) for line in key.splitlines()]
    return [Secret(line) for line in lines if len(line) >= _LEAST and not line.startswith("-")]


def _without_pieces(body: bytes, secrets: Sequence[str]) -> bytes:
    texts = [secret.encode() for secret in secrets]
    pieces = {text[at : at + _PIECE] for text in texts for at in range(len(text) - _PIECE + 1)}
    if not pieces:
        return body
    kept, seen = bytearray(), 0  # `seen`: up to where a piece reaches
    for at in range(len(body)):
        if body[at : at + _PIECE] in pieces:
            if at >= seen:
                kept += b"[redacted]"
            seen = at + _PIECE
        if at >= seen:
            kept.append(body[at])
    return bytes(kept)


def _pairs(params: Mapping[str, Any] | Sequence[tuple[str, Any]] | None) -> list[tuple[str, Any]]:
    if params is None:
        return []
    pairs = list(params.items()) if isinstance(params, Mapping) else list(params)
    return [(name, ("true" if value else "false") if isinstance(value, bool) else value) for name, value in pairs]


def _decoded(answer: Answer) -> Any:
    try:
        return jsonlib.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def _error_object(answer: Answer) -> dict[str, Any]:
    found = _decoded(answer)
    if not isinstance(found, dict):
        return {}
    error = found.get("error")
    return error if isinstance(error, dict) else found


def _message(answer: Answer) -> str:
    found = _error_object(answer)
    text = found.get("message") or found.get("error_description") or found.get("detail") or ""
    return text if isinstance(text, str) else ""


def _reason(answer: Answer) -> str:
    found = _error_object(answer)
    text = found.get("code") or found.get("status") or found.get("type") or found.get("error") or ""
    return quoted(text, most=100)


def _told(answer: Answer, fault: Fault | None) -> ProvisionerError | None:
    """What the vendor's own `fault` makes of an error. A 429 under a code that it does not know, or takes for a refusal, is a limit of
    calls all the same: only a ceiling is told so too."""
    told = fault(answer) if fault is not None and answer.status >= 400 else None
    return told if answer.status != 429 or isinstance(told, CeilingReached | RateLimited) else None


def _backoff(attempt: int) -> float:
    """Half a second, doubled each time, spread by a quarter either way."""
    return min(16.0, 0.5 * 2.0 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # noqa: S311  (spreads load, guards nothing)


def _asked_wait(answer: Answer, told: ProvisionerError | None, clock: Clock) -> float:
    """Seconds that the vendor asks to wait: in its body, as `fault` has read it, or in a header. 0: it does not say."""
    body = told.retry_after if isinstance(told, RateLimited) else 0.0
    return max(body, _retry_after(answer, clock) or 0.0)


def _retry_after(answer: Answer, clock: Clock) -> float | None:
    """`Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), OpenAI's `retry-after-ms`, or the longest of Azure's
    `x-ms-ratelimit-…-retry-after` (one for each of its counters: azure-mgmt-costmanagement 5.0.0, models); never negative."""
    milliseconds = answer.headers.get("retry-after-ms", "")
    if milliseconds.isdecimal() and len(milliseconds) < 10:
        return int(milliseconds) / 1000
    text = answer.headers.get("retry-after", "").strip()
    counters = [value.strip() for name, value in answer.headers.items() if name.startswith(_COUNTER) and name.endswith("-retry-after")]
    seconds = [float(each) for each in (text, *counters) if each.isascii() and each.isdecimal() and len(each) < 8]
    if seconds:
        return max(seconds)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    wait: float = (moment - from_ns(clock.now_ns())).total_seconds()
    return max(0.0, wait)
