"""A virtual key as the control plane keeps it. Frozen values, pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from keygate.policies import (
    Budget,
    BudgetSpec,
    Holder,
    KeyDigest,
    KeyFacts,
    KeyState,
    Limit,
    LimitKind,
    Place,
    Rules,
    RuleSet,
    owner_active,
)
from keygate.vendors import Vendor
from keygate.virtual_keys.token import Token

MAX_GRACE_SECONDS = 7 * 86_400


class Standing(StrEnum):
    """The status of a key as lists show it and filter by it."""

    ACTIVE = "active"
    EXPIRED = "expired"
    OWNER_INACTIVE = "owner_inactive"  # its owner, or one above that, was deactivated or archived: it works again when they are back
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class VirtualKey:
    id: str
    public_id: str
    organization_id: str
    name: str
    hint: str
    digest: bytes
    previous_digest: bytes | None  # of the former token, during a rotation's overlap
    previous_expires_at_ns: int | None
    owner: Place | None  # a team, developer or app; None: the organisation itself
    policy_id: str | None
    rules: Rules
    expires_at_ns: int | None
    tags: tuple[str, ...]
    revoked_at_ns: int | None
    revoked_by: str | None
    revoked_reason: str | None
    created_at_ns: int
    created_by: str
    last_used_at_ns: int | None
    version: int

    def standing(self, now_ns: int) -> Standing:
        """By the key alone."""
        if self.revoked_at_ns is not None:
            return Standing.REVOKED
        if self.expires_at_ns is not None and now_ns >= self.expires_at_ns:
            return Standing.EXPIRED
        return Standing.ACTIVE

    def standing_under(self, holders: Mapping[str, Holder], now_ns: int) -> Standing:
        """With regard to its owner too. `holders` has the owner and all above it."""
        own = self.standing(now_ns)
        held = own is not Standing.ACTIVE or owner_active(None if self.owner is None else self.owner.scope_id, holders)
        return own if held else Standing.OWNER_INACTIVE

    def facts(self) -> KeyFacts:
        """What compilation needs to know."""
        former = () if self.previous_digest is None else (KeyDigest(self.previous_digest, self.previous_expires_at_ns),)
        return KeyFacts(
            id=self.id,
            public_id=self.public_id,
            organization_id=self.organization_id,
            name=self.name,
            digests=(KeyDigest(self.digest), *former),
            owner_id=None if self.owner is None else self.owner.scope_id,
            policy_id=self.policy_id,
            rules=self.rules,
            expires_at_ns=self.expires_at_ns,
            tags=self.tags,
            revoked=self.revoked_at_ns is not None,
        )


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """What a new key shall be. `rules`, `limits` and `budgets` are its own; all that stands above applies as well."""

    name: str
    owner: Place | None = None
    policy_id: str | None = None
    rules: Rules = field(default_factory=Rules)
    limits: Mapping[LimitKind, int] = field(default_factory=dict)
    budgets: Sequence[BudgetSpec] = ()
    expires_at_ns: int | None = None
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """None: any. An owner's id finds the keys that it owns itself, not those of a team's developers."""

    owner_id: str | None = None
    status: Standing | None = None
    tag: str | None = None
    text: str | None = None  # in the name, or the beginning of an id or public id


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key with the limits and budgets of its own."""

    key: VirtualKey
    limits: tuple[Limit, ...]
    budgets: tuple[Budget, ...]
    standing: Standing


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A key with its token, this once."""

    view: KeyView
    token: Token
    state: KeyState


def usable_vendors(state: KeyState, vendors: Mapping[str, Vendor]) -> list[Vendor]:
    """The vendors of which the key's rules may allow something."""
    return [vendor for vendor in vendors.values() if all(_opens(rules, vendor.name) for rules in state.rules)]


def _opens(rules: RuleSet, vendor: str) -> bool:
    if rules.vendors is not None and vendor not in rules.vendors:
        return False
    if any(pattern in {"*", "*/*", f"{vendor}/*"} for pattern in rules.models_deny):
        return False
    return rules.models_allow is None or any(_may_name(pattern, f"{vendor}/") for pattern in rules.models_allow)


def _may_name(pattern: str, start: str) -> bool:
    literal = pattern.partition("*")[0]
    return literal.startswith(start) or ("*" in pattern and start.startswith(literal))
