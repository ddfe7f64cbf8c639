"""OpenRouter's keys API: a limit in dollars with a reset, an end, and what was used, on each key. Inference under `/openrouter/api/v1`.

Shapes: the official SDK (`openrouter` 1.3.84 `operations/createkeys.py`, `updatekeys.py`, `list.py`, `getuseractivity.py`, read
2026-11-26). Resets come at midnight UTC, weeks begin on Monday. A key's end is set when it is made and can't be changed. Statuses of
refusals are unverified.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from keygate.kit.clock import NANOSECONDS, from_ns, to_ns
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminApi, AdminRequest, Answer, Route
from keygate.sandbox.admin.books import PICO, Cell
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.model import Credential
from keygate.sandbox.admin.shelf import Entry, Eventual
from keygate.sandbox.errors import VendorError, bad_key, invalid
from keygate.sandbox.model import Usage, Vendor

WORKSPACE = "00000000-0000-4000-8000-0000000000aa"
_RESETS = ("daily", "weekly", "monthly")
_PAGE = 100  # keys a list answers with; the vendor's number is unverified
_ROOT = "/openrouter/api/v1"
_ACTIVITY_DAYS = 30


def _midnight(now_ns: int) -> datetime:
    return from_ns(now_ns).replace(hour=0, minute=0, second=0, microsecond=0)


def period_start_s(reset: str | None, now_ns: int) -> int:
    """When the running period began, in Unix seconds; 0 where the limit never resets."""
    day = _midnight(now_ns)
    match reset:
        case "daily":
            return int(day.timestamp())
        case "weekly":
            return int((day - timedelta(days=day.weekday())).timestamp())
        case "monthly":
            return int(day.replace(day=1).timestamp())
    return 0


def _refuses(secret: IssuedSecret, model: str) -> VendorError | None:  # noqa: ARG001  (a limit counts every model)
    account = secret.account
    key = account.shelves["keys"].get(secret.id)
    rule = key.more["rule"].at(account.now_ns()) if key is not None else None
    if rule is None or rule[0] is None:
        return None
    limit, reset = rule
    spent = account.books.total_usd(key_id=secret.id, since_s=period_start_s(reset, account.now_ns()))
    return VendorError(403, f"Key limit exceeded ({reset or 'total'} limit).") if spent >= Decimal(str(limit)) else None


def _reported(account: Account, hash_: str, since_s: int) -> Decimal:
    now, settings = account.now_ns(), account.settings
    cells = (cell for cell in account.books.cells(since_s=since_s) if cell.key_id == hash_)
    return Decimal(sum(cell.reported_pico(now, settings) or 0 for cell in cells)) / PICO


def show(account: Account, entry: Entry) -> dict[str, Any]:
    now = account.now_ns()
    used_ns = entry.grant.last_used_ns.at(now) if entry.grant is not None else None
    limit, reset = entry.body["limit"], entry.body["limit_reset"]
    usage = {
        "usage": _reported(account, entry.id, 0),
        **{f"usage_{name}": _reported(account, entry.id, period_start_s(name, now)) for name in _RESETS},
    }
    left = None if limit is None else max(Decimal(0), Decimal(str(limit)) - _reported(account, entry.id, period_start_s(reset, now)))
    return {
        **entry.body,
        **{name: float(value) for name, value in usage.items()},  # JSON numbers, as the vendor has them
        **{f"byok_{name}": 0 for name in usage},
        "limit_remaining": None if left is None else float(left),
        "last_used_at": None if used_ns is None else _stamp(used_ns),
    }


def _stamp(at_ns: int) -> str:
    return from_ns(at_ns).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _limit(body: dict[str, Any]) -> float | None:
    value = body.get("limit")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise invalid("limit: must be a non-negative number of dollars")
    return value


def _reset(body: dict[str, Any]) -> str | None:
    value = body.get("limit_reset")
    if value is not None and value not in _RESETS:
        raise invalid(f"limit_reset: must be one of {', '.join(_RESETS)}, or null")
    return value


def _expiry_ns(body: dict[str, Any]) -> int | None:
    """Seconds are required: `2027-01-01T00:00Z` is refused."""
    value = body.get("expires_at")
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise invalid("expires_at: must be an ISO 8601 timestamp") from None
    if moment.tzinfo is None or str(value).count(":") < 2:
        raise invalid("expires_at: must be UTC and include seconds")
    return to_ns(moment.astimezone(UTC))


def create(account: Account, request: AdminRequest) -> Answer:
    body = request.json()
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise invalid("name: required")
    limit, reset, ends_ns = _limit(body), _reset(body), _expiry_ns(body)
    if account.full("keys") is not None:
        raise invalid("The account has reached its limit of API keys.")
    value = f"sandbox-openrouter-v1-{secrets.token_hex(32)}"
    hash_ = hashlib.sha256(value.encode()).hexdigest()
    workspace = str(body.get("workspace_id") or WORKSPACE)
    shown = {
        "hash": hash_,
        "name": name,
        "label": f"{value[:22]}...{value[-3:]}",
        "disabled": False,
        "limit": limit,
        "limit_reset": reset,
        "include_byok_in_limit": body.get("include_byok_in_limit") is True,
        "creator_user_id": body.get("creator_user_id"),
        "external_user": None,
        "workspace_id": workspace,
        "created_at": _stamp(account.now_ns()),
        "updated_at": None,
        "expires_at": None if ends_ns is None else _stamp(ends_ns),
    }
    rule: Eventual[Any] = Eventual((None, None))
    rule.set((limit, reset), at_ns=0)
    entry = account.make("keys", hash_, shown, parent=workspace, rule=rule)
    entry.grant = account.issue(value, id_=hash_, container=workspace, expires_at_ns=ends_ns)
    return Answer(201, {"data": show(account, entry), "key": value})


def _key(account: Account, request: AdminRequest) -> Entry:
    entry = account.shelves["keys"].get(request.params["hash"])
    if entry is None:
        raise VendorError(404, "API key not found")
    return entry


def listed(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Of the default workspace unless one is named; disabled and expired keys only where they are asked for."""
    workspace = request.text("workspace_id") or WORKSPACE
    disabled, expired = (request.text(name) in {"true", "1"} for name in ("include_disabled", "include_expired"))
    offset = request.number("offset", 0, least=0, most=10**6)
    entries = [
        entry
        for entry in account.listed("keys", parent=workspace)
        if (disabled or not entry.body["disabled"]) and (expired or entry.grant is None or not entry.grant.expired)
    ]
    return {"data": [show(account, entry) for entry in entries[offset : offset + _PAGE]]}


