"""What a key cost, read for the last time by whoever ends it: it is disabled, refused by the vendor, read until it stands still
(`last_bill`), and only then ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keygate.issued_keys.bench import PATIENT_ATTEMPTS, Bench
from keygate.issued_keys.proving import STILL_ANSWERS, longer_ns, still_answers
from keygate.kit.clock import NANOSECONDS
from keygate.vendors.admin import Footprint

REFUSED_WITHIN_NS = 300 * NANOSECONDS  # since it was disabled; then it is read and ended as it is
_UNASKED = "read as soon as it was disabled: the vendor could not be asked with the key itself whether it still took it"
_DISABLED = "The key is disabled, and the vendor still takes it; it is deleted once what it cost stands still"


class NotYet(Exception):
    """A disabled key still answers, and may spend: it is looked at again at `again_ns`. Until then the key shows `code` and `error`."""

    code = STILL_ANSWERS
    error = _DISABLED

    def __init__(self, again_ns: int) -> None:
        super().__init__(_DISABLED)
        self.again_ns = again_ns


async def settle(
    bench: Bench, keys: Sequence[Footprint], asked_with: Mapping[str, Footprint | None], *, attempt: int, since_ns: int
) -> None:
    """Why what a key cost could not be read, or not for certain, is noted for the evidence of its end. `asked_with`: which of them can be
    asked, by the column of their copy. `since_ns`: when they were told to end. Raises `NotYet`, and in the first attempts what may pass;
    not where a key could not be disabled: it may be used, so all that can be read is read now, and the keys are ended."""
    provisioner, desk = bench.at_vendor
    last_bill = bench.tools.last_bill
    there = await last_bill.disable(provisioner, desk, keys)
    disabled = [each.footprint for each in there if each.refused is None]
    hurried = len(disabled) < len(there)
    words: dict[str, str] = {}
    for column, footprint in asked_with.items():
        if footprint is None or footprint not in disabled:
            continue
        answers = await still_answers(bench, column, footprint)
        if answers is None:
            words[footprint.key or ""] = _UNASKED
        elif answers:
            waited = await _waited(bench, since_ns)
            if waited is not None and waited < REFUSED_WITHIN_NS and not hurried:
                raise NotYet(bench.now + longer_ns(waited))
            words[footprint.key or ""] = "read while the vendor still took the key"
    read = await last_bill.read(provisioner, desk, bench.key, there, patient=attempt < PATIENT_ATTEMPTS and not hurried)
    await bench.note_last_bills({key: word or words.get(key) for key, word in read.items()})


async def _waited(bench: Bench, since_ns: int) -> int | None:
    """How long ago the key was disabled, by our own notes of calls, which a restart does not lose. None: the vendor did not do it."""
    tools, key = bench.tools, bench.key
    async with tools.database.read() as connection:
        steps = await tools.repository.steps(connection, key.organization_id, key.id)
    taken = [step.began_at_ns for step in steps if step.began_at_ns >= since_ns and (step.outcome or "").startswith("2")]
    return bench.now - min(taken) if taken else None
