"""The wire of virtual keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from keygate.kit.clock import rfc3339
from keygate.kit.money import format_usd
from keygate.kit.routes import Schema
from keygate.policies import KeyState, KeyUsage, LimitKind, Place, Rules, Scope
from keygate.policies.schemas import (
    BudgetState,
    BudgetTerms,
    BudgetTermsView,
    Id,
    Limits,
    LimitState,
    Moment,
    Names,
    Patterns,
    Text,
    moment_ns,
    rule_changes,
)
from keygate.virtual_keys.model import MAX_GRACE_SECONDS, KeyDraft, KeyView, Standing

_Tags = Annotated[list[Annotated[Text, StringConstraints(max_length=100)]], Field(max_length=50, description="`name=value` or `name`")]
_Expiry = Annotated[datetime | None, Field(description="RFC 3339; null: never")]


def _one_owner(owner: Owner) -> Owner:
    if sum(value is not None for value in (owner.team_id, owner.developer_id, owner.app_id)) > 1:
        raise ValueError("name one of team_id, developer_id and app_id")
    return owner


class Owner(Schema):
    """Whom a key belongs to: a team, a developer or an app; none of them: the organisation."""

    team_id: Id | None = None
    developer_id: Id | None = None
    app_id: Id | None = None

    def place(self) -> Place | None:
        for scope, owner_id in ((Scope.TEAM, self.team_id), (Scope.DEVELOPER, self.developer_id), (Scope.APP, self.app_id)):
            if owner_id is not None:
                return Place(scope, owner_id)
        return None


class KeyCreate(Schema):
    name: Text
    owner: Annotated[Owner, AfterValidator(_one_owner)] = Owner()
    policy_id: Id | None = None
    models: Patterns | None = Field(None, description="Allowed models; null: what stands above the key allows")
    models_deny: Patterns = Field(default_factory=list)
    vendors: Names | None = None
    endpoints: Names | None = None
    limits: Limits = Limits()
    budgets: Annotated[list[BudgetTerms], Field(max_length=20)] = Field(default_factory=list)
    expires_at: _Expiry = None
    tags: _Tags = Field(default_factory=list)

    def draft(self) -> KeyDraft:
        named = {name: getattr(self, name) for name in ("models", "models_deny", "vendors", "endpoints")}
        return KeyDraft(
            name=self.name,
            owner=self.owner.place(),
            policy_id=self.policy_id,
            rules=Rules(**rule_changes(named)),
            limits=self.limits.amounts(),
            budgets=[terms.spec() for terms in self.budgets],
            expires_at_ns=moment_ns(self.expires_at, "expires_at"),
            tags=self.tags,
        )


class KeyUpdate(Schema):
    name: Text | None = None
    policy_id: Id | None = None
    models: Patterns | None = None
    models_deny: Patterns | None = None
    vendors: Names | None = None
    endpoints: Names | None = None
    limits: Limits | None = Field(None, description="What is named changes, null removes; the rest stays")
    budgets: Annotated[list[BudgetTerms], Field(max_length=20)] | None = Field(
        None, description="Replaces all budgets of the key; one of the same period keeps what is spent"
    )
    expires_at: _Expiry = None
    tags: _Tags | None = None

    def changes(self) -> dict[str, Any]:
        named = {name: getattr(self, name) for name in self.model_fields_set}
        changed = rule_changes(named)
        if named.get("name") is not None:
            changed["name"] = self.name
        if "policy_id" in named:
            changed["policy_id"] = self.policy_id
        if "expires_at" in named:
            changed["expires_at_ns"] = moment_ns(self.expires_at, "expires_at")
        if "tags" in named:
            changed["tags"] = self.tags or []
        if self.limits is not None:
            changed["limits"] = self.limits.wanted()
        if "budgets" in named:
            changed["budgets"] = [terms.spec() for terms in self.budgets or []]
        return changed


class KeyOut(Schema):
    id: str
    name: str
    hint: str = Field(description="The beginning of the key; nothing of its secret")
    status: Standing
    owner: Owner
    policy_id: str | None
    models: list[str] | None
    models_deny: list[str]
    vendors: list[str] | None
    endpoints: list[str] | None
    limits: dict[LimitKind, int]
    budgets: list[BudgetTermsView]
    expires_at: Moment
    tags: list[str]
    created_at: Moment
    created_by: str
    last_used_at: Moment
    revoked_at: Moment
    revoked_by: str | None
    revoked_reason: str | None
    previous_key_expires_at: Moment = Field(description="Until when the former key works, after a rotation")

    @classmethod
    def fields(cls, view: KeyView) -> dict[str, Any]:
        key = view.key
        owner = {} if key.owner is None else {f"{key.owner.scope}_id": key.owner.scope_id}
        rules = key.rules
        return {
            "id": key.id,
            "name": key.name,
            "hint": key.hint,
            "status": view.standing,
            "owner": Owner(**owner),
            "policy_id": key.policy_id,
            "models": None if rules.models_allow is None else list(rules.models_allow),
            "models_deny": list(rules.models_deny),
            "vendors": None if rules.vendors is None else list(rules.vendors),
            "endpoints": None if rules.endpoints is None else list(rules.endpoints),
            "limits": {limit.rule.kind: limit.rule.amount for limit in view.limits},
            "budgets": [BudgetTermsView.of(budget.rule) for budget in view.budgets],
            "expires_at": rfc3339(key.expires_at_ns),
            "tags": list(key.tags),
            "created_at": rfc3339(key.created_at_ns),
            "created_by": key.created_by,
            "last_used_at": rfc3339(key.last_used_at_ns),
            "revoked_at": rfc3339(key.revoked_at_ns),
            "revoked_by": key.revoked_by,
            "revoked_reason": key.revoked_reason,
            "previous_key_expires_at": rfc3339(key.previous_expires_at_ns),
        }

    @classmethod
    def of(cls, view: KeyView) -> KeyOut:
        return cls(**cls.fields(view))


class IssuedKeyOut(KeyOut):
    """A key with its secret. This answer is the only place where it ever stands."""

    key: str = Field(description="The key, this once")
    env: dict[str, str] = Field(description="What to export so that the vendors' own SDKs use the key")


class Rotate(Schema):
    grace_seconds: Annotated[int, Field(ge=0, le=MAX_GRACE_SECONDS, description="How long the former key works on")] = 0


class Revoke(Schema):
    reason: Annotated[Text, StringConstraints(max_length=500)] = ""


class Leak(Schema):
    key: Annotated[str, StringConstraints(max_length=200)] = Field(description="The key that was found; it is revoked, and not kept")


class UsageOut(Schema):
    key_id: str
    requests: int
    input_tokens: int
    output_tokens: int
    spent_usd: str = Field(description="Charges in doubt included")
    held_usd: str
    in_doubt_usd: str
    budgets: list[BudgetState]
    limits: list[LimitState]

    @classmethod
    def of(cls, state: KeyState, used: KeyUsage) -> UsageOut:
        return cls(
            key_id=state.id,
            requests=used.requests,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            spent_usd=format_usd(used.spent_nano),
            held_usd=format_usd(used.held_nano),
            in_doubt_usd=format_usd(used.in_doubt_nano),
            budgets=[BudgetState(**BudgetState.fields(one)) for one in used.budgets],
            limits=[LimitState.of(one) for one in used.limits],
        )
