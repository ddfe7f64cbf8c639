"""Bodies and pages as Anthropic has them: lists by object id, and lists by opaque cursor."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from keygate.kit.clock import NANOSECONDS, from_ns
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.shelf import Entry
from keygate.sandbox.errors import VendorError, invalid

ORGANIZATION = "5f2c7d1e-0000-4000-8000-000000000001"  # organizations have a plain UUID
ACTOR = "user_sandbox"
OAUTH = "oauth"
_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_PAGE = 20

Show = Callable[[Entry], dict[str, Any]]


def stamp(at_ns: int | None) -> str | None:
    """RFC 3339 to the second, UTC."""
    return None if at_ns is None else from_ns(at_ns // NANOSECONDS * NANOSECONDS).isoformat().replace("+00:00", "Z")


def found(account: Account, shelf: str, id_: str, what: str) -> Entry:
    entry = account.shelves[shelf].get(id_)
    if entry is None:
        raise VendorError(404, f"{what} not found: {id_[:100]}")
    return entry


def flag(request: AdminRequest, name: str) -> bool:
    return (request.text(name) or "").lower() in {"true", "1"}


def text(body: dict[str, Any], name: str, *, most: int = 256) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise invalid(f"{name}: Field required")
    return value


def slug(account: Account, shelf: str, body: dict[str, Any]) -> str:
    """A name of lower-case letters, digits and hyphens that nothing else on the shelf ever had. Whether archiving frees a name is
    unverified; the worse is assumed."""
    name = text(body, "name")
    if not _SLUG.fullmatch(name):
        raise invalid("name: must be lowercase letters, digits and hyphens")
    if any(entry.body["name"] == name for entry in account.shelves[shelf]):
        raise VendorError(409, f"name: {name} is taken", kind="invalid_request_error", code="name_taken")
    return name


def whole(body: dict[str, Any], name: str, default: int, *, least: int, most: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise invalid(f"{name}: must be between {least} and {most}")
    return value


def page_by_id(request: AdminRequest, entries: Sequence[Entry], show: Show) -> dict[str, Any]:
    """`after_id` and `before_id` are ids of objects; `limit` 1–1000."""
    limit = request.number("limit", _PAGE, most=1_000)
    ids = [entry.id for entry in entries]
    after, before = request.text("after_id"), request.text("before_id")
    start, end = 0, len(ids)
    if after in ids:
        start = ids.index(after) + 1
    elif before in ids:
        end = ids.index(before)
        start = max(0, end - limit)
    chosen = entries[start : min(end, start + limit)]
    more = start > 0 if before is not None and after is None else start + limit < len(ids)
    return {
        "data": [show(entry) for entry in chosen],
        "has_more": more,
        "first_id": chosen[0].id if chosen else None,
        "last_id": chosen[-1].id if chosen else None,
    }


def page_by_cursor(
    request: AdminRequest, rows: Sequence[Any], show: Callable[[Any], dict[str, Any]], *, default: int = _PAGE
) -> dict[str, Any]:
    """`page` is what the answer before gave as `next_page`."""
    limit = request.number("limit", default, most=1_000)
    page = request.text("page")
    if page is not None and not re.fullmatch(r"page_\d{1,9}", page):
        raise invalid("page: not a cursor of ours")
    start = int(page[5:]) if page is not None else 0
    more = start + limit < len(rows)
    return {
        "data": [show(row) for row in rows[start : start + limit]],
        "has_more": more,
        "next_page": f"page_{start + limit}" if more else None,
    }
