"""How a secret reaches its holder: once, in an answer or by a link that burns; and for ten minutes again to whose answer it was, since an
answer may get lost: under the same request id, or behind a link. A caller who has gone is told nothing: the secret waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import Conflict, InvalidInput, NotFound
from keygate.identities import Actor
from keygate.issued_keys import links
from keygate.issued_keys.bench import secret_place, worker_actor
from keygate.issued_keys.life import ENDED, State
from keygate.issued_keys.links import KeyLink
from keygate.issued_keys.model import MAX_LINK_SECONDS, PICKUP_NS, REPLAY_NS, Delivery, IssuedKey
from keygate.issued_keys.operations import Operations
from keygate.issued_keys.ownership import own_key
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret
from keygate.policies import change
from keygate.vault import Vault
from keygate.vendors.admin import Mints, Provisioner

if TYPE_CHECKING:
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database, UnitOfWork


Gone = Callable[[], Awaitable[bool]]
"""Whether whoever asked has hung up meanwhile."""


async def never() -> bool:
    """The usual `Gone`: a caller in this process."""
    return False


@dataclass(frozen=True, slots=True)
class Told:
    """A key, and its secret where this answer tells it."""

    key: IssuedKey
    secret: Secret | None = None


class Handover:
    def __init__(
        self,
        *,
        database: Database,
        repository: IssuedKeyRepository,
        operations: Operations,
        vault: Vault,
        audit: AuditLog,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._operations = operations
        self._vault = vault
        self._audit = audit
        self._provisioners = provisioners
        self._clock = clock

    async def make_link(self, actor: Actor, key_id: str, *, expires_in_seconds: int) -> tuple[Secret, int]:
        """A link's token for the waiting secret, and its end. It fetches the secret once; the last link made is as good as any before. Also
        for one that an answer told this actor less than ten minutes ago: the answer may have got lost, and the secret waits again."""
        if not 60 <= expires_in_seconds <= MAX_LINK_SECONDS:
            raise InvalidInput(f"expires_in_seconds: from 60 to {MAX_LINK_SECONDS}", field="expires_in_seconds")
        now = self._clock.now_ns()
        token = links.mint()
        async with change(self._database, self._audit, actor, "issued_key.link", key_id) as work:
            key = await own_key(self._repository, work.connection, actor, key_id, lock=True)
            again = key.replayable(actor.id, now)
            self._require_openable(key, again=again, now=now)
            link = KeyLink(
                id=new_id("kln"),
                organization_id=actor.organization_id,
                key_id=key_id,
                digest=links.digest(token),
                created_at_ns=now,
                created_by=actor.id,
                expires_at_ns=now + expires_in_seconds * NANOSECONDS,
            )
            await self._repository.add_link(work.connection, link)
            after = {"link": link.id, "token": token, **({"told_before": True} if again else {})}
            await self._audit.record(work, actor, "issued_key.link", key_id, after=after)
            if again:
                waiting = replace(key, delivered_at_ns=None, told_to=None, secret_until_ns=now + PICKUP_NS, version=key.version + 1)
                await self._repository.save(work.connection, waiting)
        return token, link.expires_at_ns

    def _require_openable(self, key: IssuedKey, *, again: bool, now: int) -> None:
        """Raises `Conflict` where a link could never be opened. One to a key that is still being made can, later."""
        if key.state in ENDED or key.state in {State.REVOKING, State.IRREVOCABLE}:
            raise Conflict(f"The key is {key.state}: it has no secret to tell any more; make a new key")
        delivery = key.delivery(now)
        if delivery is Delivery.TOLD and not again:
            raise Conflict("The secret of this key was told already; rotate the key for a new one")
        if delivery is Delivery.NONE and key.settled:
            if isinstance(self._provisioners.get(key.vendor), Mints):
                raise Conflict("Keys of this vendor have no lasting secret; fetch a fresh token (`token`)")
            raise Conflict("No secret of this key waits: nobody fetched it in time; rotate the key for a new one")

    async def open_link(self, token: Secret, *, address: str | None, request_id: str | None, gone: Gone = never) -> Told:
        """Burns the link and tells the secret. Raises `NotFound`, with the same words, for a link that is unknown, opened, over, or
        whose key has no secret to tell; a link whose key is still being made stays, and one whose opener has gone."""
        if not links.well_formed(token.open()):
            raise _no_link()
        now = self._clock.now_ns()
        async with self._database.read() as connection:
            known = await self._repository.link(connection, links.digest(token))
        if known is None:
            raise _no_link()
        async with self._database.unit(known.organization_id) as work:
            link = await self._repository.link(work.connection, links.digest(token))
            if link is None or link.opened_at_ns is not None or now >= link.expires_at_ns:
                raise _no_link()
            key = await self._repository.get(work.connection, link.organization_id, link.key_id, lock=True)
            if key is not None and key.state in {State.REQUESTED, State.CREATING, State.ROTATING} and not key.settled:
                raise Conflict("The key is still being made; try the link again in a moment")
            if key is None or key.delivery(now) is not Delivery.WAITING:
                raise _no_link()
            if await gone():
                return Told(key)
            holder = replace(_link_actor(link), address=address, request_id=request_id)
            await self._repository.burn_link(work.connection, link.organization_id, link.id, at_ns=now)
            return await self._deliver(work, holder, key, now, by=f"link {link.id}")

    async def collect(self, actor: Actor, key_id: str) -> Told:
        """The secret that waits, told once to whoever holds the key or administers it: how an owner gets the new one of a rotation that
        nobody asked for. Whoever has fetched it gets it again for ten minutes, since an answer may get lost. Raises `Conflict` where none
        waits."""
        now = self._clock.now_ns()
        async with change(self._database, self._audit, actor, "issued_key.deliver", key_id) as work:
            key = await own_key(self._repository, work.connection, actor, key_id, lock=True)
            if isinstance(self._provisioners.get(key.vendor), Mints):
                raise Conflict("Keys of this vendor have no lasting secret; fetch a fresh token (`token`)")
            if key.secret is not None and key.replayable(actor.id, now):
                return Told(key, await self._vault.open(key.secret, secret_place(key)))
            if not key.settled:
                raise Conflict("The key is being worked on; try again in a moment")
            if key.delivery(now) is not Delivery.WAITING:
                raise Conflict(
                    "No secret of this key waits: it was told already, or nobody fetched it in time; rotate the key for a new one"
                )
            return await self._deliver(work, actor, key, now, by="collected", told_to=actor.id)

    async def taken(self, actor: Actor, key_id: str) -> None:
        """At a vendor without lasting secrets: whoever has fetched a token of the newest key has taken it over."""
        now = self._clock.now_ns()
        async with self._database.unit(actor.organization_id) as work:
            key = await self._repository.get(work.connection, actor.organization_id, key_id, lock=True)
            if key is not None and key.former is not None and key.settled and key.delivery(now) is Delivery.WAITING:
                await self._repository.save(work.connection, replace(_told(key, now), secret=None))

    async def tell(self, actor: Actor, key: IssuedKey, *, again: bool = False, gone: Gone = never) -> Told:
        """In the answer, where the work on the key is done, its secret was not told yet, and the caller is there to hear it. With `again`,
        for calls that can be made again, also what was told this actor less than ten minutes ago."""
        if not key.settled or await gone():
            return Told(key)
        now = self._clock.now_ns()
        async with self._database.unit(key.organization_id) as work:
            current = await self._repository.get(work.connection, key.organization_id, key.id, lock=True)
            if current is None:
                return Told(key)
            if again and current.secret is not None and current.replayable(actor.id, now):
                return Told(current, await self._vault.open(current.secret, secret_place(current)))
            if current.delivery(now) is not Delivery.WAITING:
                return Told(current)
            return await self._deliver(work, actor, current, now, by="answer", told_to=actor.id)

    async def _deliver(self, work: UnitOfWork, actor: Actor, key: IssuedKey, now: int, *, by: str, told_to: str | None = None) -> Told:
        if key.secret is None:
            raise NotFound("The key has no secret to tell")
        secret = await self._vault.open(key.secret, secret_place(key))
        after = replace(_told(key, now), told_to=told_to)
        await self._audit.record(work, actor, "issued_key.deliver", key.id, after={"by": by, "key": secret, "generation": key.generation})
        await self._repository.save(work.connection, after)
        work.after_commit(self._operations.told)
        return Told(after, secret)


def _told(key: IssuedKey, now: int) -> IssuedKey:
    """Its secret is told; a rotation that waited for that goes on."""
    waited = key.former is not None and key.former.by_itself and key.former.cut_at_ns is not None
    due = now if waited else key.due_at_ns
    return replace(key, delivered_at_ns=now, secret_until_ns=now + REPLAY_NS, due_at_ns=due, version=key.version + 1)


def _link_actor(link: KeyLink) -> Actor:
    """Whoever holds a link: known by nothing but that."""
    return replace(finder(link.organization_id), id=link.id)


def finder(organization_id: str) -> Actor:
    """Whoever holds a link or has found a key, without a sign-in."""
    return replace(worker_actor(organization_id), id="holder")


def _no_link() -> NotFound:
    return NotFound("This link is not valid: it was opened already, its time is over, or it never was one")
