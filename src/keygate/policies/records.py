"""JSON forms of rules, limits and budgets: as they stand in rows and in the audit log. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keygate.kit.money import format_usd
from keygate.policies.model import Alias, Budget, BudgetSpec, Limit, Policy, Rules
from keygate.policies.state import BudgetMode, Period


def rules_to_json(rules: Rules) -> dict[str, Any]:
    """Only what differs from no rule at all."""
    empty = Rules()
    kept = {name: getattr(rules, name) for name in Rules.__dataclass_fields__ if getattr(rules, name) != getattr(empty, name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def rules_from_json(value: Mapping[str, Any]) -> Rules:
    fields: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
    return Rules(**fields)


def spec_to_json(spec: BudgetSpec) -> dict[str, Any]:
    return {name: list(value) if isinstance(value := getattr(spec, name), tuple) else value for name in BudgetSpec.__dataclass_fields__}


def spec_from_json(value: Mapping[str, Any]) -> BudgetSpec:
    return BudgetSpec(
        **{**value, "period": Period(value["period"]), "mode": BudgetMode(value["mode"]), "thresholds": tuple(value["thresholds"])}
    )


def policy_record(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "description": policy.description,
        "rules": rules_to_json(policy.rules),
        "limits": {str(kind): amount for kind, amount in policy.limits},
        "budgets": [spec_to_json(spec) for spec in policy.budgets],
    }


def budget_record(budget: Budget) -> dict[str, Any]:
    rule = budget.rule
    return {
        "scope": rule.scope,
        "scope_id": rule.scope_id,
        "selector": rule.selector,
        "period": rule.period,
        "mode": rule.mode,
        "amount_usd": format_usd(rule.amount_nano),
        "rolling": rule.rolling,
        "time_zone": rule.time_zone,
        "thresholds": list(rule.thresholds),
    }


def limit_record(limit: Limit) -> dict[str, Any]:
    rule = limit.rule
    return {"scope": rule.scope, "scope_id": rule.scope_id, "selector": rule.selector, "kind": rule.kind, "amount": rule.amount}


def alias_record(alias: Alias) -> dict[str, Any]:
    return {"alias": alias.alias, "target": alias.target}
