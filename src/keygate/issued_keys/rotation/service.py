"""Use cases of rotation policies and of a key's own schedule. Each is one audited transaction; the worker follows what stands there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keygate.audit import AuditLog
from keygate.errors import Conflict, InvalidInput, NotFound
from keygate.identities import Actor
from keygate.issued_keys.life import LIVE
from keygate.issued_keys.model import MAX_OVERLAP_SECONDS, IssuedKey
from keygate.issued_keys.ownership import own_key
from keygate.issued_keys.ports import OwnerDirectory
from keygate.issued_keys.rotation.due import Hindrance, Rotate, decide, outlook
from keygate.issued_keys.rotation.model import DAY_SECONDS, MAX_ROTATION_DAYS, RotationPolicy
from keygate.issued_keys.rotation.outlooks import Outlooks
from keygate.issued_keys.terms import check_schedule
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id
from keygate.policies import Scope, change
from keygate.vendors.admin import Provisioner

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.issued_keys.rotation.repository import RotationRepository
    from keygate.kit.database import Database

MAX_POLICIES = 200
_PAGE = 500


@dataclass(frozen=True, slots=True)
class PolicyDraft:
    max_age_days: int
    overlap_seconds: int | None = None
    team_id: str | None = None
    vendor: str | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a policy means for the keys that there are now."""

    keys: int = 0  # that it covers
    due: int = 0  # rotated as soon as it holds, a few at a time
    too_old: int = 0
    by_person: int = 0  # that KeyGate can only remind of


