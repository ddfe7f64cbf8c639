"""What may be ordered at a vendor, by what it can do. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from keygate.errors import Conflict, InvalidInput
from keygate.issued_keys.model import MAX_OVERLAP_SECONDS, IssueDraft, VendorAccount, asked, facts_of
from keygate.issued_keys.rotation.model import DAY_SECONDS, MAX_ROTATION_DAYS
from keygate.vendors.admin import AddsKey, Checks, Provisioner, Term, Unfit, Wanted

FIELDS: Mapping[str, str] = {
    Term.BUDGET: "budget_usd",
    Term.MODELS: "models",
    Term.REQUESTS_PER_MINUTE: "rate_limit_rpm",
    Term.TOKENS_PER_MINUTE: "rate_limit_tpm",
    Term.SCOPES: "scopes",
    Term.EXPIRY: "expires_at",
}
"""Terms as callers write them."""


def check_terms(provisioner: Provisioner, draft: IssueDraft, *, account: VendorAccount, now: int) -> None:
    """Raises `InvalidInput` for terms or options that this vendor can't have in this account, with the field and the remedy; `Conflict`
    where it makes no keys by API. Asks nobody."""
    facts, terms = facts_of(provisioner, account), draft.terms
    if facts.adopt_only:
        raise Conflict(f"{facts.title} makes no keys by API: {facts.cannot.get('create', 'enter one that was made there')}")
    if terms.expires_at_ns is not None and terms.expires_at_ns <= now:
        raise InvalidInput("expires_at: must lie in the future", field="expires_at")
    unknown = set(draft.options) - set(facts.options)
    if unknown:
        known = ", ".join(sorted(facts.options)) or "none"
        raise InvalidInput(f"options: {facts.title} has none called {min(unknown)[:60]!r}; there are: {known}", field="options")
    for name, what in facts.options.items():
        if what.endswith("(required)") and not draft.options.get(name):
            raise InvalidInput(f"options.{name}: needed: {what}", field=f"options.{name}")
    for term in sorted(facts.needs.keys() - asked(terms)):
        raise InvalidInput(f"{FIELDS[term]}: {facts.title} needs them: {facts.needs[term]}", field=FIELDS[term])
    # An end is kept by KeyGate's own sweep wherever the vendor has none.
    lacking = sorted(asked(terms) - facts.confirms - facts.takes - {Term.EXPIRY})
    if lacking and not draft.allow_unenforced:
        what = "; ".join(f"{term}: {facts.cannot.get(str(term), 'the vendor has no such rule')}" for term in lacking)
        raise InvalidInput(
            f"{facts.title} can't enforce {', '.join(lacking)} on a key ({what}). Send allow_unenforced "
            "(--allow-unenforced) to have the key without",
            field=FIELDS[lacking[0]],
        )
    if terms.budget_nano == 0:
        raise InvalidInput("budget_usd: must be more than nothing; leave it out for a key without a budget", field="budget_usd")
    if isinstance(provisioner, Checks):
        try:
            provisioner.check(Wanted(terms, draft.options, account.settings, now))
        except Unfit as error:
            raise unfit(error) from None


def unfit(error: Unfit) -> InvalidInput:
    field = FIELDS.get(error.field, error.field)
    return InvalidInput(f"{field}: {error.detail}", field=field)


def check_schedule(provisioner: Provisioner | None, every_days: int | None, overlap_seconds: int | None) -> None:
    """Raises `InvalidInput` for a schedule that can't be kept: told when it is asked for, not when it is due."""
    if every_days is None:
        if overlap_seconds is not None:
            raise InvalidInput("rotate_overlap_seconds: only with rotate_every_days", field="rotate_overlap_seconds")
        return
    if not 1 <= every_days <= MAX_ROTATION_DAYS:
        raise InvalidInput(f"rotate_every_days: from 1 to {MAX_ROTATION_DAYS}", field="rotate_every_days")
    power: object = provisioner
    if not isinstance(power, AddsKey):
        title = "this vendor" if provisioner is None else provisioner.facts.title
        raise InvalidInput(
            f"rotate_every_days: {title} can't hold a second key beside the first, so KeyGate can't rotate there. Leave it out, give the "
            "key an end, and have a rotation policy remind you of its age",
            field="rotate_every_days",
        )
    if overlap_seconds is not None and not 0 <= overlap_seconds < min(MAX_OVERLAP_SECONDS, every_days * DAY_SECONDS):
        raise InvalidInput("rotate_overlap_seconds: must be shorter than the time between two rotations", field="rotate_overlap_seconds")
