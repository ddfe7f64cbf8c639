"""All SQL of issued keys. Scoped to an organisation, but for what the worker asks: it serves all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.issued_keys.life import ENDED, LIVE, State
from keygate.issued_keys.links import KeyLink
from keygate.issued_keys.model import Ending, Enforcement, IssuedFilter, IssuedKey, KnownSecret, VendorStep
from keygate.issued_keys.receipts import Receipt
from keygate.issued_keys.records import (
    footprint_from_json,
    footprint_to_json,
    former_from_json,
    former_to_json,
    places_of,
    terms_from_json,
    terms_to_json,
)
from keygate.issued_keys.tables import issued_key_places as places
from keygate.issued_keys.tables import issued_key_secrets as secrets
from keygate.issued_keys.tables import issued_key_steps as steps
from keygate.issued_keys.tables import issued_keys as t
from keygate.issued_keys.tables import key_links as links
from keygate.issued_keys.tables import receipts
from keygate.kit.database import insert_or_ignore
from keygate.policies import Place, Scope

_OWN = {"owner", "terms", "footprint", "former", "state", "ending", "enforcement", "evidence", "claim"}  # stored in another form
_FIELDS = tuple(name for name in IssuedKey.__dataclass_fields__ if name not in _OWN)
_CHUNK = 500
_ALIVE = tuple(state for state in State if state not in ENDED)
_LINK = tuple(links.c[name] for name in KeyLink.__dataclass_fields__)
_SECRET = tuple(secrets.c[name] for name in KnownSecret.__dataclass_fields__)
_RECEIPT = tuple(receipts.c[name] for name in Receipt.__dataclass_fields__)
_STEP = tuple(steps.c[name] for name in VendorStep.__dataclass_fields__)


class IssuedKeyRepository:
    async def add(self, connection: AsyncConnection, key: IssuedKey) -> None:
        await connection.execute(sa.insert(t).values(_row(key)))
        await self._note_places(connection, key)

    async def save(self, connection: AsyncConnection, key: IssuedKey) -> bool:
        """Everything, if nobody has saved it since it was read (`key.version` is the new one). False: somebody has."""
        change = sa.update(t).where(t.c.organization_id == key.organization_id, t.c.id == key.id, t.c.version == key.version - 1)
        if (await connection.execute(change.values(_row(key)))).rowcount != 1:
            return False
        await self._note_places(connection, key)
        return True

    async def _note_places(self, connection: AsyncConnection, key: IssuedKey) -> None:
        """What bills will name: kept for good, since bills come late and are restated."""
        for name, value in places_of(key):
            row = {"account_id": key.account_id, "name": name, "value": value, "key_id": key.id, "organization_id": key.organization_id}
            await insert_or_ignore(connection, places, row)

    async def places(self, connection: AsyncConnection, organization_id: str, account_id: str) -> list[tuple[str, str, str]]:
        """`(name, value, key)` of all that keys of an account ever had there."""
        query = sa.select(places.c.name, places.c.value, places.c.key_id).where(
            places.c.organization_id == organization_id, places.c.account_id == account_id
        )
        return [(row[0], row[1], row[2]) for row in await connection.execute(query)]

    async def get(self, connection: AsyncConnection, organization_id: str, key_id: str, *, lock: bool = False) -> IssuedKey | None:
        query = sa.select(t).where(t.c.organization_id == organization_id, t.c.id == key_id)
        row = (await connection.execute(query.with_for_update() if lock else query)).first()
        return None if row is None else key_of_row(row)

    async def requested(self, connection: AsyncConnection, organization_id: str, request_id: str) -> IssuedKey | None:
        query = sa.select(t).where(t.c.organization_id == organization_id, t.c.request_id == request_id)
        row = (await connection.execute(query)).first()
        return None if row is None else key_of_row(row)

    async def page(
        self, connection: AsyncConnection, organization_id: str, wanted: IssuedFilter, *, after: str | None, limit: int
    ) -> list[IssuedKey]:
        query = sa.select(t).where(t.c.organization_id == organization_id, t.c.id > (after or "")).order_by(t.c.id).limit(limit)
        for column, value in ((t.c.owner_id, wanted.owner_id), (t.c.vendor, wanted.vendor), (t.c.state, wanted.state)):
            if value is not None:
                query = query.where(column == value)
        return [key_of_row(row) for row in await connection.execute(query)]

    async def by_ids(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> list[IssuedKey]:
        found = []
        for start in range(0, len(ids), 500):
            query = sa.select(t).where(t.c.organization_id == organization_id, t.c.id.in_(ids[start : start + 500]))
            found += [key_of_row(row) for row in await connection.execute(query.order_by(t.c.id))]
        return found

    async def of_account(self, connection: AsyncConnection, organization_id: str, account_id: str) -> list[IssuedKey]:
        """Every key that was made in this account or adopted there, ended ones too."""
        query = sa.select(t).where(t.c.organization_id == organization_id, t.c.account_id == account_id)
        return [key_of_row(row) for row in await connection.execute(query.order_by(t.c.id))]

    async def of_vendor(self, connection: AsyncConnection, organization_id: str, vendor: str) -> list[IssuedKey]:
        """Every key at this vendor, whichever account it was made in or adopted with, ended ones too."""
        query = sa.select(t).where(t.c.organization_id == organization_id, t.c.vendor == vendor)
        return [key_of_row(row) for row in await connection.execute(query.order_by(t.c.id))]

    async def held_by(self, connection: AsyncConnection, organization_id: str, owner_ids: Sequence[str]) -> list[IssuedKey]:
        """Every key of these owners that is not ended, or of which something may be left at the vendor; locked."""
        found: list[IssuedKey] = []
        for start in range(0, len(owner_ids), 500):
            query = sa.select(t).where(
                t.c.organization_id == organization_id,
                t.c.owner_id.in_(owner_ids[start : start + 500]),
                sa.or_(t.c.state.in_(_ALIVE), t.c.owed.is_(True)),
            )
            found += [key_of_row(row) for row in await connection.execute(query.order_by(t.c.id).with_for_update())]
        return found

    async def alive(self, connection: AsyncConnection, organization_id: str, account_id: str) -> list[IssuedKey]:
        """Keys of an account that may have something at the vendor, those first that it showed last."""
        query = sa.select(t).where(
            t.c.organization_id == organization_id, t.c.account_id == account_id, sa.or_(t.c.state.in_(_ALIVE), t.c.owed.is_(True))
        )
        return [key_of_row(row) for row in await connection.execute(query.order_by(t.c.read_at_ns.desc().nulls_last(), t.c.id))]

    async def shown_last(
        self, connection: AsyncConnection, organization_id: str, account_id: str, *, but: str, limit: int
    ) -> list[IssuedKey]:
        """Live keys of an account beside this one, those first that the vendor showed last."""
        query = sa.select(t).where(
            t.c.organization_id == organization_id, t.c.account_id == account_id, t.c.id != but, t.c.state.in_(list(LIVE))
        )
        query = query.order_by(t.c.read_at_ns.desc().nulls_last(), t.c.id).limit(limit)
        return [key_of_row(row) for row in await connection.execute(query)]

    async def unmade(self, connection: AsyncConnection, organization_id: str, account_id: str) -> int:
        """Keys of an account that are ordered, and for which no call was begun at the vendor yet: whatever was begun may stand there,
        though a crash kept its outcome from being written down."""
        begun = sa.exists().where(steps.c.key_id == t.c.id)
        query = sa.select(sa.func.count()).where(
            t.c.organization_id == organization_id,
            t.c.account_id == account_id,
            t.c.state.in_((State.REQUESTED, State.CREATING)),
            t.c.footprint.is_(sa.null()),
            ~begun,
        )
        return int((await connection.execute(query)).scalar_one())

    async def wake(self, connection: AsyncConnection, organization_id: str, account_id: str, *, now_ns: int) -> list[str]:
        """Whatever waits for its next try at this account is due now; ids. The version is counted on where no secret may be under way, so
        that a try which is just failing does not put it off again."""
        waiting = sa.and_(
            t.c.organization_id == organization_id,
            t.c.account_id == account_id,
            t.c.due_at_ns > now_ns,
            sa.or_(sa.and_(t.c.error_code.is_not(None), t.c.state != State.ACTIVE), t.c.owed.is_(True)),
        )
        ending = sa.or_(t.c.state.in_((State.REVOKING, State.IRREVOCABLE)), t.c.owed.is_(True))
        rows = list(await connection.execute(sa.select(t.c.id).where(waiting).order_by(t.c.id)))
        await connection.execute(sa.update(t).where(waiting, ending).values(due_at_ns=now_ns, version=t.c.version + 1))
        await connection.execute(sa.update(t).where(waiting).values(due_at_ns=now_ns))
        return [row[0] for row in rows]

    async def read_again(
        self, connection: AsyncConnection, organization_id: str, *, now_ns: int, account_id: str | None = None, ids: Collection[str] = ()
    ) -> None:
        """Active keys of an account, or these, are read at their vendor with the inspection's next turn."""
        chosen = sorted(ids)
        parts = [t.c.id.in_(chosen[start : start + _CHUNK]) for start in range(0, len(chosen), _CHUNK)]
        for part in [t.c.account_id == account_id] if account_id is not None else parts:
            which = sa.and_(t.c.organization_id == organization_id, t.c.state == State.ACTIVE, part)
            await connection.execute(sa.update(t).where(which).values(inspect_at_ns=now_ns))

    async def count_alive(self, connection: AsyncConnection, organization_id: str, account_id: str) -> int:
        """Keys of an account that may have a container at the vendor."""
        query = sa.select(sa.func.count()).where(
            t.c.organization_id == organization_id, t.c.account_id == account_id, sa.or_(t.c.state.in_(_ALIVE), t.c.owed.is_(True))
        )
        return int((await connection.execute(query)).scalar_one())

    async def with_budget(self, connection: AsyncConnection) -> list[IssuedKey]:
        # Across organisations, for the worker: live keys with a budget, enforced by their vendor or not.
        query = sa.select(t).where(t.c.state.in_(list(LIVE)), t.c.enforcement["budget"].as_string().is_not(None))
        return [key_of_row(row) for row in await connection.execute(query.order_by(t.c.id))]

    async def living(self, connection: AsyncConnection, ids: Sequence[str]) -> list[IssuedKey]:
        # Across organisations, for the worker: those of these keys that are live.
        found = []
        for start in range(0, len(ids), _CHUNK):
            query = sa.select(t).where(t.c.state.in_(list(LIVE)), t.c.id.in_(ids[start : start + _CHUNK]))
            found += [key_of_row(row) for row in await connection.execute(query.order_by(t.c.id))]
        return found

    async def claimed(self, connection: AsyncConnection, organization_id: str, claim: str) -> str | None:
        """The key that is this one of the vendor's already."""
        query = sa.select(t.c.id).where(t.c.organization_id == organization_id, t.c.claim == claim)
        return (await connection.execute(query)).scalar_one_or_none()

    # Secrets that were kept or handed out, by digest

    async def note_secret(self, connection: AsyncConnection, secret: KnownSecret) -> None:
        await insert_or_ignore(connection, secrets, {name: getattr(secret, name) for name in KnownSecret.__dataclass_fields__})

    async def secrets_with(self, connection: AsyncConnection, digest: str) -> list[KnownSecret]:
        # Across organisations: whoever found a secret knows nothing else of it.
        query = sa.select(*_SECRET).where(secrets.c.digest == digest).order_by(secrets.c.known_at_ns, secrets.c.key_id)
        return [KnownSecret(*row) for row in await connection.execute(query)]

    async def secret(self, connection: AsyncConnection, organization_id: str, key_id: str, digest: str) -> KnownSecret | None:
        query = sa.select(*_SECRET).where(
            secrets.c.organization_id == organization_id, secrets.c.key_id == key_id, secrets.c.digest == digest
        )
        row = (await connection.execute(query)).first()
        return None if row is None else KnownSecret(*row)

    async def note_leak(self, connection: AsyncConnection, secret: KnownSecret, *, at_ns: int) -> None:
        change = sa.update(secrets).where(
            secrets.c.organization_id == secret.organization_id, secrets.c.key_id == secret.key_id, secrets.c.digest == secret.digest
        )
        await connection.execute(change.values(reported_at_ns=at_ns))

    async def end_secrets(
        self, connection: AsyncConnection, organization_id: str, key_id: str, generations: Collection[int], *, at_ns: int
    ) -> None:
        """The vendor has shown that these generations are gone."""
        change = sa.update(secrets).where(
            secrets.c.organization_id == organization_id,
            secrets.c.key_id == key_id,
            secrets.c.generation.in_(list(generations)),
            secrets.c.ended_at_ns.is_(None),
        )
        await connection.execute(change.values(ended_at_ns=at_ns))

    async def forget_tokens(self, connection: AsyncConnection, *, ended_before_ns: int) -> int:
        # Across organisations, for the worker: tokens that ended by themselves so long ago that nobody asks any more.
        over = sa.delete(secrets).where(secrets.c.minted_by.is_not(None), secrets.c.expires_at_ns < ended_before_ns)
        return (await connection.execute(over)).rowcount

    # Steps: what was called at the vendor

    async def steps(self, connection: AsyncConnection, organization_id: str, key_id: str) -> list[VendorStep]:
        query = sa.select(*_STEP).where(steps.c.organization_id == organization_id, steps.c.key_id == key_id)
        return [VendorStep(*row) for row in await connection.execute(query.order_by(steps.c.sequence))]

    async def add_step(self, connection: AsyncConnection, organization_id: str, key_id: str, *, what: str, at_ns: int) -> int:
        last = sa.select(sa.func.coalesce(sa.func.max(steps.c.sequence), 0)).where(
            steps.c.organization_id == organization_id, steps.c.key_id == key_id
        )
        sequence = int((await connection.execute(last)).scalar_one()) + 1
        values = {"organization_id": organization_id, "key_id": key_id, "sequence": sequence, "what": what[:200], "began_at_ns": at_ns}
        await connection.execute(sa.insert(steps).values(values))
        return sequence

    async def end_step(
        self, connection: AsyncConnection, organization_id: str, key_id: str, sequence: int, *, outcome: str, at_ns: int
    ) -> None:
        change = sa.update(steps).where(steps.c.organization_id == organization_id, steps.c.key_id == key_id, steps.c.sequence == sequence)
        await connection.execute(change.values(outcome=outcome[:40], ended_at_ns=at_ns))

    # One-time links

    async def add_link(self, connection: AsyncConnection, link: KeyLink) -> None:
        await connection.execute(sa.insert(links).values({name: getattr(link, name) for name in KeyLink.__dataclass_fields__}))

    async def link(self, connection: AsyncConnection, digest: bytes) -> KeyLink | None:
        # Across organisations: whoever opens a link shows nothing but the link. Units of its organisation run one after another, and it is
        # also read where nothing may be locked.
        row = (await connection.execute(sa.select(*_LINK).where(links.c.digest == digest))).first()
        return None if row is None else KeyLink(*row)

    async def burn_link(self, connection: AsyncConnection, organization_id: str, link_id: str, *, at_ns: int) -> None:
        change = sa.update(links).where(links.c.organization_id == organization_id, links.c.id == link_id)
        await connection.execute(change.values(opened_at_ns=at_ns))

    # Receipts

    async def add_receipt(self, connection: AsyncConnection, receipt: Receipt) -> None:
        values = {name: getattr(receipt, name) for name in Receipt.__dataclass_fields__}
        await connection.execute(sa.insert(receipts).values(values | {"issued_keys": list(receipt.issued_keys)}))

    async def receipt(self, connection: AsyncConnection, organization_id: str, receipt_id: str) -> Receipt | None:
        query = sa.select(*_RECEIPT).where(receipts.c.organization_id == organization_id, receipts.c.id == receipt_id)
        row = (await connection.execute(query)).first()
        return None if row is None else Receipt(*row)

    async def receipts(
        self, connection: AsyncConnection, organization_id: str, *, subject: str | None, before: str | None, limit: int
    ) -> list[Receipt]:
        """Newest first."""
        query = sa.select(*_RECEIPT).where(receipts.c.organization_id == organization_id)
        if subject is not None:
            query = query.where(receipts.c.subject == subject)
        if before is not None:
            query = query.where(receipts.c.id < before)
        return [Receipt(*row) for row in await connection.execute(query.order_by(receipts.c.id.desc()).limit(limit))]

    # For the worker, across organisations

    async def due(
        self, connection: AsyncConnection, *, now_ns: int, limit: int, but: Collection[str] = (), full: Collection[str] = ()
    ) -> list[tuple[str, str, str]]:
        """`(organisation, key, account)` whose time has come and that nobody works on, the longest due first; none of the accounts in
        `full`."""
        query = sa.select(t.c.organization_id, t.c.id, t.c.account_id).where(
            t.c.due_at_ns <= now_ns, sa.or_(t.c.leased_until_ns.is_(None), t.c.leased_until_ns < now_ns)
        )
        if but:
            query = query.where(t.c.id.not_in(list(but)))
        if full:
            query = query.where(t.c.account_id.not_in(list(full)))
        return [(row[0], row[1], row[2]) for row in await connection.execute(query.order_by(t.c.due_at_ns).limit(limit))]

    async def lapsed(self, connection: AsyncConnection, *, now_ns: int, limit: int) -> list[IssuedKey]:
        """Live keys whose end has come, whoever works on them. A live key is due at its end at the latest."""
        ends = sa.cast(t.c.terms["expires_at_ns"].as_string(), sa.BigInteger)
        query = sa.select(t).where(t.c.due_at_ns <= now_ns, t.c.state.in_(list(LIVE)), ends <= now_ns)
        return [key_of_row(row) for row in await connection.execute(query.order_by(t.c.due_at_ns).limit(limit))]

    async def lease(self, connection: AsyncConnection, organization_id: str, key_id: str, *, by: str, until_ns: int, now_ns: int) -> bool:
        """False: another one works on it. Who holds the lease already extends it with `extend`."""
        change = sa.update(t).where(
            t.c.organization_id == organization_id,
            t.c.id == key_id,
            sa.or_(t.c.leased_until_ns.is_(None), t.c.leased_until_ns < now_ns),
        )
        return (await connection.execute(change.values(leased_by=by, leased_until_ns=until_ns))).rowcount == 1

    async def extend(self, connection: AsyncConnection, organization_id: str, key_id: str, *, by: str, until_ns: int) -> bool:
        """False: the lease ran out and another one has it."""
        change = sa.update(t).where(t.c.organization_id == organization_id, t.c.id == key_id, t.c.leased_by == by)
        return (await connection.execute(change.values(leased_until_ns=until_ns))).rowcount == 1

    async def release(self, connection: AsyncConnection, organization_id: str, key_id: str, *, by: str) -> None:
        change = sa.update(t).where(t.c.organization_id == organization_id, t.c.id == key_id, t.c.leased_by == by)
        await connection.execute(change.values(leased_by=None, leased_until_ns=None))

    async def release_all(self, connection: AsyncConnection, *, by_node: str) -> None:
        """At a start: what a former process of this node held. Leases are `<node>:<number>`."""
        change = sa.update(t).where(t.c.leased_by.startswith(f"{by_node}:", autoescape=True))
        await connection.execute(change.values(leased_by=None, leased_until_ns=None))

    async def forget_secrets(self, connection: AsyncConnection, *, now_ns: int) -> int:
        """Erases sealed secrets whose time is over. Returns how many. A key that is being changed has its turn the next time."""
        over = sa.select(t.c.id).where(t.c.secret.is_not(None), t.c.secret_until_ns <= now_ns).with_for_update(skip_locked=True)
        change = sa.update(t).where(t.c.id.in_(over))
        return (await connection.execute(change.values(secret=None, version=t.c.version + 1))).rowcount


