"""Rotating a key: the next one beside the former, an overlap, and the former cut once the vendor shows it unused.

Where nobody asked for the rotation (a schedule, a policy), nobody may know of it. So the overlap counts from when somebody took over the
new secret; until then the former key goes on, for as long as it takes, and its owner is reminded. It is cut without that only where the
vendor shows that nobody has used it for a month."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from keygate.errors import Conflict
from keygate.events import EventType
from keygate.issued_keys.agreed import DRIFTED, HeldBack, differing, disabled_for_budget, set_again, standing_of
from keygate.issued_keys.bench import FORMER_PROBE, LIMITED_WITHIN_NS, PATIENT_ATTEMPTS, PROBE, Bench, is_gone, is_lasting, pause_ns
from keygate.issued_keys.desks import last_use_delay
from keygate.issued_keys.life import Event, State, step
from keygate.issued_keys.making import CHECK_NS, LONGEST_SECONDS, MAX_ATTEMPTS, MAX_LIMITED, acquire, confirm, next_due, tried, with_owed
from keygate.issued_keys.model import PICKUP_NS, Cause, Delivery, Former, IssuedKey, Waits
from keygate.issued_keys.ports import Restraint
from keygate.issued_keys.proving import Waiting, known, refused, take_witnesses
from keygate.issued_keys.rotation.model import IDLE_SECONDS, pause_before_reminder_ns, retry_pause_ns
from keygate.issued_keys.settling import NotYet, settle
from keygate.issued_keys.whose import NOT_CONFIRMED, absence_counts
from keygate.kit.clock import NANOSECONDS
from keygate.vendors.admin import Mints, NotFound, Presence, ProvisionerError, RateLimited, Reading, Rejected

_LOOK_AGAIN_NS = 60 * NANOSECONDS
LATE_NS = 1_800 * NANOSECONDS
_NEWS = "The key was rotated: its owner fetches the new secret with `keygate issued-keys {command}`; the former key works on until then"
_SWITCHED_OFF = (
    "The vendor shows the key as disabled, so it gets no next one. Enable it again (`keygate inventory scan`, then `keygate inventory "
    "repair`), or revoke it and make another one"
)
_USED = "The new secret was fetched, and somebody still uses the former key: put the new one in its place wherever it is set"


async def rotate(bench: Bench) -> None:
    """rotating → active: makes the next key, waits for the overlap, cuts the former one."""
    key = bench.key
    former, ends = key.former, key.overlap_ends_ns
    if former is None:
        await _finish(bench)
    elif ends is None:
        await _make_next(bench, former)
    elif bench.now >= ends:
        await _cut(bench, former)
    elif former.by_itself and key.delivered_at_ns is None:
        await _hold(bench, former, _Needed(Waits.HANDOVER), ends)
    else:
        await bench.save(replace(key, former=replace(former, waits_for=None), due_at_ns=_look_at(key, ends)))


def told_to_rotate(
    key: IssuedKey,
    *,
    overlap_seconds: int,
    quiet_seconds: int | None,
    now: int,
    insist: bool = False,
    cause: Cause = Cause.HAND,
    policy_id: str | None = None,
    request_id: str | None = None,
    restraint: Restraint | None = None,
) -> IssuedKey:
    """The key as it stands once it was told to rotate; the version is counted on by whoever saves it. Raises `Conflict` for one whose
    state does not allow it, or that is disabled for its budget."""
    if key.state is State.ROTATING:
        raise Conflict(
            "A rotation of this key is open already: fetch its new secret (`link`, or its owner `collect`), or `cut` the former key, first"
        )
    state = step(key.state, Event.ROTATE)
    if key.delivery(now) is Delivery.WAITING:
        raise Conflict("The secret of this key was not fetched yet; fetch it first, or revoke the key")
    if key.footprint is None:
        raise Conflict("The key is not at the vendor yet")
    if restraint is not None and restraint.disabled:
        raise Conflict(disabled_for_budget(key.id))
    former = Former(
        footprint=key.footprint,
        generation=key.secret_generation,
        overlap_seconds=overlap_seconds,
        quiet_seconds=quiet_seconds,
        insist=insist,
        hint=key.hint,
        made_at_ns=key.made_at_ns,
        cause=cause,
        policy_id=policy_id,
    )
    return replace(key, state=state, generation=key.generation + 1, former=former, attempts=0, due_at_ns=now, rotation_id=request_id)


def _look_at(key: IssuedKey, moment: int) -> int:
    """When the worker has to look at a key in its overlap: at its end at the latest."""
    return moment if key.expires_at_ns is None else min(moment, key.expires_at_ns)


async def _make_next(bench: Bench, former: Former) -> None:
    try:
        restraint = await bench.restraint()
        if restraint is not None and restraint.disabled:
            raise HeldBack(disabled_for_budget(bench.key.id))
        again = await acquire(bench, lambda: _look_at_former(bench, former, restraint))
        enforcement = await confirm(bench, restraint)
        if not await known(bench):
            return
        if await bench.restraint() != restraint:
            return  # its budget was acted on meanwhile: looked at once more, before anybody has the new secret
    except ProvisionerError as error:
        await _not_made(bench, former, error)
        return
    key, now = bench.key, bench.now
    cut_at = now + former.overlap_seconds * NANOSECONDS
    beside, due = replace(former, cut_at_ns=cut_at, ready_at_ns=now), cut_at
    if former.by_itself:
        remind_at = now + pause_before_reminder_ns(0)
        beside, due = replace(beside, waits_for=Waits.HANDOVER, reminders=1, remind_at_ns=remind_at), min(cut_at, remind_at)
    overlap = replace(
        key,
        enforcement=enforcement,
        former=beside,
        read_at_ns=now,
        attempts=0,
        error=None,
        error_code=None,
        check_at_ns=now + CHECK_NS if again else key.check_at_ns,
        due_at_ns=_look_at(key, due),
        rotate_after_ns=None,
        rotate_tries=0,
        rotate_error=None,
    )
    event = EventType.ISSUED_KEY_SECRET_WAITS if former.by_itself else None
    await bench.save(overlap, action="issued_key.next_made", event=event, detail=_news(bench) if former.by_itself else None)


async def _look_at_former(bench: Bench, former: Former, restraint: Restraint | None) -> None:
    """Before the next key is made. One that somebody switched off at the vendor gets none; what somebody changed there is told, and set
    again, as the next key has the terms that were agreed."""
    provisioner, desk = bench.at_vendor
    key = bench.key
    try:
        reading = await provisioner.read(desk, former.footprint)
    except NotFound:
        return
    if reading.presence is Presence.DISABLED:
        raise HeldBack(_SWITCHED_OFF)
    drift = differing(standing_of(key, reading.terms, bench.facts, restraint, own_end=key.own_end))
    if is_gone(reading) or not drift:
        return
    await set_again(provisioner, desk, former.footprint, key.terms if restraint is None else restraint.lowered(key.terms), drift)
    event = None if key.error_code == DRIFTED else EventType.ISSUED_KEY_DRIFTED
    detail = f"Somebody changed {', '.join(drift)} at the vendor: set again, as the key is rotated"
    await bench.save(key, action="issued_key.repair", event=event, detail=detail)


async def _not_made(bench: Bench, former: Former, error: ProvisionerError) -> None:
    """The former key goes on; what was made of the next one is removed."""
    key = tried(bench.key)
    noted = replace(key, error_code=error.code, error=error.detail)
    most = MAX_LIMITED if isinstance(error, RateLimited) else MAX_ATTEMPTS
    if not is_lasting(error) and key.attempts < most:
        await bench.save(replace(noted, due_at_ns=bench.now + pause_ns(error, key.attempts, longest=LONGEST_SECONDS)))
        return
    try:
        await bench.clear(key.generation)
    except ProvisionerError as other:
        noted = replace(noted, error=with_owed(error.detail, other.detail))
    took_over = key.secret_generation == key.generation  # the copies of both keys were moved on when the next one was made
    back = replace(
        noted,
        state=step(key.state, Event.ROTATED),
        former=None,
        footprint=former.footprint,
        secret=None,
        secret_generation=former.generation,
        hint=former.hint,
        probe=await bench.moved(key.former_probe, FORMER_PROBE, PROBE) if took_over else key.probe,
        former_probe=None,
        made_at_ns=former.made_at_ns,
        delivered_at_ns=key.delivered_at_ns or key.activated_at_ns,
        rotation_id=None,  # asked again under the same id, it is tried again
        attempts=0,
        check_at_ns=bench.now + CHECK_NS,
    )
    if former.by_itself:
        pause = retry_pause_ns(key.rotate_tries)
        back = replace(back, rotate_after_ns=bench.now + pause, rotate_tries=key.rotate_tries + 1, rotate_error=error.detail)
    await bench.save(
        replace(back, due_at_ns=next_due(back)), action="issued_key.rotate_failed", event=EventType.ISSUED_KEY_FAILED, detail=error.detail
    )


@dataclass(frozen=True, slots=True)
class _Needed:
    """Why the former key may not be cut yet. `again_ns` None: no time of the vendor's says when it may."""

    waits_for: Waits
    used_ns: int | None = None
    again_ns: int | None = None


