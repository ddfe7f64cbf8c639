"""Counts attempts at a password, for signing in and wherever else one is asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from keygate.errors import Throttled
from keygate.identities import throttle
from keygate.identities.model import User
from keygate.identities.throttle import ACCOUNT, ADDRESS, PAIR, TRUSTED, Attempts, Bucket
from keygate.kit.clock import Clock

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.identities.access_repository import AccessRepository
    from keygate.kit.database import Database

_log = logging.getLogger(__name__)


class AttemptCounter:
    def __init__(self, database: Database, repository: AccessRepository, *, clock: Clock) -> None:
        self._database = database
        self._repository = repository
        self._clock = clock

    async def take(self, email: str, address: str | None, user: User | None) -> None:
        """Counts one attempt, before the password is looked at. Raises `Throttled` where this account or address has to wait."""
        now = self._clock.now_ns()
        async with self._database.unit() as work:
            buckets = await self._buckets(work.connection, email, throttle.network_of(address), now_ns=now)
            taken: dict[str, Attempts] = {}
            wait = 0
            for subject, bucket in sorted(buckets.items()):
                outcome = throttle.take(bucket, await self._repository.attempts(work.connection, subject, now_ns=now), now_ns=now)
                if isinstance(outcome, int):
                    wait = max(wait, outcome)
                else:
                    taken[subject] = outcome
            if not wait:
                for subject, attempts in taken.items():
                    owner = user.organization_id if user and not subject.startswith(ADDRESS.name) else None
                    await self._repository.set_attempts(work.connection, subject, attempts, organization_id=owner)
            await self._repository.forget_attempts(
                work.connection, before_ns=now - 2 * throttle.FORGET_NS, trusted_before_ns=now - throttle.TRUST_NS
            )
        if wait:
            _log.warning("a password has to wait: too many attempts")
            raise Throttled(f"Too many attempts; try again in {wait} seconds", retry_after=wait)

    async def forgive(self, connection: AsyncConnection, email: str, address: str | None, user: User) -> None:
        """A right password: the account's count ends, the address gets its attempt back, and is known for this account from now on."""
        now, network = self._clock.now_ns(), throttle.network_of(address)
        buckets = await self._buckets(connection, email, network, now_ns=now)
        for subject, bucket in sorted({**buckets, TRUSTED.subject(email, network): TRUSTED}.items()):
            before = await self._repository.attempts(connection, subject, now_ns=now)
            left = before.failures - 1 if bucket is ADDRESS and before else 0
            await self._repository.set_attempts(
                connection,
                subject,
                Attempts(failures=max(left, 0), blocked_until_ns=0, updated_at_ns=now),
                organization_id=None if bucket is ADDRESS else user.organization_id,
            )

    async def _buckets(self, connection: AsyncConnection, email: str, network: str, *, now_ns: int) -> dict[str, Bucket]:
        since = await self._repository.trusted_since(connection, TRUSTED.subject(email, network))
        if since is not None and now_ns - since <= throttle.TRUST_NS:
            return {PAIR.subject(email, network): PAIR}
        return {ACCOUNT.subject(email): ACCOUNT, ADDRESS.subject(network): ADDRESS}
