"""OpenAI endpoints that produce no text: embeddings, moderations, models. Shapes: contracts/openai/openapi.json."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from keygate.sandbox import reading
from keygate.sandbox.answer import Answer, Asked, text_of
from keygate.sandbox.catalogue import Model
from keygate.sandbox.errors import invalid

_MOST_INPUTS = 2048
_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


@lru_cache(maxsize=32)
def _vector(dimensions: int) -> tuple[list[float], str]:
    """A unit vector, as numbers and as base64 of little-endian floats."""
    packed = struct.pack(f"<{dimensions}f", *([dimensions**-0.5] * dimensions))
    return list(struct.unpack(f"<{dimensions}f", packed)), base64.b64encode(packed).decode()


def read_embeddings(body: dict[str, Any]) -> Asked:
    """One text, several texts, one list of token ids, or several; token ids count themselves."""
    model = reading.model_of(body)
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise invalid("Missing required parameter: 'input'.", "input", code="missing_required_parameter")
    several = given if isinstance(given, list) and isinstance(given[0], str | list) else [given]
    if len(several) > _MOST_INPUTS:
        raise invalid(f"'input' must have at most {_MOST_INPUTS} elements.", "input", code="array_above_max_length")
    texts = [one for one in several if isinstance(one, str)]
    ids = sum(len(one) for one in several if isinstance(one, list))
    prompt = [texts, "x" * min(4 * ids, 4_000_000)]
    return Asked(
        model=model, body=body, prompt=prompt, messages=0, last_text=texts[-1] if texts else "", answers=len(several), max_output=0
    )


def embeddings(answer: Answer, model: Model) -> dict[str, Any]:
    body = answer.asked.body
    dimensions = reading.positive(body, "dimensions") or model.dimensions
    if dimensions > model.dimensions:
        raise invalid(f"Invalid value for 'dimensions': must be at most {model.dimensions}.", "dimensions")
    numbers, packed = _vector(dimensions)
    vector = packed if body.get("encoding_format") == "base64" else numbers
    result: dict[str, Any] = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index in range(answer.asked.answers)],
        "model": answer.model,
    }
    if answer.show_usage:
        result["usage"] = {"prompt_tokens": answer.usage.input, "total_tokens": answer.usage.input}
    return result


def read_moderation(body: dict[str, Any]) -> Asked:
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise invalid("Missing required parameter: 'input'.", "input", code="missing_required_parameter")
    count = len(given) if isinstance(given, list) and isinstance(given[0], str) else 1
    model = body.get("model") or "omni-moderation-latest"
    last_text = text_of(given) if not isinstance(given, list) or isinstance(given[0], dict) else str(given[-1])
    return Asked(model=str(model), body=body, prompt=given, last_text=last_text, answers=count, max_output=0)


def moderation(answer: Answer) -> dict[str, Any]:
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0001),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    return {"id": answer.id, "model": answer.model, "results": [result] * answer.asked.answers}


def model_body(model: Model) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": 1_735_689_600, "owned_by": "openai"}


def model_list(models: Iterable[Model]) -> dict[str, Any]:
    return {"object": "list", "data": [model_body(model) for model in models]}
