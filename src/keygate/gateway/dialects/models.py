"""Lists of models, answered by the gateway itself: only what the key may use, in the shape that the dialect's SDK reads.

OpenAI `types/model.py` (3.52.0): id, created, object, owned_by. Anthropic `types/model_info.py`, `pagination.py` (2.11.0): id, created_at,
display_name, type; data, first_id, last_id, has_more, cut by `limit`, `after_id`, `before_id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec

from keygate.vendors import ErrorStyle

_DEFAULT_LIMIT = 20
_MAX_LIMIT = 1000


class ListedModel(NamedTuple):
    id: str  # as a caller names it here: `gpt-4.1`, or `anthropic/claude-…` under `/v1`
    owner: str  # the vendor's name
    created: int = 0  # seconds since the epoch; 0: not known


def _openai(model: ListedModel) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owner}


def _anthropic(model: ListedModel) -> dict[str, Any]:
    created = datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # `lifecycle` is required by the SDK's type (2.8.0); the price table doesn't know it, and lists what can be called.
    return {"type": "model", "id": model.id, "display_name": model.id, "created_at": created, "lifecycle": "active"}


def one_model(style: ErrorStyle, model: ListedModel) -> bytes:
    """The body of `GET /models/{id}`."""
    return msgspec.json.encode(_openai(model) if style is ErrorStyle.OPENAI else _anthropic(model))


def model_list(style: ErrorStyle, models: Sequence[ListedModel], query: bytes = b"") -> bytes:
    """The body of `GET /models`. `query` is the raw query string; odd values in it count as absent."""
    if style is ErrorStyle.OPENAI:
        return msgspec.json.encode({"object": "list", "data": [_openai(model) for model in models]})
    page, more = _page(models, query)
    return msgspec.json.encode(
        {
            "data": [_anthropic(model) for model in page],
            "has_more": more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
    )


def _page(models: Sequence[ListedModel], query: bytes) -> tuple[Sequence[ListedModel], bool]:
    asked = parse_qs(query.decode("ascii", "replace")[:4096], max_num_fields=None)
    limit = _DEFAULT_LIMIT
    text = asked.get("limit", [""])[0]
    if text.isascii() and text.isdecimal() and len(text) <= 6:
        limit = min(max(int(text), 1), _MAX_LIMIT)
    at = {model.id: index for index, model in enumerate(models)}
    before = at.get(asked.get("before_id", [""])[0])
    if before is not None:
        start = max(0, before - limit)
        return models[start:before], start > 0
    start = at.get(asked.get("after_id", [""])[0], -1) + 1
    return models[start : start + limit], start + limit < len(models)
