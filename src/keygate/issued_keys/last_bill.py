"""What a key cost is read once more before KeyGate ends it, where the vendor tells nothing of it then: the key is disabled, read until it
stands still, and what it cost is brought into the bill. Only then it is deleted. Each step can be done again: a process that dies between
any two of them loses nothing, and counts nothing twice."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from keygate.kit.clock import Clock
from keygate.vendors.admin import Footprint, NotFound, Provisioner, ProvisionerError, SpendRow, TellsLastSpend, Unavailable

if TYPE_CHECKING:
    from keygate.issued_keys.ports import AtVendor, LastSpend
    from keygate.vendors.admin import Desk

_log = logging.getLogger(__name__)

PAUSES_SECONDS = (1.0, 1.0, 2.0, 4.0)  # between readings; what is not told by then comes with the day's report, if the vendor tells it
_MISSHAPEN = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)


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

    async def disable(self, provisioner: Provisioner, desk: Desk, keys: Sequence[Footprint], *, patient: bool) -> Sequence[Footprint]:
        """So that nothing is spent any more. Which of the keys are there, and are to be read now; none where the vendor tells of keys that
        are gone. `patient`: what may pass is raised, so that the caller tries again; else a key that can't be disabled is read as it is."""
        if not isinstance(provisioner, TellsLastSpend):
            return []
        there: list[Footprint] = []
        for footprint in keys:
            try:
                await provisioner.set_enabled(desk, footprint, enabled=False)
            except NotFound:
                continue  # it is gone already
            except ProvisionerError as error:
                if patient and not error.lasting:
                    raise
            there.append(footprint)
        return there

    async def read(
        self, provisioner: Provisioner, desk: Desk, thing: AtVendor, keys: Sequence[Footprint], *, patient: bool
    ) -> Mapping[str, str]:
        """Brings what these keys of the thing cost into the bill. By key, why that could not be done: it is no reason to let a key live.
        `patient`: what may pass is raised instead; a key that is disabled does no harm until it is tried again."""
        unread: dict[str, str] = {}
        if not isinstance(provisioner, TellsLastSpend):
            return unread
        for footprint in keys:
            try:
                read_at_ns, rows = await self._still(provisioner, desk, footprint)
            except NotFound:
                continue
            except ProvisionerError as error:
                if patient and not error.lasting:
                    raise
                unread[footprint.key or ""] = f"not read before its end: {error.detail}"
                _log.warning("vendor account %s: what a key cost can't be read before its end: %s", thing.account_id, error.detail)
                continue
            await self._spend.keep(thing, rows, read_at_ns=read_at_ns)
            await self._at_step("kept what the key cost")
        return unread

    async def _still(self, provisioner: TellsLastSpend, desk: Desk, footprint: Footprint) -> tuple[int, Sequence[SpendRow]]:
        """What the key cost, once two readings in a row are the same, or it was read often enough; and when the last one began. What an
        earlier one told of a day (it was before midnight) and a later one does not is kept."""
        told: dict[tuple[int, str], SpendRow] = {}
        before: tuple[SpendRow, ...] | None = None
        for pause in (*PAUSES_SECONDS, None):
            read_at_ns = self._clock.now_ns()
            try:
                rows = await provisioner.last_spend(desk, footprint)
            except _MISSHAPEN:
                raise Unavailable("The vendor tells what the key cost in a shape that KeyGate does not know") from None
            told |= {(row.start_ns, row.item): row for row in rows}
            if rows == before or pause is None or all(row.requests == 0 for row in rows):
                break
            before = rows
            await self._sleep(pause)
        return read_at_ns, list(told.values())
