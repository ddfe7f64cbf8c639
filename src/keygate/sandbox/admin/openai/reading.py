"""Bodies and pages as OpenAI has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.shelf import Entry
from keygate.sandbox.errors import VendorError, invalid

MAX_NAME = 200
YEAR_S = 31_536_000


def name_of(body: dict[str, Any]) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise invalid("Missing required parameter: 'name'.", "name", code="missing_required_parameter")
    return name


def whole(body: dict[str, Any], name: str, *, least: int = 1, most: int | None = None, required: bool = False) -> int | None:
    value = body.get(name)
    if value is None and not required:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"Invalid type for '{name}': expected an integer.", name, code="invalid_type")
    if value < least or (most is not None and value > most):
        raise invalid(f"Invalid '{name}': must be between {least} and {most}.", name, code="invalid_value")
    return value


def texts(body: dict[str, Any], name: str) -> list[str] | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise invalid(f"Invalid type for '{name}': expected an array of strings.", name, code="invalid_type")
    return value


def found(account: Account, shelf: str, id_: str, *, parent: str | None = None, what: str) -> Entry:
    entry = account.shelves[shelf].get(id_)
    if entry is None or (parent is not None and entry.parent != parent):
        raise VendorError(404, f"No such {what}: {id_[:100]}", code="not_found")
    return entry


def page(request: AdminRequest, entries: Sequence[Entry], show: Callable[[Entry], dict[str, Any]], *, default: int = 20) -> dict[str, Any]:
    """`after` is the id of the last thing seen; an id that is not in the list begins anew."""
    limit = request.number("limit", default, most=100)
    after = request.text("after")
    ids = [entry.id for entry in entries]
    start = ids.index(after) + 1 if after in ids else 0
    chosen = entries[start : start + limit]
    return {
        "object": "list",
        "data": [show(entry) for entry in chosen],
        "first_id": chosen[0].id if chosen else None,
        "last_id": chosen[-1].id if chosen else None,
        "has_more": start + limit < len(entries),
    }
