"""The worker's side of bulk orders: keeps a window of keys at work for each order until every row has an end.

It holds nothing: rows say how far an order is, and the request id of a row makes asking twice make one key. So it may be killed at any
time and called from several processes.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.errors import Conflict, Forbidden, KeyGateError
from keygate.events import EventOutbox, EventType
from keygate.identities import Actor, allows
from keygate.issued_keys.accounts import VendorAccountService
from keygate.issued_keys.bulk.model import CLAIM_NS, HALTING, WINDOW, Order, OrderState, Row, RowState, settled
from keygate.issued_keys.bulk.ports import Orderers, People
from keygate.issued_keys.model import AccountStatus, IssueDraft
from keygate.issued_keys.service import IssuedKeyService
from keygate.kit.clock import Clock
from keygate.policies import Place, Scope
from keygate.vendors.admin import TermsRefused

if TYPE_CHECKING:
    from keygate.issued_keys.bulk.repository import BulkRepository
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database

_log = logging.getLogger(__name__)

_RESUME = "the rest waits: resume the order in your own name, or cancel it"


class BulkRunner:
    def __init__(
        self,
        *,
        database: Database,
        repository: BulkRepository,
        key_rows: IssuedKeyRepository,
        accounts: VendorAccountService,
        keys: IssuedKeyService,
        people: People,
        orderers: Orderers,
        outbox: EventOutbox,
        clock: Clock,
        node_id: str,
    ) -> None:
        self._database = database
        self._repository = repository
        self._key_rows = key_rows
        self._accounts = accounts
        self._keys = keys
        self._people = people
        self._orderers = orderers
        self._outbox = outbox
        self._clock = clock
        self._node_id = node_id[:40]

    async def recover(self) -> None:
        """Before the first turn: rows that a former process of this node was at are free again."""
        async with self._database.unit() as work:
            await self._repository.give_back(work.connection, node=self._node_id)

    async def tick(self) -> bool:
        """One turn of every order. Returns whether there is more to do."""
        async with self._database.read() as connection:
            orders = await self._repository.busy(connection)
        for order in orders:
            try:
                await self._turn(order)
            except KeyGateError as error:
                _log.warning("bulk order %s: %s", order.id, error.detail)
        return bool(orders)

    async def _turn(self, order: Order) -> None:
        async with self._database.read() as connection:
            at_work = await self._repository.rows(connection, order.organization_id, order.id, state=RowState.ORDERED, limit=10 * WINDOW)
        left = []
        halt: str | None = None
        for row in at_work:
            after = await self._looked_at(order, row)
            if after is None or after.state is RowState.ORDERED:
                left.append(row)
            elif after.error_code in HALTING or (after.error_code == TermsRefused.code and await self._none_made(order)):
                halt = halt or after.error
        if order.state is OrderState.RUNNING and halt is None:
            halt = await self._reason_to_halt(order)
        if halt is not None and order.state is OrderState.RUNNING:
            await self._turned(order, OrderState.HALTED, busy=bool(left), note=halt)
        elif order.state is OrderState.RUNNING:
            await self._fill(order, room=WINDOW - len(left), idle=not left)
        elif not left:
            await self._turned(order, order.state, busy=False, note=order.note)

    async def _none_made(self, order: Order) -> bool:
        """What the vendor refuses of an order before any of it was made, it refuses of all of it."""
        async with self._database.read() as connection:
            counts = await self._repository.counts(connection, order.organization_id, [order.id])
        return not counts[order.id].get(RowState.MADE)

    async def _looked_at(self, order: Order, row: Row) -> Row | None:
        """The row as it is now; None: it is still at work."""
        if row.key_id is None:
            if (row.claimed_at_ns or 0) + CLAIM_NS > self._clock.now_ns():
                return None
            return await self._ordered(order, row)  # whoever took it up is gone
        async with self._database.read() as connection:
            key = await self._key_rows.get(connection, order.organization_id, row.key_id)
        after = settled(row, key)
        if after is not None:
            async with self._database.unit(order.organization_id) as work:
                await self._repository.save_row(work.connection, after, was=RowState.ORDERED)
        return after

    async def _orderer(self, order: Order, row: Row | None = None) -> Actor:
        """Whoever ordered, as they stand now: keys are made in their name. Raises `Forbidden` where the API would."""
        async with self._database.read() as connection:
            actor = await self._orderers.actor(connection, order)
        if actor is None:
            raise Forbidden(f"whoever ordered this ({order.created_by}) may not act here any more; {_RESUME}")
        lacking = [right for right in ("issued_keys.write", "developers.write") if not allows(actor, right)]
        if "issued_keys.write" in lacking or (lacking and row is not None and row.developer_id is None):
            raise Forbidden(f"whoever ordered this ({order.created_by}) no longer holds the permission {lacking[0]}; {_RESUME}")
        return actor

    async def _reason_to_halt(self, order: Order) -> str | None:
        try:
            actor = await self._orderer(order)
        except Forbidden as error:
            return error.detail
        try:
            account = await self._accounts.get(actor, order.account_id)
        except KeyGateError:
            return "the vendor account is gone"
        if account.status is not AccountStatus.READY:
            return f"the admin credential is {account.status}"
        return None

    async def _fill(self, order: Order, *, room: int, idle: bool) -> None:
        async with self._database.read() as connection:
            waiting = await self._repository.rows(connection, order.organization_id, order.id, state=RowState.WAITING, limit=max(1, room))
        if not waiting and idle:
            await self._turned(order, OrderState.DONE, busy=False, note=None)
            return
        for row in waiting[: max(0, room)]:
            try:
                actor = await self._orderer(order, row)
            except Forbidden as error:
                await self._turned(order, OrderState.HALTED, busy=True, note=error.detail)
                return
            account = await self._accounts.get(actor, order.account_id)
            standing = await self._accounts.room(account, order.options)
            if standing.full:
                if idle:  # else a key that is being made may be counted twice: as ordered, and as what the vendor has of it already
                    await self._turned(order, OrderState.HALTED, busy=True, note=standing.told)
                return
            claimed = replace(row, state=RowState.ORDERED, claimed_at_ns=self._clock.now_ns(), claimed_by=self._node_id)
            async with self._database.unit(order.organization_id) as work:
                taken = await self._repository.save_row(work.connection, claimed, was=RowState.WAITING)
            if taken:
                await self._ordered(order, claimed)
                idle = False

    async def _ordered(self, order: Order, row: Row) -> Row:
        """The row with its key ordered, or failed. Asking again for a row whose process ended in the middle gives the same key."""
        after = row
        try:
            actor = await self._orderer(order, row)
            if row.developer_id is None:
                after = row = replace(row, developer_id=await self._newcomer(order, actor, row))
            draft = IssueDraft(
                vendor=order.vendor,
                owner=Place(Scope.DEVELOPER, row.developer_id or ""),
                terms=row.terms,
                account=order.account_id,
                options=order.options,
                rotate_every_days=order.rotate_every_days,
                rotate_overlap_seconds=order.rotate_overlap_seconds,
                allow_unenforced=order.allow_unenforced,
                request_id=row.request_id,
            )
            told = await self._keys.provision(actor, draft, tell=False, patience=0)
            after = replace(row, key_id=told.key.id)
        except KeyGateError as error:
            async with self._database.read() as connection:
                key = await self._key_rows.requested(connection, order.organization_id, row.request_id)
            failed = replace(row, state=RowState.FAILED, error_code=error.code, error=error.detail)
            after = failed if key is None else replace(row, key_id=key.id)
        async with self._database.unit(order.organization_id) as work:
            await self._repository.save_row(work.connection, after, was=RowState.ORDERED)
        return after

    async def _newcomer(self, order: Order, actor: Actor, row: Row) -> str:
        """The developer of this address, made where there is none yet."""
        async with self._database.read() as connection:
            found = (await self._people.with_emails(connection, order.organization_id, [row.email])).get(row.email)
        if found is None:
            found = await self._people.create(actor, name=row.name, email=row.email, team_id=row.team_id)
        if not found.active:
            raise Conflict(f"{row.email} is deactivated by now")
        return found.id

    async def _turned(self, order: Order, state: OrderState, *, busy: bool, note: str | None) -> None:
        """Saves what has become of the order, unless somebody has told it something else meanwhile."""
        now = self._clock.now_ns()
        async with self._database.unit(order.organization_id) as work:
            current = await self._repository.get(work.connection, order.organization_id, order.id, lock=True)
            if current is None or current.state is not order.state:
                return
            ended = now if state in {OrderState.DONE, OrderState.CANCELLED} and not busy else None
            await self._repository.save(
                work.connection, replace(current, state=state, busy=busy, note=note, updated_at_ns=now, ended_at_ns=ended)
            )
            if state is not order.state:
                counts = (await self._repository.counts(work.connection, order.organization_id, [order.id]))[order.id]
                payload = {"vendor": order.vendor, "note": note, **{str(each): count for each, count in counts.items()}}
                event = EventType.BULK_HALTED if state is OrderState.HALTED else EventType.BULK_DONE
                await self._outbox.raise_event(work, order.organization_id, event, order.id, payload)
