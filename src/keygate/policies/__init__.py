"""Rules, limits and budgets, and how they decide. The values and `evaluate` are pure; services are wired by `api/` and `processes/`."""

from keygate.policies.state import (
    Allow,
    BudgetMode,
    BudgetRule,
    Decision,
    Deny,
    KeyDigest,
    KeyState,
    KeyStatus,
    LimitKind,
    LimitRule,
    Period,
    RuleSet,
    Scope,
)

__all__ = [
    "Allow",
    "BudgetMode",
    "BudgetRule",
    "Decision",
    "Deny",
    "KeyDigest",
    "KeyState",
    "KeyStatus",
    "LimitKind",
    "LimitRule",
    "Period",
    "RuleSet",
    "Scope",
]
