"""All SQL of imports: pages that wait, the change of a whole window at once, whose rows are, how far an account was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.kit.database import insert_or_ignore, upsert
from keygate.vendor_spend.model import DAY_NS, Attribution, ImportState, Window, model_of, place_text, plain, row_id
from keygate.vendor_spend.tables import (
    COPIED,
    OWNER,
    RESTATED,
    vendor_spend,
    vendor_spend_imports,
    vendor_spend_incoming,
    vendor_spend_last,
)
from keygate.vendors.admin import SpendRow

_PLAIN = tuple(name for name in ImportState.__dataclass_fields__ if name != "window")
_CHUNK = 500
_LAST_KEPT_NS = 7 * DAY_NS  # longer than a reading of the bill takes, and than a vendor is asked of a key that is gone


class SpendRepository:
    async def state(self, connection: AsyncConnection, organization_id: str, account_id: str) -> ImportState | None:
        t = vendor_spend_imports
        row = (await connection.execute(sa.select(t).where(t.c.organization_id == organization_id, t.c.account_id == account_id))).first()
        return None if row is None else _state(row)

    async def states(self, connection: AsyncConnection, organization_id: str) -> list[ImportState]:
        t = vendor_spend_imports
        query = sa.select(t).where(t.c.organization_id == organization_id).order_by(t.c.account_id)
        return [_state(row) for row in await connection.execute(query)]

    async def all_states(self, connection: AsyncConnection) -> dict[str, ImportState]:
        # Across organisations, for the worker: it serves all of them.
        return {row.account_id: _state(row) for row in await connection.execute(sa.select(vendor_spend_imports))}

    async def add_state(self, connection: AsyncConnection, state: ImportState) -> None:
        """Unless it is there already."""
        await insert_or_ignore(connection, vendor_spend_imports, _values(state))

    async def save_state(self, connection: AsyncConnection, state: ImportState, *, lease: str, until_ns: int) -> bool:
        """For whoever holds the lease, which it extends. False: another process has taken over, and nothing was saved."""
        t = vendor_spend_imports
        change = sa.update(t).where(
            t.c.organization_id == state.organization_id, t.c.account_id == state.account_id, t.c.leased_by == lease
        )
        return (await connection.execute(change.values(**_values(state), leased_until_ns=until_ns))).rowcount == 1

    async def put_off(self, connection: AsyncConnection, state: ImportState) -> None:
        """Without a lease, where nobody holds one: when it is tried again, and why."""
        t = vendor_spend_imports
        change = sa.update(t).where(
            t.c.organization_id == state.organization_id, t.c.account_id == state.account_id, t.c.leased_by.is_(None)
        )
        told = {name: getattr(state, name) for name in ("attempts", "next_at_ns", "error_code", "error")}
        await connection.execute(change.values(**told))

    async def lease(self, connection: AsyncConnection, state: ImportState, *, by: str, until_ns: int, now_ns: int) -> bool:
        """False: another process is importing this account."""
        t = vendor_spend_imports
        change = sa.update(t).where(
            t.c.organization_id == state.organization_id,
            t.c.account_id == state.account_id,
            sa.or_(t.c.leased_until_ns.is_(None), t.c.leased_until_ns < now_ns),
        )
        return (await connection.execute(change.values(leased_by=by, leased_until_ns=until_ns))).rowcount == 1

    async def release(self, connection: AsyncConnection, state: ImportState, *, by: str) -> None:
        t = vendor_spend_imports
        change = sa.update(t).where(t.c.organization_id == state.organization_id, t.c.account_id == state.account_id, t.c.leased_by == by)
        await connection.execute(change.values(leased_by=None, leased_until_ns=None))

    async def hold(self, connection: AsyncConnection, state: ImportState) -> None:
        """Until the transaction ends, nobody else who holds it changes the account's rows."""
        t = vendor_spend_imports
        query = sa.select(t.c.account_id).where(t.c.organization_id == state.organization_id, t.c.account_id == state.account_id)
        await connection.execute(query.with_for_update())

    async def leased_until(self, connection: AsyncConnection, state: ImportState) -> int | None:
        """Until when nobody else may import this account, unless its lease is renewed."""
        t = vendor_spend_imports
        query = sa.select(t.c.leased_until_ns).where(t.c.organization_id == state.organization_id, t.c.account_id == state.account_id)
        return (await connection.execute(query)).scalar_one_or_none()

    async def give_back(self, connection: AsyncConnection, *, node: str) -> None:
        """At a start, across organisations: what a former process of this node held. Leases are `<node>:<number>`."""
        t = vendor_spend_imports
        change = sa.update(t).where(t.c.leased_by.startswith(f"{node}:", autoescape=True))
        await connection.execute(change.values(leased_by=None, leased_until_ns=None))

    # Rows

    async def wait(self, connection: AsyncConnection, state: ImportState, rows: Sequence[SpendRow]) -> None:
        """A page of the window that is being read, kept apart. A row that an earlier page told already is replaced."""
        by_id = {row_id(row): row for row in map(plain, rows)}
        values = [_incoming(state, id_, row) for id_, row in by_id.items()]
        for start in range(0, len(values), _CHUNK):
            chunk = values[start : start + _CHUNK]
            await upsert(connection, vendor_spend_incoming, chunk, key=("account_id", "row_id"), update=RESTATED)

    async def forget_waiting(self, connection: AsyncConnection, state: ImportState) -> None:
        t = vendor_spend_incoming
        await connection.execute(sa.delete(t).where(t.c.organization_id == state.organization_id, t.c.account_id == state.account_id))

    async def put_in_place(self, connection: AsyncConnection, state: ImportState, window: Window, *, keep_untold: bool = False) -> None:
        """What waits becomes what the window holds: rows that the vendor tells no more go (unless they are kept: it forgets deleted keys),
        others are restated or added. Rows that have not changed are not written. Whose a row is stays as it was."""
        t, waiting = vendor_spend, vendor_spend_incoming
        mine = (waiting.c.organization_id == state.organization_id, waiting.c.account_id == state.account_id)
        told = sa.select(waiting.c.row_id).where(*mine)
        gone = sa.delete(t).where(
            t.c.organization_id == state.organization_id,
            t.c.account_id == state.account_id,
            t.c.start_ns >= window.from_ns,
            t.c.start_ns < window.until_ns,
            t.c.row_id.not_in(told),
        )
        await self._with_last(connection, state, window)
        if not keep_untold:
            await connection.execute(gone)
        await self._place(connection, state, vendor_spend_incoming)
        await self.forget_waiting(connection, state)

    async def _place(self, connection: AsyncConnection, state: ImportState, table: sa.Table, only: str = "", **values: Any) -> None:
        """Rows of `table`, of the account (and `only` some), are added to the bill, or restate it."""
        differs = "IS NOT" if connection.dialect.name == "sqlite" else "IS DISTINCT FROM"
        changed = " OR ".join(f"excluded.{name} {differs} vendor_spend.{name}" for name in RESTATED)
        copied = ", ".join(COPIED)
        statement = sa.text(
            f"INSERT INTO vendor_spend ({copied}, vendor, first_nano, attribution) "  # noqa: S608  (names of ours; values are bound)
            f"SELECT {copied}, :vendor, amount_nano, :unknown FROM {table.name} "
            f"WHERE organization_id = :organization AND account_id = :account {only} "
            f"ON CONFLICT (account_id, row_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in RESTATED)} WHERE {changed}"
        )
        whose = {"organization": state.organization_id, "account": state.account_id, "vendor": state.vendor}
        await connection.execute(statement, {**values, **whose, "unknown": Attribution.UNKNOWN.value})

    # What was read of keys just before their end

    async def keep_last(self, connection: AsyncConnection, state: ImportState, rows: Sequence[SpendRow], *, read_at_ns: int) -> None:
        """In the bill from now on. `read_at_ns`: not later than the rows were told."""
        by_id = {row_id(row): row for row in map(plain, rows)}
        values = [{**_incoming(state, id_, row), "read_at_ns": read_at_ns, "asked_at_ns": 0} for id_, row in by_id.items()]
        await upsert(connection, vendor_spend_last, values, key=("account_id", "row_id"), update=(*RESTATED, "read_at_ns", "asked_at_ns"))
        for key in sorted({row.key for row in by_id.values() if row.key is not None}):
            await self._place(
                connection, state, vendor_spend_last, "AND vendor_key = :key AND read_at_ns = :read_at", key=key, read_at=read_at_ns
            )

    async def _with_last(self, connection: AsyncConnection, state: ImportState, window: Window) -> None:
        """Where a key was read just before its end, and the window's reading began before that: its pages may be older."""
        copied = ", ".join(COPIED)
        statement = sa.text(
            f"INSERT INTO vendor_spend_incoming ({copied}) SELECT {copied} FROM vendor_spend_last "  # noqa: S608  (names of ours; values are bound)
            "WHERE organization_id = :organization AND account_id = :account AND read_at_ns >= :began "
            "AND start_ns >= :from_ns AND start_ns < :until_ns "
            f"ON CONFLICT (account_id, row_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in RESTATED)}"
        )
        whose = {"organization": state.organization_id, "account": state.account_id}
        times = {"began": state.window_began_ns, "from_ns": window.from_ns, "until_ns": window.until_ns}
        await connection.execute(statement, {**whose, **times})
        t = vendor_spend_last
        old = sa.delete(t).where(t.c.organization_id == state.organization_id, t.c.account_id == state.account_id)
        await connection.execute(old.where(t.c.read_at_ns < state.window_began_ns - _LAST_KEPT_NS))

    async def gone(
        self, connection: AsyncConnection, state: ImportState, window: Window, *, now_ns: int, asked_before_ns: int, limit: int
    ) -> list[str]:
        """Keys that were ended on a day of the window, which is over now, and of which the vendor was not asked since then; those first
        that have waited longest."""
        t = vendor_spend_last
        last_day, asked = sa.func.max(t.c.start_ns), sa.func.min(t.c.asked_at_ns)
        query = (
            sa.select(t.c.vendor_key)
            .where(t.c.organization_id == state.organization_id, t.c.account_id == state.account_id)
            .group_by(t.c.vendor_key)
            .having(last_day >= window.from_ns, last_day < window.until_ns, sa.func.max(t.c.end_ns) <= now_ns, asked < asked_before_ns)
            .order_by(asked, t.c.vendor_key)
        )
        return [row[0] for row in await connection.execute(query.limit(limit)) if row[0] is not None]

    async def note_asked(self, connection: AsyncConnection, state: ImportState, keys: Sequence[str], *, at_ns: int) -> None:
        t = vendor_spend_last
        mine = sa.update(t).where(t.c.organization_id == state.organization_id, t.c.account_id == state.account_id)
        await connection.execute(mine.where(t.c.vendor_key.in_(list(keys))).values(asked_at_ns=at_ns))

    async def unknown(self, connection: AsyncConnection, state: ImportState, window: Window) -> list[tuple[str, str, str | None]]:
        """`(row, place, key)` of the window's rows of which it is not known whose they are."""
        t = vendor_spend
        inside = (t.c.start_ns >= window.from_ns, t.c.start_ns < window.until_ns)
        query = sa.select(t.c.row_id, t.c.place, t.c.vendor_key).where(*_nobodys(state), *inside)
        return [(row[0], row[1], row[2]) for row in await connection.execute(query)]

    async def names_keys(self, connection: AsyncConnection, state: ImportState) -> bool:
        """Whether the account's bill has ever told what a key of ours cost."""
        t = vendor_spend
        mine = (t.c.organization_id == state.organization_id, t.c.account_id == state.account_id)
        query = sa.select(t.c.row_id).where(*mine, t.c.attribution != Attribution.UNKNOWN.value).limit(1)
        return (await connection.execute(query)).first() is not None

    async def unknown_names(self, connection: AsyncConnection, state: ImportState) -> set[tuple[str, str | None]]:
        """`(place, key)` of all rows of which it is not known whose they are: each once, however many rows there are."""
        t = vendor_spend
        query = sa.select(t.c.place, t.c.vendor_key).where(*_nobodys(state)).distinct()
        return {(row[0], row[1]) for row in await connection.execute(query)}

    async def attribute_named(
        self, connection: AsyncConnection, state: ImportState, owners: Mapping[tuple[str, str | None], Mapping[str, str | None]]
    ) -> None:
        """As `attribute`, of every row of nobody's that names this place and key."""
        t = vendor_spend
        for (place, key), owner in owners.items():
            same = t.c.vendor_key.is_(None) if key is None else t.c.vendor_key == key
            change = sa.update(t).where(*_nobodys(state), t.c.place == place, same)
            await connection.execute(change.values({**dict.fromkeys(OWNER), **owner}))

    async def attribute(self, connection: AsyncConnection, state: ImportState, owners: Mapping[str, Mapping[str, str | None]]) -> None:
        """By row: `issued_key_id`, `attribution` and the holder's columns."""
        t = vendor_spend
        change = (
            sa.update(t)
            .where(t.c.organization_id == state.organization_id, t.c.account_id == state.account_id, t.c.row_id == sa.bindparam("which"))
            .values({name: sa.bindparam(name) for name in OWNER})
        )
        values = [{"which": row, **dict.fromkeys(OWNER), **owner} for row, owner in owners.items()]
        for start in range(0, len(values), _CHUNK):
            await connection.execute(change, values[start : start + _CHUNK])