def _row(key: IssuedKey) -> dict[str, Any]:
    values = {name: getattr(key, name) for name in _FIELDS}
    return values | {
        "options": dict(key.options),
        "env": dict(key.env),
        "owner_scope": None if key.owner is None else str(key.owner.scope),
        "owner_id": None if key.owner is None else key.owner.scope_id,
        "state": str(key.state),
        "claim": None if key.state in ENDED else key.claim,
        "ending": None if key.ending is None else str(key.ending),
        "terms": terms_to_json(key.terms),
        "footprint": footprint_to_json(key.footprint),
        "former": former_to_json(key.former),
        "enforcement": {term: str(standing) for term, standing in key.enforcement.items()},
        "evidence": [dict(each) for each in key.evidence],
    }


def key_of_row(row: sa.Row[Any]) -> IssuedKey:
    values = {name: getattr(row, name) for name in _FIELDS}
    return IssuedKey(
        **values,
        owner=None if row.owner_id is None else Place(Scope(row.owner_scope), row.owner_id),
        state=State(row.state),
        ending=None if row.ending is None else Ending(row.ending),
        terms=terms_from_json(row.terms),
        footprint=footprint_from_json(row.footprint),
        former=former_from_json(row.former),
        enforcement={term: Enforcement(standing) for term, standing in row.enforcement.items()},
        evidence=tuple(row.evidence),
        claim=row.claim,
    )
