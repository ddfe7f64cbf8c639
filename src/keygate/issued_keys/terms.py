"""What may be ordered at a vendor, by what it can do. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from keygate.errors import Conflict, InvalidInput
from keygate.issued_keys.model import IssueDraft, asked
from keygate.vendors.admin import Checks, Provisioner, Term, Unfit, Wanted

FIELDS: Mapping[str, str] = {
    Term.BUDGET: "budget_usd",
    Term.MODELS: "models",
    Term.REQUESTS_PER_MINUTE: "rate_limit_rpm",
    Term.TOKENS_PER_MINUTE: "rate_limit_tpm",
    Term.SCOPES: "scopes",
    Term.EXPIRY: "expires_at",
}
"""Terms as callers write them."""


def check_terms(provisioner: Provisioner, draft: IssueDraft, *, settings: Mapping[str, str], now: int) -> None:
    """Raises `InvalidInput` for terms or options that this vendor can't have, with the field and the remedy; `Conflict` where it makes no
    keys by API. Asks nobody."""
    facts, terms = provisioner.facts, draft.terms
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
    # An end is kept by KeyGate's own sweep wherever the vendor has none.
    lacking = sorted(asked(terms) - facts.confirms - facts.takes - {Term.EXPIRY})
    if lacking and not draft.allow_unenforced:
        what = "; ".join(f"{term}: {facts.cannot.get(str(term), 'the vendor has no such rule')}" for term in lacking)
        raise InvalidInput(
            f"{facts.title} can't enforce {', '.join(lacking)} on a key ({what}). Send allow_unenforced to have the key without",
            field=FIELDS[lacking[0]],
        )
    if terms.budget_nano == 0:
        raise InvalidInput("budget_usd: must be more than nothing; leave it out for a key without a budget", field="budget_usd")
    if isinstance(provisioner, Checks):
        try:
            provisioner.check(Wanted(terms, draft.options, settings, now))
        except Unfit as error:
            raise unfit(error) from None


def unfit(error: Unfit) -> InvalidInput:
    field = FIELDS.get(error.field, error.field)
    return InvalidInput(f"{field}: {error.detail}", field=field)