async def _needed(bench: Bench, former: Former) -> _Needed | None:
    """None: it may be cut. The operator insists; or the vendor shows that nobody has used it for long enough, which is counted from when
    the next key worked: what the vendor has not told yet is no proof; or the rotation began by itself, the vendor never tells, and somebody
    has the new secret."""
    if former.insist or former.gone_at_ns is not None:
        return None
    provisioner, desk = bench.at_vendor
    taken = not former.by_itself or bench.key.delivered_at_ns is not None
    waits_for = Waits.QUIET if taken else Waits.HANDOVER
    if not provisioner.facts.tells_last_use:
        if taken:
            return None if former.by_itself or former.quiet_seconds == 0 else _Needed(Waits.INSIST)
        return _Needed(waits_for)
    quiet = former.quiet_seconds or 0
    if taken and quiet == 0:
        return None
    reading = await provisioner.read(desk, former.footprint)
    used = reading.last_used_at_ns
    lag = last_use_delay(provisioner.facts, {} if bench.account is None else bench.account.settings)
    since = max(used or 0, (former.ready_at_ns if taken else former.made_at_ns) or 0)
    quiet_at = since + ((quiet if taken else max(quiet, IDLE_SECONDS)) + lag) * NANOSECONDS
    return None if is_gone(reading) or bench.now >= quiet_at else _Needed(waits_for, used, quiet_at)


