"""OpenAI embeddings, moderations and models: no output is billed, nothing streams."""

from __future__ import annotations

from typing import ClassVar

from keygate.gateway.dialects import bounds
from keygate.gateway.dialects.bodies import BodyDecoder, model_name, replace
from keygate.gateway.dialects.body_tap import BodyTap, NoTap, tap_for
from keygate.gateway.dialects.interface import BadBody, Codec, Facts, Tap
from keygate.gateway.dialects.refusals import anthropic_stream_error, openai_stream_error
from keygate.gateway.dialects.request_shapes import Inputs
from keygate.gateway.dialects.usage import openai_usage
from keygate.vendors import Dialect, ErrorStyle

DEFAULT_MODERATION = "omni-moderation-latest"  # openapi.json, CreateModerationRequest.model.default


class EmbeddingsCodec(Codec):
    dialect: ClassVar[Dialect] = Dialect.OPENAI_EMBEDDINGS
    error_style: ClassVar[ErrorStyle] = ErrorStyle.OPENAI

    def __init__(self) -> None:
        self._decoder = BodyDecoder(Inputs)

    def read(self, body: bytes, content_type: bytes | None) -> Facts:
        asked = self._decoder.decode(body, content_type)
        return Facts(model=model_name(asked.model), output_max=0, output_free=True, input_bound=len(body) + bounds.OVERHEAD)

    def tight_input_bound(self, body: bytes) -> int:
        return min(len(body), bounds.walked(body, blobs=lambda _: 0)) + bounds.OVERHEAD

    def rewrite(
        self, body: bytes, facts: Facts, *, model: str | None = None, max_output: int | None = None, include_usage: bool = False
    ) -> bytes:
        return replace(body, {"model": model}) if model is not None and model != facts.model else body

    def tap(self, facts: Facts, *, content_type: bytes | None, content_encoding: bytes | None) -> Tap:
        body = BodyTap(openai_usage, usage_last=True)
        return tap_for(body, body, content_type=content_type, content_encoding=content_encoding)

    def stream_error(self, message: str, *, code: str, status: int = 500) -> bytes:
        return openai_stream_error(message, code=code, status=status)


class ModerationsCodec(EmbeddingsCodec):
    """Free of charge; the model has a default."""

    dialect: ClassVar[Dialect] = Dialect.OPENAI_MODERATIONS

    def read(self, body: bytes, content_type: bytes | None) -> Facts:
        asked = self._decoder.decode(body, content_type)
        absent = getattr(asked.model, "value", None) is None
        return Facts(
            model=DEFAULT_MODERATION if absent else model_name(asked.model),
            output_max=0,
            output_free=True,
            input_bound=len(body) + bounds.OVERHEAD,
        )


class ModelsCodec(Codec):
    """Lists of models: no body, answered by the gateway itself."""

    dialect: ClassVar[Dialect] = Dialect.OPENAI_MODELS
    error_style: ClassVar[ErrorStyle] = ErrorStyle.OPENAI

    def read(self, body: bytes, content_type: bytes | None) -> Facts:
        if body.strip():
            raise BadBody("", "this endpoint takes no body")
        return Facts(output_max=0, output_free=True)

    def tight_input_bound(self, body: bytes) -> int:
        return 0

    def rewrite(
        self, body: bytes, facts: Facts, *, model: str | None = None, max_output: int | None = None, include_usage: bool = False
    ) -> bytes:
        return body

    def tap(self, facts: Facts, *, content_type: bytes | None, content_encoding: bytes | None) -> Tap:
        return NoTap()

    def stream_error(self, message: str, *, code: str, status: int = 500) -> bytes:
        return openai_stream_error(message, code=code, status=status)


class AnthropicModelsCodec(ModelsCodec):
    dialect: ClassVar[Dialect] = Dialect.ANTHROPIC_MODELS
    error_style: ClassVar[ErrorStyle] = ErrorStyle.ANTHROPIC

    def stream_error(self, message: str, *, code: str, status: int = 500) -> bytes:
        return anthropic_stream_error(message, code=code, status=status)
