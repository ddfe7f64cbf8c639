"""Rules, limits and budgets, and how they decide. The values and `evaluate` are pure; services are wired by `api/` and `processes/`."""

from keygate.policies.evaluate import decide, evaluate, may_use, resolve_alias, server_tool_ceiling, standing
from keygate.policies.patterns import covers, matches
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
    "covers",
    "decide",
    "evaluate",
    "matches",
    "may_use",
    "resolve_alias",
    "server_tool_ceiling",
    "standing",
]
