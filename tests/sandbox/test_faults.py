"""Each fault looks on the wire as it is described, and is billed as it is described."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from tests.sandbox.wire import chat, messages, responses

from keygate.sandbox import Fault, SandboxServer

NOT_BILLED = (Fault.RESET, Fault.GARBAGE)
BILLED = (Fault.LOST, Fault.LONG_LENGTH, Fault.BAD_CHUNK, Fault.CUT)


def output(sandbox: SandboxServer) -> int:
    return sum(item["usage"]["output"] for item in sandbox.state.report()["totals"])


@pytest.mark.parametrize("fault", NOT_BILLED)
@pytest.mark.parametrize("stream", [False, True])
async def test_broken_before_the_answer_bills_nothing(
    sandbox: SandboxServer, openai: httpx.AsyncClient, fault: Fault, stream: bool
) -> None:
    with pytest.raises(httpx.TransportError):
        await openai.post("/chat/completions", json=chat(f"sandbox(fault={fault})", stream=stream))
    assert sandbox.state.report()["totals"] == []
    assert (await openai.post("/chat/completions", json=chat())).status_code == 200


@pytest.mark.parametrize("fault", BILLED)
async def test_broken_plain_answer_is_billed_whole(sandbox: SandboxServer, openai: httpx.AsyncClient, fault: Fault) -> None:
    with pytest.raises(httpx.TransportError):
        await openai.post("/chat/completions", json=chat(f"sandbox(fault={fault} output_tokens=20)"))
    assert output(sandbox) == 20


@pytest.mark.parametrize("stream", [False, True])
async def test_stalled_answer_sends_no_byte(openai: httpx.AsyncClient, stream: bool) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await openai.post("/chat/completions", json=chat("sandbox(fault=stall)", stream=stream), timeout=0.3)


@pytest.mark.parametrize("stream", [False, True])
async def test_hanging_answer_sends_its_first_part(sandbox: SandboxServer, openai: httpx.AsyncClient, stream: bool) -> None:
    received = b""
    with pytest.raises(httpx.ReadTimeout):
        async with openai.stream("POST", "/chat/completions", json=chat("sandbox(fault=hang)", stream=stream), timeout=0.3) as answer:
            async for part in answer.aiter_raw():
                received += part
    assert b"chatcmpl" in received
    assert 0 < output(sandbox) <= 15


async def test_cut_stream_bills_what_was_produced(sandbox: SandboxServer, openai: httpx.AsyncClient) -> None:
    text = ""
    with pytest.raises(httpx.RemoteProtocolError):
        async with openai.stream(
            "POST", "/chat/completions", json=chat("sandbox(fault=cut output_tokens=80 chunks=8 at=3)", stream=True)
        ) as answer:
            async for line in answer.aiter_lines():
                text += line
    assert text.count('"content":"') == 4  # three pieces after the empty first one
    assert output(sandbox) == 30


@pytest.mark.parametrize(("path", "make"), [("/chat/completions", chat), ("/responses", responses)])
async def test_openai_stream_can_end_by_an_error_event(openai: httpx.AsyncClient, path: str, make: object) -> None:
    assert callable(make)
    answer = await openai.post(path, json=make("sandbox(fault=error_event)", stream=True))
    last = json.loads([line for line in answer.text.splitlines() if line.startswith("data: ")][-1][6:])
    assert last.get("error") or last["type"] == "error"


async def test_anthropic_stream_can_end_by_an_error_event(anthropic: httpx.AsyncClient) -> None:
    answer = await anthropic.post("/v1/messages", json=messages("sandbox(fault=error_event)", stream=True))
    assert answer.text.rstrip().splitlines()[-2] == "event: error"
    assert '"overloaded_error"' in answer.text


async def test_malformed_answer_is_well_framed_and_no_json(openai: httpx.AsyncClient) -> None:
    answer = await openai.post("/chat/completions", json=chat("sandbox(fault=malformed)"))
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


async def test_usage_can_be_missing(sandbox: SandboxServer, openai: httpx.AsyncClient, anthropic: httpx.AsyncClient) -> None:
    for stream in (False, True):
        body = chat("sandbox(fault=no_usage)", stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
        assert "prompt_tokens" not in (await openai.post("/chat/completions", json=body)).text
        assert "input_tokens" not in (await openai.post("/responses", json=responses("sandbox(fault=no_usage)", stream=stream))).text
        assert "output_tokens" not in (await anthropic.post("/v1/messages", json=messages("sandbox(fault=no_usage)", stream=stream))).text
    assert output(sandbox) > 0


async def test_endless_body_stops_when_the_caller_leaves(openai: httpx.AsyncClient) -> None:
    received = 0
    async with openai.stream("POST", "/chat/completions", json=chat("sandbox(fault=endless)")) as answer:
        async for part in answer.aiter_raw():
            received += len(part)
            if received > 50_000:
                break
    await asyncio.sleep(0.05)
    assert (await openai.post("/chat/completions", json=chat())).status_code == 200


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("stream", [False, True])
async def test_no_fault_harms_the_sandbox(sandbox: SandboxServer, openai: httpx.AsyncClient, fault: Fault, stream: bool) -> None:
    async def call() -> None:
        try:
            async with openai.stream(
                "POST", "/chat/completions", json=chat(f"sandbox(fault={fault})", stream=stream), timeout=0.2
            ) as answer:
                async for _ in answer.aiter_raw():
                    if fault is Fault.ENDLESS:
                        return
        except httpx.TransportError:
            return

    await asyncio.gather(*(call() for _ in range(5)))
    answer = await openai.post("/chat/completions", json=chat())
    assert answer.status_code == 200
    assert len(sandbox.state.calls) == 6
