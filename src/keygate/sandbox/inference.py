"""One inference call from its body to its end: who asks, what is answered, what goes wrong, what is billed and when.

Billed means produced: the input when the answer begins, the output piece by piece as it is made. When the caller goes, the vendor
stops and bills what was made until then, unless its behaviour `continues`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import msgspec

from keygate.sandbox import gemini, openai_inputs
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.answer import Answer, Asked, Dialect, compose, encode
from keygate.sandbox.anthropic import CountTokens
from keygate.sandbox.catalogue import Model, Use
from keygate.sandbox.errors import VendorError, bad_key, invalid, key_refused, no_key, no_model
from keygate.sandbox.model import MIDWAY, NOT_PRODUCED, Behaviour, Call, Fault, Key, Usage, Vendor, directive, parse_settings
from keygate.sandbox.state import SandboxState
from keygate.sandbox.wire import BodyTooLargeError, CallerGoneError, Connection, Headers

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_GARBAGE = b"\x16\x03\x01\x02\x00garbage\x00\xff\xfe\r\nnot: http\r\n\r\n"


class Plain:
    """An endpoint without a stream, made of a reader and a writer: embeddings, moderations."""

    def __init__(self, use: Use, read: Callable[[dict[str, Any]], Asked], *, billed: bool) -> None:
        self.use = use
        self.read = read
        self.billed = billed
        self.id_prefix = "modr-" if use is Use.MODERATIONS else "emb-"

    def whole(self, answer: Answer, model: Model) -> dict[str, Any]:
        return openai_inputs.embeddings(answer, model) if self.use is Use.EMBEDDINGS else openai_inputs.moderation(answer)


class Exchange:
    """A call in progress."""

    def __init__(self, state: SandboxState, connection: Connection, call: Call) -> None:
        self._state = state
        self._connection = connection
        self._call = call

    async def run(self, dialect: Dialect | Plain) -> None:
        """Serves the call. Raises `VendorError` where the vendor refuses it, `CallerGoneError` where the caller left first."""
        key = self._authenticate()
        try:
            raw = await self._connection.body()
        except BodyTooLargeError:
            raise VendorError(413, "Request exceeds the maximum size") from None
        body = self._decode(raw)
        asked = dialect.read(body)
        self._call.model = asked.model
        self._call.streamed = asked.streamed
        self._call.user = user_of(body)
        model = self._state.find_model(self._call.vendor, asked.model)
        if model is None or (model.use is not dialect.use):
            raise no_model(self._call.vendor, asked.model)
        if not isinstance(dialect, Plain):
            dialect.check(asked, model)
        if key.grant is not None:
            self._admit(key.grant, asked, model)
        if isinstance(dialect, CountTokens | gemini.CountTokens):
            await self._json(dialect.count(asked, body_bytes=len(raw)))
            return
        behaviour = self._behaviour(key, asked)
        self._call.fault = behaviour.fault
        self._call.service_tier = asked.service_tier
        if behaviour.latency_ms:
            await asyncio.sleep(behaviour.latency_ms / 1000)
        if self._connection.gone() and not behaviour.continues:
            raise CallerGoneError
        if behaviour.fault in NOT_PRODUCED:
            await self._fail(behaviour)
            return
        answer = compose(asked, behaviour, id_prefix=dialect.id_prefix, body_bytes=len(raw), most=model.max_output)
        answer.show_usage = behaviour.fault is not Fault.NO_USAGE
        self._call.answer_id = answer.id
        if isinstance(dialect, Plain):
            whole = dialect.whole(answer, model)
            self._bill(replace(answer.usage, output=0, reasoning=0) if dialect.billed else Usage())
            await self._plain(behaviour, whole)
        elif asked.streamed and behaviour.fault is not Fault.LOST:
            await self._stream(dialect, answer, behaviour)
        else:
            self._bill(answer.usage)
            await self._plain(behaviour, dialect.whole(answer))

    # What a vendor's own exchange may do otherwise.

    def _authenticate(self) -> Key:
        return authenticate(self._state, self._connection, self._call)

    def _decode(self, raw: bytes) -> dict[str, Any]:
        return decode(raw)

    def _admit(self, grant: IssuedSecret, asked: Asked, model: Model) -> None:  # noqa: ARG002  (Bedrock's rules know the model as it was asked for)
        grant.admit(model.name)

    def _behaviour(self, key: Key, asked: Asked) -> Behaviour:
        behaviour = self._state.behaviour_of(key)
        try:
            header = self._connection.headers.get(b"x-sandbox")
            if header:
                behaviour = behaviour.with_settings(parse_settings(header.decode("latin-1")))
            return behaviour.with_settings(directive(asked.last_text))
        except ValueError as error:
            raise invalid(f"sandbox settings: {error}") from None

    def _bill(self, usage: Usage) -> None:
        self._state.bill(self._call, usage)

    def _headers(self, kind: tuple[bytes, bytes] = JSON) -> Headers:
        return [kind, *identity(self._call)]

    async def _json(self, body: Any) -> None:
        self._call.status = 200
        await self._connection.answer(200, self._headers(), encode(body))
        self._call.finished = True

    async def _fail(self, behaviour: Behaviour) -> None:
        match behaviour.fault:
            case Fault.STATUS:
                message = "The sandbox was asked to fail."
                code = "insufficient_quota" if behaviour.status == 402 else None
                raise VendorError(behaviour.status, message, code=code, retry_after=behaviour.retry_after)
            case Fault.RESET:
                await self._connection.reset()
            case Fault.GARBAGE:
                await self._connection.raw(_GARBAGE)
            case _:
                await self._connection.until_gone()

    async def _plain(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        data = encode(body)
        match behaviour.fault:
            case None | Fault.NO_USAGE:
                await self._json(body)
            case Fault.MALFORMED:
                self._call.status = 200
                await self._connection.answer(200, self._headers(), data[: len(data) // 2])
            case Fault.LOST:
                await self._connection.reset()
            case Fault.ERROR_EVENT:
                raise VendorError(500, "The sandbox was asked to fail.")
            case fault:
                self._call.status = 200
                await self._connection.misframed(fault, self._headers(), data)

    async def _stream(self, dialect: Dialect, answer: Answer, behaviour: Behaviour) -> None:
        connection, fault = self._connection, behaviour.fault
        self._call.status = 200
        self._bill(replace(answer.usage, output=0, reasoning=0))
        if fault in {Fault.MALFORMED, Fault.LONG_LENGTH, Fault.SHORT_LENGTH, Fault.BAD_CHUNK, Fault.ENDLESS}:
            self._bill(Usage(output=answer.usage.output, reasoning=answer.usage.reasoning))
            data = b"".join(frame.data for frame in dialect.frames(answer))
            if fault is Fault.MALFORMED:
                await connection.answer(200, self._headers(EVENTS), data.replace(b'":', b"'", 20))
            else:
                await connection.misframed(fault, self._headers(EVENTS), data)
            return
        strike = (len(answer.pieces) // 2 if behaviour.at is None else behaviour.at) if fault in MIDWAY else None
        pause = behaviour.chunk_ms / 1000
        await connection.start(200, self._headers(EVENTS))
        pieces = 0
        for frame in dialect.frames(answer):
            if frame.piece:
                if pieces == strike:
                    break
                if pause and pieces:
                    await asyncio.sleep(pause)
                pieces += 1
            if not behaviour.continues and connection.gone():
                raise CallerGoneError
            if frame.tokens:
                self._bill(Usage(output=frame.tokens, reasoning=frame.reasoning))
            await connection.write(frame.data)
        else:
            if strike is None:
                await connection.end()
                self._call.finished = not connection.gone()
                return
        match fault:
            case Fault.ERROR_EVENT:
                error = VendorError(529 if self._call.vendor is Vendor.ANTHROPIC else 500, "The sandbox was asked to fail.")
                await connection.write(dialect.error_frame(error, self._call.id))
                await connection.end()
            case Fault.CUT:
                await connection.close()
            case _:
                await connection.until_gone()


def authenticate(state: SandboxState, connection: Connection, call: Call) -> Key:
    """The key that the caller shows: Bearer; Anthropic `x-api-key` too; Google `x-goog-api-key` or `?key=`. Raises `VendorError`."""
    headers = connection.headers
    bearer = headers.get(b"authorization", b"").decode("latin-1")
    shown = bearer[7:].strip() if bearer[:7].lower() == "bearer " else ""
    if call.vendor is Vendor.ANTHROPIC and b"x-api-key" in headers:
        shown = headers[b"x-api-key"].decode("latin-1")
    if call.vendor is Vendor.GOOGLE:
        query = parse_qs(connection.scope["query_string"].decode("latin-1"))
        shown = headers.get(b"x-goog-api-key", b"").decode("latin-1") or query.get("key", [""])[-1]
    call.retry_count = _text(headers.get(b"x-stainless-retry-count"))
    call.caller_request_id = _text(headers.get(b"x-request-id"))
    if not shown:
        raise no_key(call.vendor)
    key = state.keys.get(shown)
    if key is None or key.vendor is not call.vendor:
        raise bad_key(call.vendor)
    call.key = key.value
    refused = key_refused(call.vendor, key.standing())
    if refused is not None:
        raise refused
    if call.vendor is Vendor.ANTHROPIC and b"anthropic-version" not in headers and not call.path.endswith("/chat/completions"):
        raise invalid("anthropic-version: header is required")
    return key


def identity(call: Call) -> Headers:
    """The headers that name this call, as the vendor has them."""
    name = b"request-id" if call.vendor is Vendor.ANTHROPIC else b"x-request-id"
    return [(name, call.id.encode())]


def decode(raw: bytes) -> dict[str, Any]:
    """The body as an object; `VendorError` 400 where it isn't one."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise invalid("We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise invalid("We could not parse the JSON body of your request. The API expects a JSON object.")
    return body


def user_of(body: dict[str, Any]) -> str | None:
    """The end user that the caller names, as both vendors let them."""
    metadata = body.get("metadata")
    user = body.get("user") or (metadata.get("user_id") if isinstance(metadata, dict) else None)
    return user[:200] if isinstance(user, str) else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value[:200].decode("latin-1")
