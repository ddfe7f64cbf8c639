"""From a key and everything above it to the `KeyState` that the gateway reads. Pure.

The chain is organisation ⊃ team ⊃ developer ⊃ app ⊃ key, as far as each is there; a key has the team that its owner is in now. Each
layer adds rules, limits and budgets; none takes any away. A policy that is named but gone allows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keygate.policies.model import BudgetSpec, Governance, Holder, Policy, Rules
from keygate.policies.patterns import matches
from keygate.policies.state import BudgetRule, KeyDigest, KeyState, KeyStatus, LimitKind, LimitRule, RuleSet, Scope

_SHORT = {  # ids made of two others stay within 64 characters
    LimitKind.REQUESTS_PER_MINUTE: "rpm",
    LimitKind.REQUESTS_PER_DAY: "rpd",
    LimitKind.TOKENS_PER_MINUTE: "tpm",
    LimitKind.TOKENS_PER_DAY: "tpd",
    LimitKind.CONCURRENT_REQUESTS: "con",
}


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What a key says of itself."""

    id: str
    public_id: str
    organization_id: str
    name: str
    digests: tuple[KeyDigest, ...]
    owner_id: str | None  # team_…, dev_…, app_…; None: the organisation
    policy_id: str | None
    rules: Rules
    expires_at_ns: int | None
    tags: tuple[str, ...]
    revoked: bool


def compile_key(key: KeyFacts, above: Governance, *, now_ns: int, version: int = 0) -> KeyState:
    """Former tokens whose overlap has ended are left out. `version` must rise from one snapshot to the next."""
    chain = _chain(key.owner_id, above.holders)
    carried = _carried(key, chain, above)
    by_scope = {holder.scope: holder.id for holder in chain}
    places = (above.organization.id, *(holder.id for holder in chain), key.id)
    return KeyState(
        id=key.id,
        public_id=key.public_id,
        name=key.name,
        organization_id=key.organization_id,
        team_id=by_scope.get(Scope.TEAM),
        developer_id=by_scope.get(Scope.DEVELOPER),
        app_id=by_scope.get(Scope.APP),
        status=_status(key, above),
        digests=tuple(digest for digest in key.digests if digest.expires_at_ns is None or digest.expires_at_ns > now_ns),
        expires_at_ns=key.expires_at_ns,
        rules=(
            *(_layer(policy.rules, scope, scope_id, policy.name) for scope, scope_id, policy in carried if policy.rules != Rules()),
            *(() if key.rules == Rules() else (_layer(key.rules, Scope.KEY, key.id, key.name),)),
        ),
        limits=(
            *(rule for scope_id in places for rule in above.limits.get(scope_id, ())),
            *(_own_limit(policy, key.id, kind, amount) for _, _, policy in carried for kind, amount in policy.limits),
        ),
        budgets=(
            *(rule for scope_id in places for rule in above.budgets.get(scope_id, ())),
            *(_own_budget(spec, key.id) for _, _, policy in carried for spec in policy.budgets),
        ),
        tags=key.tags,
        aliases=above.aliases,
        version=version,
    )


def applies(rule: BudgetRule | LimitRule, *, vendor: str, model: str, tags: tuple[str, ...]) -> bool:
    """Whether a budget or limit of a key counts this call. Those of the nesting scopes always do; vendor budgets by the vendor's name,
    model budgets by `vendor/model`, tag budgets by any of the tags."""
    if rule.scope is Scope.VENDOR:
        return rule.selector is None or matches(rule.selector, vendor)
    if rule.scope is Scope.MODEL:
        return rule.selector is None or matches(rule.selector, f"{vendor}/{model}")
    if rule.scope is Scope.TAG:
        return rule.selector is None or any(matches(rule.selector, tag) for tag in tags)
    return True


def owner_active(owner_id: str | None, holders: Mapping[str, Holder]) -> bool:
    """Whether a key's owner and all that the owner stands below are there and active. The organisation itself (None) always is."""
    chain = _chain(owner_id, holders)
    named = {owner_id, *(holder.team_id for holder in chain), *(holder.developer_id for holder in chain)} - {None}
    return all(holder_id in holders for holder_id in named) and all(holder.active for holder in chain)


def _chain(owner_id: str | None, holders: Mapping[str, Holder]) -> list[Holder]:
    """The holders above a key, outermost first: team, developer, app. A part that is gone leaves a hole that `owner_active` sees."""
    owner = holders.get(owner_id or "")
    if owner is None:
        return []
    developer = holders.get(owner.developer_id or "")
    team_id = owner.team_id or (developer.team_id if developer is not None else None)
    team = holders.get(team_id or "")
    return [holder for holder in (team, developer, owner) if holder is not None]


def _carried(key: KeyFacts, chain: list[Holder], above: Governance) -> list[tuple[Scope, str, Policy]]:
    """The policies that the key carries, each once, outermost first, with the scope that names it."""
    naming = [(Scope.ORGANIZATION, above.organization.id, above.organization.policy_id)]
    naming += [(holder.scope, holder.id, holder.policy_id) for holder in chain]
    naming.append((Scope.KEY, key.id, key.policy_id))
    found: dict[str, tuple[Scope, str, Policy]] = {}
    for scope, scope_id, policy_id in naming:
        if policy_id is not None:
            found.setdefault(policy_id, (scope, scope_id, above.policies.get(policy_id) or _gone(policy_id, above)))
    return list(found.values())


def _gone(policy_id: str, above: Governance) -> Policy:
    """Stands for a policy that isn't there: allows nothing."""
    return Policy(
        id=policy_id,
        organization_id=above.organization.id,
        name="a policy that is gone",
        description="",
        rules=Rules(models_allow=(), vendors=(), endpoints=()),
        limits=(),
        budgets=(),
        version=0,
        created_at_ns=0,
        created_by="",
        updated_at_ns=0,
    )


def _status(key: KeyFacts, above: Governance) -> KeyStatus:
    if key.revoked:
        return KeyStatus.REVOKED
    return KeyStatus.ACTIVE if owner_active(key.owner_id, above.holders) else KeyStatus.OWNER_INACTIVE


def _layer(rules: Rules, scope: Scope, scope_id: str, name: str) -> RuleSet:
    return RuleSet(
        scope=scope,
        scope_id=scope_id,
        name=name,
        models_allow=rules.models_allow,
        models_deny=rules.models_deny,
        vendors=None if rules.vendors is None else frozenset(rules.vendors),
        endpoints=None if rules.endpoints is None else frozenset(rules.endpoints),
        server_tool_ceiling_nano=rules.server_tool_ceiling_nano,
        record_content=rules.record_content,
        content_readers=rules.content_readers,
    )


def _own_limit(policy: Policy, key_id: str, kind: LimitKind, amount: int) -> LimitRule:
    return LimitRule(id=f"{policy.id}.{_SHORT[kind]}.{key_id}", scope=Scope.KEY, scope_id=key_id, selector=None, kind=kind, amount=amount)


def _own_budget(spec: BudgetSpec, key_id: str) -> BudgetRule:
    """A policy's budget on the key's own account; the id is made of both, so each key is counted apart."""
    return BudgetRule(
        id=f"{spec.id}.{key_id}",
        scope=Scope.KEY,
        scope_id=key_id,
        selector=None,
        period=spec.period,
        mode=spec.mode,
        amount_nano=spec.amount_nano,
        time_zone=spec.time_zone,
        rolling=spec.rolling,
        starts_at_ns=spec.starts_at_ns,
        thresholds=spec.thresholds,
    )
