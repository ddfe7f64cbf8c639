"""Cost Explorer: what Bedrock cost by day, and by up to two of: the caller's tags, the model, the service. As late as the books are.

Names, shapes and refusals: botocore 1.44.6, ce 2017-10-25 (AWS's JSON protocol 1.1). A caller's tag is a group of its own only once
somebody has activated it (`UpdateCostAllocationTagsStatus`), and from then on; before, and for callers without it, costs stand under
`<key>$`. Models go by their ids here; AWS writes names (`Claude Haiku 4.5`). The sandbox's account uses nothing but Bedrock.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from keygate.kit.clock import NANOSECONDS, from_ns
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.aws.model import NUMBER, USERS, User, failed
from keygate.sandbox.admin.books import DAY_S, PICO, Cell

Action = Callable[[Account, Mapping[str, Any]], dict[str, Any]]
TAGS = "cost_allocation_tags"
PRINCIPAL = "iamPrincipal/"
PAGE = 500  # groups
_TARGET = "AWSInsightsIndexService."
_FIRST_OF_ATTRIBUTES = date(2026, 9, 1)
_ATTRIBUTES = frozenset({"provider", "model", "inferenceType", "feature"})
_DIMENSIONS = frozenset({"SERVICE", "LINKED_ACCOUNT", "RECORD_TYPE"})
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def action_of(request: AdminRequest) -> str:
    return request.headers.get(b"x-amz-target", b"").decode("latin-1").removeprefix(_TARGET)


def failure(code: str, message: str) -> bytes:
    name = {
        "Throttling": "LimitExceededException",
        "AccessDenied": "AccessDeniedException",
        "InvalidClientTokenId": "UnrecognizedClientException",
    }
    name |= {"SignatureDoesNotMatch": "InvalidSignatureException", "InvalidAction": "UnknownOperationException"}
    return json.dumps({"__type": name.get(code, code), "message": message}).encode()


def get_cost_and_usage(account: Account, body: Mapping[str, Any]) -> dict[str, Any]:
    first, last = _period(account, body.get("TimePeriod"))
    if body.get("Granularity") != "DAILY" or body.get("Metrics") != ["UnblendedCost"]:
        raise _bad("the sandbox knows the granularity DAILY and the metric UnblendedCost only")
    groups = body.get("GroupBy") or []
    if not isinstance(groups, list) or len(groups) > 2 or not all(_known(each) for each in groups):
        raise _bad("GroupBy: up to two of TAG, PRODUCT_ATTRIBUTE, DIMENSION SERVICE and LINKED_ACCOUNT")
    if any(each["Type"] == "PRODUCT_ATTRIBUTE" for each in groups) and first < _FIRST_OF_ATTRIBUTES:
        raise failed(400, "DataUnavailableException", "Product attribute data is available for time periods on or after 2026-09-01.")
    kept = _filter(body.get("Filter"))
    names = [each["Key"] for each in groups]
    found: list[tuple[date, list[dict[str, Any]]]] = []
    for day in (first + timedelta(days=number) for number in range((last - first).days)):
        sums = _sums(account, day, groups) if kept else {}
        found.append((day, [{"Keys": list(keys), "Metrics": _metric(cost)} for keys, cost in sorted(sums.items())]))
    asked = json.dumps([body.get(name) for name in ("TimePeriod", "GroupBy", "Filter")], sort_keys=True)
    return {**_page(found, body.get("NextPageToken"), asked, named=bool(names)), "GroupDefinitions": groups, "DimensionValueAttributes": []}


def list_cost_allocation_tags(account: Account, body: Mapping[str, Any]) -> dict[str, Any]:
    keys = {key for entry in account.shelves[USERS].everything() for key in entry.more["it"].tags}
    wanted = body.get("TagKeys")
    tags = [_tag(account, name) for name in sorted(PRINCIPAL + key for key in keys) if not wanted or name in wanted]
    return {"CostAllocationTags": tags}


def _tag(account: Account, name: str) -> dict[str, str]:
    since = _since(account, name)
    if since is None:
        return {"TagKey": name, "Type": "UserDefined", "Status": "Inactive"}
    changed = from_ns(since).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"TagKey": name, "Type": "UserDefined", "Status": "Active", "LastUpdatedDate": changed}


def update_cost_allocation_tags_status(account: Account, body: Mapping[str, Any]) -> dict[str, Any]:
    for each in body.get("CostAllocationTagsStatus") or []:
        name = str(each["TagKey"])
        if each.get("Status") != "Active":
            account.shelves[TAGS].remove(name, at_ns=account.now_ns())
        elif _since(account, name) is None:
            account.make(TAGS, name, {})
    return {"Errors": []}


ACTIONS: dict[str, Action] = {
    "GetCostAndUsage": get_cost_and_usage,
    "ListCostAllocationTags": list_cost_allocation_tags,
    "UpdateCostAllocationTagsStatus": update_cost_allocation_tags_status,
}


def _since(account: Account, name: str) -> int | None:
    """When a tag was activated."""
    entry = account.shelves[TAGS].get(name)
    return None if entry is None else entry.made_at_ns


def _period(account: Account, period: Any) -> tuple[date, date]:
    """The end is not included."""
    if not isinstance(period, Mapping) or not all(_DAY.fullmatch(str(period.get(name))) for name in ("Start", "End")):
        raise _bad("TimePeriod: Start and End are dates")
    first, last = (date.fromisoformat(period[name]) for name in ("Start", "End"))
    if not first < last or first > from_ns(account.now_ns()).date():
        raise _bad("Start date should be before end date, and not in the future")
    return first, last


def _known(group: Any) -> bool:
    if not isinstance(group, Mapping) or not isinstance(group.get("Key"), str):
        return False
    match group.get("Type"):
        case "TAG":
            return bool(group["Key"])
        case "PRODUCT_ATTRIBUTE":
            return group["Key"] in _ATTRIBUTES
        case "DIMENSION":
            return group["Key"] in _DIMENSIONS
    return False


def _filter(expression: Any) -> bool:
    """Whether what stands in the books passes: it is all use, of Bedrock, in this one account."""
    if expression is None:
        return True
    if not isinstance(expression, Mapping) or len(expression) != 1:
        raise _bad("Expression has more than one roots. Only one root operator is allowed for each expression.")
    [(operator, value)] = expression.items()
    match operator:
        case "And":
            return all(map(_filter, value))
        case "Or":
            return any(map(_filter, value))
        case "Not":
            return not _filter(value)
        case "Dimensions" if value.get("Key") in _DIMENSIONS:
            mine = {"SERVICE": "Amazon Bedrock", "LINKED_ACCOUNT": NUMBER, "RECORD_TYPE": "Usage"}[value["Key"]]
            return mine in (value.get("Values") or [])
    raise _bad(f"the sandbox does not know the filter {str(expression)[:90]}")


def _sums(account: Account, day: date, groups: list[Mapping[str, Any]]) -> dict[tuple[str, ...], Decimal]:
    users: dict[str, User] = {entry.more["it"].arn: entry.more["it"] for entry in account.shelves[USERS].everything()}
    since_s = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    sums: defaultdict[tuple[str, ...], Decimal] = defaultdict(Decimal)
    for cell in account.books.cells(since_s=since_s, until_s=since_s + DAY_S):
        pico = cell.reported_pico(account.now_ns(), account.settings)
        if pico is not None:
            sums[tuple(_key(account, cell, users, each) for each in groups)] += Decimal(pico) / PICO
    return sums


def _key(account: Account, cell: Cell, users: Mapping[str, User], group: Mapping[str, Any]) -> str:
    name = group["Key"]
    match group["Type"]:
        case "TAG":
            since, user = _since(account, name), users.get(cell.container or "")
            known = user is not None and since is not None and cell.minute_s >= since // NANOSECONDS // 60 * 60
            return f"{name}${user.tags.get(name.removeprefix(PRINCIPAL), '') if user is not None and known else ''}"
        case "PRODUCT_ATTRIBUTE":
            return f"{name}${cell.model if name == 'model' else ''}"
    return {"SERVICE": "Amazon Bedrock", "LINKED_ACCOUNT": NUMBER, "RECORD_TYPE": "Usage"}[name]


def _metric(cost: Decimal) -> dict[str, Any]:
    return {"UnblendedCost": {"Amount": format(cost, "f"), "Unit": "USD"}}


def _page(found: list[tuple[date, list[dict[str, Any]]]], token: Any, asked: str, *, named: bool) -> dict[str, Any]:
    """`PAGE` groups; the token says where to go on, and in which request."""
    if token is None:
        start = 0
    else:
        number, _, same = str(token).partition(":")
        if not number.isdecimal():
            raise failed(400, "InvalidNextTokenException", "The pagination token is invalid.")
        if same != _mark(asked):
            raise failed(400, "RequestChangedException", "Your request parameters changed between pages.")
        start = int(number)
    shown, at = [], 0
    for day, groups in found:
        here = groups[max(0, start - at) : max(0, start + PAGE - at)]
        at += len(groups)
        if here or not groups:
            period = {"Start": day.isoformat(), "End": (day + timedelta(days=1)).isoformat()}
            total = {} if named else (groups[0]["Metrics"] if groups else _metric(Decimal(0)))
            shown.append({"TimePeriod": period, "Total": total, "Groups": here if named else [], "Estimated": True})
    more = {"NextPageToken": f"{start + PAGE}:{_mark(asked)}"} if at > start + PAGE else {}
    return {"ResultsByTime": shown, **more}


def _mark(asked: str) -> str:
    return hashlib.sha256(asked.encode()).hexdigest()[:12]


def _bad(message: str) -> Any:
    return failed(400, "ValidationException", message)