def _nobodys(state: ImportState) -> tuple[sa.ColumnElement[bool], ...]:
    t = vendor_spend
    return (
        t.c.organization_id == state.organization_id,
        t.c.account_id == state.account_id,
        t.c.attribution == Attribution.UNKNOWN.value,
    )


def _incoming(state: ImportState, id_: str, row: SpendRow) -> dict[str, Any]:
    return {
        "account_id": state.account_id,
        "row_id": id_,
        "organization_id": state.organization_id,
        "place": place_text(row.place),
        "vendor_key": row.key,
        "start_ns": row.start_ns,
        "end_ns": row.end_ns,
        "item": row.item,
        "model": model_of(row.item)[:256],
        "amount_nano": row.amount_nano,
        "requests": row.requests,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
    }


def _values(state: ImportState) -> dict[str, Any]:
    window = state.window
    values = {name: getattr(state, name) for name in _PLAIN}
    return values | {
        "window_from_ns": None if window is None else window.from_ns,
        "window_until_ns": None if window is None else window.until_ns,
    }


def _state(row: sa.Row[Any]) -> ImportState:
    window = None if row.window_from_ns is None else Window(row.window_from_ns, row.window_until_ns)
    return ImportState(**{name: getattr(row, name) for name in _PLAIN}, window=window)
