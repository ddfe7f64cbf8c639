"""The worker's side of rotation that begins by itself: finds what is due, tells keys to rotate, reminds of those that need a person.

A rotation begins in one transaction, in which the key is looked at once more: several processes, a crash in between or a policy that was
just changed begin none twice. The work at the vendor is the same as for a rotation by hand. Only a few begin at a time at each vendor
account, so that a policy that a thousand keys are too old for leaves the vendor's rate limit to people, too."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.errors import KeyGateError
from keygate.events import EventOutbox, EventType
from keygate.identities import Actor
from keygate.issued_keys.bench import worker_actor
from keygate.issued_keys.bulk.model import HALTING
from keygate.issued_keys.model import Cause, IssuedKey
from keygate.issued_keys.rotating import told_to_rotate
from keygate.issued_keys.rotation.due import Case, Remind, Rotate, decide, oldest_ns
from keygate.issued_keys.rotation.model import DAY_NS, QUIET_SECONDS, RotationPolicy
from keygate.issued_keys.rotation.outlooks import Outlooks
from keygate.kit.clock import Clock, rfc3339

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.issued_keys.rotation.repository import RotationRepository
    from keygate.kit.database import Database

_log = logging.getLogger(__name__)

AT_ONCE = 4  # rotations of one vendor account that have begun and not made their next key yet
_PAGE = 500
_REPLACE = "Only a person can replace this key: make its successor at the vendor, adopt that one, put it in place, then revoke this one"


class RotationScheduler:
    def __init__(
        self,
        *,
        database: Database,
        repository: RotationRepository,
        keys: IssuedKeyRepository,
        outlooks: Outlooks,
        audit: AuditLog,
        outbox: EventOutbox,
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._keys = keys
        self._outlooks = outlooks
        self._audit = audit
        self._outbox = outbox
        self._clock = clock

    async def tick(self) -> int:
        """Begins what is due, the oldest keys first, and sends reminders. Returns how many rotations it began. For the worker."""
        now = self._clock.now_ns()
        async with self._database.read() as connection:
            cases = await self._cases(connection, now)
            if not cases:
                return 0
            making = Counter(await self._repository.making(connection))
            unready = await self._repository.not_ready(connection, codes=HALTING, now_ns=now)
        begun = 0
        for case in sorted(cases, key=lambda each: oldest_ns(each.key, now)):
            key, decision = case.key, decide(case, now)
            try:
                if isinstance(decision, Remind):
                    await self._remind(key)
                elif isinstance(decision, Rotate) and key.account_id not in unready and making[key.account_id] < AT_ONCE:
                    making[key.account_id] += 1
                    begun += await self._begin(key)
            except KeyGateError as error:
                _log.warning("rotation of %s: %s", key.id, error.detail)
        return begun

    async def _cases(self, connection: AsyncConnection, now: int) -> list[Case]:
        """Of all organisations, those that may have something due."""
        found: dict[str, IssuedKey] = {}
        async for key in _paged(lambda after: self._repository.scheduled(connection, now_ns=now, after=after, limit=_PAGE)):
            found[key.id] = key
        rules = await self._repository.everywhere(connection)
        for rule in rules:

            def page(after: str, rule: RotationPolicy = rule) -> Awaitable[list[IssuedKey]]:
                return self._repository.aged(connection, rule, now_ns=now, after=after, limit=_PAGE)

            async for key in _paged(page):
                found[key.id] = key
        cases: list[Case] = []
        for organization_id in sorted({key.organization_id for key in found.values()}):
            keys = [key for key in found.values() if key.organization_id == organization_id]
            policies = [rule for rule in rules if rule.organization_id == organization_id]
            cases += await self._outlooks.cases(connection, organization_id, keys, policies=policies)
        return cases

    async def _again(self, connection: AsyncConnection, key: IssuedKey) -> Case | None:
        """The key as it is now, in the transaction that changes it."""
        current = await self._keys.get(connection, key.organization_id, key.id, lock=True)
        return None if current is None else (await self._outlooks.cases(connection, key.organization_id, [current]))[0]

    async def _begin(self, found: IssuedKey) -> bool:
        now = self._clock.now_ns()
        async with self._database.unit(found.organization_id) as work:
            case = await self._again(work.connection, found)
            decision = None if case is None else decide(case, now)
            if case is None or not isinstance(decision, Rotate):
                return False
            key, policy_id = case.key, None if decision.policy is None else decision.policy.id
            after = told_to_rotate(
                key,
                overlap_seconds=decision.overlap_seconds,
                quiet_seconds=QUIET_SECONDS,
                cause=decision.cause,
                policy_id=policy_id,
                now=now,
            )
            detail = {
                "cause": decision.cause,
                "policy": policy_id,
                "made_at": rfc3339(key.made_at_ns),
                "generation": after.generation,
                "overlap_seconds": decision.overlap_seconds,
                "quiet_seconds": QUIET_SECONDS,
            }
            actor = automatic_actor(key.organization_id, decision.cause)
            await self._audit.record(work, actor, "issued_key.rotate", key.id, before={"state": key.state}, after=detail)
            return await self._keys.save(work.connection, replace(after, version=key.version + 1))

    async def _remind(self, found: IssuedKey) -> None:
        now = self._clock.now_ns()
        async with self._database.unit(found.organization_id) as work:
            case = await self._again(work.connection, found)
            decision = None if case is None else decide(case, now)
            if case is None or not isinstance(decision, Remind):
                return
            key = case.key
            if not await self._keys.save(work.connection, replace(key, rotate_after_ns=decision.again_at_ns, version=key.version + 1)):
                return
            payload = {
                "vendor": key.vendor,
                "name": key.name,
                "owner": None if key.owner is None else key.owner.scope_id,
                "policy_id": decision.policy.id,
                "max_age_days": decision.policy.max_age_days,
                "age_days": (now - oldest_ns(key, now)) // DAY_NS,
                "too_old_at": rfc3339(decision.too_old_at_ns),
                "overdue": now >= decision.too_old_at_ns,
                "detail": _REPLACE,
            }
            await self._outbox.raise_event(work, key.organization_id, EventType.ISSUED_KEY_ROTATION_DUE, key.id, payload)


def automatic_actor(organization_id: str, cause: Cause) -> Actor:
    """`schedule` or `policy`: on whose behalf a rotation begins that nobody asked for."""
    return replace(worker_actor(organization_id), id=str(cause))


async def _paged(page: Callable[[str], Awaitable[list[IssuedKey]]]) -> AsyncIterator[IssuedKey]:
    after = ""
    while True:
        keys = await page(after)
        for key in keys:
            yield key
        if len(keys) < _PAGE:
            return
        after = keys[-1].id
