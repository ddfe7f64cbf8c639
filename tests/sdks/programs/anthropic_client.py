"""The official Anthropic SDK as a user has it, configured by the environment only. Prints one JSON object: check → what came of it.

Environment: ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY as the SDK reads them; REFUSALS: {name: {key, client?, …}}, calls that are refused;
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

import anthropic
import pydantic
from anthropic import Anthropic, AsyncAnthropic

SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"name": "weather", "input_schema": SCHEMA}
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
MODEL = "claude-sonnet-4-6"
client = Anthropic()


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


def plain() -> Any:
    answer = strict(client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=50))
    return {"text": answer.content[0].text, "stop": answer.stop_reason, "usage": [answer.usage.input_tokens, answer.usage.output_tokens]}


def cut() -> Any:
    answer = strict(client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=3))
    return {"stop": answer.stop_reason, "output": answer.usage.output_tokens}


def streamed() -> Any:
    kinds, text, output = [], "", None
    for event in client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=50, stream=True):
        strict(event)
        kinds.append(event.type)
        text += event.delta.text if event.type == "content_block_delta" else ""
        output = event.usage.output_tokens if event.type == "message_delta" else output
    return {"first": kinds[0], "last": kinds[-1], "text": text, "output": output}


def stream_helper() -> Any:
    with client.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=50) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    return {"text": text, "same": final.content[0].text == text, "output": final.usage.output_tokens}


def tools() -> Any:
    answer = strict(client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=50, tools=[TOOL], tool_choice={"type": "any"}))
    block = answer.content[0]
    history = [
        *MESSAGES,
        {"role": "assistant", "content": [{"type": "tool_use", "id": block.id, "name": block.name, "input": block.input}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}]},
    ]
    after = strict(client.messages.create(model=MODEL, messages=history, max_tokens=50, tools=[TOOL]))
    return {"stop": answer.stop_reason, "name": block.name, "input": block.input, "after": after.stop_reason}


def tools_streamed() -> Any:
    with client.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=50, tools=[TOOL], tool_choice={"type": "any"}) as stream:
        final = stream.get_final_message()
    return {"stop": final.stop_reason, "name": final.content[0].name, "input": final.content[0].input}


def vision() -> Any:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "What?"}]
    answer = strict(client.messages.create(model=MODEL, messages=[{"role": "user", "content": content}], max_tokens=50))
    return {"text": answer.content[0].text}


def count_tokens() -> Any:
    return {"input": strict(client.messages.count_tokens(model=MODEL, messages=MESSAGES)).input_tokens}


def models() -> Any:
    return {"ids": [strict(model).id for model in client.models.list()]}


def asynchronous() -> Any:
    async def run() -> Any:
        async with AsyncAnthropic() as asynchronous_client:
            calls = [asynchronous_client.messages.create(model=MODEL, messages=MESSAGES, max_tokens=50) for _ in range(5)]
            answers = await asyncio.gather(*calls)
            async with asynchronous_client.messages.stream(model=MODEL, messages=MESSAGES, max_tokens=50) as stream:
                text = "".join([part async for part in stream.text_stream])
            return {"texts": len({answer.content[0].text for answer in answers}), "text": text}

    return asyncio.run(run())


def unknown_model() -> Any:
    return refused(client, "claude-does-not-exist")


def plain_counted() -> Any:
    return refused(client)


def refused(refused_client: Anthropic, model: str = MODEL, **members: Any) -> Any:
    """What the SDK raises, after how many requests and seconds."""
    counter.requests = 0
    began = time.monotonic()
    try:
        refused_client.messages.create(model=model, messages=MESSAGES, max_tokens=50, **members)
    except anthropic.APIStatusError as error:
        body: Any = error.body
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "type": body.get("error", {}).get("type") if isinstance(body, dict) else None,
            "message": error.message,
            "requests": counter.requests,
            "seconds": time.monotonic() - began,
            "has_payment_class": hasattr(anthropic, "PaymentRequiredError"),
        }
    return {"class": None, "requests": counter.requests, "seconds": time.monotonic() - began}


CHECKS: dict[str, Callable[[], Any]] = {
    check.__name__: check
    for check in (
        plain, cut, streamed, stream_helper, tools, tools_streamed, vision, count_tokens, models, asynchronous, unknown_model,
        plain_counted,
    )
}  # fmt: skip


def attempt(check: Callable[[], Any]) -> Any:
    try:
        return check()
    except Exception:  # noqa: BLE001  (whatever it is, the test shows it)
        return {"failed": traceback.format_exc()}


def main() -> None:
    results: dict[str, Any] = {"version": anthropic.__version__}
    results |= {name: attempt(check) for name, check in CHECKS.items() if os.environ.get("ONLY", name) == name}
    for name, members in json.loads(os.environ.get("REFUSALS", "{}")).items():
        os.environ["ANTHROPIC_API_KEY"] = members.pop("key")
        options = members.pop("client", {})
        results[name] = attempt(lambda options=options, members=members: refused(Anthropic(**options), **members))
    print(json.dumps(results))


main()
