"""Making a key: container, terms, key, secret sealed, terms read back. What can't be finished is undone, or shown as owed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from keygate.events import EventType
from keygate.issued_keys.agreed import Drifted, differing, set_again, standing_of
from keygate.issued_keys.bench import Bench, distinct, is_gone, is_lasting, pause_ns
from keygate.issued_keys.life import Event, State, step
from keygate.issued_keys.model import PICKUP_NS, Enforcement, IssuedKey
from keygate.issued_keys.ports import Restraint
from keygate.issued_keys.proving import known
from keygate.issued_keys.whose import NOT_CONFIRMED, absence_counts
from keygate.kit.clock import NANOSECONDS
from keygate.vendors.admin import Footprint, Presence, ProvisionerError, RateLimited, Rejected, Retires, Unavailable

MAX_ATTEMPTS = 8
MAX_LIMITED = 60  # a vendor that only says "wait" is waited for
LONGEST_SECONDS = 120.0
CHECK_NS = 90 * NANOSECONDS
_POLL_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)


async def begin(bench: Bench) -> None:
    """requested → creating: from here on something may be at the vendor."""
    await bench.save(replace(bench.key, state=step(bench.key.state, Event.BEGIN), attempts=0, due_at_ns=bench.now))


async def make(bench: Bench) -> None:
    """creating → active once the vendor takes the key, or failed."""
    try:
        again = await acquire(bench)
        enforcement = await confirm(bench)
        if not await known(bench):
            return
    except ProvisionerError as error:
        await _failed(bench, error)
        return
    key, now = bench.key, bench.now
    check = now + CHECK_NS if again else None
    active = replace(
        key,
        state=step(key.state, Event.MADE),
        enforcement=enforcement,
        activated_at_ns=now,
        read_at_ns=now,
        attempts=0,
        error=None,
        error_code=None,
        check_at_ns=check,
    )
    await bench.save(replace(active, due_at_ns=next_due(active)), action="issued_key.activate", event=EventType.ISSUED_KEY_ACTIVE)


async def acquire(bench: Bench, before: Callable[[], Awaitable[None]] | None = None) -> bool:
    """The key of the newest generation is at the vendor and its secret sealed here. Returns whether it took more than one try: then
    something of the first may turn up at the vendor later. `before` is done before the key is made, in each try."""
    key = bench.key
    again = key.attempts > 0
    if key.secret_generation == key.generation:
        return again
    provisioner, desk = bench.at_vendor
    key = await bench.save(replace(key, attempts=key.attempts + 1))
    if again:
        await bench.clear(key.generation)
    if before is not None:
        await before()
    made = await provisioner.create(desk, bench.order(fresh=not again and key.generation == 1))
    now = bench.now
    unasked = key.former is not None and key.former.by_itself  # its secret waits for as long as the former key works
    await bench.save(
        replace(
            key,
            footprint=made.footprint,
            secret_generation=key.generation,
            secret_until_ns=None if unasked else now + PICKUP_NS,
            made_at_ns=now,
            delivered_at_ns=None,
            told_to=None,
            secret_env=made.secret_env,
            env=dict(made.env),
        ),
        secret=made.secret,
        secret_ends_ns=made.expires_at_ns,
    )
    return again


async def confirm(bench: Bench, restraint: Restraint | None = None) -> dict[str, Enforcement]:
    """What the vendor shows of each term that was asked for. Raises `Rejected` where it goes on showing something else, `Unavailable`
    where it does not show the key yet. A next key has its terms set again where they differ, which its container keeps from before it was
    made; with `restraint` its limits are lowered as its former one's are."""
    provisioner, desk = bench.at_vendor
    key, footprint = bench.key, bench.key.footprint or Footprint()
    untouched = key.former is not None
    for turn, pause in enumerate((*_POLL_SECONDS, None)):
        reading = await provisioner.read(desk, footprint)
        told = standing_of(key, reading.terms, bench.facts, restraint)
        drift = differing(told)
        shown = reading.presence is not Presence.GONE
        if shown and not drift and not is_gone(reading):
            return told
        if shown and drift and untouched and turn > 0:  # a reading may lag behind what was made
            untouched = False
            await set_again(provisioner, desk, footprint, key.terms if restraint is None else restraint.lowered(key.terms), drift)
        if pause is not None:
            await bench.tools.sleep(pause)
    if not shown:
        raise Unavailable("The vendor has made the key, and does not show it yet; it is asked again")
    if drift and key.former is not None:
        raise Drifted(
            f"The vendor goes on showing other terms than were agreed ({', '.join(drift)}): see to that first, with "
            f"`keygate inventory check {key.id} --repair`, then rotate it"
        )
    what = f"other terms than asked for ({', '.join(drift)})" if drift else f"the key as {reading.presence} right after making it"
    raise Rejected(f"The vendor shows {what}")


