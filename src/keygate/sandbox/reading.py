"""Members of a request body, checked as far as the vendors check them. Errors are worded as OpenAI's; Anthropic's reader has its own."""

from __future__ import annotations

from typing import Any

from keygate.sandbox.errors import invalid


def model_of(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("you must provide a model parameter")
    return model


def positive(body: dict[str, Any], name: str, *, least: int = 1) -> int | None:
    """An integer member of at least `least`, or None where it is absent or null."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"Invalid type for '{name}': expected an integer.", name, code="invalid_type")
    if value < least:
        message = f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value} instead."
        raise invalid(message, name, code="integer_below_min_value")
    return value


def items(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects in a list member; empty where it is absent."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid(f"Invalid type for '{name}': expected an array.", name, code="invalid_type")
    return [item for item in value if isinstance(item, dict)]


def streamed(body: dict[str, Any]) -> bool:
    value = body.get("stream")
    if value is not None and not isinstance(value, bool):
        raise invalid("Invalid type for 'stream': expected a boolean.", "stream", code="invalid_type")
    return bool(value)


def tier_of(body: dict[str, Any]) -> str:
    """The tier that serves: as asked, `auto` and nothing at all being the default one."""
    tier = body.get("service_tier")
    return tier if isinstance(tier, str) and tier not in {"", "auto"} else "default"
