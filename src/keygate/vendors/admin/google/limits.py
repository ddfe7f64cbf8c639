"""What Google enforces on a project: a spend cap, and requests per minute of the Gemini API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from keygate.vendors.admin.errors import Rejected
from keygate.vendors.admin.google.calls import billing_account, call, finish
from keygate.vendors.admin.google.facts import GEMINI
from keygate.vendors.admin.interface import Desk

CATALOGUE_NAME = "Gemini API"  # in the billing catalogue
PER_MINUTE = "1/min/{project}"
_NANO = 1_000_000_000


async def _cap_of(desk: Desk, project: str) -> dict[str, Any] | None:
    """The spend cap that KeyGate set on the project: it bears the project's name."""
    path = f"v1/billingAccounts/{billing_account(desk)}/budgets"
    token: str | None = None
    for _ in range(20):
        params = {"scope": f"projects/{project}", "pageSize": 100, "pageToken": token}
        page = await call(desk, "billingbudgets", "GET", path, "find the spend cap", right="billing.budgets.list", params=params) or {}
        for budget in page.get("budgets", []):
            if budget.get("displayName") == project and "spendCap" in budget:
                return dict(budget)
        token = page.get("nextPageToken")
        if not token:
            break
    return None


async def read_cap(desk: Desk, project: str) -> int | None:
    """The cap in nano-dollars, where it is in force or has struck; None where none is, or it was lifted until the next month."""
    cap = await _cap_of(desk, project)
    if cap is None or cap["spendCap"].get("outputState") not in {"CONFIGURED", "ENFORCED"}:
        return None
    money = cap.get("amount", {}).get("specifiedAmount", {})
    if money.get("currencyCode") != "USD":
        return None
    return int(money.get("units", 0)) * _NANO + int(money.get("nanos", 0))


async def set_cap(desk: Desk, project: str, amount_nano: int | None) -> None:
    cap = await _cap_of(desk, project)
    if amount_nano is None:
        if cap is not None:
            what, right = "remove the spend cap", "billing.budgets.delete"
            await call(desk, "billingbudgets", "DELETE", f"v1/{cap['name']}", what, right=right, accept=(404,))
        return
    amount = {"specifiedAmount": {"currencyCode": "USD", "units": str(amount_nano // _NANO), "nanos": amount_nano % _NANO}}
    if cap is None:
        # The only shape that Google takes for a cap: billingbudgets.v1 20261011, GoogleCloudBillingBudgetsV1Budget.
        body = {
            "displayName": project,
            "budgetFilter": {
                "projects": [f"projects/{project}"],
                "services": [await _billed_service(desk)],
                "creditTypesTreatment": "EXCLUDE_ALL_CREDITS",
                "calendarPeriod": "MONTH",
            },
            "amount": amount,
            "thresholdRules": [{"thresholdPercent": percent, "spendBasis": "CURRENT_SPEND"} for percent in (0.5, 0.8, 1.0)],
            "notificationsRule": {"enableProjectLevelRecipients": True},
            "spendCap": {"inputState": "CONFIGURED"},
        }
        path = f"v1/billingAccounts/{billing_account(desk)}/budgets"
        await call(desk, "billingbudgets", "POST", path, "set the spend cap", right="billing.budgets.create", json=body)
        return
    what, right = "change the spend cap", "billing.budgets.update"
    if cap["spendCap"].get("outputState") == "ENFORCED":  # nothing else can be changed until the cap is lifted
        lifted = {"spendCap": {"inputState": "AWAITING_NEXT_PERIOD"}}
        params = {"updateMask": "spendCap.inputState"}
        await call(desk, "billingbudgets", "PATCH", f"v1/{cap['name']}", what, right=right, json=lifted, params=params, repeatable=True)
    changed = {"amount": amount, "spendCap": {"inputState": "CONFIGURED"}}
    params = {"updateMask": "amount,spendCap.inputState"}
    await call(desk, "billingbudgets", "PATCH", f"v1/{cap['name']}", what, right=right, json=changed, params=params, repeatable=True)


async def _billed_service(desk: Desk) -> str:
    """The Gemini API's name in the billing catalogue, `services/…`: as the setting says, or found there by its title."""
    if known := desk.settings.get("billing_service"):
        return known if known.startswith("services/") else f"services/{known}"
    token: str | None = None
    for _ in range(20):
        params = {"pageSize": 5000, "pageToken": token}
        page = (
            await call(desk, "cloudbilling", "GET", "v1/services", "look the Gemini API up in the billing catalogue", params=params) or {}
        )
        for service in page.get("services", []):
            if service.get("displayName") == CATALOGUE_NAME:
                return str(service["name"])
        token = page.get("nextPageToken")
        if not token:
            break
    raise Rejected(
        f"Google's billing catalogue lists no service called {CATALOGUE_NAME}: enter its id there as the setting `billing_service`"
    )


async def _quota_of(desk: Desk, project: str) -> dict[str, Any] | None:
    """The limit on requests per minute. Google's list decides which it is: the metrics' names are not documented."""
    path, token = f"v1beta1/projects/{project}/services/{GEMINI}/consumerQuotaMetrics", None
    for _ in range(20):
        params = {"pageSize": 100, "pageToken": token}
        page = await call(desk, "serviceusage", "GET", path, "read the quota", right="serviceusage.quotas.get", params=params) or {}
        for metric in page.get("metrics", []):
            if not str(metric.get("metric", "")).endswith("/generate_content_requests"):
                continue
            for limit in metric.get("consumerQuotaLimits", []):
                if limit.get("unit") == PER_MINUTE:
                    return dict(limit)
        token = page.get("nextPageToken")
        if not token:
            break
    return None


def _override_of(limit: dict[str, Any]) -> dict[str, Any] | None:
    for bucket in limit.get("quotaBuckets", []):
        if not bucket.get("dimensions") and "consumerOverride" in bucket:
            return dict(bucket["consumerOverride"])
    return None


async def read_requests_per_minute(desk: Desk, project: str) -> int | None:
    """What was set, once it is in force; None: Google's own limit holds."""
    limit = await _quota_of(desk, project)
    override = _override_of(limit) if limit is not None else None
    return None if override is None else int(override.get("overrideValue", 0))


async def set_requests_per_minute(desk: Desk, project: str, requests: int | None) -> None:
    limit = await _quota_of(desk, project)
    if limit is None:
        raise Rejected("Google lists no limit on requests per minute of the Gemini API for this project")
    override = _override_of(limit)
    what, right, body = "set requests per minute", "serviceusage.quotas.update", {"overrideValue": str(requests)}
    params = {"force": True}  # a fall of more than 10 % is refused otherwise
    if requests is None:
        if override is None:
            return
        started = await call(desk, "serviceusage", "DELETE", f"v1beta1/{_path(override)}", what, right=right, params=params, accept=(404,))
    elif override is None:
        path = f"v1beta1/{_path(limit)}/consumerOverrides"
        started = await call(desk, "serviceusage", "POST", path, what, right=right, json=body, params=params)
    else:
        path = f"v1beta1/{_path(override)}"
        started = await call(desk, "serviceusage", "PATCH", path, what, right=right, json=body, params=params, repeatable=True)
    await finish(desk, "serviceusage", "v1beta1", started or {}, what)


def _path(thing: dict[str, Any]) -> str:
    """A resource's name as a path; Google's own names hold `%2F` already."""
    return quote(str(thing["name"]), safe="/%")
