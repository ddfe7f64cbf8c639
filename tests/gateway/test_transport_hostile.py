"""Callers and vendors that break the rules: a clear error or a clean close, no hang, nothing held behind."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.gateway.rig import Rig, chat, read_chunk, read_head, read_reply, request, running
from tests.gateway.upstream import CHAT

from keygate.gateway.dialects.interface import Problem
from keygate.gateway.pipeline import Refuse
from keygate.ledger import Outcome

POST = "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running(client_timeout=0.75, drain_timeout=2.0, first_byte_timeout=1.0, idle_timeout=1.0, max_body_bytes=1 << 20) as rig:
        yield rig


SMUGGLED = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "conflicting lengths": b"Content-Length: 2\r\nContent-Length: 20\r\n\r\n{}",
    "length list": b"Content-Length: 2, 2\r\n\r\n{}",
    "length and chunked": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "other coding": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity coding": b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}",
    "signed length": b"Content-Length: +2\r\n\r\n{}",
    "negative length": b"Content-Length: -2\r\n\r\n{}",
    "hex length": b"Content-Length: 0x2\r\n\r\n{}",
    "huge length": b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "folded header": b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "space before colon": b"Content-Length : 2\r\n\r\n{}",
    "bare LF": b"X-A: b\nX-C: d\r\nContent-Length: 2\r\n\r\n{}",
    "bare CR": b"X-A: b\rX-C: d\r\nContent-Length: 2\r\n\r\n{}",
    "NUL": b"X-A: b\x00c\r\nContent-Length: 2\r\n\r\n{}",
    "control character": b"X-A: b\x01c\r\nContent-Length: 2\r\n\r\n{}",
    "chunk size with space": b"Transfer-Encoding: chunked\r\n\r\n2 \r\n{}\r\n0\r\n\r\n",
    "chunk size in hex notation": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "chunk size overflow": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff2\r\n{}\r\n0\r\n\r\n",
    "chunk ended by LF": b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    "chunk longer than it says": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "trailer": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    "two hosts": b"Host: b\r\nContent-Length: 2\r\n\r\n{}",
    "odd expectation": b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_odd_framing_is_refused_and_the_connection_ends(rig: Rig, name: str) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=1))
    before = len(rig.upstream.seen)
    head = f"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {token}\r\n".encode()
    answer = await rig.raw(head + SMUGGLED[name] + request(token, chat(max_tokens=1)))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1") == 1
    assert len(rig.upstream.seen) == before
    rig.nothing_leaks()


@pytest.mark.parametrize(
    "line",
    [b"GET * HTTP/1.1", b"CONNECT vendor:443 HTTP/1.1", b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: gw", b"BREW /openai HTTP/1.1",
     b"GET /openai HTTP/2.0", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /openai/v1/\xff HTTP/1.1"],
)  # fmt: skip
async def test_odd_request_lines_are_refused(rig: Rig, line: bytes) -> None:
    answer = await rig.raw(line + b"\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400"), answer


@pytest.mark.parametrize(
    "path",
    ["//openai/v1/chat/completions", "/openai//v1/chat/completions", "/openai/v1/../v1/chat/completions", "/openai%2fv1/chat/completions",
     "/%6fpenai/v1/chat/completions", "/openai/v1/chat/completions/", "/openai/v1/chat%2fcompletions", "/OpenAI/v1/chat/completions",
     "http://gw//openai/v1/chat/completions", "http://gw/x/openai/v1/chat/completions", "http:/openai/v1/chat/completions",
     "http://me@gw/openai/v1/chat/completions", "https://gw?/openai/v1/chat/completions", "ftp://gw/openai/v1/chat/completions",
     "/http://gw/openai/v1/chat/completions", "/openai/v1/chat/completions;x", "/openai/v1/files", "/openai/v1/unknown",
     "/api/../openai/v1/chat/completions"],
)  # fmt: skip
async def test_no_spelling_of_a_path_passes_unmetered(rig: Rig, path: str) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat(max_tokens=1), path=path)
    assert reply.status in (400, 403, 404, 405) or reply.body.startswith(b"asgi ")
    assert not rig.upstream.seen


async def test_absolute_targets_are_served_and_metered_as_their_paths_are(rig: Rig) -> None:
    """RFC 9112 section 3.2.2: a server accepts them, though only proxies are sent any."""
    token, _ = rig.key()
    assert (await rig.call(token, chat(max_tokens=1), path="http://gw/openai/v1/chat/completions")).body == CHAT
    assert (await rig.call(token, chat(max_tokens=1), path="HTTPS://gw:443/openai/v1/chat/completions?a=b")).body == CHAT
    assert len(rig.upstream.seen) == len(rig.accounts.settled) == 2
    assert (await rig.call("nope", chat(max_tokens=1), path="http://gw/openai/v1/chat/completions")).status == 401
    assert (await rig.raw(b"GET http://gw/some/where HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).endswith(b"asgi /some/where ")
    assert (await rig.raw(b"GET http://gw HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).endswith(b"asgi / ")


async def test_head_is_bounded_however_its_bytes_come(rig: Rig) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=1))
    for path in ("/openai/v1/chat/completions", "/health"):
        start = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 2\r\n".encode()
        for size in (66_000, 100_000, 200_000):
            head = start + b"X-Long: " + b"a" * size + b"\r\n\r\n{}"
            assert (await rig.raw(head)).startswith(b"HTTP/1.1 431"), size
    assert not rig.asgi
    rig.nothing_leaks()


async def test_body_behind_a_head_in_two_pieces_does_not_count_as_head(rig: Rig) -> None:
    token, _ = rig.key()
    data = request(token, chat(max_tokens=1, messages=[{"role": "user", "content": "x" * 200_000}]))
    reader, writer = await rig.open()
    writer.write(data[:60])
    await asyncio.sleep(0.05)
    writer.write(data[60:])
    assert (await asyncio.wait_for(read_reply(reader), 5)).status == 200
    writer.close()


async def test_oversized_heads_are_refused(rig: Rig) -> None:
    assert (await rig.raw(b"GET /openai HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000)).startswith(b"HTTP/1.1 431")
    assert (await rig.raw(b"GET /openai HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 500 + b"\r\n")).startswith(b"HTTP/1.1 431")
    assert (await rig.raw(b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")).startswith(b"HTTP/1.1 414")


async def test_bodies_above_the_limit_are_refused_before_they_are_read(rig: Rig) -> None:
    token, _ = rig.key()
    head = f"{POST}Authorization: Bearer {token}\r\n".encode()
    answer = await rig.raw(head + b"Content-Length: 99999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    rig.nothing_leaks()


async def test_endless_chunked_bodies_are_cut_at_the_limit(rig: Rig) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=1))
    reader, writer = await rig.open()
    writer.write(f"{POST}Authorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"

    async def pour() -> None:
        try:
            while True:
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass

    pouring = asyncio.create_task(pour())
    status, _ = await asyncio.wait_for(read_head(reader), 5)
    assert status == 413
    await asyncio.wait_for(pouring, 5)
    writer.close()
    rig.nothing_leaks()


async def test_endless_chunk_extensions_are_refused(rig: Rig) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=1))
    head = f"{POST}Authorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n1;".encode()
    assert (await rig.raw(head + b"a" * 3_000_000)).startswith(b"HTTP/1.1 400")
    rig.nothing_leaks()


async def test_compressed_bodies_are_refused_with_the_remedy(rig: Rig) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, Content_Encoding="gzip")
    assert reply.status == 415
    assert b"Content-Encoding" in reply.body


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b"{", b'{"model": 5}', b'{"model":"gpt-4.1","model":"gpt-5","messages":[]}', b"\xff\xfe", b"null"]
)
async def test_bad_json_is_the_callers_fault(rig: Rig, body: bytes) -> None:
    token, _ = rig.key()
    answer = await rig.raw(
        f"{POST}Authorization: Bearer {token}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    assert answer.startswith(b"HTTP/1.1 400")
    assert not rig.upstream.seen


async def test_nothing_is_injected_through_model_names(rig: Rig) -> None:
    token, _ = rig.key()
    for model in ("gpt\r\nX-Evil: 1", "gpt\x00", "x" * 100_000, "no such\nmodel"):
        reply = await rig.call(token, chat(model=model, max_tokens=1), path="/v1/chat/completions")
        assert reply.status in (400, 404)
        assert "x-evil" not in reply.headers
    assert not rig.upstream.seen


async def test_slow_heads_and_slow_bodies_are_ended(rig: Rig) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=1))
    reader, writer = await rig.open()
    writer.write(b"GET /openai HTTP/1.1\r\nHost")

    async def drip() -> None:
        try:
            while True:
                writer.write(b"a")
                await asyncio.sleep(0.1)
        except ConnectionError:
            pass

    dripping = asyncio.create_task(drip())
    status, _ = await asyncio.wait_for(read_head(reader), 4)
    assert status == 408
    dripping.cancel()
    writer.close()
    answer = await rig.raw(f"{POST}Authorization: Bearer {token}\r\nContent-Length: 10\r\n\r\nabc".encode())
    assert answer.startswith(b"HTTP/1.1 408")
    rig.nothing_leaks()


async def test_slow_readers_hold_the_vendor_back_and_are_cut(rig: Rig) -> None:
    token, _ = rig.key()
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1024)
    writer.transport.pause_reading()
    writer.write(request(token, chat(stream=True, max_tokens=5), X_Mode="torrent"))
    await asyncio.sleep(0.5)
    early = rig.upstream.events
    await asyncio.sleep(0.2)
    assert rig.upstream.events - early < 20  # it waits for the reader
    assert early < 600
    await asyncio.sleep(1.2)  # past client_timeout: cut, then drained
    rig.upstream.go.set()
    await rig.settled(timeout=10)
    assert rig.accounts.last.outcome is Outcome.CLIENT_GONE
    rig.nothing_leaks()
    writer.close()


async def test_two_thousand_idle_connections_stand_in_nobodys_way(rig: Rig) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=1))
    writers = []
    for _ in range(20):
        writers += [writer for _, writer in await asyncio.gather(*(rig.open() for _ in range(100)))]
    assert (await rig.call(token, chat(max_tokens=1))).status == 200
    for writer in writers:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("mode", "status"),
    [("garbage", 502), ("lengths", 502), ("smuggle", 502), ("short", 502), ("reset", 502), ("reset-plain", 502), ("endless-head", 502),
     ("many-headers", 502), ("switch", 502), ("brotli", 502), ("redirect", 502), ("stall", 504)],
)  # fmt: skip
async def test_broken_vendors_are_clear_errors_in_doubt(rig: Rig, mode: str, status: int) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat(max_tokens=5), X_Mode=mode)
    assert reply.status == status
    assert reply.json()["error"]["code"] in ("upstream_lost", "upstream_timeout")
    assert reply.headers["x-keygate-origin"] == "gateway"
    await rig.settled()
    assert {settlement.outcome for _, settlement in rig.accounts.settled.values()} <= {Outcome.UPSTREAM_LOST, Outcome.NOT_SENT}
    rig.nothing_leaks()
    assert (await rig.call(token, chat(max_tokens=5))).status == 200


@pytest.mark.parametrize("mode", ["long", "second"])
async def test_surplus_behind_an_answer_never_reaches_anybody(rig: Rig, mode: str) -> None:
    token, _ = rig.key()
    assert (await rig.call(token, chat(max_tokens=5), X_Mode=mode)).body == CHAT
    for _ in range(3):
        assert (await rig.call(token, chat(max_tokens=5))).body == CHAT
    assert rig.upstream.connections >= 2
    rig.nothing_leaks()


@pytest.mark.parametrize("mode", ["early", "until-close"])
async def test_odd_but_valid_answers_pass(rig: Rig, mode: str) -> None:
    token, _ = rig.key()
    assert (await rig.call(token, chat(max_tokens=5), X_Mode=mode)).body == CHAT
    assert rig.accounts.last.outcome is Outcome.FINISHED


@pytest.mark.parametrize("mode", ["reset-mid", "bad-chunk", "stall-mid"])
async def test_streams_that_break_end_in_an_error_event(rig: Rig, mode: str) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat(stream=True, max_tokens=5), X_Mode=mode)
    assert reply.status == 200
    last = reply.body.strip().split(b"\n\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] in ("upstream_lost", "upstream_timeout")
    await rig.settled()
    assert rig.accounts.last.outcome is Outcome.UPSTREAM_LOST
    assert rig.accounts.last.usage is None
    rig.nothing_leaks()


async def test_answers_without_usage_are_settled_in_doubt(rig: Rig) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat(max_tokens=5), X_Mode="no-usage")
    assert reply.status == 200
    assert rig.accounts.last.usage is None
    rig.nothing_leaks()


async def test_fresh_connection_that_dies_is_tried_once_more_under_a_hold_of_its_own(rig: Rig) -> None:
    token, _ = rig.key()
    reply = await rig.call(token, chat(max_tokens=5), X_Mode="once")
    assert reply.status == 200
    assert [settlement.outcome for _, settlement in rig.accounts.settled.values()] == [Outcome.UPSTREAM_LOST, Outcome.FINISHED]
    rig.nothing_leaks()


async def test_kept_connection_that_took_the_request_and_dies_is_tried_once_more_under_a_hold_of_its_own(rig: Rig) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=5))
    reply = await rig.call(token, chat(max_tokens=5), X_Mode="once")
    assert reply.status == 200
    outcomes = [settlement.outcome for _, settlement in rig.accounts.settled.values()]
    assert outcomes == [Outcome.FINISHED, Outcome.UPSTREAM_LOST, Outcome.FINISHED]
    rig.nothing_leaks()


async def test_kept_connection_that_was_closed_as_the_request_left_is_tried_once_more_under_the_same_hold(rig: Rig) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=5))
    begin = rig.accounts.begin

    def begin_as_the_vendor_closes(*arguments: Any) -> Any:
        for writer in rig.upstream.writers:
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as connection:
                connection.shutdown(socket.SHUT_RDWR)
        return begin(*arguments)

    rig.accounts.begin = begin_as_the_vendor_closes  # the moment is what is tested
    reply = await rig.call(token, chat(max_tokens=5))
    assert reply.status == 200
    assert len(rig.upstream.seen) == 2
    assert [settlement.outcome for _, settlement in rig.accounts.settled.values()] == [Outcome.FINISHED, Outcome.FINISHED]
    rig.nothing_leaks()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/v1", "http://169.254.169.254/v1", "http://[fe80::1]/v1", "http://no-such-host.invalid/v1"]
)
async def test_unreachable_vendors_cost_nothing(rig: Rig, url: str) -> None:
    token, _ = rig.key()
    rig.credentials.all[0].base_url = url
    await rig.gateway.credentials_changed()
    reply = await rig.call(token, chat(max_tokens=5))
    assert reply.status == 503
    assert rig.accounts.last.outcome is Outcome.NOT_SENT
    rig.nothing_leaks()


async def test_caller_who_leaves_is_drained_and_charged(rig: Rig) -> None:
    token, _ = rig.key()
    reader, writer = await rig.open()
    writer.write(request(token, chat(stream=True, max_tokens=5), X_Mode="stepped"))
    await read_head(reader)
    await read_chunk(reader)
    writer.transport.abort()
    await asyncio.sleep(0.05)
    assert rig.accounts.open
    rig.upstream.go.set()
    await rig.settled()
    assert rig.accounts.last.outcome is Outcome.CLIENT_GONE
    assert rig.accounts.last.usage is not None
    rig.nothing_leaks()


async def test_draining_ends_in_time(rig: Rig) -> None:
    token, _ = rig.key()
    reader, writer = await rig.open()
    writer.write(request(token, chat(stream=True, max_tokens=5), X_Mode="ticking"))
    await read_head(reader)
    writer.transport.abort()
    await rig.settled(timeout=4)
    assert rig.accounts.last.outcome is Outcome.CLIENT_GONE
    assert rig.accounts.last.usage is None
    rig.nothing_leaks()


async def test_caller_who_leaves_at_any_moment_leaks_nothing(rig: Rig) -> None:
    token, _ = rig.key()
    data = request(token, chat(stream=True, max_tokens=5))
    for cut in range(40):
        _, writer = await rig.open()
        writer.write(data if cut > 5 else data[: 20 * cut])
        await asyncio.sleep(0.0004 * cut)
        writer.transport.abort()
    await asyncio.sleep(0.3)
    async with asyncio.timeout(5):
        while rig.gateway.in_flight:  # noqa: ASYNC110  (a set tells nobody)
            await asyncio.sleep(0.01)
    rig.nothing_leaks()


async def test_refused_early_the_next_request_needs_a_new_connection(rig: Rig) -> None:
    reader, writer = await rig.open()
    writer.write(
        b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer nope\r\nContent-Length: 900000\r\n\r\n"
        + b"x" * 1000
    )
    reply = await asyncio.wait_for(read_reply(reader), 5)
    assert reply.status == 401
    assert reply.headers["connection"] == "close"
    writer.close()


# what stands behind a request must never cost that request its answer

_CHUNKED = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
BEHIND = {
    "one byte": b"x",
    "a line": b"GARBAGE\r\n\r\n",
    "a bad head": POST.encode() + b"Content-Length: x\r\n\r\n",
    "a head that is refused": POST.encode() + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "too many headers": POST.encode() + b"X: a\r\n" * 500 + b"\r\n",
    "too large a head": POST.encode() + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "a bad body": POST.encode() + _CHUNKED + b"zz\r\n",
    "a bad body, elsewhere": b"POST /else HTTP/1.1\r\nHost: a\r\n" + _CHUNKED + b"zz\r\n",
    "trailers": POST.encode() + _CHUNKED + b"0\r\nX: a\r\n\r\n",
    "an upgrade elsewhere": b"GET /else HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
}


def _first(kind: str, token: str) -> tuple[bytes, bytes]:
    """A request in good form, and how its answer begins."""
    if kind == "chat":
        return request(token, chat(max_tokens=1)), b"HTTP/1.1 200 "
    if kind == "stream":
        return request(token, chat(stream=True, max_tokens=5)), b"HTTP/1.1 200 "
    if kind == "refused":
        return request("sk-kg-nobody", chat(max_tokens=1)), b"HTTP/1.1 401 "
    if kind == "probe":
        return b"HEAD /openai/v1/models HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 "
    if kind == "models":
        return f"GET /openai/v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode(), b"HTTP/1.1 200 "
    assert kind == "elsewhere"
    return b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 "


async def _all_ended(rig: Rig) -> None:
    async with asyncio.timeout(5):
        while rig.gateway.connections or rig.gateway.in_flight:  # noqa: ASYNC110  (a set tells nobody)
            await asyncio.sleep(0.01)
    rig.nothing_leaks()


@pytest.mark.parametrize("known", [True, False], ids=["loaded", "loading"])
@pytest.mark.parametrize("kind", ["chat", "stream", "refused", "probe", "models", "elsewhere"])
async def test_whole_request_is_answered_whatever_stands_behind_it_in_one_piece(rig: Rig, kind: str, known: bool) -> None:
    rig.keys.delay = 0.01
    served = 0
    for name, behind in BEHIND.items():
        token, _ = rig.key()
        if known:
            assert (await rig.call(token, {})).status == 400  # loads the key, and reaches no vendor
        first, begins = _first(kind, token)
        answer = await rig.raw(first + behind, timeout=3)
        assert answer.startswith(begins), (name, answer[:300])
        assert answer.count(b"HTTP/1.1 ") <= 2, (name, answer)
        if kind == "stream":
            assert b"data: [DONE]\n\n" in answer, (name, answer[-300:])
        elif kind == "chat":
            assert CHAT in answer, (name, answer[-300:])
        served += kind in ("chat", "stream")
    assert len(rig.upstream.seen) == served  # nothing that stood behind was taken for a request
    assert not [path for path in rig.asgi if path == "/else"]
    await _all_ended(rig)


async def test_whole_request_that_is_not_parsed_again_is_answered_whatever_stands_behind_it(rig: Rig) -> None:
    token, _ = rig.key()
    data = request(token, chat(max_tokens=1))
    for name, behind in BEHIND.items():
        reader, writer = await rig.open()
        for _ in range(2):
            writer.write(data)
            assert (await asyncio.wait_for(read_reply(reader), 5)).status == 200
        writer.write(data + behind)
        answer = await asyncio.wait_for(reader.read(-1), 3)
        assert answer.startswith(b"HTTP/1.1 200 "), (name, answer)
        assert answer.count(b"HTTP/1.1 ") == 1, (name, answer)
        writer.close()
    await _all_ended(rig)


async def test_stream_under_way_goes_on_to_its_end_whatever_comes_behind_its_request(rig: Rig) -> None:
    token, _ = rig.key()
    for name, behind in BEHIND.items():
        rig.upstream.go.clear()
        reader, writer = await rig.open()
        writer.write(request(token, chat(stream=True, max_tokens=5), X_Mode="stepped"))
        await asyncio.wait_for(read_head(reader), 5)
        await asyncio.wait_for(read_chunk(reader), 5)
        writer.write(behind)
        await asyncio.sleep(0.02)
        writer.write(behind)
        await asyncio.sleep(0.02)
        rig.upstream.go.set()
        rest = await asyncio.wait_for(reader.read(-1), 3)
        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"), (name, rest)
        writer.close()
    await _all_ended(rig)


@pytest.mark.parametrize("first", ["chat", "elsewhere"])
async def test_requests_in_the_queue_are_answered_and_the_broken_one_behind_them_is_not(rig: Rig, first: str) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=1))
    for name, behind in BEHIND.items():
        script = _first(first, token)[0] + _first("chat", token)[0] + _first("elsewhere", token)[0] + _first("chat", token)[0]
        answer = await rig.raw(script + behind, timeout=3)
        assert answer.count(b"HTTP/1.1 200 ") == 4, (name, answer)
        assert answer.count(b"HTTP/1.1 ") == 4, (name, answer)
    await _all_ended(rig)


async def test_body_of_a_queued_request_that_never_comes_does_not_keep_the_connection(rig: Rig) -> None:
    token, _ = rig.key()
    for first in ("chat", "elsewhere"):
        for behind in (POST.encode(), b"POST /else HTTP/1.1\r\nHost: a\r\n"):
            head = behind + f"Authorization: Bearer {token}\r\nContent-Length: 10\r\n\r\nab".encode()
            answer = await rig.raw(_first(first, token)[0] + head, timeout=4)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
    await _all_ended(rig)


async def test_more_in_a_queue_than_fits_is_not_taken_and_what_fits_is_answered(rig: Rig) -> None:
    elsewhere = b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    answer = await rig.raw(elsewhere * 40, timeout=4)
    found = answer.count(b"HTTP/1.1 200 ")
    assert 16 <= found < 40
    assert answer.count(b"asgi /first body") == found
    await _all_ended(rig)


async def test_refused_bytes_still_coming_do_not_reset_the_connection_under_the_answer(rig: Rig) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=1))
    reader, writer = await rig.open()
    writer.write(request(token, chat(max_tokens=1)) + b"x" * 1_000_000)
    await asyncio.sleep(0.3)  # answered long ago
    writer.write(b"x" * 100_000)
    await asyncio.sleep(0.1)
    assert CHAT in await asyncio.wait_for(reader.read(-1), 5)
    writer.close()
    await _all_ended(rig)


async def test_request_that_was_forgotten_is_answered_by_the_sweep(rig: Rig) -> None:
    """No way leads there that we know of; if there is one, it must not hold a body for ever."""
    token, _ = rig.key()
    rig.keys.delay = 60
    reader, writer = await rig.open()
    writer.write(request(token, chat(max_tokens=1)) + b"x")
    await asyncio.sleep(0.1)
    (connection,) = rig.gateway.connections
    exchange = connection.caller.current
    assert exchange is not None
    assert exchange.loading
    exchange.refused = Refuse(Problem.UNAVAILABLE, "Forgotten.")
    exchange.loading = False
    assert (await asyncio.wait_for(reader.read(-1), 3)).startswith(b"HTTP/1.1 503 ")
    writer.close()
    await _all_ended(rig)
