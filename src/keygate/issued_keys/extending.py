"""Another end of a key, at the vendor: set where it takes one, read back where it shows one."""

from __future__ import annotations

from keygate.errors import Conflict, InvalidInput, UpstreamFailed
from keygate.issued_keys.bench import is_gone
from keygate.issued_keys.model import Enforcement, IssuedKey, compare
from keygate.issued_keys.terms import unfit
from keygate.kit.clock import rfc3339
from keygate.vendors.admin import Checks, Desk, Footprint, Provisioner, ProvisionerError, SetsExpiry, Term, TermsRefused, Unfit, Wanted


def knows_ends(provisioner: Provisioner, key: IssuedKey) -> bool:
    """Whether this key's end is the vendor's business at all. An adopted key keeps the one that its maker gave it."""
    sets = isinstance(provisioner, SetsExpiry)
    return not (key.adopted and sets) and (sets or Term.EXPIRY in provisioner.facts.confirms)


async def extend_at_vendor(provisioner: Provisioner, desk: Desk, footprint: Footprint, wanted: Wanted) -> dict[str, Enforcement]:
    """What stands behind the end of `wanted` then; nothing where there is none. Raises `InvalidInput` for an end that the vendor does not
    take, `Conflict` for a key that is gone there, `UpstreamFailed` where it does not answer or shows another end."""
    expires_at_ns = wanted.terms.expires_at_ns
    try:
        if isinstance(provisioner, Checks):
            provisioner.check(wanted)
        if isinstance(provisioner, SetsExpiry):
            await provisioner.set_expiry(desk, footprint, expires_at_ns)
        reading = await provisioner.read(desk, footprint)
    except Unfit as error:
        raise unfit(error) from None
    except TermsRefused as error:
        raise InvalidInput(f"expires_at: {error.detail}", field="expires_at") from None
    except ProvisionerError as error:
        raise UpstreamFailed(f"The vendor did not take the new end: {error.detail}") from None
    if is_gone(reading):
        raise Conflict("The vendor shows the key as gone; make a new one")
    sets = isinstance(provisioner, SetsExpiry)
    told = compare(wanted.terms, reading.terms, provisioner.facts, own_end=not sets).get(str(Term.EXPIRY))
    if not sets and told is not Enforcement.CONFIRMED and _ends_before(reading.terms.expires_at_ns, expires_at_ns):
        title, ends = provisioner.facts.title, rfc3339(reading.terms.expires_at_ns)
        raise InvalidInput(
            f"expires_at: {title} ends this key at {ends} and takes no later end; make another key, and revoke this one",
            field="expires_at",
        )
    if told is Enforcement.DIFFERS:
        raise UpstreamFailed("The vendor took the new end, but shows another one; try again in a moment")
    return {} if told is None else {str(Term.EXPIRY): told}


def _ends_before(end_ns: int | None, other_ns: int | None) -> bool:
    """None: never."""
    return end_ns is not None and (other_ns is None or end_ns < other_ns)
