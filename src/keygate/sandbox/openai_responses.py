"""OpenAI responses. Shapes: contracts/openai/openapi.json, `Response` and `ResponseStreamEvent`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keygate.sandbox import reading
from keygate.sandbox.answer import Answer, Asked, Finish, Frame, Tool, encode, text_of, wanted_tool
from keygate.sandbox.catalogue import Model, Use
from keygate.sandbox.errors import VendorError, invalid
from keygate.sandbox.model import Usage
from keygate.sandbox.openai_chat import check_maximum, read_structure

LEAST_MAXIMUM = 16  # the vendor refuses a smaller `max_output_tokens`


def _usage_of(usage: Usage) -> dict[str, Any]:
    written = usage.cache_write + usage.cache_write_1h
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": written},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


class Responses:
    use = Use.CHAT
    id_prefix = "resp_"

    def read(self, body: dict[str, Any]) -> Asked:
        model = reading.model_of(body)
        given = body.get("input")
        if not isinstance(given, str | list) or not given:
            raise invalid("Missing required parameter: 'input'.", "input", code="missing_required_parameter")
        entries = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
        users = (text_of(item.get("content")) for item in reversed(entries) if item.get("role") == "user")
        last_text = given if isinstance(given, str) else next(users, "")
        answered = bool(entries) and entries[-1].get("type") == "function_call_output"
        functions = [tool for tool in reading.items(body, "tools") if tool.get("type") == "function"]
        tools = [Tool(str(tool.get("name", "")), tool.get("parameters")) for tool in functions]
        text = body.get("text")
        has_structure, structure = read_structure(text.get("format") if isinstance(text, dict) else None)
        return Asked(
            model=model,
            body=body,
            prompt=[given, body.get("instructions"), functions],
            messages=max(len(entries), 1),
            last_text=last_text,
            max_output=reading.positive(body, "max_output_tokens", least=LEAST_MAXIMUM),
            streamed=reading.streamed(body),
            tool=wanted_tool(tools, body.get("tool_choice", "auto"), "" if answered else last_text),
            structure=structure,
            has_structure=has_structure,
            service_tier=reading.tier_of(body),
        )

    def check(self, asked: Asked, model: Model) -> None:
        check_maximum(asked, model, "max_output_tokens")

    def _response(self, answer: Answer, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        body = answer.asked.body
        ended = status not in {"in_progress", "queued"}
        text = body.get("text")
        return {
            "id": answer.id,
            "object": "response",
            "created_at": answer.created,
            "status": status,
            "completed_at": answer.created if status == "completed" else None,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "model": answer.model,
            "output": output,
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "previous_response_id": body.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None},
            "service_tier": answer.asked.service_tier,
            "store": body.get("store", True),
            "temperature": body.get("temperature", 1.0),
            "text": text if isinstance(text, dict) and "format" in text else {"format": {"type": "text"}},
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools", []),
            "top_p": body.get("top_p", 1.0),
            "truncation": body.get("truncation", "disabled"),
            **({"usage": _usage_of(answer.usage)} if ended and answer.show_usage else {}),
            "metadata": body.get("metadata") or {},
        }

    def _item(self, answer: Answer, status: str, text: str) -> dict[str, Any]:
        tool = answer.asked.tool
        if tool is not None:
            call_id = answer.call_id
            return {
                "id": f"fc_{call_id}",
                "type": "function_call",
                "status": status,
                "call_id": f"call_{call_id}",
                "name": tool.name,
                "arguments": text,
            }
        content = [] if status == "in_progress" else [self._part(text)]
        return {"id": f"msg_{answer.call_id}", "type": "message", "role": "assistant", "status": status, "content": content}

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _status(self, answer: Answer) -> str:
        return "incomplete" if answer.finish is Finish.LENGTH else "completed"

    def whole(self, answer: Answer) -> dict[str, Any]:
        status = self._status(answer)
        return self._response(answer, status, [self._item(answer, status, answer.text)])

    def frames(self, answer: Answer) -> Iterator[Frame]:
        number = -1

        def event(kind: str, **members: Any) -> bytes:
            nonlocal number
            number += 1
            body = encode({"type": kind, "sequence_number": number, **members})
            return b"event: " + kind.encode() + b"\ndata: " + body + b"\n\n"

        status = self._status(answer)
        started = self._response(answer, "in_progress", [])
        item = self._item(answer, "in_progress", "")
        done = self._item(answer, status, answer.text)
        place = {"item_id": item["id"], "output_index": 0}
        yield Frame(event("response.created", response=started))
        yield Frame(event("response.in_progress", response=started), answer.reasoning, answer.reasoning)
        yield Frame(event("response.output_item.added", output_index=0, item=item))
        if answer.asked.tool is not None:
            for text, tokens in answer.pieces:
                yield Frame(event("response.function_call_arguments.delta", **place, delta=text), tokens, piece=True)
            yield Frame(event("response.function_call_arguments.done", **place, name=done["name"], arguments=answer.text))
        else:
            place["content_index"] = 0
            yield Frame(event("response.content_part.added", **place, part=self._part("")))
            for text, tokens in answer.pieces:
                yield Frame(event("response.output_text.delta", **place, delta=text, logprobs=[]), tokens, piece=True)
            yield Frame(event("response.output_text.done", **place, text=answer.text, logprobs=[]))
            yield Frame(event("response.content_part.done", **place, part=self._part(answer.text)))
        yield Frame(event("response.output_item.done", output_index=0, item=done))
        yield Frame(event(f"response.{status}", response=self._response(answer, status, [done])))

    def error_frame(self, error: VendorError, request_id: str) -> bytes:
        message = f"{error.message} Include the request ID {request_id} in your message."
        body = {"type": "error", "code": error.code or "server_error", "message": message, "param": None, "sequence_number": 10_000}
        return b"event: error\ndata: " + encode(body) + b"\n\n"