async def _hold(bench: Bench, former: Former, needed: _Needed, until: int | None = None) -> None:
    """The former key goes on, and is looked at again at `until` at the latest. Where nobody asked for the rotation, its owner is
    reminded."""
    key, now = bench.key, bench.now
    waiting = replace(former, last_used_at_ns=needed.used_ns or former.last_used_at_ns, waits_for=needed.waits_for)
    waiting = replace(waiting, failing_since_ns=None, told=False)
    held = replace(key, read_at_ns=key.read_at_ns if needed.again_ns is None else now, attempts=0, error=None, error_code=None)
    if not former.by_itself:
        due = max(now + NANOSECONDS, min(now + _LOOK_AGAIN_NS, needed.again_ns or now + _LOOK_AGAIN_NS))
        if needed.waits_for is Waits.INSIST:  # nobody but the operator can end it: there is nothing to look at
            await bench.save(replace(held, former=waiting, due_at_ns=key.expires_at_ns))
            return
        await bench.save(replace(held, former=waiting, due_at_ns=_look_at(key, due)))
        return
    reminders, remind_at = former.reminders, former.remind_at_ns or now
    if former.waits_for is not needed.waits_for:
        reminders, remind_at = 0, now
    event = None
    if now >= remind_at:
        event = EventType.ISSUED_KEY_SECRET_WAITS if needed.waits_for is Waits.HANDOVER else EventType.ISSUED_KEY_FORMER_IN_USE
        reminders, remind_at = reminders + 1, now + pause_before_reminder_ns(reminders)
    due = max(now + _LOOK_AGAIN_NS, min(moment for moment in (remind_at, needed.again_ns, until) if moment is not None))
    waiting = replace(waiting, reminders=reminders, remind_at_ns=remind_at)
    detail = _news(bench) if needed.waits_for is Waits.HANDOVER else _USED
    await bench.save(replace(held, former=waiting, due_at_ns=_look_at(key, due)), event=event, detail=None if event is None else detail)


def _news(bench: Bench) -> str:
    return _NEWS.format(command="token" if isinstance(bench.provisioner, Mints) else "collect")


