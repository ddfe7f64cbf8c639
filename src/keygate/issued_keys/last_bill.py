"""What a key cost is read once more before KeyGate ends it, where the vendor tells nothing of it then: the key is disabled, read until it
stands still, and what it cost is brought into the bill. Only then it is deleted. Each step can be done again: a process that dies between
any two of them loses nothing, and counts nothing twice."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keygate.kit.clock import Clock
from keygate.vendors.admin import (
    MISSHAPEN,
    Footprint,
    NotFound,
    Provisioner,
    ProvisionerError,
    Rejected,
    SpendRow,
    TellsLastSpend,
    ToldInPart,
    Unavailable,
)

if TYPE_CHECKING:
    from keygate.issued_keys.ports import AtVendor, LastSpend
    from keygate.vendors.admin import Desk

_log = logging.getLogger(__name__)

PAUSES_SECONDS = (1.0, 1.0, 2.0, 4.0)  # between readings; what is not told by then comes with the day's report, if the vendor tells it


@dataclass(frozen=True, slots=True)
class There:
    """A key that is to be read. `refused`: why the vendor did not disable it."""

    footprint: Footprint
    refused: str | None = None


class LastBill:
    def __init__(
        self,
        spend: LastSpend,
        *,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
        at_step: Callable[[str], Awaitable[None]],
    ) -> None:
        self._spend = spend
        self._clock = clock
        self._sleep = sleep
        self._at_step = at_step

    async def disable(self, provisioner: Provisioner, desk: Desk, keys: Sequence[Footprint]) -> Sequence[There]:
        """So that nothing is spent any more. Which of the keys are there, and are to be read now; none where the vendor tells of keys that
        are gone. One that can't be disabled is among them: that is no reason to let it live."""
        if not isinstance(provisioner, TellsLastSpend):
            return []
        there: list[There] = []
        for footprint in keys:
            refused = None
            try:
                await provisioner.set_enabled(desk, footprint, enabled=False)
            except NotFound:
                continue  # it is gone already
            except ProvisionerError as error:
                refused = error.detail
                _log.warning("a key that is to be read before its end can't be disabled: %s", error.detail)
            there.append(There(footprint, refused))
        return there

    async def read(
        self, provisioner: Provisioner, desk: Desk, thing: AtVendor, there: Sequence[There], *, patient: bool
    ) -> Mapping[str, str | None]:
        """Brings what these keys of the thing cost into the bill. By key, why that could not be done for certain, or None: it is no reason
        to let a key live. Keys that turn out to be gone already are left out. `patient`: what may pass is raised instead; a key that is
        disabled does no harm until it is tried again."""
        words: dict[str, str | None] = {}
        if not isinstance(provisioner, TellsLastSpend):
            return words
        for each in there:
            key = each.footprint.key or ""
            try:
                if not await self._read(provisioner, desk, thing, each.footprint):
                    continue
                words[key] = None if each.refused is None else f"read while it could be used, as it could not be disabled: {each.refused}"
            except ProvisionerError as error:
                if patient and not error.lasting:
                    raise
                words[key] = f"not read for certain before its end: {error.detail}"
                _log.warning("vendor account %s: what a key cost can't be read before its end: %s", thing.account_id, error.detail)
        return words

    async def _read(self, provisioner: TellsLastSpend, desk: Desk, thing: AtVendor, footprint: Footprint) -> bool:
        """Until two readings in a row are the same, or it was read often enough. Each is kept before anything else is tried, and stays
        whatever becomes of the next: what an earlier one told of a day (it was before midnight) and a later one does not, too. False: the
        key is gone already."""
        before: tuple[SpendRow, ...] | None = None
        for pause in (*PAUSES_SECONDS, None):
            read_at_ns, untold = self._clock.now_ns(), None
            try:
                rows = await provisioner.last_spend(desk, footprint)
            except ToldInPart as error:
                rows, untold = error.rows, error.why
            except NotFound:
                if before is None:
                    return False
                raise Rejected("it was gone before it could be read again") from None
            except MISSHAPEN:
                raise Unavailable("The vendor tells what the key cost in a shape that KeyGate does not know") from None
            if rows != before:
                await self._spend.keep(thing, rows, read_at_ns=read_at_ns)
                await self._at_step("kept what the key cost")
            if rows == before or pause is None or all(row.requests == 0 for row in rows):
                break
            before = rows
            await self._sleep(pause)
        if untold is not None:
            raise untold
        return True
