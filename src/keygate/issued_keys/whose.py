"""Whose a vendor account is, so that another organisation's credential is not asked about our keys: it would find nothing there, and
nothing found looks like revoked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from keygate.errors import Conflict, Unavailable
from keygate.issued_keys.bench import Bench
from keygate.issued_keys.desks import CALLS_SETTING, CEILING_SETTING
from keygate.issued_keys.life import LIVE
from keygate.issued_keys.model import IssuedKey, VendorAccount
from keygate.kit.secret import Secret
from keygate.vendors.admin import AdminDesk, Presence, Provisioner, ProvisionerError, RateLimited, Verification
from keygate.vendors.admin import Unavailable as VendorUnavailable

SAMPLE = 5  # things of ours that are looked for: one that somebody removed there by hand proves nothing

NOT_CONFIRMED = (
    "The vendor shows nothing of this key, and no call of KeyGate's has ended it there: the admin credential was replaced since it was "
    "made, and may be of another organisation. Enter one of the organisation in which the key was made"
)
_ELSEWHERE = (
    "Enter one of the same organisation (with the rights to read what was made); or enter this one under another name, beside the former; "
    "or revoke those keys first"
)


def same_place(account: VendorAccount, admin: Secret, former: Secret, settings: Mapping[str, str]) -> bool:
    """The same credential at the same address: only paces and ceilings may differ."""
    own = {CALLS_SETTING, CEILING_SETTING}
    before = {name: value for name, value in account.settings.items() if name not in own}
    return admin.open() == former.open() and before == {name: value for name, value in settings.items() if name not in own}


def _addresses(settings: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name.endswith("_url")}


async def require_same(
    provisioner: Provisioner, desk: AdminDesk, *, former: VendorAccount, found: Verification, keys: Sequence[IssuedKey]
) -> bool:
    """Whether the credential of `desk` was shown to be of the organisation in which these keys, of `former`, stand: by the vendor's id of
    it, or by reading one of them. False: none of them is known to be at the vendor yet. Raises `Conflict` where it is another's or does
    not show them, `Unavailable` where the vendor can't be asked."""
    if not keys:
        return False
    if former.identity is not None and found.identity is not None:
        if former.identity != found.identity:
            raise Conflict(
                f"admin_key: it is of {found.account or found.identity}, and what was made stands at {former.account or former.identity} "
                f"(keys that are not ended: {len(keys)}). {_ELSEWHERE}",
                field="admin_key",
            )
        if _addresses(former.settings) == _addresses(desk.settings):
            return True
    standing = [key for key in keys if key.footprint is not None]
    standing.sort(key=lambda key: (key.state not in LIVE, -(key.read_at_ns or 0)))
    if not standing:
        return False
    said = "the vendor shows none of them"
    for key in standing[:SAMPLE]:
        try:
            if await _shows(provisioner, desk, key):
                return True
        except (VendorUnavailable, RateLimited) as error:
            raise Unavailable(f"The vendor can't be asked whether it is the same organisation's: {error.detail}") from None
        except ProvisionerError as error:
            said = error.detail
    raise Conflict(
        f"admin_key: it does not show what was made with the former one (keys that are not ended: {len(keys)}, {standing[0].id} among "
        f"them): {said}. {_ELSEWHERE}",
        field="admin_key",
    )


async def absence_counts(bench: Bench, *, since_ns: int) -> bool:
    """Whether "not there" proves anything of the bench's key. It does where the vendor took a call that ended something of it (since
    `since_ns`). Else somebody may have removed it there, or KeyGate asks in the wrong place: then only a vendor that shows another key of
    ours counts; or one that knows the credential, if that is of the organisation in which the key was made."""
    tools, key = bench.tools, bench.key
    provisioner, desk = bench.at_vendor
    if provisioner.facts.adopt_only:
        return True  # the vendor was asked with the key itself, and refused it
    async with tools.database.read() as connection:
        steps = await tools.repository.steps(connection, key.organization_id, key.id)
    if any(step.began_at_ns >= since_ns and (step.outcome or "").startswith("2") for step in steps):
        return True
    if not steps and key.footprint is None:
        return True  # no call that could have made something was ever begun
    if bench.account is not None and bench.account.same_since_ns <= key.created_at_ns:
        await provisioner.verify(desk)  # raises where nobody is there who knows us
        return True
    async with tools.database.read() as connection:
        others = await tools.repository.shown_last(connection, key.organization_id, key.account_id, but=key.id, limit=SAMPLE)
    for other in others:
        if await _shows(provisioner, desk, other):
            return True
    return False


async def _shows(provisioner: Provisioner, desk: AdminDesk, key: IssuedKey) -> bool:
    """The key, or what holds it: somebody may have removed the key by hand."""
    footprint = key.footprint
    if footprint is None:
        return False
    if (await provisioner.read(desk, footprint)).presence is not Presence.GONE:
        return True
    if not (provisioner.facts.container and footprint.place) or footprint.key is None:
        return False
    return (await provisioner.read(desk, replace(footprint, key=None))).presence is not Presence.GONE
