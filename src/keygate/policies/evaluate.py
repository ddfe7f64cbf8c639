"""May this key make this call? Pure, and on the path of every request.

Every layer (organisation, team, developer or app, policy, the key itself) must allow; a denial anywhere wins; what no rule knows is
denied. So a layer can only narrow: adding one never allows a call that was refused.

Names: vendors are lower case. An allowed model is compared exactly as written; a denied one without regard to case, so that no
spelling slips past a denial. Snapshots are names of their own: `openai/gpt-4.1` says nothing of `openai/gpt-4.1-2025-04-14`;
`openai/gpt-4.1*` does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from keygate.policies.patterns import compiled, compiled_caseless
from keygate.policies.state import Allow, Decision, Deny, KeyState, KeyStatus, RuleSet, Scope

_ALLOW = Allow()
_LIST_OF_MODELS = "models"  # vendors.EndpointGroup.MODELS: shows a key only what it may use, so no rule needs to name it


def evaluate(state: KeyState, *, vendor: str, model: str | None, endpoint: str, now_ns: int) -> Decision:
    """`vendor` and `endpoint` as in the registry, `model` as the vendor knows it (aliases resolved), None where the call names none.

    A call without a model is refused by a layer that restricts models, unless it is the list of models.
    """
    refused = standing(state, now_ns=now_ns)
    if refused is not None:
        return refused
    for rules in state.rules:
        refused = _refusal(rules, vendor, model, endpoint)
        if refused is not None:
            return refused
    return _ALLOW


def standing(state: KeyState, *, now_ns: int) -> Deny | None:
    """Why the key is good for nothing now, or None: revoked, owner inactive, expired. Asked again while a stream runs."""
    if state.status is KeyStatus.REVOKED:
        return Deny("key_revoked", Scope.KEY, state.id, f"The key '{state.name}' was revoked.")
    if state.status is not KeyStatus.ACTIVE:
        scope, scope_id = _owner(state)
        return Deny("owner_inactive", scope, scope_id, f"The {scope.value} that the key '{state.name}' belongs to is not active.")
    if state.expires_at_ns is not None and now_ns >= state.expires_at_ns:
        return Deny("key_expired", Scope.KEY, state.id, f"The key '{state.name}' has expired.")
    return None


def decide(rules: RuleSet, *, vendor: str, model: str | None, endpoint: str) -> Decision:
    """The decision of one layer alone; `explain` shows each."""
    return _refusal(rules, vendor, model, endpoint) or _ALLOW


def may_use(state: KeyState, *, vendor: str, model: str) -> bool:
    """Whether a list of models shows this one to the key. Leaves out the key's standing and the endpoint."""
    return all(_refusal(rules, vendor, model, _LIST_OF_MODELS) is None for rules in state.rules)


def resolve_alias(aliases: Sequence[tuple[str, str]], model: str) -> str | None:
    """The `vendor/model` that an alias stands for, or None. `aliases` are sorted by alias, as `KeyState` holds them."""
    at = bisect_left(aliases, (model,))
    if at < len(aliases) and aliases[at][0] == model:
        return aliases[at][1]
    return None


def server_tool_ceiling(state: KeyState) -> int | None:
    """What server-side tools of one request may cost at most, in nano-dollars: the lowest that a layer names, None if none does."""
    named = [rules.server_tool_ceiling_nano for rules in state.rules if rules.server_tool_ceiling_nano is not None]
    return min(named, default=None)


def _refusal(rules: RuleSet, vendor: str, model: str | None, endpoint: str) -> Deny | None:
    if rules.vendors is not None and vendor not in rules.vendors:
        return _deny(rules, "vendor_not_allowed", f"do not allow the vendor '{vendor}'")
    if rules.endpoints is not None and endpoint not in rules.endpoints and endpoint != _LIST_OF_MODELS:
        return _deny(rules, "endpoint_not_allowed", f"do not allow the endpoint '{endpoint}'")
    if model is None:
        if endpoint == _LIST_OF_MODELS or (rules.models_allow is None and not rules.models_deny):
            return None
        return _deny(rules, "model_not_allowed", "restrict models, and the call names none")
    name = f"{vendor}/{model}"
    if rules.models_deny and compiled_caseless(rules.models_deny).match(name.lower()):
        return _deny(rules, "model_not_allowed", f"deny the model '{name}'")
    if rules.models_allow is not None and not compiled(rules.models_allow).match(name):
        return _deny(rules, "model_not_allowed", f"do not allow the model '{name}'")
    return None


def _deny(rules: RuleSet, rule: str, what: str) -> Deny:
    return Deny(
        rule, rules.scope, rules.scope_id, f"The rules '{rules.name}' of the {rules.scope.value} {what[:600]}{'…' * (len(what) > 600)}."
    )


def _owner(state: KeyState) -> tuple[Scope, str]:
    if state.developer_id is not None:
        return Scope.DEVELOPER, state.developer_id
    if state.app_id is not None:
        return Scope.APP, state.app_id
    if state.team_id is not None:
        return Scope.TEAM, state.team_id
    return Scope.ORGANIZATION, state.organization_id
