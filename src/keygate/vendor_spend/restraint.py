"""Restrains a key at its vendor, or takes that back; and reads it back. Safe to repeat."""

from __future__ import annotations

from keygate.issued_keys import Restraint
from keygate.vendor_spend.watch import Stage, WatchRule
from keygate.vendors.admin import (
    Desk,
    Disables,
    Footprint,
    NotFound,
    Presence,
    Provisioner,
    Reading,
    Rejected,
    SetsLimits,
    Terms,
    Unavailable,
)

_ENDED = frozenset({Presence.GONE, Presence.EXPIRED})


async def apply(
    provisioner: Provisioner,
    desk: Desk,
    footprint: Footprint,
    *,
    terms: Terms,
    rule: WatchRule,
    wanted: Stage,
    before: set[Stage],
) -> None:
    """`terms` are the key's own. `before`: the stages that it may be in by our doing; what others have done to it at the vendor is left
    alone. Raises `Rejected` where the vendor can't."""
    if wanted is Stage.DISABLED or Stage.DISABLED in before:
        if not isinstance(provisioner, Disables):
            raise Rejected("The vendor can't disable a key and enable it again")
        await provisioner.set_enabled(desk, footprint, enabled=wanted is not Stage.DISABLED)
    if wanted is Stage.DISABLED or not isinstance(provisioner, SetsLimits):
        return
    if wanted is Stage.LOWERED:
        await provisioner.set_limits(desk, footprint, Restraint(disabled=False, percent=rule.lower_to).lowered(terms))
    elif await _is_lowered(provisioner, desk, footprint, terms):
        await provisioner.set_limits(desk, footprint, terms)


async def shows(provisioner: Provisioner, desk: Desk, footprint: Footprint, *, terms: Terms, wanted: Stage) -> None:
    """Raises where the vendor does not (yet) show what was asked for. A key that is gone can't be used either."""
    reading = await _read(provisioner, desk, footprint)
    if reading.presence in _ENDED:
        return
    fits = {
        Stage.NONE: reading.presence is Presence.LIVE and not _fewer(reading.terms, terms),
        Stage.LOWERED: reading.presence is Presence.LIVE and _fewer(reading.terms, terms),
        Stage.DISABLED: reading.presence is Presence.DISABLED,
        Stage.REVOKED: False,
    }
    if not fits[wanted]:
        raise Unavailable(f"The vendor took the call, but does not show the key as {_SHOWN[wanted]} yet (it is {reading.presence})")


_SHOWN = {Stage.NONE: "free", Stage.LOWERED: "lowered", Stage.DISABLED: "disabled", Stage.REVOKED: "revoked"}


async def _is_lowered(provisioner: Provisioner, desk: Desk, footprint: Footprint, terms: Terms) -> bool:
    return _fewer((await _read(provisioner, desk, footprint)).terms, terms)


async def _read(provisioner: Provisioner, desk: Desk, footprint: Footprint) -> Reading:
    try:
        return await provisioner.read(desk, footprint)
    except NotFound:
        return Reading(Presence.GONE)


def _fewer(told: Terms, own: Terms) -> bool:
    pairs = ((told.requests_per_minute, own.requests_per_minute), (told.tokens_per_minute, own.tokens_per_minute))
    return any(shown is not None and limit is not None and shown < limit for shown, limit in pairs)
