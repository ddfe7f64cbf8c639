"""An upstream that breaks every rule: the caller gets a clear error or sees the answer break off, in bounded time; nothing stays held."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from decimal import Decimal

import pytest
from tests.hostile import wire
from tests.hostile.house import House

REFUSED = (
    "garbage", "lengths", "smuggle", "short", "reset", "reset-plain", "endless-head", "many-headers", "switch", "brotli", "stall",
    "informational-flood", "slow-informational", "slow-head", "huge-header", "negative-length", "huge-length", "overflowing-length",
    "odd-coding", "slow-body",
    "no-status", "http2", "silent-close", "half-head", "nul-header", "folded-header", "bare-line-feed", "bare-carriage-return",
)  # fmt: skip
BROKEN_STREAMS = ("reset-mid", "bad-chunk", "stall-mid", "chunk-overflow", "chunk-extension-flood")
ENDLESS = ("endless-body", "endless-event", "endless-events")
ODD_BUT_READABLE = (
    "usage-huge", "usage-negative", "usage-nonsense", "usage-float", "deep-answer", "not-utf8", "odd-status", "zero-status",
    "reason-injection",
    "no-content", "not-modified", "stream-plain", "error-page", "injected-headers", "trailer", "no-usage", "early", "until-close",
    "answer-early", "second", "long",
    "busy", "leaky", "redirect", "gzip-bomb",
)  # fmt: skip
PATHS = {"openai": "/openai/v1/chat/completions", "responses": "/openai/v1/responses", "anthropic": "/anthropic/v1/messages"}
BODIES = {
    "openai": wire.chat,
    "responses": lambda **members: json.dumps({"model": "gpt-4.1", "input": "hi", "max_output_tokens": 20} | members).encode(),
    "anthropic": wire.messages,
}


async def _call(house: House, mode: str, dialect: str = "openai", *, stream: bool = False) -> bytes:
    body = BODIES[dialect](**({"stream": True} if stream else {}))
    return await house.raw(wire.post(PATHS[dialect], house.token, body, f"x-mode: {mode}"))


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("mode", REFUSED)
async def test_broken_answers_become_clear_errors_in_the_callers_dialect(house: House, mode: str, dialect: str) -> None:
    ((status, headers, body),) = wire.answers(await _call(house, mode, dialect))
    assert status in {502, 504}, (status, body[:300])
    told = json.loads(body)["error"]
    assert told["message"]
    assert headers["x-keygate-origin"] == "gateway"
    assert "x-evil" not in headers


@pytest.mark.parametrize("mode", ["reset", "stall", "garbage", "silent-close", "no-status", "endless-head", "half-head"])
async def test_streams_that_never_begin_are_errors_too(house: House, mode: str) -> None:
    ((status, _, body),) = wire.answers(await _call(house, mode, stream=True))
    assert status in {502, 504}
    assert json.loads(body)["error"]


@pytest.mark.parametrize("mode", BROKEN_STREAMS)
async def test_streams_that_break_say_so_or_break_off(house: House, mode: str) -> None:
    answer = await _call(house, mode, stream=True)
    assert wire.status(answer) == 200
    assert b"one" in answer
    assert b"upstream_" in answer or not answer.endswith(b"0\r\n\r\n"), answer[-400:]


async def test_flood_of_trailers_is_cut_off(house: House) -> None:
    answer = await _call(house, "trailer-flood", stream=True)
    assert wire.status(answer) in {200, 502}
    assert b"x-evil" not in answer


@pytest.mark.parametrize("mode", ENDLESS)
async def test_endless_answers_are_not_kept(house: House, mode: str) -> None:
    """A caller who reads none of it holds the vendor back; one who leaves ends it. Little is ever in memory."""
    before = house.resident()
    members = {} if mode == "endless-body" else {"stream": True}
    async with wire.connection(house.port) as (reader, writer):
        writer.write(wire.post(PATHS["openai"], house.token, wire.chat(**members), f"x-mode: {mode}"))
        until = time.monotonic() + 2
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.5):
                while time.monotonic() < until and await reader.read(2**18):
                    pass
        assert house.resident() - before < 48 * 2**20
    await house.calm()
    assert house.resident() - before < 48 * 2**20


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("mode", ODD_BUT_READABLE)
async def test_odd_answers_are_passed_or_refused_but_stay_well_framed(house: House, mode: str, dialect: str) -> None:
    answer = await _call(house, mode, dialect)
    found = wire.answers(answer)
    assert len(found) == 1, answer[:1000]
    status, headers, body = found[0]
    assert 200 <= status <= 599 or status == 999, status
    assert b"stolen" not in body
    assert "x-evil" not in headers
    assert "openai-organization" not in headers
    assert b"sk-evil-openai-secret" not in answer
    assert b"sk-ant-evil-secret" not in answer


async def test_vendors_headers_do_not_speak_for_the_house(house: House) -> None:
    ((status, headers, _),) = wire.answers(await _call(house, "injected-headers"))
    assert status == 200
    assert headers.get("x-keygate-origin") != "gateway"
    assert headers.get("x-keygate-cost-usd", "") != "0"
    for name in ("keep-alive", "upgrade", "proxy-authenticate", "x-secret", "set-cookie"):
        assert name not in headers, name


async def test_usage_that_no_model_can_have_does_not_make_money(house: House) -> None:
    """Negative counts never give anything back; absurd ones never pass what the hold allowed by more than they are believed."""
    before = await house.calm()
    for mode in ("usage-negative", "usage-nonsense", "usage-huge", "usage-float"):
        await _call(house, mode)
    after = await house.calm()
    assert Decimal(after["spent_usd"]) >= Decimal(before["spent_usd"])
    assert Decimal(after["spent_usd"]) - Decimal(before["spent_usd"]) < 1, (before["spent_usd"], after["spent_usd"])
    assert after["requests"] >= before["requests"] + 4


async def test_words_on_a_kept_connection_are_nobodys_answer(house: House) -> None:
    for _ in range(3):
        assert b"stolen" not in await _call(house, "chatter-after")
        await asyncio.sleep(0.4)
        answers = await asyncio.gather(*(house.chat() for _ in range(5)))
        assert all(b'"choices"' in answer and b"stolen" not in answer for answer in answers)


@pytest.mark.parametrize("mode", ["stream-not-utf8", "stream-nonsense"])
async def test_nonsense_in_a_stream_is_passed_on_as_it_is(house: House, mode: str) -> None:
    answer = await _call(house, mode, stream=True)
    assert wire.status(answer) == 200
    assert b"[DONE]" in answer


async def test_hundred_stalled_calls_do_not_stop_the_others(house: House) -> None:
    stalled = [asyncio.create_task(house.chat("stall")) for _ in range(100)]
    await asyncio.sleep(0.3)
    began = time.monotonic()
    answers = await asyncio.gather(*(house.chat() for _ in range(50)))
    took = time.monotonic() - began
    assert all(wire.status(answer) == 200 for answer in answers)
    assert took < 5
    ended = await asyncio.gather(*stalled)
    assert {wire.status(answer) for answer in ended} == {504}


async def test_vendor_that_is_gone_is_503_at_once_and_costs_nothing(house: House) -> None:
    before = await house.calm()
    made = house.keygate.credential("openai", "http://127.0.0.1:1/v1", "sk-nobody-there-0000000000")
    house.keygate.call("PATCH", f"/credentials/{made['id']}", {"models": ["gpt-4o-mini"], "weight": 1000})
    others = [c for c in house.keygate.call("GET", "/credentials")["items"] if c["vendor"] == "openai" and c["id"] != made["id"]]
    for other in others:
        house.keygate.call("PATCH", f"/credentials/{other['id']}", {"models": ["gpt-4.1*"]})
    try:
        answer = await house.raw(wire.post(PATHS["openai"], house.token, wire.chat(model="gpt-4o-mini")))
        assert wire.status(answer) == 503, answer[:400]
    finally:
        for other in others:
            house.keygate.call("PATCH", f"/credentials/{other['id']}", {"models": None})
        house.keygate.call("DELETE", f"/credentials/{made['id']}")
    after = await house.calm()
    assert after["spent_usd"] == before["spent_usd"]
