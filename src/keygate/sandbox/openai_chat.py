"""OpenAI chat completions and completions. Shapes: contracts/openai/openapi.json, `CreateChatCompletionResponse` and its stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keygate.sandbox import reading
from keygate.sandbox.answer import Answer, Asked, Finish, Frame, Tool, encode, text_of, wanted_tool
from keygate.sandbox.catalogue import Model, Use
from keygate.sandbox.errors import VendorError, invalid
from keygate.sandbox.model import Usage, Vendor

_FINISH = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.TOOL: "tool_calls"}


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "audio_tokens": 0,
            "cache_write_tokens": usage.cache_write + usage.cache_write_1h,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def data_frame(value: Any) -> bytes:
    return b"data: " + encode(value) + b"\n\n"


def check_maximum(asked: Asked, model: Model, name: str) -> None:
    if model.max_output is not None and asked.max_output is not None and asked.max_output > model.max_output:
        message = f"{name} is too large: {asked.max_output}. This model supports at most {model.max_output} completion tokens."
        raise invalid(message, name, code="invalid_value")


def read_structure(container: Any) -> tuple[bool, Any]:
    """Whether JSON is asked for (`response_format`, `text.format`), and by which schema."""
    if not isinstance(container, dict) or container.get("type") not in {"json_object", "json_schema"}:
        return False, None
    inner = container.get("json_schema", container)
    return True, inner.get("schema") if isinstance(inner, dict) else None


class Chat:
    use = Use.CHAT
    id_prefix = "chatcmpl-"

    def read(self, body: dict[str, Any]) -> Asked:
        model = reading.model_of(body)
        messages = reading.items(body, "messages")
        if not messages:
            raise invalid("Missing required parameter: 'messages'.", "messages", code="missing_required_parameter")
        last = messages[-1]
        users = (text_of(message.get("content")) for message in reversed(messages) if message.get("role") == "user")
        last_text = next(users, "")
        functions = [tool["function"] for tool in reading.items(body, "tools") if isinstance(tool.get("function"), dict)]
        tools = [Tool(str(one.get("name", "")), one.get("parameters")) for one in functions]
        choice = body.get("tool_choice", "auto")
        maximum = reading.positive(body, "max_completion_tokens")
        has_structure, structure = read_structure(body.get("response_format"))
        options = body.get("stream_options")
        return Asked(
            model=model,
            body=body,
            prompt=[messages, functions],
            messages=len(messages),
            last_text=last_text,
            max_output=reading.positive(body, "max_tokens") if maximum is None else maximum,
            answers=reading.positive(body, "n") or 1,
            streamed=reading.streamed(body),
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            tool=wanted_tool(tools, choice, last_text if last.get("role") != "tool" else ""),
            structure=structure,
            has_structure=has_structure,
            service_tier=reading.tier_of(body),
        )

    def check(self, asked: Asked, model: Model) -> None:
        if model.reasons and asked.body.get("max_tokens") is not None:
            message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
            raise invalid(message, "max_tokens", code="unsupported_parameter")
        check_maximum(asked, model, "max_tokens" if asked.body.get("max_completion_tokens") is None else "max_completion_tokens")

    def whole(self, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
        tool = answer.asked.tool
        if tool is not None:
            message["content"] = None
            call = {"id": f"call_{answer.call_id}", "type": "function", "function": {"name": tool.name, "arguments": answer.text}}
            message["tool_calls"] = [call]
        choice = {"message": message, "logprobs": None, "finish_reason": _FINISH[answer.finish]}
        return {
            "id": answer.id,
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.model,
            "choices": [{"index": index, **choice} for index in range(answer.asked.answers)],
            **({"usage": usage_of(answer.usage)} if answer.show_usage else {}),
            "service_tier": answer.asked.service_tier,
            "system_fingerprint": "fp_sandbox",
        }

    def frames(self, answer: Answer) -> Iterator[Frame]:
        asked = answer.asked
        base = {
            "id": answer.id,
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": answer.model,
            "service_tier": asked.service_tier,
            "system_fingerprint": "fp_sandbox",
        }
        usage_null = {"usage": None} if asked.include_usage else {}

        def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            return data_frame({**base, "choices": [choice], **usage_null})

        for index in range(asked.answers):
            delta: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
            if asked.tool is not None:
                function = {"name": asked.tool.name, "arguments": ""}
                call = {"index": 0, "id": f"call_{answer.call_id}", "type": "function", "function": function}
                delta = {"role": "assistant", "content": None, "tool_calls": [call]}
            yield Frame(chunk(index, delta), tokens=answer.reasoning, reasoning=answer.reasoning)
        for text, tokens in answer.pieces:
            for index in range(asked.answers):
                delta = {"content": text} if asked.tool is None else {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
                yield Frame(chunk(index, delta), tokens=tokens, piece=True)
        for index in range(asked.answers):
            yield Frame(chunk(index, {}, _FINISH[answer.finish]))
        if asked.include_usage and answer.show_usage:
            yield Frame(data_frame({**base, "choices": [], "usage": usage_of(answer.usage)}))
        yield Frame(b"data: [DONE]\n\n")

    def error_frame(self, error: VendorError, request_id: str) -> bytes:
        return data_frame(error.body(Vendor.OPENAI, request_id))


class Completions(Chat):
    use = Use.COMPLETIONS
    id_prefix = "cmpl-"

    def read(self, body: dict[str, Any]) -> Asked:
        model = reading.model_of(body)
        prompt = body.get("prompt", "<|endoftext|>")
        several = prompt if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list) else [prompt]
        count = max(reading.positive(body, "n") or 1, reading.positive(body, "best_of") or 1)
        options = body.get("stream_options")
        texts = [one for one in several if isinstance(one, str)]
        ids = sum(len(one) for one in several if isinstance(one, list))
        return Asked(
            model=model,
            body=body,
            prompt=["x" * min(4 * ids, 4_000_000), texts],
            messages=0,
            last_text=texts[-1] if texts else "",
            max_output=reading.positive(body, "max_tokens") or 16,  # the vendor's own default
            answers=len(several) * count,
            streamed=reading.streamed(body),
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        )

    def check(self, asked: Asked, model: Model) -> None:
        check_maximum(asked, model, "max_tokens")

    def _base(self, answer: Answer) -> dict[str, Any]:
        return {"id": answer.id, "object": "text_completion", "created": answer.created, "model": answer.model}

    def whole(self, answer: Answer) -> dict[str, Any]:
        shown = answer.asked.answers
        body = {
            **self._base(answer),
            "choices": [
                {"text": answer.text, "index": index, "logprobs": None, "finish_reason": _FINISH[answer.finish]} for index in range(shown)
            ],
        }
        return {**body, "usage": usage_of(answer.usage)} if answer.show_usage else body

    def frames(self, answer: Answer) -> Iterator[Frame]:
        base = self._base(answer)
        usage_null = {"usage": None} if answer.asked.include_usage else {}
        last = len(answer.pieces) - 1
        for position, (text, tokens) in enumerate(answer.pieces):
            for index in range(answer.asked.answers):
                finish = _FINISH[answer.finish] if position == last else None
                choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
                extra = answer.reasoning if position == 0 else 0
                yield Frame(data_frame({**base, "choices": [choice], **usage_null}), tokens + extra, extra, piece=True)
        if answer.asked.include_usage and answer.show_usage:
            yield Frame(data_frame({**base, "choices": [], "usage": usage_of(answer.usage)}))
        yield Frame(b"data: [DONE]\n\n")
