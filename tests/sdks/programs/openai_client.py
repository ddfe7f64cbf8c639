"""The official OpenAI SDK as a user has it, configured by the environment only. Prints one JSON object: check → what came of it.

Environment: OPENAI_BASE_URL and OPENAI_API_KEY as the SDK reads them; REFUSALS: {name: {key, client?, …}}, calls that are refused;
ONLY: the one check to make.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import openai
import pydantic
from openai import AsyncOpenAI, OpenAI

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
MODEL = "gpt-4.1-mini"
client = OpenAI()


class RequestCounter(logging.Handler):
    """Counts what the SDK's HTTP library says that it sent."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.requests = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.requests += record.getMessage().startswith("HTTP Request: ")


counter = RequestCounter()
for library in ("httpx", "httpx2"):
    logging.getLogger(library).setLevel(logging.INFO)
    logging.getLogger(library).addHandler(counter)


def strict(value: Any) -> Any:
    """The SDK builds its models without validation; this validates the same data with the same types."""
    data = value.model_dump(warnings=False, exclude_unset=True, by_alias=True)
    return pydantic.TypeAdapter(type(value)).validate_python(data, by_alias=True, by_name=True)


def usage(value: Any) -> list[int]:
    return [value.prompt_tokens, value.completion_tokens, value.total_tokens]


def plain() -> Any:
    answer = strict(client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=50))
    return {"text": answer.choices[0].message.content, "finish": answer.choices[0].finish_reason, "usage": usage(answer.usage)}


def cut() -> Any:
    answer = strict(client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=3))
    return {"finish": answer.choices[0].finish_reason, "usage": usage(answer.usage)}


def streamed() -> Any:
    text, usages, chunks = "", [], 0
    for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
        strict(chunk)
        chunks += 1
        usages.append(chunk.usage)
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    return {"text": text, "usage": [item for item in usages if item], "chunks": chunks}


def streamed_usage() -> Any:
    found, empty = [], 0
    for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}):
        empty += not chunk.choices
        found += [usage(chunk.usage)] if chunk.usage else []
    return {"usage": found, "empty": empty}


def tools() -> Any:
    answer = strict(client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[TOOL], tool_choice="required"))
    call = answer.choices[0].message.tool_calls[0]
    history = [
        *MESSAGES,
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    after = strict(client.chat.completions.create(model=MODEL, messages=history, tools=[TOOL]))
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments), "after": after.choices[0].finish_reason}


def tools_streamed() -> Any:
    name, arguments, finish = "", "", None
    for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[TOOL], tool_choice="required", stream=True):
        strict(chunk)
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    return {"name": name, "arguments": json.loads(arguments), "finish": finish}


def vision() -> Any:
    content = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    answer = strict(client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}]))
    return {"text": answer.choices[0].message.content}


def completions() -> Any:
    answer = strict(client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Hello", max_tokens=5))
    return {"usage": usage(answer.usage)}


def embeddings() -> Any:
    answer = strict(client.embeddings.create(model="text-embedding-3-small", input=["one", "two"]))
    floats = client.embeddings.create(model="text-embedding-3-small", input="one", encoding_format="float", dimensions=8)
    return {"lengths": [len(item.embedding) for item in answer.data], "floats": len(floats.data[0].embedding)}


def moderations() -> Any:
    return {"flagged": client.moderations.create(input="Hello").results[0].flagged}


def responses() -> Any:
    answer = strict(client.responses.create(model=MODEL, input="Hello", max_output_tokens=50))
    return {"text": answer.output_text, "status": answer.status, "total": answer.usage.total_tokens}


def responses_streamed() -> Any:
    kinds, text, total = [], "", None
    for event in client.responses.create(model=MODEL, input="Hello", stream=True):
        strict(event)
        kinds.append(event.type)
        text += event.delta if event.type == "response.output_text.delta" else ""
        total = event.response.usage.total_tokens if event.type == "response.completed" else total
    return {"first": kinds[0], "last": kinds[-1], "text": text, "total": total}


def responses_tools() -> Any:
    tool: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
    answer = strict(client.responses.create(model=MODEL, input="Hello", tools=[tool], tool_choice="required"))
    return {"name": answer.output[0].name, "arguments": json.loads(answer.output[0].arguments)}


def models() -> Any:
    return {"ids": [strict(model).id for model in client.models.list()]}


def one_model() -> Any:
    return {"id": client.models.retrieve(MODEL).id}


def asynchronous() -> Any:
    async def run() -> Any:
        async with AsyncOpenAI() as asynchronous_client:
            calls = [asynchronous_client.chat.completions.create(model=MODEL, messages=MESSAGES) for _ in range(5)]
            answers = await asyncio.gather(*calls)
            text = ""
            async for chunk in await asynchronous_client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
            return {"texts": len({answer.choices[0].message.content for answer in answers}), "text": text}

    return asyncio.run(run())


def unknown_model() -> Any:
    return refused(client, "gpt-does-not-exist")


def plain_counted() -> Any:
    return refused(client)


def refused(refused_client: OpenAI, model: str = MODEL, **members: Any) -> Any:
    """What the SDK raises, after how many requests and seconds."""
    counter.requests = 0
    began = time.monotonic()
    try:
        refused_client.chat.completions.create(model=model, messages=MESSAGES, **members)
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "type": error.type,
            "message": error.message,
            "requests": counter.requests,
            "seconds": time.monotonic() - began,
        }
    return {"class": None, "requests": counter.requests, "seconds": time.monotonic() - began}


CHECKS: dict[str, Callable[[], Any]] = {
    check.__name__: check
    for check in (
        plain, cut, streamed, streamed_usage, tools, tools_streamed, vision, completions, embeddings, moderations, responses,
        responses_streamed, responses_tools, models, one_model, asynchronous, unknown_model,
        plain_counted,
    )
}  # fmt: skip


def attempt(check: Callable[[], Any]) -> Any:
    try:
        return check()
    except Exception:  # noqa: BLE001  (whatever it is, the test shows it)
        return {"failed": traceback.format_exc()}


def main() -> None:
    results: dict[str, Any] = {"version": openai.__version__}
    results |= {name: attempt(check) for name, check in CHECKS.items() if os.environ.get("ONLY", name) == name}
    for name, members in json.loads(os.environ.get("REFUSALS", "{}")).items():
        os.environ["OPENAI_API_KEY"] = members.pop("key")
        options = members.pop("client", {})
        results[name] = attempt(lambda options=options, members=members: refused(OpenAI(**options), **members))
    print(json.dumps(results))


main()
