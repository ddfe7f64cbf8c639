"""Billing Budgets v1: alerts and spend caps.

A spend cap has a strict shape and a state of its own; rules from the descriptions in billingbudgets.v1 20261011, read 2026-11-26. What a
capped project answers is not described there.
"""

from __future__ import annotations

import uuid

from keygate.sandbox.admin.google.cloud import GoogleCloud, Request, paged
from keygate.sandbox.admin.google.errors import denied, invalid, no_such, precondition
from keygate.sandbox.admin.google.model import Budget, Json

CONFIGURED, AWAITING = "CONFIGURED", "AWAITING_NEXT_PERIOD"
ELIGIBLE = {"services/5A4D-B0X1-GEM1": "Gemini API"}  # the sandbox's own id; Google's was not seen
_NOT_IN_CAPS = ("creditTypes", "customPeriod", "labels", "resourceAncestors", "subaccounts")


def serve(cloud: GoogleCloud, request: Request) -> Json:
    parts = request.path.removeprefix("v1/").split("/")
    match (request.method, *parts):
        case ("POST", "billingAccounts", account, "budgets"):
            return _create(cloud, request, account)
        case ("GET", "billingAccounts", account, "budgets"):
            cloud.need(request, "billing.budgets.list", f"billingAccounts/{account}")
            scope = request.query.get("scope")
            mine = [
                _shown(cloud, budget)
                for budget in cloud.budgets.values()
                if budget.account == account and (not scope or scope in budget.body.get("budgetFilter", {}).get("projects", []))
            ]
            return paged(mine, request.query, "budgets")
        case (method, "billingAccounts", account, "budgets", budget_id):
            return _one(cloud, request, method, account, budget_id)
    raise no_such("This method")


def _create(cloud: GoogleCloud, request: Request, account: str) -> Json:
    cloud.need(request, "billing.budgets.create", f"billingAccounts/{account}")
    if account not in cloud.billing_accounts:
        raise denied("billing.budgets.create", f"billingAccounts/{account}")
    body = _written(cloud, account, request.body)
    budget = Budget(account, str(uuid.uuid4()), body)
    if "spendCap" in body:
        if body["spendCap"].get("inputState") != CONFIGURED:
            raise invalid("spend_cap.input_state must be CONFIGURED when a budget is created.")
        _check_cap(cloud, account, body)
        budget.spend_cap = CONFIGURED
    cloud.budgets[budget.id] = budget
    return budget.as_dict()


def _written(cloud: GoogleCloud, account: str, body: Json) -> Json:
    if len(str(body.get("displayName", ""))) > 60:
        raise invalid("display_name has at most 60 characters.")
    amount = body.get("amount") or {}
    if "specifiedAmount" not in amount and "lastPeriodAmount" not in amount:
        raise invalid("amount is required.")
    kept = {name: value for name, value in body.items() if name not in {"name", "etag"}}
    currency = cloud.billing_accounts[account]["currencyCode"]
    if "specifiedAmount" in amount:
        if amount["specifiedAmount"].get("currencyCode", currency) != currency:
            raise invalid("currency_code must be the billing account's.")
        kept["amount"] = {"specifiedAmount": {**amount["specifiedAmount"], "currencyCode": currency}}
    return kept


def _check_cap(cloud: GoogleCloud, account: str, body: Json) -> None:
    kept, notified = body.get("budgetFilter") or {}, body.get("notificationsRule") or {}
    percents = sorted(float(rule.get("thresholdPercent", 0)) for rule in body.get("thresholdRules", []))
    bases = {rule.get("spendBasis", "CURRENT_SPEND") for rule in body.get("thresholdRules", [])}
    wrong = {
        "spend caps are not available to reseller billing accounts": cloud.billing_accounts[account]["reseller"],
        "amount.specified_amount must be set": "specifiedAmount" not in body["amount"],
        "budget_filter.projects must contain exactly one project": len(kept.get("projects", [])) != 1,
        "budget_filter.services must contain exactly one eligible service": len(kept.get("services", [])) != 1
        or kept["services"][0] not in ELIGIBLE,
        "budget_filter.credit_types_treatment must be EXCLUDE_ALL_CREDITS": kept.get("creditTypesTreatment") != "EXCLUDE_ALL_CREDITS",
        "budget_filter.calendar_period must be MONTH": kept.get("calendarPeriod", "MONTH") != "MONTH",
        "threshold_rules must be exactly 0.5, 0.8 and 1.0": percents != [0.5, 0.8, 1.0],
        "threshold_rules.spend_basis must be CURRENT_SPEND": not bases <= {"CURRENT_SPEND", "BASIS_UNSPECIFIED"},
        "notifications_rule.enable_project_level_recipients must be true": notified.get("enableProjectLevelRecipients") is not True,
        "notifications_rule.disable_default_iam_recipients must be false": notified.get("disableDefaultIamRecipients", False),
        "notifications_rule.pubsub_topic must be empty": notified.get("pubsubTopic") or notified.get("monitoringNotificationChannels"),
        "ownership_scope BILLING_ACCOUNT is not supported": body.get("ownershipScope") == "BILLING_ACCOUNT",
        **{f"budget_filter.{name} is not supported": kept.get(name) for name in _NOT_IN_CAPS},
    }
    for message, is_so in wrong.items():
        if is_so:
            raise invalid(f"Spend cap: {message}.")


def _one(cloud: GoogleCloud, request: Request, method: str, account: str, budget_id: str) -> Json:
    resource = f"billingAccounts/{account}"
    budget = cloud.budgets.get(budget_id)
    if method == "DELETE":
        cloud.need(request, "billing.budgets.delete", resource)
        cloud.budgets.pop(budget_id, None)  # "Returns successfully if already deleted."
        return {}
    if budget is None or budget.account != account:
        raise no_such(f"Budget {budget_id}")
    if method == "GET":
        cloud.need(request, "billing.budgets.get", resource)
        return _shown(cloud, budget)
    if method != "PATCH":
        raise no_such("This method")
    cloud.need(request, "billing.budgets.update", resource)
    return _update(cloud, budget, request)


def _update(cloud: GoogleCloud, budget: Budget, request: Request) -> Json:
    etag = request.body.get("etag")
    if etag and etag != budget.as_dict()["etag"]:
        raise precondition("The etag doesn't match.")
    mask = {_camel(name.partition(".")[0]) for name in request.query.get("updateMask", "").split(",") if name}
    members = mask or {name for name in request.body if name not in {"name", "etag"}}
    wanted = str((request.body.get("spendCap") or {}).get("inputState", ""))
    if budget.spend_cap:
        if mask and "spendCap" not in mask:
            raise invalid("update_mask must name spend_cap or spend_cap.input_state.")
        if cloud.capped(budget) and members != {"spendCap"}:
            raise precondition("Only spend_cap.input_state can be changed while the cap is enforced.")
        if wanted not in {CONFIGURED, AWAITING} or (wanted == AWAITING and budget.spend_cap == AWAITING):
            raise invalid("spend_cap.input_state")
    body = {**budget.body, **{name: request.body[name] for name in members if name in request.body}}
    body = _written(cloud, budget.account, body)
    if "spendCap" in body:
        _check_cap(cloud, budget.account, body)
        budget.spend_cap = wanted
    budget.body = body
    return _shown(cloud, budget)


def _shown(cloud: GoogleCloud, budget: Budget) -> Json:
    cloud.capped(budget)
    return budget.as_dict()


def _camel(name: str) -> str:
    first, *rest = name.strip().split("_")
    return first + "".join(part.title() for part in rest)
