"""Every OpenAI answer and every event of every stream fits the vendor's published API description."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.sandbox.contract import event_schemas, fits
from tests.sandbox.wire import CHAT_TOOL, RESPONSES_TOOL, chat, events, responses

TOOLS = {"tools": [CHAT_TOOL], "tool_choice": "required"}
STRUCTURE = {"type": "json_schema", "json_schema": {"name": "city", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
IMAGE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
IMAGE = {"role": "user", "content": [IMAGE_PART, {"type": "text", "text": "What is it?"}]}
CHATS = {
    "text": {},
    "several": {"n": 3},
    "cut": {"max_tokens": 3},
    "tools": TOOLS,
    "tools cut": {**TOOLS, "max_tokens": 3},
    "vision": {"messages": [IMAGE]},
    "structure": {"response_format": STRUCTURE},
    "reasoning": {"messages": [{"role": "user", "content": "sandbox(reasoning_tokens=7 cache_read_tokens=3)"}]},
}


@pytest.mark.parametrize("members", CHATS.values(), ids=CHATS)
async def test_chat_completion_fits_the_contract(openai: httpx.AsyncClient, members: dict[str, Any]) -> None:
    fits((await openai.post("/chat/completions", json=chat(**members))).json(), "CreateChatCompletionResponse")


@pytest.mark.parametrize("members", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize("include_usage", [True, False])
async def test_each_chat_chunk_fits_the_contract(openai: httpx.AsyncClient, members: dict[str, Any], include_usage: bool) -> None:
    body = chat(stream=True, stream_options={"include_usage": include_usage}, **members)
    chunks = events(await openai.post("/chat/completions", json=body))
    assert len(chunks) > 2
    for chunk in chunks:
        fits(chunk, "CreateChatCompletionStreamResponse")


RESPONSES: dict[str, dict[str, Any]] = {
    "text": {},
    "cut": {"max_output_tokens": 16, "input": "sandbox(output_tokens=40)"},
    "tools": {"tools": [RESPONSES_TOOL], "tool_choice": "required"},
    "messages": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}], "instructions": "Be brief."},
    "structure": {"text": {"format": {"type": "json_schema", "name": "city", "schema": {"type": "object", "properties": {}}}}},
}


@pytest.mark.parametrize("members", RESPONSES.values(), ids=RESPONSES)
async def test_response_fits_the_contract(openai: httpx.AsyncClient, members: dict[str, Any]) -> None:
    fits((await openai.post("/responses", json=responses(**members))).json(), "Response")


@pytest.mark.parametrize("members", RESPONSES.values(), ids=RESPONSES)
async def test_each_responses_event_fits_the_contract(openai: httpx.AsyncClient, members: dict[str, Any]) -> None:
    seen = events(await openai.post("/responses", json=responses(**{"stream": True, **members})))
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[0]["type"] == "response.created"
    assert seen[-1]["type"] in {"response.completed", "response.incomplete"}
    for event in seen:
        fits(event, event_schemas()[event["type"]])


async def test_completion_fits_the_contract(openai: httpx.AsyncClient) -> None:
    body = {"model": "gpt-3.5-turbo-instruct", "prompt": ["One", "Two"], "max_tokens": 5}
    fits((await openai.post("/completions", json=body)).json(), "CreateCompletionResponse")
    for chunk in events(await openai.post("/completions", json={**body, "stream": True})):
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"  # null until the end; only the plain answer is described
        fits(chunk, "CreateCompletionResponse")


async def test_embeddings_fit_the_contract(openai: httpx.AsyncClient) -> None:
    for given in ("one", ["one", "two"], [1, 2, 3], [[1, 2], [3]]):
        answer = (await openai.post("/embeddings", json={"model": "text-embedding-3-small", "input": given})).json()
        fits(answer, "CreateEmbeddingResponse")
        assert len(answer["data"][0]["embedding"]) == 1536


async def test_moderation_fits_the_contract(openai: httpx.AsyncClient) -> None:
    fits((await openai.post("/moderations", json={"input": ["one", "two"]})).json(), "CreateModerationResponse")


async def test_models_fit_the_contract(openai: httpx.AsyncClient) -> None:
    fits((await openai.get("/models")).json(), "ListModelsResponse")
    fits((await openai.get("/models/gpt-4o")).json(), "Model")


async def test_errors_fit_the_contract(openai: httpx.AsyncClient) -> None:
    answers = [
        await openai.post("/chat/completions", json=chat(model="gpt-none")),
        await openai.post("/chat/completions", content=b"{"),
        await openai.post("/chat/completions", json=chat("sandbox(fault=status status=503)")),
        await openai.get("/nothing"),
        await openai.get("/models", headers={"authorization": "Bearer none"}),
    ]
    assert [answer.status_code for answer in answers] == [404, 400, 503, 404, 401]
    for answer in answers:
        fits(answer.json(), "ErrorResponse")
