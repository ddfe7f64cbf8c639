"""How much room an account has: as the vendor itself counts, where it can be asked, else by what KeyGate knows.

A count costs calls, and a bulk order asks before each of its keys: so a count is kept for a while, and what was ordered since is added.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keygate.issued_keys.desks import CEILING_SETTING, Desks, ceiling
from keygate.issued_keys.model import Room, VendorAccount
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.vault import EnvelopeBroken
from keygate.vendors.admin import Census, Counts, Provisioner, ProvisionerError

if TYPE_CHECKING:
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 20.0
_PLENTY = 50  # with so much room left a count is kept longer
_KEPT_NS, _KEPT_LONG_NS = 30 * NANOSECONDS, 600 * NANOSECONDS


@dataclass(frozen=True, slots=True)
class _Kept:
    stamp: int  # of the account
    census: Census
    alive: int  # keys of ours, when it was counted
    unmade: int  # those among them that the vendor had not yet
    at_ns: int

    def standing(self, alive: int) -> int:
        return self.census.standing + self.unmade + max(0, alive - self.alive)


class Counting:
    def __init__(
        self, *, database: Database, keys: IssuedKeyRepository, desks: Desks, provisioners: Mapping[str, Provisioner], clock: Clock
    ) -> None:
        self._database = database
        self._keys = keys
        self._desks = desks
        self._provisioners = provisioners
        self._clock = clock
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._unanswered: dict[str, int] = {}  # by account: when it could not be counted

    async def room(self, account: VendorAccount, options: Mapping[str, str], *, others: int = 0, afresh: bool = False) -> Room:
        """`others`: containers of others that KeyGate knows of, for where the vendor can't be asked. `afresh`: no count from before the
        question is given, as others may have filled the organisation since, or its ceiling been lowered."""
        provisioner = self._provisioners[account.vendor]
        facts = provisioner.facts
        name = facts.container or "key"
        async with self._database.read() as connection:
            alive = await self._keys.count_alive(connection, account.organization_id, account.id)
        since_ns = self._clock.now_ns() if afresh else 0
        kept = await self._counted(provisioner, account, options, alive, since_ns) if isinstance(provisioner, Counts) else None
        if kept is None:
            return Room(name, alive + others, ceiling(facts, account.settings), counted=False)
        most, census = _ceiling(account, kept.census), kept.census
        return Room(name, kept.standing(alive), most, counted=True, place=census.place, remedy=census.remedy)

    async def _counted(
        self, provisioner: Counts, account: VendorAccount, options: Mapping[str, str], alive: int, since_ns: int
    ) -> _Kept | None:
        """Counted after `since_ns`. None: the vendor can't be asked now; whoever orders will be told by the vendor itself. What says "full"
        is never an old count: somebody may have made room."""
        place = (account.id, options.get("region", ""))
        async with self._turns.setdefault(account.id, asyncio.Lock()):
            kept, now = self._kept.get(place), self._clock.now_ns()
            if kept is not None and kept.stamp == account.updated_at_ns and kept.at_ns >= since_ns:
                most, standing = _ceiling(account, kept.census), kept.standing(alive)
                plenty = most is None or most - standing > _PLENTY
                if now < kept.at_ns + (_KEPT_LONG_NS if plenty else _KEPT_NS) and (most is None or standing < most):
                    return kept
            if now < self._unanswered.get(account.id, 0) + _KEPT_NS:
                return None  # a vendor in trouble does not hold up every order anew
            began_ns = self._clock.now_ns()
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    census = await provisioner.count(await self._desks.open(account), options)
            except (ProvisionerError, EnvelopeBroken, TimeoutError) as error:
                _log.info("vendor account %s can't be counted: %s", account.id, getattr(error, "detail", "no answer in time"))
                self._unanswered[account.id] = self._clock.now_ns()
                return None
            self._unanswered.pop(account.id, None)
            async with self._database.read() as connection:
                alive = await self._keys.count_alive(connection, account.organization_id, account.id)
                unmade = await self._keys.unmade(connection, account.organization_id, account.id)
            kept = self._kept[place] = _Kept(account.updated_at_ns, census, alive, unmade, began_ns)
            return kept


def _ceiling(account: VendorAccount, census: Census) -> int | None:
    """The one that the vendor tells, or the one that was entered where that is lower; where it tells none, the one that was entered, or
    that is documented."""
    text = account.settings.get(CEILING_SETTING, "")
    if not text.isdecimal():
        return census.ceiling
    return min(census.ceiling, int(text)) if census.told and census.ceiling is not None else int(text)
