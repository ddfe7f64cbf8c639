"""OpenAI responses, and the count of its input tokens.

Source: the vendor's API description (`openapi.json`, CreateResponse, Tool, InputItem, ResponseStreamEvent) and the Python SDK's types
(openai 3.52.0), 2026-11-20.
"""

from __future__ import annotations

from typing import Any, ClassVar

from keygate.gateway.dialects import bounds
from keygate.gateway.dialects.bodies import BodyDecoder, count, flag, given, insert, model_name, replace, safe_word, text
from keygate.gateway.dialects.body_tap import BodyTap, NoTap, searches, tap_for, whole_json
from keygate.gateway.dialects.event_stream import EventTap
from keygate.gateway.dialects.interface import BadBody, Codec, Facts, Tap
from keygate.gateway.dialects.openai_chat import model_features, tier_features
from keygate.gateway.dialects.parts import Tally, blob_bytes, tool_types
from keygate.gateway.dialects.refusals import openai_stream_error, responses_stream_error
from keygate.gateway.dialects.request_shapes import Item, ItemOutput, Response
from keygate.gateway.dialects.usage import openai_usage
from keygate.vendors import Dialect, ErrorStyle

MIN_OUTPUT = 16  # the least `max_output_tokens` that the vendor takes

# The caller runs these; all others run at the vendor and cost what tokens don't bound.
_CALLERS_TOOLS = frozenset({"function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview"})
# Items whose tokens the body shows. All others (references, compacted histories, results of the vendor's tools) count as unknown input.
_SHOWN = frozenset(
    {
        None,
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "local_shell_call",
        "local_shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "computer_call",
        "computer_call_output",
    }
)


_END_MARKS = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"', b"event: error", b'"type":"error"', b"[DONE]")


class ResponsesTap(EventTap):
    """Typed events; `response.usage` in the one that ends the stream."""

    __slots__ = ()
    HEADS = 1
    QUIET = (b"event: response.output_text.delta\n", b"event: response.function_call_arguments.delta\n", b"event: response.reasoning")
    _ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})

    def _matters(self, chunk: bytes) -> bool:
        if b'"usage"' in chunk and chunk.count(b'"usage"') != chunk.count(b'"usage":null'):
            return True
        return any(end in chunk for end in _END_MARKS)

    def _read(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        if kind == "error" or event.get("error"):
            self._error = True
        response = event.get("response")
        if isinstance(response, dict):
            self._named(response)
            if kind in self._ENDS:
                self._complete = self.done = True
                self._error = self._error or kind == "response.failed"
                self._usage = openai_usage(response.get("usage"), web_searches=searches(response.get("output")))
        return False


class ResponsesCodec(Codec):
    dialect: ClassVar[Dialect] = Dialect.OPENAI_RESPONSES
    error_style: ClassVar[ErrorStyle] = ErrorStyle.OPENAI

    def __init__(self) -> None:
        self._decoder = BodyDecoder(Response)

    def read(self, body: bytes, content_type: bytes | None) -> Facts:
        asked = self._decoder.decode(body, content_type)
        model = model_name(asked.model)
        if flag("background", asked.background):
            raise BadBody("background", "background responses are not served: their cost can't be metered", code="unsupported_feature")
        tier = text("service_tier", asked.service_tier)
        unbounded = model_features(model) + tier_features(tier)
        tally = Tally()
        if isinstance(asked.input, list):
            _tally_items(tally, asked.input)
        bound = len(body) + bounds.OVERHEAD + tally.images * bounds.image_bound(model)
        if asked.tools:
            bound += bounds.TOOLS
            unbounded += tuple(safe_word(kind) for kind in tool_types(asked.tools) if kind not in _CALLERS_TOOLS)
        if given(asked.prompt):
            unbounded += ("stored_prompt",)  # it may bring tools along
        if given(asked.context_management):
            unbounded += ("context_management",)  # compaction runs the model again
        if tally.audio:
            unbounded += ("audio",)
        return Facts(
            model=model,
            stream=flag("stream", asked.stream),
            output_max=count("max_output_tokens", asked.max_output_tokens),
            output_min=MIN_OUTPUT,
            input_bound=bound,
            images=tally.images,
            input_unknown=tally.unknown or given(asked.previous_response_id) or given(asked.conversation) or given(asked.prompt),
            cache_write_possible=True,
            service_tier=tier,
            unbounded=unbounded,
        )

    def tight_input_bound(self, body: bytes) -> int:
        facts = self.read(body, None)
        return min(facts.input_bound, facts.input_bound - len(body) + bounds.walked(body, blobs=blob_bytes))

    def rewrite(
        self, body: bytes, facts: Facts, *, model: str | None = None, max_output: int | None = None, include_usage: bool = False
    ) -> bytes:
        changes: dict[str, object] = {}
        if model is not None and model != facts.model:
            changes["model"] = model
        if max_output is not None:
            if not changes and b"max_output_tokens" not in body and b"\\u00" not in body:
                return insert(body, "max_output_tokens", max_output)
            changes["max_output_tokens"] = max_output
        return replace(body, changes) if changes else body

    def tap(self, facts: Facts, *, content_type: bytes | None, content_encoding: bytes | None) -> Tap:
        if whole_json(content_type, content_encoding):
            return BodyTap(openai_usage, items=True)
        return tap_for(ResponsesTap(), BodyTap(openai_usage, items=True), content_type=content_type, content_encoding=content_encoding)

    def stream_error(self, message: str, *, code: str, status: int = 500) -> bytes:
        return responses_stream_error(message, code=code, status=status)


class InputTokensCodec(ResponsesCodec):
    """`POST /responses/input_tokens` counts and is not billed."""

    dialect: ClassVar[Dialect] = Dialect.OPENAI_INPUT_TOKENS

    def read(self, body: bytes, content_type: bytes | None) -> Facts:
        asked = self._decoder.decode(body, content_type)
        return Facts(model=model_name(asked.model), output_max=0, output_free=True, input_bound=len(body))

    def tight_input_bound(self, body: bytes) -> int:
        return len(body)

    def rewrite(
        self, body: bytes, facts: Facts, *, model: str | None = None, max_output: int | None = None, include_usage: bool = False
    ) -> bytes:
        return replace(body, {"model": model}) if model is not None and model != facts.model else body

    def tap(self, facts: Facts, *, content_type: bytes | None, content_encoding: bytes | None) -> Tap:
        return NoTap()

    def stream_error(self, message: str, *, code: str, status: int = 500) -> bytes:
        return openai_stream_error(message, code=code, status=status)


def _tally_items(tally: Tally, items: list[Item]) -> None:
    for item in items:
        if item.type not in _SHOWN:
            tally.unknown = True
        if isinstance(item.content, list):
            tally.take(item.content)
        if isinstance(item.output, list):
            tally.take(item.output)
        elif isinstance(item.output, ItemOutput):
            tally.images += item.output.type == "computer_screenshot"
            tally.unknown = tally.unknown or item.output.type != "computer_screenshot"
