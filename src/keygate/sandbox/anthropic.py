"""Anthropic messages, count_tokens and models. Shapes: the SDK's own response types (anthropic 0.125 and 2.8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from keygate.sandbox import reading, tokens
from keygate.sandbox.answer import Answer, Asked, Finish, Frame, Tool, encode, measure, text_of, wanted_tool
from keygate.sandbox.catalogue import Model, Use
from keygate.sandbox.errors import VendorError, invalid
from keygate.sandbox.model import Usage, Vendor

_FINISH = {Finish.STOP: "end_turn", Finish.LENGTH: "max_tokens", Finish.TOOL: "tool_use"}


def _event(kind: str, **members: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + encode({"type": kind, **members}) + b"\n\n"


def _usage_of(usage: Usage, output: int) -> dict[str, Any]:
    written = usage.cache_write + usage.cache_write_1h
    return {
        "input_tokens": usage.input - usage.cache_read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": usage.cache_write_1h},
        "output_tokens": output,
        "service_tier": "standard",
    }


class Messages:
    use = Use.CHAT
    id_prefix = "msg_"
    needs_maximum = True

    def read(self, body: dict[str, Any]) -> Asked:
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise invalid("model: Field required")
        if not isinstance(body.get("messages"), list):
            raise invalid("messages: Field required")
        messages = reading.items(body, "messages")
        if not messages:
            raise invalid("messages: at least one message is required")
        maximum = body.get("max_tokens")
        if self.needs_maximum and maximum is None:
            raise invalid("max_tokens: Field required")
        if self.needs_maximum and (isinstance(maximum, bool) or not isinstance(maximum, int)):
            raise invalid("max_tokens: Input should be a valid integer")
        if isinstance(maximum, int) and maximum < 1:
            raise invalid("max_tokens: Input should be greater than or equal to 1")
        offered = reading.items(body, "tools")
        custom = [tool for tool in offered if "input_schema" in tool]
        last = messages[-1]
        content = last.get("content")
        answered = isinstance(content, list) and any(isinstance(part, dict) and part.get("type") == "tool_result" for part in content)
        last_text = text_of(content)
        return Asked(
            model=model,
            body=body,
            prompt=[messages, body.get("system"), offered],
            messages=len(messages),
            last_text=last_text,
            max_output=maximum if isinstance(maximum, int) else None,
            streamed=body.get("stream") is True,
            tool=wanted_tool(
                [Tool(str(tool.get("name", "")), tool.get("input_schema")) for tool in custom],
                body.get("tool_choice", "auto"),
                "" if answered else last_text,
            ),
        )

    def check(self, asked: Asked, model: Model) -> None:
        if model.max_output is not None and asked.max_output is not None and asked.max_output > model.max_output:
            limit = f"{asked.max_output} > {model.max_output}, which is the maximum allowed number of output tokens for {asked.model}"
            raise invalid(f"max_tokens: {limit}")

    def _message(self, answer: Answer, content: list[dict[str, Any]], stop: str | None, output: int) -> dict[str, Any]:
        return {
            "id": answer.id,
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            **({"usage": _usage_of(answer.usage, output)} if answer.show_usage else {}),
        }

    def whole(self, answer: Answer) -> dict[str, Any]:
        tool = answer.asked.tool
        if tool is None:
            block: dict[str, Any] = {"type": "text", "text": answer.text}
        else:
            given = {} if answer.finish is Finish.LENGTH else msgspec.json.decode(answer.text)
            block = {"type": "tool_use", "id": f"toolu_{answer.call_id}", "name": tool.name, "input": given}
        return self._message(answer, [block], _FINISH[answer.finish], answer.usage.output)

    def frames(self, answer: Answer) -> Iterator[Frame]:
        tool = answer.asked.tool
        block: dict[str, Any] = {"type": "text", "text": ""}
        if tool is not None:
            block = {"type": "tool_use", "id": f"toolu_{answer.call_id}", "name": tool.name, "input": {}}
        first = min(1, answer.usage.output)
        yield Frame(_event("message_start", message=self._message(answer, [], None, first)), answer.reasoning, answer.reasoning)
        yield Frame(_event("content_block_start", index=0, content_block=block))
        yield Frame(_event("ping"))
        for text, count in answer.pieces:
            delta = {"type": "text_delta", "text": text} if tool is None else {"type": "input_json_delta", "partial_json": text}
            yield Frame(_event("content_block_delta", index=0, delta=delta), count, piece=True)
        yield Frame(_event("content_block_stop", index=0))
        usage = _usage_of(answer.usage, answer.usage.output)
        for name in ("cache_creation", "service_tier"):
            usage.pop(name)
        ending: dict[str, Any] = {"delta": {"stop_reason": _FINISH[answer.finish], "stop_sequence": None}}
        if answer.show_usage:
            ending["usage"] = usage
        yield Frame(_event("message_delta", **ending))
        yield Frame(_event("message_stop"))

    def error_frame(self, error: VendorError, request_id: str) -> bytes:
        return b"event: error\ndata: " + encode(error.body(Vendor.ANTHROPIC, request_id)) + b"\n\n"


class CountTokens(Messages):
    """Answers a number and bills nothing."""

    needs_maximum = False

    def count(self, asked: Asked, *, body_bytes: int) -> dict[str, Any]:
        return {"input_tokens": tokens.input_tokens(measure(asked.prompt), asked.messages, body_bytes=body_bytes)}


def model_body(model: Model) -> dict[str, Any]:
    title = model.name.replace("-", " ").title()
    return {
        "type": "model",
        "id": model.name,
        "display_name": title,
        "created_at": "2025-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_tokens": model.max_output,
    }


def model_list(models: Iterable[Model]) -> dict[str, Any]:
    data = [model_body(model) for model in models]
    return {
        "data": data,
        "has_more": False,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }
