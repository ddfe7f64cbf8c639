"""xAI's management API: a team's API keys, each with access lists and limits of its own.

Sources, as public copies have them, read 2026-11-26: docs.x.ai/docs/key-information/using-management-api (create, list, update, delete,
propagation, validation, access lists) and docs.x.ai/docs/management-api/auth (paths). The guide updates a key at the team's path, the
reference at the key's own, which stands here. The usage report: docs.x.ai/developers/rest-api-reference/management/billing, and
xai-org/xai-proto `xai/management_api/v1/billing.proto`, `xai/shared/analytics/analytics.proto`. Refusals' words, how many keys a team may
have, the shape of `propagation`, which fields a usage report may be grouped by and how many series it holds: unverified.
"""

from __future__ import annotations

import secrets
import uuid
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

from keygate.kit.clock import NANOSECONDS, rfc3339, to_ns
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminApi, AdminRequest, Route
from keygate.sandbox.admin.books import DAY_S, PICO
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.shelf import Entry
from keygate.sandbox.errors import VendorError, bad_key, invalid, no_key
from keygate.sandbox.model import Vendor

TEAM = "5ea6f6bd-0000-4000-8000-000000000001"
ROOT = "/xai/management"
_MASKED = {
    "name": "name",
    "acls": "acls",
    "qps": "qps",
    "qpm": "qpm",
    "tpm": "tpm",
    "disabled": "disabled",
    "expireTime": "expireTime",
    "expire_time": "expireTime",
}
_MODEL, _ENDPOINT = "api-key:model:", "api-key:endpoint:"
_ENDPOINTS = ("chat", "image")


def _create(account: Account, request: AdminRequest) -> dict[str, Any]:
    _team(request)
    body = request.json()
    name = body.get("name")
    if not isinstance(name, str) or not name:
        raise invalid("name is required")
    acls = body.get("acls")
    if not isinstance(acls, list) or not acls:
        raise invalid("acls are required")
    full = account.full("keys")
    if full is not None:
        raise VendorError(429, f"The team has reached its limit of {full} API keys")
    value = f"xai-sandbox{secrets.token_hex(32)}"
    id_ = str(uuid.uuid4())
    shown: dict[str, Any] = {
        "apiKeyId": id_,
        "redactedApiKey": f"xai-...{value[-4:]}",
        "teamId": TEAM,
        "userId": str(uuid.uuid4()),
        "name": name,
        "acls": _acls(acls),
        "qps": _whole(body, "qps"),
        "qpm": _whole(body, "qpm"),
        "tpm": _text(_whole(body, "tpm")),
        "createTime": rfc3339(account.now_ns()),
        "modifyTime": rfc3339(account.now_ns()),
        "expireTime": _moment(body.get("expireTime")),
        "disabled": False,
    }
    entry = account.make("keys", id_, shown)
    entry.grant = account.issue(value, id_=id_, container=id_, expires_at_ns=_expiry_ns(shown))
    return {**_shown(entry), "apiKey": value}


def _shown(entry: Entry) -> dict[str, Any]:
    """As protobuf's JSON: what is not set is left out."""
    return {name: value for name, value in entry.body.items() if value not in (None, "")}


def _list(account: Account, request: AdminRequest) -> dict[str, Any]:
    _team(request)
    size = request.number("pageSize", 100, most=100)
    start = int(request.text("paginationToken") or 0)
    listed = account.listed("keys")
    page: dict[str, Any] = {"apiKeys": [_shown(entry) for entry in listed[start : start + size]]}
    return {**page, "paginationToken": str(start + size)} if start + size < len(listed) else page


def _update(account: Account, request: AdminRequest) -> dict[str, Any]:
    entry = _key(account, request)
    body = request.json()
    wanted = body.get("apiKey")
    mask = [name.strip() for name in str(body.get("fieldMask", "")).split(",") if name.strip()]
    if not isinstance(wanted, dict) or not mask:
        raise invalid("apiKey and fieldMask are required")
    for masked in mask:
        name = _MASKED.get(masked)
        if name is None:
            raise invalid(f"fieldMask: {masked[:50]} can't be updated")
        match name:
            case "acls":
                entry.body["acls"] = _acls(wanted.get("acls"))
            case "qps" | "qpm":
                entry.body[name] = _whole(wanted, name)
            case "tpm":
                entry.body["tpm"] = _text(_whole(wanted, "tpm"))
            case "expireTime":
                entry.body["expireTime"] = _moment(wanted.get("expireTime"))
            case "disabled":
                entry.body["disabled"] = wanted.get("disabled") is True
            case _:
                entry.body["name"] = str(wanted.get("name", ""))
    entry.body["modifyTime"] = rfc3339(account.now_ns())
    grant = _grant(entry)
    grant.expires_at_ns = _expiry_ns(entry.body)
    if entry.body["disabled"]:
        grant.revoke()
    elif not grant.usable.last():
        grant.restore()
    return _shown(entry)


def _delete(account: Account, request: AdminRequest) -> dict[str, Any]:
    account.remove("keys", _key(account, request).id)
    return {}


def _propagation(account: Account, request: AdminRequest) -> dict[str, Any]:
    usable = _grant(_key(account, request)).usable.at(account.now_ns())
    return {"icPropagation": {"us-east-1": usable, "us-west-2": usable}}


def _models(account: Account, request: AdminRequest) -> dict[str, Any]:  # noqa: ARG001  (an operation takes both)
    _team(request)
    return {"clusterConfigs": [{"clusterName": "us-east-1", "languageModels": [{"name": name} for name in MODELS]}]}


def _endpoints(account: Account, request: AdminRequest) -> dict[str, Any]:  # noqa: ARG001  (an operation takes both)
    _team(request)
    return {"acls": [f"{_ENDPOINT}{name}" for name in ("*", *_ENDPOINTS)]}


def _validate(account: Account, request: AdminRequest) -> dict[str, Any]:  # noqa: ARG001  (an operation takes both)
    credential = request.credential
    return {
        "apiKeyId": str(uuid.uuid5(uuid.NAMESPACE_OID, credential.value if credential else "")),
        "teamId": TEAM,
        "scope": "SCOPE_TEAM",
        "scopeId": TEAM,
        "name": credential.name if credential else "",
    }


SERIES = 1_000  # of a usage report
_GROUPS = ("api_key_id", "description")


def _usage(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Dollars by day: one series for each value of the group, dense, as protobuf's JSON has it."""
    _team(request)
    asked = request.json().get("analyticsRequest")
    times = asked.get("timeRange") if isinstance(asked, dict) else None
    if not isinstance(asked, dict) or not isinstance(times, dict):
        raise invalid("analyticsRequest with a timeRange is required")
    if asked.get("timeUnit") != "TIME_UNIT_DAY" or times.get("timezone") not in {"Etc/GMT", "Etc/UTC", "UTC"}:
        raise invalid("the sandbox knows TIME_UNIT_DAY in UTC only")
    if asked.get("values") != [{"name": "usd", "aggregation": "AGGREGATION_SUM"}]:
        raise invalid("the sandbox measures the sum of usd only")
    groups = asked.get("groupBy") or []
    if not set(groups) <= set(_GROUPS):
        raise invalid(f"groupBy: one of {', '.join(_GROUPS)}")
    since_s, until_s = _second(times.get("startTime")), _second(times.get("endTime"))
    days = range(since_s // DAY_S * DAY_S, until_s, DAY_S)
    now, sums = account.now_ns(), defaultdict[tuple[str, ...], defaultdict[int, Decimal]](lambda: defaultdict(Decimal))
    for cell in account.books.cells(since_s=since_s, until_s=until_s):
        pico = cell.reported_pico(now, account.settings)
        if pico is not None:
            names = {"api_key_id": cell.key_id or "", "description": cell.model}
            sums[tuple(names[each] for each in groups)][cell.minute_s // DAY_S * DAY_S] += Decimal(pico) / PICO
    series = [
        {
            "group": list(group),
            "groupLabels": [_label(account, name, value) for name, value in zip(groups, group, strict=True)],
            "dataPoints": [{"timestamp": rfc3339(day * NANOSECONDS), "values": [float(costs[day])]} for day in days],
        }
        for group, costs in sorted(sums.items())
    ]
    return {"timeSeries": series[:SERIES], "limitReached": len(series) > SERIES}


def _label(account: Account, name: str, value: str) -> str:
    entry = account.shelves["keys"].get(value) if name == "api_key_id" else None
    return value if entry is None else f"{entry.body['name']} ({entry.body['redactedApiKey']})"


def _second(value: Any) -> int:
    try:
        return int(datetime.strptime(str(value), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise invalid("timeRange: times are written YYYY-MM-DD HH:MM:SS") from None


MODELS = ("grok-3", "grok-3-mini", "grok-4-0709", "grok-4-fast-reasoning")


class XaiAdmin(AdminApi):
    vendor = Vendor.XAI
    prefixes = (ROOT,)
    ceilings: ClassVar[dict[str, int]] = {}
    routes = tuple(
        Route(method, f"{ROOT}{path}", operation, right, handler)
        for method, path, operation, right, handler in (
            ("GET", "/auth/management-keys/validation", "management_keys.validate", None, _validate),
            ("POST", "/auth/teams/{team}/api-keys", "api_keys.create", "api-keys:write", _create),
            ("GET", "/auth/teams/{team}/api-keys", "api_keys.list", "api-keys:read", _list),
            ("GET", "/auth/teams/{team}/models", "models.list", "api-keys:read", _models),
            ("GET", "/auth/teams/{team}/endpoints", "endpoints.list", "api-keys:read", _endpoints),
            ("PUT", "/auth/api-keys/{key}", "api_keys.update", "api-keys:write", _update),
            ("DELETE", "/auth/api-keys/{key}", "api_keys.delete", "api-keys:write", _delete),
            ("GET", "/auth/api-keys/{key}/propagation", "api_keys.propagation", "api-keys:read", _propagation),
            ("POST", "/v1/billing/teams/{team}/usage", "billing.usage", "billing:read", _usage),
        )
    )

    def refuses(self, secret: IssuedSecret, model: str) -> VendorError | None:
        return _refuses(secret, model)

    def unknown_caller(self, shown: str | None) -> VendorError:
        return bad_key(Vendor.XAI) if shown else no_key(Vendor.XAI)

    def lacks(self, right: str) -> VendorError:
        return VendorError(403, f"The management key lacks permission for this operation: {right}", code="permission_denied")


def key_info(grant: IssuedSecret) -> dict[str, Any]:
    """`GET /v1/api-key` at the inference side: what a key may learn of itself."""
    entry = grant.account.shelves["keys"].get(grant.id)
    body = entry.body if entry is not None else {}
    return {
        "redacted_api_key": body.get("redactedApiKey", ""),
        "user_id": body.get("userId", ""),
        "name": body.get("name", ""),
        "create_time": body.get("createTime"),
        "modify_time": body.get("modifyTime"),
        "team_id": TEAM,
        "acls": body.get("acls", []),
        "api_key_id": grant.id,
        "team_blocked": False,
        "api_key_blocked": False,
        "api_key_disabled": bool(body.get("disabled")),
    }


def _refuses(secret: IssuedSecret, model: str) -> VendorError | None:
    """Why a call of this model is refused now: the key's access list, or its limits of the last minute."""
    account = secret.account
    entry = account.shelves["keys"].get(secret.id)
    if entry is None:  # a deleted key that still works for a while
        return None
    acls = entry.body["acls"]
    if not {f"{_MODEL}*", f"{_MODEL}{model}"} & set(acls):
        return VendorError(403, f"The API key is not allowed to use the model {model}", code="permission_denied")
    if not {f"{_ENDPOINT}*", f"{_ENDPOINT}chat"} & set(acls):
        return VendorError(403, "The API key is not allowed to use this endpoint", code="permission_denied")
    now = account.now_ns()
    requests, _ = account.meter.minute(secret.id, now)
    tokens = sum(account.meter.minute(f"{secret.container}/{name}", now)[1] for name in MODELS) if entry.body["tpm"] else 0
    most, most_tokens = entry.body["qpm"], entry.body["tpm"]
    if (most is not None and requests >= most) or (most_tokens and tokens >= int(most_tokens)):
        return VendorError(429, "Too many requests for this API key", retry_after="5")
    account.meter.count(secret.id, now, requests=1)
    return None


def _team(request: AdminRequest) -> None:
    if request.params.get("team") != TEAM:
        raise VendorError(403, "The management key has no access to this team", code="permission_denied")


def _key(account: Account, request: AdminRequest) -> Entry:
    entry = account.shelves["keys"].get(request.params["key"])
    if entry is None:
        raise VendorError(404, "Cannot find API key")
    return entry


def _grant(entry: Entry) -> IssuedSecret:
    assert entry.grant is not None  # noqa: S101  (every key has one)
    return entry.grant


def _acls(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(acl, str) and acl.startswith((_MODEL, _ENDPOINT)) for acl in value):
        raise invalid("acls must be api-key:model:… or api-key:endpoint:…")
    return list(value)


def _whole(body: dict[str, Any], name: str) -> int | None:
    """A limit: null or absent for none; 64-bit ones come as text too."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid(f"{name} must be a whole number")
    return value


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _moment(value: Any) -> str | None:
    if value in (None, ""):
        return None
    try:
        return rfc3339(to_ns(datetime.fromisoformat(str(value))))
    except ValueError:
        raise invalid("expireTime must be an RFC 3339 time") from None


def _expiry_ns(body: dict[str, Any]) -> int | None:
    return to_ns(datetime.fromisoformat(body["expireTime"])) if body["expireTime"] else None
