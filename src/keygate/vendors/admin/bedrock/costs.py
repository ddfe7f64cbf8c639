"""What Bedrock costs, by the IAM user that called it: AWS Cost Explorer, one signed call for a page of many days.

Bedrock tells the bill which principal made a call, and with that the principal's tags; those of an API key's calls are its user's. KeyGate
has tagged each user with the issued key's id since it was made (`keygate-id`), so grouping by `iamPrincipal/keygate-id` is grouping by
issued key: both keys of a rotation together. What is grouped by the product attribute `model` is Bedrock's and nothing else, under
whichever service name AWS bills a model. Credits, refunds and taxes are left out: what was used, before anybody pays for it otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from keygate.kit.clock import NANOSECONDS, from_ns, to_ns
from keygate.kit.outbound import Answer
from keygate.kit.sigv4 import AwsKey, sign
from keygate.vendors.admin.bedrock.facts import COST_TAG, COSTS, KEY_TAG, NOT_BY_KEY, TAGS
from keygate.vendors.admin.bedrock.iam import THROTTLED, Iam
from keygate.vendors.admin.bills import ByKey, SpendRow
from keygate.vendors.admin.errors import AdminKeyRefused, MissingRight, ProvisionerError, RateLimited, Rejected, Unavailable, quoted
from keygate.vendors.admin.interface import Desk, Mark
from keygate.vendors.admin.money import dollars_only, nano_of

_TARGET = "AWSInsightsIndexService"
_REGION = "us-east-1"  # the only one that Cost Explorer has in the standard partition
_METRIC = "UnblendedCost"
_SINCE = date(2026, 9, 1)  # product attributes are told from then on; earlier days are refused
_NOT_USE = ["Credit", "Refund", "Tax"]
_PAUSE_SECONDS = 300.0
_LIMITED = THROTTLED | {"LimitExceededException"}  # "you made too many calls in a short period of time": botocore 1.44.6, ce 2017-10-25
_WHAT = "read costs"


async def page(desk: Desk, begins_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:
    first = max(from_ns(begins_ns).date(), _SINCE)
    last = from_ns(until_ns - 1).date() + timedelta(days=1)  # not included; the day that is running is
    if first >= last:
        return (), None
    account, _ = await Iam(desk).caller()
    body: dict[str, Any] = {
        "TimePeriod": {"Start": first.isoformat(), "End": last.isoformat()},
        "Granularity": "DAILY",
        "Metrics": [_METRIC],
        "GroupBy": [{"Type": "TAG", "Key": COST_TAG}, {"Type": "PRODUCT_ATTRIBUTE", "Key": "model"}],
        "Filter": {
            "And": [
                {"Dimensions": {"Key": "LINKED_ACCOUNT", "Values": [account]}},
                {"Not": {"Dimensions": {"Key": "RECORD_TYPE", "Values": _NOT_USE}}},
            ]
        },
    }
    if cursor is not None:
        body["NextPageToken"] = cursor
    shown = await _call(desk, "GetCostAndUsage", body, what=_WHAT, right=COSTS)
    rows = [_row(day, group) for day in shown.get("ResultsByTime") or [] for group in day.get("Groups") or []]
    return tuple(row for row in rows if row.amount_nano), shown.get("NextPageToken") or None


async def by_key(desk: Desk) -> ByKey:
    """Whether AWS groups costs by the users' tag: somebody has to activate it, once, and it counts from then on. Both spellings of it are
    in use."""
    shown = await _call(
        desk, "ListCostAllocationTags", {"TagKeys": [COST_TAG, KEY_TAG]}, what="look the cost allocation tag up", right=TAGS
    )
    active = [each for each in shown.get("CostAllocationTags") or [] if each.get("Status") == "Active"]
    return ByKey(min(map(_changed_ns, active))) if active else ByKey(None, NOT_BY_KEY)


def _changed_ns(tag: Mapping[str, Any]) -> int:
    """When it was activated; 0 where AWS does not tell."""
    try:
        changed = datetime.fromisoformat(str(tag["LastUpdatedDate"]))
        return to_ns(changed.replace(tzinfo=changed.tzinfo or UTC))
    except (KeyError, ValueError, OverflowError):
        return 0


def _row(day: Mapping[str, Any], group: Mapping[str, Any]) -> SpendRow:
    """`Keys`: `iamPrincipal/keygate-id$ik_…` and `model$Claude Haiku 4.5`; nothing behind the sign where there is no such tag or model."""
    tag, model = (str(each).partition("$")[2] for each in group["Keys"])
    start = to_ns(datetime.fromisoformat(day["TimePeriod"]["Start"]).replace(tzinfo=UTC))
    cost = group["Metrics"][_METRIC]
    dollars_only(cost.get("Unit"), what=_WHAT)
    return SpendRow(_place(tag), None, start, start + 86_400 * NANOSECONDS, model, nano_of(cost.get("Amount"), what=_WHAT))


def _place(tag: str) -> dict[str, str]:
    """The user of the issued key that the tag names. One that names none of ours, or was changed by hand, stays as it is."""
    if not tag:
        return {}
    try:
        return {"user": Mark(tag).tag} if tag.startswith("ik_") else {KEY_TAG: tag}
    except (ValueError, OverflowError):
        return {KEY_TAG: tag}


async def _call(desk: Desk, action: str, body: Mapping[str, Any], *, what: str, right: str) -> dict[str, Any]:
    """Signed for its own moment, as IAM's calls are; reading changes nothing, so it may be sent again."""
    data = json.dumps(body).encode()
    url = f"{desk.base('ce')}/"
    key = AwsKey(Iam(desk).setting("access_key_id"), desk.admin)
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": f"{_TARGET}.{action}"}
    signed = sign(key, "POST", url, headers=headers, body=data, region=_REGION, service="ce", now_ns=desk.clock.now_ns())

    def fault(answer: Answer) -> ProvisionerError | None:
        return _fault(answer, what=what, right=right)

    return await desk.http.json(
        "POST", url, what=what, right=right, headers=signed, body=data, changes=False, repeatable=True, fault=fault, exact=True
    )


def _fault(answer: Answer, *, what: str, right: str) -> ProvisionerError | None:
    """By the error's type: all but the server's own failures are a 400. Names: botocore 1.44.6, ce 2017-10-25, and AWS's common errors."""
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        told = {}
    code = quoted(str(told.get("__type") or told.get("code") or "").rpartition("#")[2], most=100)
    message = quoted(told.get("message") or told.get("Message"))
    if code in _LIMITED or answer.status == 429:
        return RateLimited(f"{what}: AWS limits calls now ({code or answer.status})", retry_after=_PAUSE_SECONDS)
    if answer.status >= 500:
        return None
    match code:
        case "":
            return None
        case "UnrecognizedClientException" | "InvalidSignatureException" | "InvalidClientTokenId" | "ExpiredTokenException":
            return AdminKeyRefused(f"{what}: AWS refused the access key ({code}); enter a valid pair, and look at this machine's clock")
        case "AccessDeniedException":
            hint = "allow it in its policy; in a member account, the payer must let members see Cost Explorer"
            return MissingRight(right, f"{what}: the access key lacks the right {right}: {message}; {hint}")
        case "DataUnavailableException":
            hint = "Cost Explorer may not be enabled in the account yet, or has no data of these days"
            return Unavailable(f"{what}: AWS has no data ({message}); {hint}")
    return Rejected(f"{what}: AWS refused ({code}): {message}", status=answer.status, reason=code)
