"""Rules, limits and budgets, and how they decide. The values and `evaluate` are pure; services are wired by `api/` and `processes/`."""

from keygate.policies import validation
from keygate.policies.aliases import AliasService
from keygate.policies.budgets import BudgetService, placed_budget, terms_of
from keygate.policies.changes import change, require_governor
from keygate.policies.compilation import KeyFacts, applies, compile_key, owner_active
from keygate.policies.evaluate import decide, evaluate, may_use, resolve_alias, server_tool_ceiling, standing
from keygate.policies.explanation import BudgetAnswer, ExplainService, Explanation, Layer
from keygate.policies.model import Alias, Budget, BudgetSpec, Governance, Holder, Limit, Organization, Place, Policy, Rules
from keygate.policies.patterns import covers, matches
from keygate.policies.ports import (
    BudgetStanding,
    Estimate,
    KeyDirectory,
    KeyUsage,
    LimitStanding,
    OwnerDirectory,
    PriceReader,
    StatePublisher,
    UsageReader,
)
from keygate.policies.records import rules_from_json, rules_to_json
from keygate.policies.service import PolicyDraft, PolicyService, home_zone, kept_accounts
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
    "Alias",
    "AliasService",
    "Allow",
    "Budget",
    "BudgetAnswer",
    "BudgetMode",
    "BudgetRule",
    "BudgetService",
    "BudgetSpec",
    "BudgetStanding",
    "Decision",
    "Deny",
    "Estimate",
    "ExplainService",
    "Explanation",
    "Governance",
    "Holder",
    "KeyDigest",
    "KeyDirectory",
    "KeyFacts",
    "KeyState",
    "KeyStatus",
    "KeyUsage",
    "Layer",
    "Limit",
    "LimitKind",
    "LimitRule",
    "LimitStanding",
    "Organization",
    "OwnerDirectory",
    "Period",
    "Place",
    "Policy",
    "PolicyDraft",
    "PolicyService",
    "PriceReader",
    "RuleSet",
    "Rules",
    "Scope",
    "StatePublisher",
    "UsageReader",
    "applies",
    "change",
    "compile_key",
    "covers",
    "decide",
    "evaluate",
    "home_zone",
    "kept_accounts",
    "matches",
    "may_use",
    "owner_active",
    "placed_budget",
    "require_governor",
    "resolve_alias",
    "rules_from_json",
    "rules_to_json",
    "server_tool_ceiling",
    "standing",
    "terms_of",
    "validation",
]