class RotationService:
    def __init__(
        self,
        *,
        database: Database,
        repository: RotationRepository,
        keys: IssuedKeyRepository,
        outlooks: Outlooks,
        owners: OwnerDirectory,
        audit: AuditLog,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._keys = keys
        self._outlooks = outlooks
        self._owners = owners
        self._audit = audit
        self._provisioners = provisioners
        self._clock = clock

    # Policies

    async def check(self, actor: Actor, draft: PolicyDraft) -> Coverage:
        """What the policy would mean. Changes nothing."""
        policy = self._policy(actor, draft)
        async with self._database.read() as connection:
            await self._require_real(connection, policy)
            rules = [rule for rule in await self._repository.of_organization(connection, actor.organization_id) if not _same(rule, policy)]
            return await self._coverage(connection, policy, [*rules, policy])

    async def create(self, actor: Actor, draft: PolicyDraft) -> RotationPolicy:
        """Holds from now on. Raises `InvalidInput` for a team or vendor that is not there or ages that can't be, `Conflict` where one
        covers the same already."""
        policy = self._policy(actor, draft)
        async with change(self._database, self._audit, actor, "rotation_policy.create", policy.id) as work:
            await self._require_real(work.connection, policy)
            rules = await self._repository.of_organization(work.connection, actor.organization_id)
            same = next((rule for rule in rules if _same(rule, policy)), None)
            if same is not None:
                raise Conflict(f"{same.id} covers the same keys already; change that one")
            if len(rules) >= MAX_POLICIES:
                raise Conflict(f"There are {MAX_POLICIES} rotation policies already; remove some")
            await self._audit.record(work, actor, "rotation_policy.create", policy.id, after=_record(policy))
            await self._repository.add(work.connection, policy)
        return policy

    async def update(self, actor: Actor, policy_id: str, changes: Mapping[str, Any]) -> RotationPolicy:
        """`changes`: `max_age_days`, `overlap_seconds`; what it covers stays."""
        async with change(self._database, self._audit, actor, "rotation_policy.update", policy_id) as work:
            policy = await self._mine(work.connection, actor, policy_id, lock=True)
            after = replace(policy, **changes, updated_at_ns=self._clock.now_ns())
            _check(after)
            await self._audit.record(work, actor, "rotation_policy.update", policy_id, before=_record(policy), after=_record(after))
            await self._repository.save(work.connection, after)
        return after

    async def delete(self, actor: Actor, policy_id: str) -> None:
        """Rotations that have begun go on."""
        async with change(self._database, self._audit, actor, "rotation_policy.delete", policy_id) as work:
            policy = await self._mine(work.connection, actor, policy_id, lock=True)
            await self._audit.record(work, actor, "rotation_policy.delete", policy_id, before=_record(policy))
            await self._repository.delete(work.connection, actor.organization_id, policy_id)

    async def all(self, actor: Actor) -> list[RotationPolicy]:
        async with self._database.read() as connection:
            return await self._repository.of_organization(connection, actor.organization_id)

    async def get(self, actor: Actor, policy_id: str) -> tuple[RotationPolicy, Coverage]:
        async with self._database.read() as connection:
            policy = await self._mine(connection, actor, policy_id)
            rules = await self._repository.of_organization(connection, actor.organization_id)
            return policy, await self._coverage(connection, policy, rules)

    # A key's own schedule

    async def schedule(self, actor: Actor, key_id: str, changes: Mapping[str, int | None]) -> IssuedKey:
        """`changes`: `rotate_every_days` (None: no schedule) and `rotate_overlap_seconds`. Time counts from when the key was made: one that
        is older than its new schedule is rotated at once. Raises `InvalidInput` where KeyGate can't rotate the key."""
        async with change(self._database, self._audit, actor, "issued_key.schedule", key_id) as work:
            key = await own_key(self._keys, work.connection, actor, key_id, lock=True)
            every = changes.get("rotate_every_days", key.rotate_every_days)
            overlap = changes.get("rotate_overlap_seconds", None if every is None else key.rotate_overlap_seconds)
            if every is not None and key.adopted:
                raise InvalidInput(
                    "rotate_every_days: this key was made by hand, so only a person can replace it: make its successor at the vendor, "
                    "adopt that one, then revoke this one. A rotation policy reminds of its age",
                    field="rotate_every_days",
                )
            check_schedule(self._provisioners.get(key.vendor), every, overlap)
            if key.state not in LIVE:
                raise Conflict(f"The key is {key.state}; only keys that live are rotated")
            if not key.settled:
                raise Conflict("The key is being worked on; try again in a moment")
            after = replace(
                key,
                rotate_every_days=every,
                rotate_overlap_seconds=overlap,
                rotate_after_ns=None,
                rotate_tries=0,
                rotate_error=None,
                version=key.version + 1,
            )
            await self._audit.record(work, actor, "issued_key.schedule", key_id, before=_schedule(key), after=_schedule(after))
            await self._keys.save(work.connection, after)
        return after

    # Parts

    def _policy(self, actor: Actor, draft: PolicyDraft) -> RotationPolicy:
        now = self._clock.now_ns()
        policy = RotationPolicy(
            id=new_id("rp"),
            organization_id=actor.organization_id,
            max_age_days=draft.max_age_days,
            overlap_seconds=draft.overlap_seconds,
            team_id=draft.team_id,
            vendor=draft.vendor,
            created_at_ns=now,
            created_by=actor.id,
            updated_at_ns=now,
        )
        _check(policy)
        return policy

    async def _require_real(self, connection: AsyncConnection, policy: RotationPolicy) -> None:
        if policy.vendor is not None and policy.vendor not in self._provisioners:
            raise InvalidInput("vendor: KeyGate knows no keys there; `GET /vendors` lists those that it does", field="vendor")
        if policy.team_id is not None:
            team = (await self._owners.holders(connection, policy.organization_id, [policy.team_id])).get(policy.team_id)
            if team is None or team.scope is not Scope.TEAM or not team.active:
                raise InvalidInput("team_id: there is no team with this id", field="team_id")

    async def _coverage(self, connection: AsyncConnection, policy: RotationPolicy, rules: Sequence[RotationPolicy]) -> Coverage:
        """`rules`: all that hold, this one among them."""
        now, found, after = self._clock.now_ns(), Coverage(), ""
        while True:
            keys = await self._repository.living(connection, policy.organization_id, vendor=policy.vendor, after=after, limit=_PAGE)
            for case in await self._outlooks.cases(connection, policy.organization_id, keys, policies=rules):
                if policy in case.policies:
                    ahead, decision = outlook(case, now), decide(case, now)
                    found = Coverage(
                        keys=found.keys + 1,
                        due=found.due + isinstance(decision, Rotate),
                        too_old=found.too_old + ahead.overdue(now),
                        by_person=found.by_person + (ahead.hindrance is Hindrance.BY_PERSON),
                    )
            if len(keys) < _PAGE:
                return found
            after = keys[-1].id

    async def _mine(self, connection: AsyncConnection, actor: Actor, policy_id: str, *, lock: bool = False) -> RotationPolicy:
        policy = await self._repository.get(connection, actor.organization_id, policy_id, lock=lock)
        if policy is None:
            raise NotFound("There is no rotation policy with this id")
        return policy


def _check(policy: RotationPolicy) -> None:
    if not 1 <= policy.max_age_days <= MAX_ROTATION_DAYS:
        raise InvalidInput(f"max_age_days: from 1 to {MAX_ROTATION_DAYS}", field="max_age_days")
    longest = min(MAX_OVERLAP_SECONDS + 1, policy.max_age_days * DAY_SECONDS)
    if policy.overlap_seconds is not None and not 0 <= policy.overlap_seconds < longest:
        raise InvalidInput("overlap_seconds: must be shorter than the age that is allowed, and at most 90 days", field="overlap_seconds")


def _same(one: RotationPolicy, other: RotationPolicy) -> bool:
    return (one.team_id, one.vendor) == (other.team_id, other.vendor)


def _record(policy: RotationPolicy) -> dict[str, Any]:
    return {
        "max_age_days": policy.max_age_days,
        "overlap_seconds": policy.overlap,
        "team": policy.team_id,
        "vendor": policy.vendor,
    }


def _schedule(key: IssuedKey) -> dict[str, Any]:
    return {"rotate_every_days": key.rotate_every_days, "rotate_overlap_seconds": key.rotate_overlap_seconds}
