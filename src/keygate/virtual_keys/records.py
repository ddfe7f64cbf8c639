"""What the audit log keeps of a key, and what is told of its end. Pure; digests and tokens are left to the caller, who passes
tokens as `Secret`s."""

from __future__ import annotations

from typing import Any

from keygate.identities import Actor
from keygate.kit.clock import rfc3339
from keygate.kit.money import format_usd
from keygate.policies import rules_to_json
from keygate.virtual_keys.model import KeyView, VirtualKey


def key_record(view: KeyView) -> dict[str, Any]:
    key = view.key
    return {
        "name": key.name,
        "hint": key.hint,
        "owner": None if key.owner is None else key.owner.scope_id,
        "policy_id": key.policy_id,
        "rules": rules_to_json(key.rules),
        "limits": {str(limit.rule.kind): limit.rule.amount for limit in view.limits},
        "budgets": [
            {
                "id": budget.rule.id,
                "amount_usd": format_usd(budget.rule.amount_nano),
                "period": str(budget.rule.period),
                "mode": str(budget.rule.mode),
            }
            for budget in view.budgets
        ],
        "expires_at": rfc3339(key.expires_at_ns),
        "tags": list(key.tags),
    }


def revocation(key: VirtualKey, actor: Actor, reason: str) -> dict[str, Any]:
    """Payload of the event of a revoked key: enough to tell whoever used it, without asking again."""
    return {
        "name": key.name,
        "hint": key.hint,
        "owner": None if key.owner is None else key.owner.scope_id,
        "owner_scope": None if key.owner is None else str(key.owner.scope),
        "tags": list(key.tags),
        "reason": reason,
        "by": actor.id,
        "last_used_at": rfc3339(key.last_used_at_ns),
    }
