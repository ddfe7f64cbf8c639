"""What was agreed of a key, against what its vendor shows: compared, and set again where somebody changed it there."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from keygate.issued_keys.model import Enforcement, IssuedKey, compare
from keygate.issued_keys.ports import Restraint
from keygate.vendors.admin import (
    AdminDesk,
    Footprint,
    Provisioner,
    ProvisionerFacts,
    Rejected,
    SetsBudget,
    SetsExpiry,
    SetsLimits,
    SetsModels,
    SetsTerms,
    Term,
    Terms,
)

DRIFTED = "drifted"


class HeldBack(Rejected):
    """The key is switched off at the vendor: the next one would not be, or would be refused too."""

    code = "held_back"


class Drifted(Rejected):
    """The vendor goes on showing other terms than were agreed."""

    code = DRIFTED


def disabled_for_budget(key_id: str) -> str:
    return (
        f"The key is disabled for its budget, so it gets no next one. `keygate watch {key_id}` shows how it stands; "
        f"`keygate resume {key_id}` lets it go on, and so does the budget's next period, where it has one"
    )


def differing(told: Mapping[str, Enforcement]) -> list[str]:
    return sorted(term for term, standing in told.items() if standing is Enforcement.DIFFERS)


def standing_of(
    key: IssuedKey, shown: Terms, facts: ProvisionerFacts, restraint: Restraint | None = None, *, own_end: bool = False
) -> dict[str, Enforcement]:
    """As `compare`, of a key that KeyGate itself may have lowered for its budget: then its own limits are not as agreed, lower ones are."""
    told = compare(key.terms, shown, facts, own_end=own_end, rotated=key.generation > 1, before=key.enforcement)
    if restraint is None:
        return told
    goal = restraint.lowered(key.terms)
    limits = (
        (Term.REQUESTS_PER_MINUTE, key.terms.requests_per_minute, goal.requests_per_minute, shown.requests_per_minute),
        (Term.TOKENS_PER_MINUTE, key.terms.tokens_per_minute, goal.tokens_per_minute, shown.tokens_per_minute),
    )
    for term, own, least, limit in limits:
        if own is not None and least is not None and term in facts.confirms:
            fewer = limit is not None and (limit < own or limit <= least)  # vendors count in units of their own
            told[str(term)] = Enforcement.CONFIRMED if fewer else Enforcement.DIFFERS
    return told


async def set_again(provisioner: Provisioner, desk: AdminDesk, footprint: Footprint, terms: Terms, which: Collection[str]) -> None:
    """Those of `terms`, where the vendor takes them. The caller reads back."""
    power: object = provisioner
    if isinstance(power, SetsTerms):
        await power.set_terms(desk, footprint, terms)
        return
    if Term.BUDGET in which and isinstance(power, SetsBudget):
        await power.set_budget(desk, footprint, terms.budget_nano, terms.budget_period)
    if Term.MODELS in which and isinstance(power, SetsModels):
        await power.set_models(desk, footprint, terms.models)
    if {Term.REQUESTS_PER_MINUTE, Term.TOKENS_PER_MINUTE} & set(which) and isinstance(power, SetsLimits):
        await power.set_limits(desk, footprint, terms)
    if Term.EXPIRY in which and isinstance(power, SetsExpiry):
        await power.set_expiry(desk, footprint, terms.expires_at_ns)
