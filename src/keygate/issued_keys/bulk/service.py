"""Use cases of bulk orders. An order is checked whole and recorded in one transaction; the worker then makes one key after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound
from keygate.identities import Actor, allows
from keygate.issued_keys.accounts import VendorAccountService
from keygate.issued_keys.bulk.model import MAX_ROWS, BulkDraft, Order, OrderState, Plan, Row, RowState
from keygate.issued_keys.bulk.planning import Known, lines_of, plan_rows
from keygate.issued_keys.bulk.ports import Crowd, People
from keygate.issued_keys.handover import Handover
from keygate.issued_keys.model import AccountStatus, Delivery, IssueDraft, VendorAccount
from keygate.issued_keys.service import IssuedKeyService
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret
from keygate.policies import change
from keygate.vendors.admin import Terms

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.issued_keys.bulk.repository import BulkRepository
    from keygate.kit.database import Database

_SHOWN = 5  # problems that an error names; `check` lists all


@dataclass(frozen=True, slots=True)
class Standing:
    order: Order
    counts: Mapping[RowState, int]


@dataclass(frozen=True, slots=True)
class RowLink:
    row: Row
    token: Secret
    expires_at_ns: int


class BulkService:
    def __init__(
        self,
        *,
        database: Database,
        repository: BulkRepository,
        accounts: VendorAccountService,
        keys: IssuedKeyService,
        handover: Handover,
        people: People,
        crowd: Crowd,
        audit: AuditLog,
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._accounts = accounts
        self._keys = keys
        self._handover = handover
        self._people = people
        self._crowd = crowd
        self._audit = audit
        self._clock = clock

    async def check(self, actor: Actor, draft: BulkDraft) -> Plan:
        """What the order would do: every problem by its line, and whether all fits under the vendor's ceiling, of which the vendor itself
        is asked where it can tell. Changes nothing."""
        if draft.create_developers and not allows(actor, "developers.write"):
            raise Forbidden("create_developers needs the permission developers.write")
        account = await self._accounts.choose(actor, vendor=draft.vendor, account=draft.account)
        if account.status is not AccountStatus.READY:
            raise Conflict(f"The admin credential of {account.vendor} is {account.status}; mend that first")
        async with self._database.read() as connection:
            known = await self._known(connection, actor, draft, account)
            others = await self._crowd.others(connection, actor.organization_id, account.id)
        lines = lines_of(draft, known)
        if not 0 < len(lines) <= MAX_ROWS:
            raise InvalidInput(f"rows: from 1 to {MAX_ROWS}; there are {len(lines)}", field="rows")

        def fits_vendor(terms: Terms) -> None:
            self._keys.check(
                IssueDraft(
                    vendor=account.vendor,
                    owner=None,
                    terms=terms,
                    options=draft.options,
                    rotate_every_days=draft.rotate_every_days,
                    rotate_overlap_seconds=draft.rotate_overlap_seconds,
                    allow_unenforced=draft.allow_unenforced,
                ),
                account,
            )

        rows, problems = plan_rows(draft, lines, known, organization_id=actor.organization_id, check=fits_vendor)
        room = await self._accounts.room(account, draft.options, others=others, afresh=True)
        pace = self._accounts.pace(account)
        return Plan(account.id, account.vendor, tuple(rows), tuple(problems), room, pace)

    async def order(self, actor: Actor, draft: BulkDraft) -> tuple[Standing, Plan | None]:
        """Records the order, or raises before anything is made: `InvalidInput` with the lines that can't be, `Conflict` where the vendor
        has no room for all. The same `request_id` again gives the order that stands under it."""
        if draft.request_id is not None:
            async with self._database.read() as connection:
                known = await self._repository.requested(connection, actor.organization_id, draft.request_id)
            if known is not None:
                return await self._standing(known), None
        plan = await self.check(actor, draft)
        if plan.problems:
            shown = "; ".join(f"line {problem.line}: {problem.detail}" for problem in plan.problems[:_SHOWN])
            more = f"; and {len(plan.problems) - _SHOWN} more" if len(plan.problems) > _SHOWN else ""
            raise InvalidInput(f"Nothing was made: {shown}{more}", field="rows")
        if not plan.fits and not draft.fit:
            raise Conflict(
                f"Nothing was made: {plan.wanted} keys are wanted and {plan.left} fit: {plan.room.told}; or send `fit` to make as many "
                "as fit"
            )
        if not plan.fits:
            plan = plan.cut()
        now = self._clock.now_ns()
        order = Order(
            id=new_id("bo"),
            organization_id=actor.organization_id,
            vendor=plan.vendor,
            account_id=plan.account_id,
            state=OrderState.RUNNING,
            total=len(plan.rows),
            options=dict(draft.options),
            rotate_every_days=draft.rotate_every_days,
            rotate_overlap_seconds=draft.rotate_overlap_seconds,
            allow_unenforced=draft.allow_unenforced,
            created_at_ns=now,
            created_by=actor.id,
            created_by_kind=str(actor.kind),
            batch=draft.batch,
            request_id=draft.request_id,
            updated_at_ns=now,
        )
        async with change(self._database, self._audit, actor, "bulk_order.create", order.id) as work:
            told = {"vendor": order.vendor, "account": order.account_id, "rows": order.total, "wanted": plan.wanted}
            told |= {"new_developers": sum(row.developer_id is None for row in plan.rows), "options": dict(draft.options)}
            await self._audit.record(work, actor, "bulk_order.create", order.id, after=told)
            if not await self._repository.add(work.connection, order, [replace(row, order_id=order.id) for row in plan.rows]):
                raise Conflict("request_id: an order has just been made under it", field="request_id")
        return await self._standing(order), plan

    async def get(self, actor: Actor, order_id: str) -> Standing:
        async with self._database.read() as connection:
            order = await self._mine(connection, actor, order_id)
        return await self._standing(order)

    async def page(self, actor: Actor, *, before: str | None, limit: int) -> list[Standing]:
        if actor.only_own:
            return []
        async with self._database.read() as connection:
            orders = await self._repository.page(connection, actor.organization_id, before=before, limit=limit)
            counts = await self._repository.counts(connection, actor.organization_id, [order.id for order in orders])
        return [Standing(order, counts[order.id]) for order in orders]

    async def rows(self, actor: Actor, order_id: str, *, state: RowState | None, after: int, limit: int) -> list[Row]:
        async with self._database.read() as connection:
            await self._mine(connection, actor, order_id)
            return await self._repository.rows(connection, actor.organization_id, order_id, state=state, after=after, limit=limit)

    async def resume(self, actor: Actor, order_id: str) -> Standing:
        """Goes on with a halted order, and tries failed rows again: from now on in the name of whoever resumes it."""
        async with change(self._database, self._audit, actor, "bulk_order.resume", order_id) as work:
            order = await self._mine(work.connection, actor, order_id, lock=True)
            if order.state is OrderState.CANCELLED:
                raise Conflict("The order was cancelled; make a new one")
            again = await self._repository.try_failed_again(work.connection, actor.organization_id, order_id)
            if order.state is OrderState.DONE and not again:
                raise Conflict("The order is done, and no row of it failed")
            after = replace(
                order,
                state=OrderState.RUNNING,
                busy=True,
                note=None,
                created_by=actor.id,
                created_by_kind=str(actor.kind),
                ended_at_ns=None,
                updated_at_ns=self._clock.now_ns(),
            )
            before = {"state": order.state, "created_by": order.created_by}
            await self._audit.record(work, actor, "bulk_order.resume", order_id, before=before, after={"again": again})
            await self._repository.save(work.connection, after)
        return await self._standing(after)

    async def cancel(self, actor: Actor, order_id: str) -> Standing:
        """Makes no further keys. Those that are being made are finished, those that are made stay. Idempotent."""
        async with change(self._database, self._audit, actor, "bulk_order.cancel", order_id) as work:
            order = await self._mine(work.connection, actor, order_id, lock=True)
            if order.state is OrderState.DONE:
                raise Conflict("The order is done; revoke its keys one by one")
            after = order
            if order.state is not OrderState.CANCELLED:
                values = {"state": str(RowState.LEFT_OUT), "error": "the order was cancelled"}
                left = await self._repository.turn_rows(
                    work.connection, actor.organization_id, order_id, was=RowState.WAITING, values=values
                )
                after = replace(order, state=OrderState.CANCELLED, busy=True, updated_at_ns=self._clock.now_ns())
                await self._audit.record(
                    work, actor, "bulk_order.cancel", order_id, before={"state": order.state}, after={"left_out": left}
                )
                await self._repository.save(work.connection, after)
        return await self._standing(after)

    async def links(
        self, actor: Actor, order_id: str, *, expires_in_seconds: int, after: int, limit: int
    ) -> tuple[list[RowLink], int | None]:
        """One-time links to the secrets that wait, for `limit` rows from line `after` on, and the line to go on from. Rows whose secret
        was fetched already have none."""
        rows = await self.rows(actor, order_id, state=RowState.MADE, after=after, limit=limit + 1)
        now, found = self._clock.now_ns(), []
        for row in rows[:limit]:
            key = await self._keys.get(actor, row.key_id or "")
            if key.delivery(now) is Delivery.WAITING:
                token, until = await self._handover.make_link(actor, key.id, expires_in_seconds=expires_in_seconds)
                found.append(RowLink(row, token, until))
        return found, rows[limit - 1].line if len(rows) > limit else None

    async def _known(self, connection: AsyncConnection, actor: Actor, draft: BulkDraft, account: VendorAccount) -> Known:
        home = actor.organization_id
        teams = await self._people.teams(connection, home)
        if draft.team_id is not None and all(team.id != draft.team_id for team in teams):
            raise InvalidInput("team_id: there is no team with this id", field="team_id")
        emails = sorted({line.email.strip().lower() for line in draft.lines if line.email})
        ids = sorted({line.developer_id for line in draft.lines if line.developer_id})
        members = [] if draft.team_id is None else await self._people.of_team(connection, home, draft.team_id)
        named = await self._people.with_ids(connection, home, ids)
        holders: dict[str, str | None] = dict(await self._repository.rows_of_account(connection, home, account.id, batch=draft.batch))
        if draft.batch is None:
            holders |= await self._repository.holders_of_account(connection, home, account.id)
        return Known(
            by_email=await self._people.with_emails(connection, home, emails),
            by_id={**named, **{member.id: member for member in members}},
            members=members,
            teams=teams,
            holders=holders,
        )

    async def _standing(self, order: Order) -> Standing:
        async with self._database.read() as connection:
            counts = await self._repository.counts(connection, order.organization_id, [order.id])
        return Standing(order, counts[order.id])

    async def _mine(self, connection: AsyncConnection, actor: Actor, order_id: str, *, lock: bool = False) -> Order:
        order = None if actor.only_own else await self._repository.get(connection, actor.organization_id, order_id, lock=lock)
        if order is None:
            raise NotFound("There is no bulk order with this id")
        return order