async def _cut(bench: Bench, former: Former) -> None:
    """Only with proof that it is not needed any more; and it counts as cut once the vendor refuses it."""
    provisioner, desk = bench.at_vendor
    try:
        needed = await _needed(bench, former)
        if needed is not None:
            await _hold(bench, former, needed)
            return
        if former.gone_at_ns is None:
            await take_witnesses(bench, {FORMER_PROBE: former.footprint})
            asked_with, since = {FORMER_PROBE: former.footprint}, former.ready_at_ns or 0
            await settle(bench, [former.footprint], asked_with, attempt=bench.key.attempts + 1, since_ns=since)
            await provisioner.revoke(desk, former.footprint)
            reading = await bench.gone(former.footprint)
            if not is_gone(reading):
                raise Rejected(f"The vendor took the call, but still shows the former key as {reading.presence}")
            if not await absence_counts(bench, since_ns=former.cut_at_ns or 0) and not await _next_is_there(bench):
                raise Rejected(NOT_CONFIRMED)
            former = replace(former, gone_at_ns=bench.now)
            evidence = bench.evidence(former.footprint, reading)
        else:
            evidence = bench.evidence(former.footprint, Reading(Presence.GONE))
    except NotYet as wait:
        noted = replace(bench.key, former=replace(former, waits_for=Waits.REFUSAL), error_code=wait.code, error=wait.error)
        await bench.save(replace(noted, due_at_ns=_look_at(noted, wait.again_ns)))
        return
    except ProvisionerError as error:
        await _not_cut(bench, former, error)
        return
    said = await refused(bench, FORMER_PROBE, former.footprint, former.gone_at_ns or bench.now)
    if isinstance(said, Waiting):
        await _still_there(bench, former, said)
        return
    await _finish(bench, (*bench.key.confirmed, {**evidence, "the_key_itself": said}))


async def _next_is_there(bench: Bench) -> bool:
    """Where the next key is shown, the former one would be shown too."""
    provisioner, desk = bench.at_vendor
    place = bench.key.footprint
    return place is not None and not is_gone(await provisioner.read(desk, place))


async def _not_cut(bench: Bench, former: Former, error: ProvisionerError) -> None:
    """The vendor does not end the former key: visible at once, told to everybody when it lasts, tried again and again."""
    key, now = bench.key, bench.now
    attempts = key.attempts + 1
    pause, since = pause_ns(error, attempts, longest=3_600.0), former.failing_since_ns or now
    lasts = is_lasting(error) or attempts >= PATIENT_ATTEMPTS
    if isinstance(error, RateLimited):
        lasts = now + pause - since > LIMITED_WITHIN_NS
    first = lasts and not former.told
    failed = replace(
        key,
        former=replace(former, waits_for=Waits.VENDOR, failing_since_ns=since, told=former.told or lasts),
        attempts=attempts,
        error_code=error.code,
        error=error.detail,
        due_at_ns=_look_at(key, now + pause),
    )
    await bench.save(failed, event=EventType.ISSUED_KEY_IRREVOCABLE if first else None, detail=error.detail if first else None)


async def _still_there(bench: Bench, former: Former, waiting: Waiting) -> None:
    """The admin API says gone, the former key itself does not. Once that is late it is ended again, and everybody is told."""
    key = bench.key
    stands = replace(former, waits_for=Waits.REFUSAL, gone_at_ns=None if waiting.late else former.gone_at_ns, failing_since_ns=None)
    noted = replace(key, former=replace(stands, insist=stands.insist or waiting.late), error_code=waiting.code, error=waiting.error)
    event = EventType.ISSUED_KEY_IRREVOCABLE if waiting.late else None
    due = bench.now + LATE_NS if waiting.late else waiting.again_ns
    await bench.save(replace(noted, attempts=0, due_at_ns=_look_at(key, due)), event=event, detail=waiting.error if event else None)


async def _finish(bench: Bench, evidence: tuple[Mapping[str, str], ...] | None = None) -> None:
    key = bench.key
    done = replace(
        key,
        state=step(key.state, Event.ROTATED),
        former=None,
        former_probe=None,
        evidence=key.evidence if evidence is None else evidence,
        attempts=0,
        error=None,
        error_code=None,
    )
    if done.secret is not None and done.secret_until_ns is None:  # nobody has fetched it, and nobody has used the former key
        done = replace(done, secret_until_ns=bench.now + PICKUP_NS)
    await bench.save(replace(done, due_at_ns=next_due(done)), action="issued_key.rotated", event=EventType.ISSUED_KEY_ROTATED)