def shown(account: Account, request: AdminRequest) -> dict[str, Any]:
    return {"data": show(account, _key(account, request))}


def update(account: Account, request: AdminRequest) -> dict[str, Any]:
    entry, body = _key(account, request), request.json()
    limit = _limit(body) if "limit" in body else entry.body["limit"]
    reset = _reset(body) if "limit_reset" in body else entry.body["limit_reset"]
    name = body.get("name")
    if name is not None and (not isinstance(name, str) or not name):
        raise invalid("name: must not be empty")
    if body.get("disabled") is not None and body["disabled"] is not entry.body["disabled"]:
        entry.body["disabled"] = body["disabled"] is True
        if entry.grant is not None:
            entry.grant.revoke() if entry.body["disabled"] else entry.grant.restore()
    entry.body.update(limit=limit, limit_reset=reset, updated_at=_stamp(account.now_ns()), name=name or entry.body["name"])
    entry.more["rule"].set((limit, reset), at_ns=account.later_ns(account.settings.limits_s))
    return {"data": show(account, entry)}


def delete(account: Account, request: AdminRequest) -> dict[str, Any]:
    account.remove("keys", _key(account, request).id)
    return {"deleted": True}


def activity(account: Account, request: AdminRequest) -> dict[str, Any]:
    """The last thirty days that are complete, by day and model; of one key, where it is named."""
    date, key = request.text("date"), request.text("api_key_hash")
    today_s = int(_midnight(account.now_ns()).timestamp())
    grouped: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in account.books.cells(since_s=today_s - _ACTIVITY_DAYS * 86_400, until_s=today_s):
        day = from_ns(cell.minute_s * NANOSECONDS).date().isoformat()
        if (date is None or day == date) and (key is None or cell.key_id == key):
            grouped[day, cell.model].append(cell)
    return {"data": [row for (day, model), cells in sorted(grouped.items()) if (row := _activity_row(account, day, model, cells))]}


def _activity_row(account: Account, day: str, model: str, cells: list[Cell]) -> dict[str, Any] | None:
    now, settings, total = account.now_ns(), account.settings, Usage()
    told = [cell for cell in cells if cell.reported_pico(now, settings) is not None]
    for cell in told:
        total.add(cell.usage)
    if not told:
        return None
    return {
        "date": day,
        "model": model,
        "model_permaslug": model,
        "endpoint_id": f"endpoint-{model}",
        "provider_name": "Sandbox",
        "requests": sum(cell.requests for cell in told),
        "prompt_tokens": total.input,
        "completion_tokens": total.output,
        "reasoning_tokens": total.reasoning,
        "cached_tokens": total.cache_read,
        "usage": float(Decimal(sum(cell.reported_pico(now, settings) or 0 for cell in told)) / PICO),
        "byok_usage_inference": 0,
    }


class OpenRouterAdmin(AdminApi):
    vendor = Vendor.OPENROUTER
    prefixes = (f"{_ROOT}/keys", f"{_ROOT}/activity")
    routes: ClassVar[tuple[Route, ...]] = (
        Route("GET", f"{_ROOT}/keys", "keys.list", "keys:read", listed),
        Route("POST", f"{_ROOT}/keys", "keys.create", "keys:write", create),
        Route("GET", f"{_ROOT}/keys/{{hash}}", "keys.get", "keys:read", shown),
        Route("PATCH", f"{_ROOT}/keys/{{hash}}", "keys.update", "keys:write", update),
        Route("DELETE", f"{_ROOT}/keys/{{hash}}", "keys.delete", "keys:write", delete),
        Route("GET", f"{_ROOT}/activity", "activity.list", "activity:read", activity),
    )

    def settings(self, address: str, credential: Credential | None = None) -> dict[str, str]:  # noqa: ARG002  (the same for every one)
        return {"base_url": f"{address}{_ROOT}"}

    def refuses(self, secret: IssuedSecret, model: str) -> VendorError | None:
        return _refuses(secret, model)

    def unknown_caller(self, shown: str | None) -> VendorError:
        return bad_key(Vendor.OPENROUTER) if shown else VendorError(401, "No auth credentials found")

    def lacks(self, right: str) -> VendorError:
        return VendorError(403, f"Only management keys can perform this operation ({right}).")
