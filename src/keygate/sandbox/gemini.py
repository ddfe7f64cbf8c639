"""Google's Gemini API: generateContent, streamGenerateContent, countTokens and models, under `/google/v1` and `/google/v1beta`; of Vertex
AI what an API key can call without a project in the path, under `/google/v1beta1/publishers/google`.

Shapes: google-genai 3.6.1 `types.py` (GenerateContentResponse, Candidate, UsageMetadata), which its client parses; `usageMetadata` is
cumulative on a stream. Errors: `errors.py`. The model stands in the path, so a dialect is made for each call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import msgspec

from keygate.sandbox import reading, tokens
from keygate.sandbox.answer import Answer, Asked, Finish, Frame, Tool, encode, measure, text_of
from keygate.sandbox.catalogue import Model, Use
from keygate.sandbox.errors import VendorError, invalid
from keygate.sandbox.model import Usage, Vendor

PREFIX = "/google"
SERVICE: ContextVar[str] = ContextVar("service", default="generativelanguage.googleapis.com")  # that the call in progress came to
_VERTEX = re.compile(r"/google/v1(?:beta1)?/(publishers/google/models/.+)")
_PATH = re.compile(r"/google/v1(?:beta)?/models(?:/([^/:]+)(?::(generateContent|streamGenerateContent|countTokens))?)?")
_FINISH = {Finish.STOP: "STOP", Finish.LENGTH: "MAX_TOKENS", Finish.TOOL: "STOP"}


def find(path: str) -> tuple[str | None, str | None] | None:
    """`(model, method)` of a path of the API; None: not one. Vertex AI's are the same below `publishers/google`."""
    vertex = _VERTEX.fullmatch(path)
    SERVICE.set("aiplatform.googleapis.com" if vertex else "generativelanguage.googleapis.com")
    found = _PATH.fullmatch(path if vertex is None else path.replace("/v1beta1/", "/v1/").replace("publishers/google/", ""))
    return None if found is None else (found[1], found[2])


class Generate:
    use = Use.CHAT
    id_prefix = ""

    def __init__(self, model: str, *, streamed: bool) -> None:
        self._model = model
        self._streamed = streamed

    def read(self, body: dict[str, Any]) -> Asked:
        contents = reading.items(body, "contents")
        if not contents:
            raise invalid("* GenerateContentRequest.contents: contents is not specified")
        settings = body.get("generationConfig")
        maximum = settings.get("maxOutputTokens") if isinstance(settings, dict) else None
        if maximum is not None and (isinstance(maximum, bool) or not isinstance(maximum, int) or maximum < 1):
            raise invalid("* GenerateContentRequest.generation_config.max_output_tokens: must be positive")
        offered = [each for tool in reading.items(body, "tools") for each in reading.items(tool, "functionDeclarations")]
        last = contents[-1].get("parts")
        answered = isinstance(last, list) and any(isinstance(part, dict) and "functionResponse" in part for part in last)
        last_text = text_of(last)
        schema = settings.get("responseJsonSchema") if isinstance(settings, dict) else None
        return Asked(
            model=self._model,
            body=body,
            prompt=[contents, body.get("systemInstruction"), offered],
            messages=len(contents),
            last_text=last_text,
            max_output=maximum,
            streamed=self._streamed,
            tool=None if answered else _tool(offered, body.get("toolConfig"), last_text),
            structure=schema,
            has_structure=schema is not None,
        )

    def check(self, asked: Asked, model: Model) -> None:
        """Google takes a larger maximum than the model has, and stops at the model's."""

    def _part(self, answer: Answer, text: str) -> dict[str, Any]:
        tool = answer.asked.tool
        if tool is None:
            return {"text": text}
        given = {} if answer.finish is Finish.LENGTH else msgspec.json.decode(answer.text)
        return {"functionCall": {"name": tool.name, "args": given}}

    def _body(self, answer: Answer, parts: list[dict[str, Any]], *, produced: int, finish: str | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if finish is not None:
            candidate["finishReason"] = finish
        body: dict[str, Any] = {"candidates": [candidate], "modelVersion": answer.model, "responseId": answer.id}
        return {**body, "usageMetadata": _usage_of(answer.usage, produced)} if answer.show_usage else body

    def whole(self, answer: Answer) -> dict[str, Any]:
        part = self._part(answer, answer.text)
        return self._body(answer, [part], produced=answer.usage.output, finish=_FINISH[answer.finish])

    def frames(self, answer: Answer) -> Iterator[Frame]:
        produced = answer.reasoning
        last = len(answer.pieces) - 1
        for number, (text, count) in enumerate(answer.pieces):
            produced += count
            finish = _FINISH[answer.finish] if number == last else None
            parts = [self._part(answer, text)] if answer.asked.tool is None or number == last else []
            data = b"data: " + encode(self._body(answer, parts, produced=produced, finish=finish)) + b"\r\n\r\n"
            first = number == 0
            yield Frame(data, count + answer.reasoning * first, answer.reasoning * first, piece=True)

    def error_frame(self, error: VendorError, request_id: str) -> bytes:
        return b"data: " + encode(error.body(Vendor.GOOGLE, request_id)) + b"\r\n\r\n"


class CountTokens(Generate):
    """Answers a number and bills nothing."""

    def read(self, body: dict[str, Any]) -> Asked:
        inner = body.get("generateContentRequest")
        return super().read(inner if isinstance(inner, dict) else body)

    def count(self, asked: Asked, *, body_bytes: int) -> dict[str, Any]:
        return {"totalTokens": tokens.input_tokens(measure(asked.prompt), asked.messages, body_bytes=body_bytes)}


def dialect_of(model: str, method: str) -> Generate:
    if method == "countTokens":
        return CountTokens(model, streamed=False)
    return Generate(model, streamed=method == "streamGenerateContent")


def _tool(offered: list[dict[str, Any]], config: Any, last_text: str) -> Tool | None:
    calling = config.get("functionCallingConfig") if isinstance(config, dict) else None
    mode = calling.get("mode", "AUTO") if isinstance(calling, dict) else "AUTO"
    tools = [Tool(str(each.get("name", "")), each.get("parametersJsonSchema") or _lower(each.get("parameters"))) for each in offered]
    if mode == "NONE":
        return None
    if mode == "ANY":
        return tools[0] if tools else None
    return next((tool for tool in tools if tool.name and tool.name in last_text), None)


def _lower(schema: Any) -> Any:
    """Google's schemas have their types in capitals."""
    if isinstance(schema, dict):
        return {name: value.lower() if name == "type" and isinstance(value, str) else _lower(value) for name, value in schema.items()}
    return [_lower(each) for each in schema] if isinstance(schema, list) else schema


def _usage_of(usage: Usage, produced: int) -> dict[str, Any]:
    """`candidatesTokenCount` leaves out what was thought."""
    shown: dict[str, Any] = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": max(0, produced - usage.reasoning),
        "totalTokenCount": usage.input + produced,
    }
    if usage.cache_read:
        shown["cachedContentTokenCount"] = usage.cache_read
    if usage.reasoning:
        shown["thoughtsTokenCount"] = usage.reasoning
    return shown


def model_body(model: Model) -> dict[str, Any]:
    return {
        "name": f"models/{model.name}",
        "version": "001",
        "displayName": model.name.replace("-", " ").title(),
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": model.max_output,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


def model_list(models: Iterable[Model]) -> dict[str, Any]:
    return {"models": [model_body(model) for model in models]}
