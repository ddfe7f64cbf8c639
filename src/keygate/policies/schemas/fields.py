"""What the wire's schemas of policies and keys are made of: single fields, and the way between them and our values."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from keygate.errors import InvalidInput
from keygate.kit.clock import to_ns
from keygate.kit.money import MAX_NANO, NANO, parse_usd


def no_nul(value: str) -> str:
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("characters that can't be stored")
    return value


Text = Annotated[str, StringConstraints(max_length=200), AfterValidator(no_nul)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(no_nul)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(no_nul)]
Patterns = Annotated[
    list[Pattern], Field(max_length=200, description="Patterns on vendor/model with `*`: `openai/gpt-4.1*`, `anthropic/*`")
]
Names = Annotated[list[Annotated[str, StringConstraints(max_length=60)]], Field(max_length=100)]
Usd = Annotated[
    Annotated[str, StringConstraints(max_length=40)] | Annotated[int, Field(ge=0, le=MAX_NANO // NANO)],
    Field(description="Dollars as a decimal string: `10.00`", examples=["10.00"]),
]
Amount = Annotated[int, Field(ge=1, le=2**53)]
ScopeId = Annotated[
    Pattern | None,
    Field(description="The team, developer, app or key. A vendor, model or tag can be named here, too, in place of `selector`"),
]
Selector = Annotated[
    Pattern | None, Field(description="For the scopes vendor, model and tag: `openai`, `anthropic/claude-opus-*`, `project=x`")
]
Percent = Annotated[int, Field(ge=1, le=1_000)]
Moment = Annotated[str | None, Field(json_schema_extra={"format": "date-time"})]


def nano(value: str | int, field: str = "amount_usd") -> int:
    return parse_usd(value, field=field)


def rule_changes(named: dict[str, Any]) -> dict[str, Any]:
    """From the names on the wire to those of `Rules`; null lifts what is a list of permissions and empties the others."""
    changed: dict[str, Any] = {}
    if "models" in named:
        changed["models_allow"] = None if named["models"] is None else tuple(named["models"])
    for name in ("vendors", "endpoints"):
        if name in named:
            changed[name] = None if named[name] is None else tuple(named[name])
    for name in ("models_deny", "content_readers"):
        if name in named:
            changed[name] = tuple(named[name] or ())
    if "server_tool_ceiling_usd" in named:
        ceiling = named["server_tool_ceiling_usd"]
        changed["server_tool_ceiling_nano"] = None if ceiling is None else nano(ceiling, "server_tool_ceiling_usd")
    return changed


def moment_ns(value: datetime | None, field: str) -> int | None:
    """RFC 3339 in, nanoseconds out; refuses what has no zone or no place in 64 bits."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise InvalidInput(f"{field}: needs a time zone, for example 2027-01-01T00:00:00Z", field=field)
    try:
        instant = to_ns(value)
    except OverflowError:
        instant = 2**63
    if not 0 <= instant < 2**63:
        raise InvalidInput(f"{field}: out of range", field=field)
    return instant
