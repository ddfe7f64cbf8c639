"""Ending a key: told to the vendor, read back, asked for with the key itself, and only then called revoked. What a vendor refuses stands
as irrevocable and is tried again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from keygate.events import EventType
from keygate.issued_keys.bench import FORMER_PROBE, LIMITED_WITHIN_NS, PATIENT_ATTEMPTS, PROBE, Bench, distinct, is_gone, pause_ns
from keygate.issued_keys.life import Event, State, step
from keygate.issued_keys.making import CHECK_NS, next_due
from keygate.issued_keys.model import Ending, IssuedKey
from keygate.issued_keys.proving import Waiting, refused, take_witnesses
from keygate.issued_keys.settling import NotYet, settle
from keygate.issued_keys.whose import NOT_CONFIRMED, absence_counts
from keygate.kit.clock import NANOSECONDS
from keygate.vendors.admin import Footprint, ProvisionerError, RateLimited, Rejected, Retires, Unavailable

LONGEST_SECONDS = 3_600.0


async def end(bench: Bench) -> None:
    """revoking or irrevocable → revoked or expired once the vendor refuses the key itself, or irrevocable with the time of the next try."""
    key = bench.key
    again = key.attempts > 0
    if key.gone_at_ns is None:
        try:
            await take_witnesses(bench, _asked_with(key))
            key = await bench.save(replace(bench.key, attempts=key.attempts + 1))
            evidence = await _ended(bench)
        except NotYet as wait:
            noted = replace(bench.key, attempts=bench.key.attempts - 1, error_code=wait.code, error=wait.error)
            await bench.save(replace(noted, due_at_ns=wait.again_ns))
            return
        except ProvisionerError as error:
            await _refused(bench, error)
            return
        now_gone = {each["key"] for each in evidence}
        before = (each for each in bench.key.confirmed if each["key"] not in now_gone)  # of keys that rotations replaced
        key = replace(key, gone_at_ns=bench.now, evidence=(*before, *evidence))
    said = {column: await refused(bench, column, place, key.gone_at_ns or bench.now) for column, place in _asked_with(key).items()}
    waiting = [each for each in said.values() if isinstance(each, Waiting)]
    if waiting:
        await _still_there(bench, key, waiting)
        return
    now = bench.now
    lapsed = key.ending is Ending.EXPIRED
    ended = replace(
        key,
        state=step(key.state, Event.LAPSED if lapsed else Event.CONFIRMED),
        ended_at_ns=now,
        read_at_ns=now,
        evidence=_with_word(key, {column: str(word) for column, word in said.items()}),
        former=None,
        secret=None,
        probe=None,
        former_probe=None,
        owed=False,
        attempts=0,
        error=None,
        error_code=None,
        check_at_ns=now + CHECK_NS if again or key.activated_at_ns is None else None,
    )
    action = "issued_key.expire" if lapsed else "issued_key.confirm_revoked"
    await bench.save(replace(ended, due_at_ns=next_due(ended)), action=action, event=EventType.ISSUED_KEY_ENDED)


def _asked_with(key: IssuedKey) -> dict[str, Footprint | None]:
    """The keys that the vendor is asked with, by the column of their copy."""
    former = None if key.former is None else key.former.footprint
    return {PROBE: key.footprint} if former is None else {PROBE: key.footprint, FORMER_PROBE: former}


def _with_word(key: IssuedKey, said: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
    words = {None if place is None else place.key: said[column] for column, place in _asked_with(key).items()}
    return tuple({**each, "the_key_itself": words[each["key"]]} if each.get("key") in words else each for each in key.evidence)


async def _still_there(bench: Bench, key: IssuedKey, waiting: Sequence[Waiting]) -> None:
    """The admin API says gone, the key itself does not: shown as it is, asked again and again; irrevocable once it is late."""
    first = max(waiting, key=lambda each: each.again_ns)
    noted = replace(key, read_at_ns=bench.now, error_code=first.code, error=first.error, due_at_ns=min(each.again_ns for each in waiting))
    if not any(each.late for each in waiting):
        await bench.save(noted)
        return
    begun = key.state is State.REVOKING
    pause = int(min(LONGEST_SECONDS, 30.0 * 2.0 ** min(key.attempts, 10)) * NANOSECONDS)
    standing = replace(noted, state=step(key.state, Event.REFUSED), gone_at_ns=None, due_at_ns=bench.now + pause)
    action, event = ("issued_key.irrevocable", EventType.ISSUED_KEY_IRREVOCABLE) if begun else (None, None)
    await bench.save(standing, action=action, event=event, detail=first.error)


async def _ended(bench: Bench) -> tuple[dict[str, str], ...]:
    """Ends every key of the mark and the container. What the vendor then shows of each is the evidence; raises where one is not gone. A
    call that fails does not keep the others from being made: an archived container ends its keys too."""
    provisioner, desk = bench.at_vendor
    key = bench.key
    # A key that was made at the first try and is told to end for the first time holds no surprise: its footprint is all there is.
    plain = key.attempts == 1 and key.activated_at_ns is not None and key.former is None and key.check_at_ns is None
    found = () if (plain or key.adopted) and key.footprint is not None else await provisioner.find(desk, key.mark)
    known = bench.known
    keys = distinct([*known, *(each.footprint for each in found)])
    containers = [each.footprint for each in found if each.footprint.key is None]
    failure: ProvisionerError | None = None
    kept: ProvisionerError | None = None
    await settle(bench, keys, _asked_with(key), attempt=key.attempts, since_ns=key.end_asked_at_ns or 0)
    for footprint in keys:
        try:
            await provisioner.revoke(desk, footprint)
        except ProvisionerError as error:
            failure = failure or error
    if isinstance(provisioner, Retires) and not key.adopted:
        for container in containers or [replace(each, key=None) for each in known[:1]]:
            try:
                await provisioner.retire(desk, container)
            except ProvisionerError as error:
                kept = kept or error
    evidence = []
    for footprint in keys:
        reading = await bench.gone(footprint)
        if not is_gone(reading):
            raise failure or kept or Unavailable(f"The vendor took the call, but still shows the key as {reading.presence}")
        evidence.append(bench.evidence(footprint, reading))
    if kept is not None:
        raise kept  # the keys are gone, the container is not
    if not await absence_counts(bench, since_ns=key.end_asked_at_ns or 0):
        raise Rejected(NOT_CONFIRMED)
    return tuple(evidence) or ({"key": "", "place": "", "vendor_says": "nothing carries this key's mark", "read_at_ns": str(bench.now)},)


async def _refused(bench: Bench, error: ProvisionerError) -> None:
    key, now = bench.key, bench.now
    noted = replace(key, error_code=error.code, error=error.detail)
    limited = isinstance(error, RateLimited)
    pause = pause_ns(error, key.attempts, longest=60.0)
    if limited:
        early = key.attempts < PATIENT_ATTEMPTS and pause <= LIMITED_WITHIN_NS  # however late its turn came
        patient = early or now + pause - (key.end_asked_at_ns or now) <= LIMITED_WITHIN_NS
    else:
        patient = not error.lasting and key.attempts <= PATIENT_ATTEMPTS
    if patient and key.state is State.REVOKING:
        await bench.save(replace(noted, due_at_ns=now + pause))
        return
    if not limited:
        pause = int(min(LONGEST_SECONDS, 30.0 * 2.0 ** min(key.attempts, 10)) * NANOSECONDS)
    standing = replace(noted, state=step(key.state, Event.REFUSED), due_at_ns=now + pause)
    first = key.state is State.REVOKING
    action, event = ("issued_key.irrevocable", EventType.ISSUED_KEY_IRREVOCABLE) if first else (None, None)
    await bench.save(standing, action=action, event=event, detail=error.detail)


def told_to_end(key: IssuedKey, *, ending: Ending, reason: str, by: str, now: int) -> IssuedKey:
    """The key as it stands once it was told to end; the version is counted on by whoever saves it."""
    return replace(
        key,
        state=step(key.state, Event.REVOKE),
        ending=ending,
        end_reason=reason,
        end_asked_at_ns=now,
        end_asked_by=by,
        secret=None,
        gone_at_ns=None,
        attempts=0,
        error=None,
        error_code=None,
        due_at_ns=now,
    )