def tried(key: IssuedKey) -> IssuedKey:
    """Attempts are counted where a key is made; of one that is made, where it can't be read back."""
    return replace(key, attempts=key.attempts + 1) if key.secret_generation == key.generation else key


async def _failed(bench: Bench, error: ProvisionerError) -> None:
    key = tried(bench.key)
    most = MAX_LIMITED if isinstance(error, RateLimited) else MAX_ATTEMPTS
    noted = replace(key, error_code=error.code, error=error.detail)
    if not is_lasting(error) and key.attempts < most:
        await bench.save(replace(noted, due_at_ns=bench.now + pause_ns(error, key.attempts, longest=LONGEST_SECONDS)))
        return
    owed = await undo(bench)
    now = bench.now
    failed = replace(
        noted,
        state=step(key.state, Event.GIVE_UP),
        owed=owed is not None,
        error=with_owed(error.detail, owed),
        secret=None,
        probe=None,
        former_probe=None,
        ended_at_ns=now if owed is None else None,
        attempts=0,
        check_at_ns=now + CHECK_NS,
        due_at_ns=now + CHECK_NS if owed is None else now + 30 * NANOSECONDS,
    )
    await bench.save(failed, action="issued_key.fail", event=EventType.ISSUED_KEY_FAILED, detail=failed.error)


async def undo(bench: Bench) -> str | None:
    """Removes all that carries the key's mark. None: the vendor shows nothing of it any more; else what remains."""
    provisioner, desk = bench.at_vendor
    if bench.key.adopted:
        return None  # the key itself was read back when it ended; nothing beside it is ours
    try:
        there = [*bench.known, *(each.footprint for each in await provisioner.find(desk, bench.key.mark))]
        for key in distinct(there):
            await provisioner.revoke(desk, key)
        if isinstance(provisioner, Retires):
            for container in [each for each in there if each.key is None] or [replace(each, key=None) for each in there[:1]]:
                await provisioner.retire(desk, container)
        for pause in (0.2, 1.0, 3.0, None):
            left = await provisioner.find(desk, bench.key.mark)
            if not left or pause is None:
                break
            await bench.tools.sleep(pause)
    except ProvisionerError as error:
        return error.detail
    return ", ".join(each.name for each in left) or None


async def clean(bench: Bench) -> None:
    """failed, revoked or expired: looks once more whether anything is left at the vendor, and removes it."""
    key = bench.key
    began = bench.now
    owed = await undo(bench)
    if owed is None and key.owed:
        owed = await _unconfirmed(bench, began)
    now = bench.now
    if owed is None:
        cause = with_owed(key.error, None)
        after = replace(key, owed=False, attempts=0, error=cause, check_at_ns=None, due_at_ns=None, ended_at_ns=key.ended_at_ns or now)
        await bench.save(after, action="issued_key.clean" if key.owed else None)
        return
    pause = min(3_600, 30 * 2 ** min(key.attempts, 10)) * NANOSECONDS
    await bench.save(replace(key, owed=True, attempts=key.attempts + 1, error=with_owed(key.error, owed), due_at_ns=now + pause))


_STILL = "still at the vendor: "


def with_owed(error: str | None, owed: str | None) -> str | None:
    """Why a key came to nothing, and what is left of it at the vendor now. `error` may hold what was left before."""
    cause = (error or "").partition(_STILL)[0].rstrip(" ·")
    parts = [cause] if cause else []
    return " · ".join([*parts, f"{_STILL}{owed}"] if owed is not None else parts) or None


async def _unconfirmed(bench: Bench, since_ns: int) -> str | None:
    """Of something that is owed and that the vendor does not show: why that is no proof. None: it is."""
    try:
        return None if await absence_counts(bench, since_ns=since_ns) else NOT_CONFIRMED
    except ProvisionerError as error:
        return error.detail


async def check(bench: Bench) -> None:
    """active: an attempt that was cut off may have left a key that the vendor showed late. Such a key, with a secret that nobody has, is
    ended."""
    provisioner, desk = bench.at_vendor
    key = bench.key
    ours = {None if key.footprint is None else key.footprint.key, None if key.former is None else key.former.footprint.key}
    try:
        for found in await provisioner.find(desk, key.mark):
            if found.footprint.key is not None and found.footprint.key not in ours:
                await provisioner.revoke(desk, found.footprint)
    except ProvisionerError as error:
        await bench.save(replace(key, error_code=error.code, error=error.detail, due_at_ns=bench.now + 60 * NANOSECONDS))
        return
    done = replace(key, check_at_ns=None, error=with_owed(key.error, None))
    await bench.save(replace(done, due_at_ns=next_due(done)))


def next_due(key: IssuedKey) -> int | None:
    """When the worker has to look at a key that nothing is the matter with."""
    times = [moment for moment in (key.check_at_ns, key.expires_at_ns if key.state is State.ACTIVE else None) if moment is not None]
    return min(times, default=None)
