"""One codec per dialect. A new dialect is a file beside this one and a line here."""

from __future__ import annotations

from keygate.gateway.dialects import bounds
from keygate.gateway.dialects.anthropic_messages import CountTokensCodec, MessagesCodec
from keygate.gateway.dialects.interface import Codec, Facts
from keygate.gateway.dialects.openai_chat import ChatCodec, CompletionsCodec, model_features
from keygate.gateway.dialects.openai_plain import AnthropicModelsCodec, EmbeddingsCodec, ModelsCodec, ModerationsCodec
from keygate.gateway.dialects.openai_responses import InputTokensCodec, ResponsesCodec
from keygate.vendors import Dialect

_ALL: tuple[Codec, ...] = (
    ChatCodec(),
    CompletionsCodec(),
    ResponsesCodec(),
    InputTokensCodec(),
    EmbeddingsCodec(),
    ModerationsCodec(),
    ModelsCodec(),
    MessagesCodec(),
    CountTokensCodec(),
    AnthropicModelsCodec(),
)
CODECS: dict[Dialect, Codec] = {codec.dialect: codec for codec in _ALL}


def codec(dialect: Dialect) -> Codec:
    return CODECS[dialect]


def resolved(facts: Facts, model: str) -> Facts:
    """The facts with what hangs on the model's name taken from `model`: call when an alias or a prefix led to another name than the caller
    wrote, before asking for a hold. `facts.model` stays what the caller wrote."""
    features = model_features(model)
    images = facts.images * (bounds.image_bound(model) - bounds.image_bound(facts.model))
    if not images and not features:
        return facts
    unbounded = (*facts.unbounded, *(feature for feature in features if feature not in facts.unbounded))
    return facts.resolved(facts.input_bound + images, unbounded)
