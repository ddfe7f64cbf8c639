"""Proof by the key itself. An admin API's word that a key is made or gone runs ahead of the vendor's inference side: so a new key is handed
out once the vendor takes it, and an ended one is called so once the vendor refuses it.

The vendor is asked with a sealed copy that is kept until the key's end and told to nobody (SECURITY.md). Where there is none (`proof` is
off, the key was adopted, the vendor has no call that costs nothing) the admin API's word stands, and the evidence says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from keygate.issued_keys.bench import PROBE, Bench, column_place, keeps_proof, secret_place, with_copy
from keygate.kit.clock import NANOSECONDS
from keygate.kit.secret import Secret
from keygate.vault import EnvelopeBroken
from keygate.vendors.admin import Footprint, Probes, ProvisionerError, Rejected, Unavailable, Witnesses

_POLL_SECONDS = (0.2, 0.5)  # then it is shown as waiting, and asked again
KNOWN_WITHIN_NS = 900 * NANOSECONDS  # a new key that the vendor does not take by then is given up
UNASKED_WITHIN_NS = 60 * NANOSECONDS  # a vendor that can't be asked keeps nobody waiting for a new key for longer
REFUSED_WITHIN_NS = 900 * NANOSECONDS  # an ended key that still works then stands as irrevocable
UNASKED_AFTER_NS = 600 * NANOSECONDS  # where the vendor can't be asked for so long, its admin API's word stands
_LONGEST_PAUSE_NS = 30 * NANOSECONDS
NOT_KNOWN_YET, STILL_ANSWERS, MAY_STILL_WORK = "not_known_yet", "still_answers", "may_still_work"
REFUSED = "refused"
UNASKED = "not asked: there is no copy of the key, or no call that costs nothing; the vendor's admin API alone says so"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a key that the admin API calls gone is not called so yet. `late`: the time is over in which the vendor should have ended it."""

    code: str
    error: str
    again_ns: int
    late: bool = False


async def known(bench: Bench) -> bool:
    """Whether the vendor takes the newest key by now. False: not yet, which is noted, and it is asked again. Raises `Rejected` for a key
    that it does not take in a quarter of an hour."""
    why = "The vendor has made the key and does not take it yet; it is handed out once it does"
    for pause in (*_POLL_SECONDS, None):
        try:
            if await _answers(bench, PROBE, bench.key.footprint) is not False:
                return True
        except ProvisionerError as error:
            if bench.now - (bench.key.made_at_ns or 0) > UNASKED_WITHIN_NS:
                return True
            why = f"The vendor has made the key, and can't be asked yet whether it takes it: {error.detail}"
        if pause is not None:
            await bench.tools.sleep(pause)
    waited = bench.now - (bench.key.made_at_ns or 0)
    if waited > KNOWN_WITHIN_NS:
        raise Rejected("The vendor has made the key, and does not take it after a quarter of an hour")
    due = bench.now + longer_ns(waited)
    await bench.save(replace(bench.key, error_code=NOT_KNOWN_YET, error=why, due_at_ns=due))
    return False


async def take_witnesses(bench: Bench, columns: Mapping[str, Footprint | None]) -> None:
    """Before keys are ended, where they are traded for tokens that outlive them: saves a fresh token of each, to ask with instead. A key
    that gives none any more keeps the one that a former try has got, if any."""
    provisioner, desk = bench.at_vendor
    key = bench.key
    if not isinstance(provisioner, Witnesses) or key.adopted or not keeps_proof(bench):
        return
    found: dict[str, Secret] = {}
    without = key
    for column, footprint in columns.items():
        if footprint is None or footprint.key is None:
            continue
        try:
            found[column] = await provisioner.witness(desk, footprint)
        except ProvisionerError:
            if not await _is_witness(bench, provisioner, column):
                without = with_copy(without, column, None)  # the copy of the key itself would not tell of tokens
    if found or without is not key:
        await bench.save(without, witnesses=found)


async def refused(bench: Bench, column: str, footprint: Footprint | None, gone_at_ns: int) -> Waiting | str:
    """What the vendor does with a key that its admin API calls gone: `Waiting` while it is or may be taken, else what the evidence says."""
    provisioner, _ = bench.at_vendor
    delay_ns = (provisioner.facts.revoke_delay_seconds or 0) * NANOSECONDS
    for pause in (*_POLL_SECONDS, None):
        trouble: ProvisionerError | None = None
        answers: bool | None = None
        try:
            answers = await _answers(bench, column, footprint)
        except ProvisionerError as error:
            trouble = error
        if (trouble is None and answers is not True) or pause is None:
            break
        await bench.tools.sleep(pause)
    now, waited = bench.now, bench.now - gone_at_ns
    if trouble is not None:
        if waited > UNASKED_AFTER_NS + delay_ns:
            return f"not asked, the vendor's admin API alone says so: {trouble.detail}"
        said = f"The vendor says that the key is gone; it can't be asked yet with the key itself: {trouble.detail}"
        return Waiting(STILL_ANSWERS, said, now + longer_ns(waited))
    if answers:
        said = "The vendor says that the key is gone, and still takes it"
        return Waiting(STILL_ANSWERS, said, now + longer_ns(waited), late=waited > REFUSED_WITHIN_NS + delay_ns)
    if answers is False or provisioner.facts.adopt_only:  # whose only reading is a call with the key itself
        return REFUSED
    if isinstance(provisioner, Witnesses) and not bench.key.adopted and waited < delay_ns:
        return Waiting(
            MAY_STILL_WORK, "The vendor says that the key is gone; tokens that it was traded for may work on", gone_at_ns + delay_ns
        )
    return UNASKED


async def still_answers(bench: Bench, column: str, footprint: Footprint) -> bool | None:
    """Whether the vendor goes on taking a key that it has disabled. None: it can't be asked with the key."""
    for pause in (*_POLL_SECONDS, None):
        try:
            answers = await _answers(bench, column, footprint)
        except ProvisionerError:
            return None
        if answers is not True:
            return answers
        if pause is not None:
            await bench.tools.sleep(pause)
    return True


async def _is_witness(bench: Bench, provisioner: Witnesses, column: str) -> bool:
    """Whether the copy is what a former try has saved. One that can't be opened stays, and `refused` tells of it."""
    try:
        copy = await _copy(bench, column)
    except Unavailable:
        return True
    return copy is not None and provisioner.is_witness(copy)


async def _answers(bench: Bench, column: str, footprint: Footprint | None) -> bool | None:
    """None: it can't be told, or not by the key."""
    provisioner, desk = bench.at_vendor
    if footprint is None or not isinstance(provisioner, Probes):
        return None
    copy = await _copy(bench, column)
    return None if copy is None else await provisioner.answers(desk, footprint, copy, bench.key.env)


async def _copy(bench: Bench, column: str) -> Secret | None:
    """What the vendor is asked with. Raises `Unavailable` where it can't be opened."""
    key = bench.key
    sealed, place = getattr(key, column), column_place(key, column)
    if sealed is None and column == PROBE and key.secret is not None:
        sealed, place = key.secret, secret_place(key)
    if sealed is None:
        return None
    try:
        return await bench.tools.vault.open(sealed, place)
    except EnvelopeBroken as error:
        raise Unavailable(f"the sealed copy can't be opened: {error.detail}") from None


def longer_ns(waited_ns: int) -> int:
    """Longer and longer: an eighth of what was waited already."""
    return min(_LONGEST_PAUSE_NS, max(NANOSECONDS, waited_ns // 8))
