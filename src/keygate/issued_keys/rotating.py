"""Rotating a key: the next one beside the former, an overlap, and the former cut once the vendor shows it unused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from keygate.events import EventType
from keygate.issued_keys.bench import Bench, is_gone, is_lasting, pause_ns
from keygate.issued_keys.life import Event, step
from keygate.issued_keys.making import CHECK_NS, LONGEST_SECONDS, MAX_ATTEMPTS, MAX_LIMITED, acquire, confirm, next_due
from keygate.issued_keys.model import Former
from keygate.kit.clock import NANOSECONDS
from keygate.vendors.admin import ProvisionerError, RateLimited, Rejected

_LOOK_AGAIN_NS = 60 * NANOSECONDS


async def rotate(bench: Bench) -> None:
    """rotating → active: makes the next key, waits for the overlap, cuts the former one."""
    former = bench.key.former
    if former is None:
        await _finish(bench)
    elif former.cut_at_ns is None:
        await _make_next(bench, former)
    elif bench.now < former.cut_at_ns:
        await bench.save(replace(bench.key, due_at_ns=former.cut_at_ns))
    else:
        await _cut(bench, former)


async def _make_next(bench: Bench, former: Former) -> None:
    try:
        again = await acquire(bench)
        enforcement = await confirm(bench)
    except ProvisionerError as error:
        await _not_made(bench, former, error)
        return
    key, now = bench.key, bench.now
    cut_at = now + former.overlap_seconds * NANOSECONDS
    overlap = replace(
        key,
        enforcement=enforcement,
        former=replace(former, cut_at_ns=cut_at),
        read_at_ns=now,
        attempts=0,
        error=None,
        error_code=None,
        check_at_ns=now + CHECK_NS if again else key.check_at_ns,
        due_at_ns=cut_at,
    )
    await bench.save(overlap, action="issued_key.next_made")


async def _not_made(bench: Bench, former: Former, error: ProvisionerError) -> None:
    """The former key goes on; what was made of the next one is removed."""
    key = bench.key
    noted = replace(key, error_code=error.code, error=error.detail)
    most = MAX_LIMITED if isinstance(error, RateLimited) else MAX_ATTEMPTS
    if not is_lasting(error) and key.attempts < most:
        await bench.save(replace(noted, due_at_ns=bench.now + pause_ns(error, key.attempts, longest=LONGEST_SECONDS)))
        return
    try:
        await bench.clear(key.generation)
    except ProvisionerError as other:
        noted = replace(noted, error=f"{error.detail} · not yet removed: {other.detail}")
    back = replace(
        noted,
        state=step(key.state, Event.ROTATED),
        former=None,
        footprint=former.footprint,
        secret=None,
        secret_generation=former.generation,
        hint=former.hint,
        delivered_at_ns=key.delivered_at_ns or key.activated_at_ns,
        attempts=0,
        check_at_ns=bench.now + CHECK_NS,
    )
    await bench.save(
        replace(back, due_at_ns=next_due(back)), action="issued_key.rotate_failed", event=EventType.ISSUED_KEY_FAILED, detail=error.detail
    )


async def _cut(bench: Bench, former: Former) -> None:
    """Only with proof: the vendor shows that nobody has used the former key for `quiet_seconds`; or without, where the operator insists or
    the vendor never tells."""
    provisioner, desk = bench.at_vendor
    key, now = bench.key, bench.now
    try:
        if provisioner.facts.tells_last_use and not former.insist:
            reading = await provisioner.read(desk, former.footprint)
            used = reading.last_used_at_ns
            quiet_at = 0 if used is None else used + former.quiet_seconds * NANOSECONDS
            if not is_gone(reading) and now < quiet_at:
                waiting = replace(former, last_used_at_ns=used)
                due = max(now + _LOOK_AGAIN_NS, quiet_at)
                await bench.save(replace(key, former=waiting, read_at_ns=now, due_at_ns=due))
                return
        await provisioner.revoke(desk, former.footprint)
        reading = await bench.gone(former.footprint)
        if not is_gone(reading):
            raise Rejected(f"The vendor took the call, but still shows the former key as {reading.presence}")
    except ProvisionerError as error:
        pause = pause_ns(error, key.attempts + 1, longest=3_600.0)
        failed = replace(key, attempts=key.attempts + 1, error_code=error.code, error=error.detail, due_at_ns=now + pause)
        event = EventType.ISSUED_KEY_IRREVOCABLE if failed.attempts == MAX_ATTEMPTS else None
        await bench.save(failed, event=event, detail=error.detail if event else None)
        return
    await _finish(bench, (*key.evidence, bench.evidence(former.footprint, reading)))


async def _finish(bench: Bench, evidence: tuple[Mapping[str, str], ...] | None = None) -> None:
    key = bench.key
    done = replace(
        key,
        state=step(key.state, Event.ROTATED),
        former=None,
        evidence=key.evidence if evidence is None else evidence,
        attempts=0,
        error=None,
        error_code=None,
    )
    await bench.save(replace(done, due_at_ns=next_due(done)), action="issued_key.rotated")
