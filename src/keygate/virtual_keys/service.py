"""The life of a virtual key: made, narrowed, rotated, revoked. Every change is one recorded transaction, and when a call returns the
gateway already knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from keygate.audit import AuditLog
from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from keygate.events import EventOutbox, EventType
from keygate.identities import Actor, ActorKind, Role
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret
from keygate.policies import (
    Budget,
    BudgetMode,
    BudgetSpec,
    Holder,
    KeyState,
    KeyUsage,
    Limit,
    LimitKind,
    LimitRule,
    OwnerDirectory,
    Place,
    Rules,
    Scope,
    StatePublisher,
    UsageReader,
    change,
    home_zone,
    kept_accounts,
    owner_active,
    placed_budget,
    standing,
    terms_of,
    validation,
)
from keygate.vendors import Vendor
from keygate.virtual_keys.model import MAX_GRACE_SECONDS, IssuedToken, KeyDraft, KeyFilter, KeyView, Standing, VirtualKey, usable_vendors
from keygate.virtual_keys.records import key_record, revocation
from keygate.virtual_keys.source import DatabaseKeySource
from keygate.virtual_keys.token import VIRTUAL_KEY, digest, mint

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.kit.database import Database, UnitOfWork
    from keygate.policies.repository import PolicyRepository
    from keygate.virtual_keys.repository import VirtualKeyRepository

MAX_BUDGETS = 20


class VirtualKeyService:
    """Developers see and change their own keys only, and may narrow but never widen one: what a key may do was decided when it was
    made. Also the `HolderListener` of identities."""

    def __init__(
        self,
        *,
        database: Database,
        repository: VirtualKeyRepository,
        policies: PolicyRepository,
        source: DatabaseKeySource,
        audit: AuditLog,
        publisher: StatePublisher,
        owners: OwnerDirectory,
        vendors: Mapping[str, Vendor],
        clock: Clock,
        outbox: EventOutbox,
        pepper: bytes,
        address: str,
        usage: UsageReader | None = None,
    ) -> None:
        self._database = database
        self._repository = repository
        self._policies = policies
        self._source = source
        self._audit = audit
        self._publisher = publisher
        self._owners = owners
        self._vendors = vendors
        self._clock = clock
        self._outbox = outbox
        self._pepper = pepper
        self._address = address
        self._usage = usage

    async def create(self, actor: Actor, draft: KeyDraft) -> IssuedToken:
        """The token is in the answer and nowhere else. Raises `InvalidInput` for an owner, policy or rule that can't be, `Forbidden`
        where a developer names another owner than themselves."""
        now = self._clock.now_ns()
        token = mint(VIRTUAL_KEY)
        async with change(self._database, self._audit, actor, "virtual_key.create", "virtual_key") as work:
            owner = await self._owner(work.connection, actor, draft.owner)
            key = VirtualKey(
                id=new_id("vk"),
                public_id=token.public_id,
                organization_id=actor.organization_id,
                name=validation.text(draft.name, "name"),
                hint=token.hint,
                digest=digest(self._pepper, token.text.open()),
                previous_digest=None,
                previous_expires_at_ns=None,
                owner=owner,
                policy_id=await self._policy(work.connection, actor, draft.policy_id),
                rules=validation.whole_rules(draft.rules, self._vendors),
                expires_at_ns=self._expiry(draft.expires_at_ns, now),
                tags=validation.tag_list(draft.tags),
                revoked_at_ns=None,
                revoked_by=None,
                revoked_reason=None,
                created_at_ns=now,
                created_by=actor.id,
                last_used_at_ns=None,
                version=1,
            )
            await self._repository.add(work.connection, key)
            limits = self._limits(actor, key.id, dict(validation.limit_amounts(draft.limits)), now)
            budgets = await self._budgets(work, actor, key.id, draft.budgets, (), now)
            await self._policies.add_limits(work.connection, limits)
            await self._policies.add_budgets(work.connection, budgets)
            view = KeyView(key, tuple(limits), tuple(budgets), Standing.ACTIVE)
            await self._audit.record(work, actor, "virtual_key.create", key.id, after=key_record(view) | {"key": token.text})
            state = await self._state(work.connection, key)
            self._publish(work, key.id)
        return IssuedToken(view=view, token=token, state=state)

    async def update(self, actor: Actor, key_id: str, changes: Mapping[str, Any]) -> KeyView:
        """`changes` holds: name, policy_id, expires_at_ns, tags, fields of `Rules`, limits (kind → amount, None removes), budgets (all of
        them: a budget of the same period keeps what is spent). Takes effect on the next request; streams it forbids are cut."""
        now = self._clock.now_ns()
        async with change(self._database, self._audit, actor, "virtual_key.update", key_id) as work:
            key = await self._mine(work.connection, actor, key_id)
            if key.revoked_at_ns is not None:
                raise Conflict("The key is revoked; make a new one")
            before = (await self._views(work.connection, actor, [key]))[0]
            after = replace(key, version=key.version + 1)
            if "name" in changes:
                after = replace(after, name=validation.text(changes["name"], "name"))
            if "policy_id" in changes:
                after = replace(after, policy_id=await self._policy(work.connection, actor, changes["policy_id"]))
            if "expires_at_ns" in changes:
                after = replace(after, expires_at_ns=self._expiry(changes["expires_at_ns"], now))
            if "tags" in changes:
                after = replace(after, tags=validation.tag_list(changes["tags"]))
            rules = {name: value for name, value in changes.items() if name in Rules.__dataclass_fields__}
            if rules:
                after = replace(after, rules=validation.whole_rules(replace(after.rules, **rules), self._vendors))
            await self._repository.save(work.connection, after)
            limits = await self._change_limits(work.connection, actor, before, changes.get("limits") or {}, now)
            budgets = before.budgets
            if "budgets" in changes:
                budgets = await self._change_budgets(work, actor, before, changes["budgets"], now)
            holders = await self._holders(work.connection, actor, [after])
            view = KeyView(after, limits, budgets, after.standing_under(holders, now))
            if actor.role is Role.DEVELOPER:
                _require_narrower(before, view)
            await self._audit.record(work, actor, "virtual_key.update", key_id, before=key_record(before), after=key_record(view))
            self._publish(work, key_id)
        return view

    async def rotate(self, actor: Actor, key_id: str, *, grace_seconds: int = 0) -> IssuedToken:
        """A new token for the same key; the former one works for `grace_seconds` more (0: not at all), one from before that no longer."""
        if not 0 <= grace_seconds <= MAX_GRACE_SECONDS:
            raise InvalidInput(f"grace_seconds: from 0 to {MAX_GRACE_SECONDS}", field="grace_seconds")
        now = self._clock.now_ns()
        async with change(self._database, self._audit, actor, "virtual_key.rotate", key_id) as work:
            key = await self._mine(work.connection, actor, key_id)
            if key.revoked_at_ns is not None:
                raise Conflict("The key is revoked; make a new one")
            token = mint(VIRTUAL_KEY, public_id=key.public_id)
            after = replace(
                key,
                digest=digest(self._pepper, token.text.open()),
                previous_digest=key.digest if grace_seconds else None,
                previous_expires_at_ns=now + grace_seconds * NANOSECONDS if grace_seconds else None,
                version=key.version + 1,
            )
            await self._repository.save(work.connection, after)
            view = (await self._views(work.connection, actor, [after]))[0]
            await self._audit.record(work, actor, "virtual_key.rotate", key_id, after={"key": token.text, "grace_seconds": grace_seconds})
            state = await self._state(work.connection, after)
            self._publish(work, key_id)
        return IssuedToken(view=view, token=token, state=state)

    async def revoke(self, actor: Actor, key_id: str, *, reason: str = "") -> KeyView:
        """For good. When this returns, the next request with the key is refused and its open streams are told to end. Revoking
        a revoked key changes nothing, but tells the gateway once more."""
        reason = validation.text(reason, "reason", longest=500, empty=True)
        now = self._clock.now_ns()
        async with change(self._database, self._audit, actor, "virtual_key.revoke", key_id) as work:
            key = await self._mine(work.connection, actor, key_id)
            if key.revoked_at_ns is None:
                key = (await self._revoke(work, actor, [key], reason, now))[0]
            else:
                self._publish(work, key_id)
            return (await self._views(work.connection, actor, [key]))[0]

    async def report_leak(self, token: Secret, *, address: str | None = None, request_id: str | None = None) -> None:
        """Whoever holds a token may end it: scanners and finders have no account here. Raises `NotFound` for what is no key of ours."""
        state = await self._source.authenticated(token)
        if state is None:
            raise NotFound("This is not a key of ours")
        finder = Actor(ActorKind.SYSTEM, "leak-report", state.organization_id, Role.ADMIN, address=address, request_id=request_id)
        await self.revoke(finder, state.id, reason="reported as leaked")

    async def get(self, actor: Actor, key_id: str) -> KeyView:
        async with self._database.read() as connection:
            key = await self._mine(connection, actor, key_id)
            return (await self._views(connection, actor, [key]))[0]

    async def page(self, actor: Actor, wanted: KeyFilter, *, after: str | None, limit: int) -> Sequence[KeyView]:
        if actor.role is Role.DEVELOPER:
            if actor.developer_id is None or wanted.owner_id not in {None, actor.developer_id}:
                return []
            wanted = replace(wanted, owner_id=actor.developer_id)
        async with self._database.read() as connection:
            keys = await self._repository.page(
                connection,
                actor.organization_id,
                wanted,
                ended=self._owners.ended(actor.organization_id),
                now_ns=self._clock.now_ns(),
                after=after,
                limit=limit,
            )
            return await self._views(connection, actor, keys)

    async def usage(self, actor: Actor, key_id: str) -> tuple[KeyState, KeyUsage]:
        """What the key has used and how all that limits it stands, true as of the answer."""
        async with self._database.read() as connection:
            state = await self._state(connection, await self._mine(connection, actor, key_id))
        return state, await self._used(state)

    async def quota(self, token: Secret) -> tuple[KeyState, KeyUsage]:
        """As `usage`, for the holder of a token. Raises `Unauthenticated` for one that does not work."""
        state = await self._source.authenticated(token)
        if state is None:
            raise Unauthenticated("This is not a key of ours; send a virtual key as bearer")
        refused = standing(state, now_ns=self._clock.now_ns())
        if refused is not None:
            raise Unauthenticated(refused.detail)
        return state, await self._used(state)

    async def touch(self, used: Mapping[str, int]) -> None:
        """Notes when keys were last used (id → nanoseconds), many at once; for the worker."""
        async with self._database.unit() as work:
            await self._repository.touch(work.connection, used)

    def environment(self, issued: IssuedToken) -> dict[str, str]:
        """What a client exports to use the key with the vendors' own SDKs. Holds the token in the clear."""
        return {
            name: value.replace("{public_url}", self._address).replace("{key}", issued.token.text.open())
            for vendor in usable_vendors(issued.state, self._vendors)
            for name, value in vendor.client_env
        }

    # HolderListener

    async def developer_deactivated(self, work: UnitOfWork, actor: Actor, developer_id: str) -> None:
        await self._holder_ended(work, actor, developer_id, "its developer was deactivated")

    async def app_deactivated(self, work: UnitOfWork, actor: Actor, app_id: str) -> None:
        await self._holder_ended(work, actor, app_id, "its app was deactivated")

    async def team_archived(self, work: UnitOfWork, actor: Actor, team_id: str, *, ended: Sequence[str]) -> None:
        """Revokes the keys of the team, and of the developers and apps that end with it."""
        await self._holder_ended(work, actor, team_id, "its team was archived", also=ended)
        work.after_commit(lambda: self._publisher.organization_changed(actor.organization_id))

    async def _holder_ended(self, work: UnitOfWork, actor: Actor, owner_id: str, reason: str, *, also: Sequence[str] = ()) -> None:
        keys = await self._repository.held_by(work.connection, actor.organization_id, [owner_id, *also])
        await self._revoke(work, actor, keys, reason, self._clock.now_ns())

    async def _revoke(self, work: UnitOfWork, actor: Actor, keys: Sequence[VirtualKey], reason: str, now: int) -> Sequence[VirtualKey]:
        ids = [key.id for key in keys]
        if not ids:
            return []
        await self._repository.revoke_all(work.connection, actor.organization_id, ids, at_ns=now, by=actor.id, reason=reason)
        for key in keys:
            await self._audit.record(
                work,
                actor,
                "virtual_key.revoke",
                key.id,
                before={"status": key.standing(now)},
                after={"status": "revoked", "reason": reason, "hint": key.hint},
            )
            told = revocation(key, actor, reason)
            await self._outbox.raise_event(work, actor.organization_id, EventType.KEY_REVOKED, key.id, told)
        self._publish(work, *ids)
        return [
            replace(
                key,
                revoked_at_ns=now,
                revoked_by=actor.id,
                revoked_reason=reason,
                previous_digest=None,
                previous_expires_at_ns=None,
                version=key.version + 1,
            )
            for key in keys
        ]

    def _publish(self, work: UnitOfWork, *key_ids: str) -> None:
        work.after_commit(lambda: self._publisher.keys_changed(key_ids))

    async def _mine(self, connection: AsyncConnection, actor: Actor, key_id: str) -> VirtualKey:
        key = await self._repository.get(connection, actor.organization_id, key_id)
        own = actor.role is not Role.DEVELOPER or (
            key is not None and actor.developer_id is not None and key.owner == Place(Scope.DEVELOPER, actor.developer_id)
        )
        if key is None or not own:
            raise NotFound("There is no virtual key with this id")
        return key

    async def _views(self, connection: AsyncConnection, actor: Actor, keys: Sequence[VirtualKey]) -> list[KeyView]:
        ids = [key.id for key in keys]
        limits: dict[str, list[Limit]] = {key_id: [] for key_id in ids}
        budgets: dict[str, list[Budget]] = {key_id: [] for key_id in ids}
        if ids:
            for limit in await self._policies.list_limits(connection, actor.organization_id, scope=Scope.KEY, scope_ids=ids):
                limits[limit.rule.scope_id].append(limit)
            for budget in await self._policies.list_budgets(connection, actor.organization_id, scope=Scope.KEY, scope_ids=ids):
                budgets[budget.rule.scope_id].append(budget)
        holders = await self._holders(connection, actor, keys)
        now = self._clock.now_ns()
        return [KeyView(key, tuple(limits[key.id]), tuple(budgets[key.id]), key.standing_under(holders, now)) for key in keys]

    async def _holders(self, connection: AsyncConnection, actor: Actor, keys: Sequence[VirtualKey]) -> Mapping[str, Holder]:
        ids = sorted({key.owner.scope_id for key in keys if key.owner is not None})
        return await self._owners.holders(connection, actor.organization_id, ids) if ids else {}

    async def _state(self, connection: AsyncConnection, key: VirtualKey) -> KeyState:
        state = await self._source.compiled(connection, key)
        if state is None:
            raise NotFound("The organisation of this key is gone")
        return state

    async def _used(self, state: KeyState) -> KeyUsage:
        return KeyUsage() if self._usage is None else await self._usage.usage(state)

    async def _owner(self, connection: AsyncConnection, actor: Actor, owner: Place | None) -> Place | None:
        if actor.role is Role.DEVELOPER:
            if actor.developer_id is None:
                raise Forbidden("This account is no developer; ask an admin to link it to one")
            own = Place(Scope.DEVELOPER, actor.developer_id)
            if owner not in {None, own}:
                raise Forbidden("Developers make keys for themselves only; leave the owner out")
            owner = own
        if owner is None:
            return None
        holders = await self._owners.holders(connection, actor.organization_id, [owner.scope_id])
        holder = holders.get(owner.scope_id)
        field = f"owner.{owner.scope}_id"
        if holder is None or holder.scope is not owner.scope:
            raise InvalidInput(f"{field}: there is no {owner.scope} with the id {owner.scope_id[:60]!r}", field=field)
        if not owner_active(owner.scope_id, holders):
            raise InvalidInput(f"{field}: this {owner.scope}, or whom it belongs to, is no longer active", field=field)
        return owner

    async def _policy(self, connection: AsyncConnection, actor: Actor, policy_id: str | None) -> str | None:
        if policy_id is not None and not await self._policies.policy_exists(connection, actor.organization_id, policy_id):
            raise InvalidInput(f"policy_id: there is no policy with the id {policy_id[:60]!r}", field="policy_id")
        return policy_id

    def _expiry(self, expires_at_ns: int | None, now: int) -> int | None:
        if expires_at_ns is not None and expires_at_ns <= now:
            raise InvalidInput("expires_at: must lie in the future; to end a key now, revoke it", field="expires_at")
        return expires_at_ns

    def _limits(self, actor: Actor, key_id: str, amounts: Mapping[LimitKind, int], now: int) -> list[Limit]:
        return [
            Limit(
                rule=LimitRule(id=new_id("lim"), scope=Scope.KEY, scope_id=key_id, selector=None, kind=kind, amount=amount),
                organization_id=actor.organization_id,
                created_at_ns=now,
                created_by=actor.id,
            )
            for kind, amount in amounts.items()
        ]

    async def _budgets(
        self, work: UnitOfWork, actor: Actor, key_id: str, wanted: Sequence[BudgetSpec], former: Sequence[Budget], now: int
    ) -> list[Budget]:
        if len(wanted) > MAX_BUDGETS:
            raise InvalidInput(f"budgets: at most {MAX_BUDGETS}", field="budgets")
        known = {budget.rule.id: budget for budget in former}
        specs = kept_accounts(
            wanted,
            [terms_of(budget.rule) for budget in former],
            now_ns=now,
            time_zone=await home_zone(self._owners, work, actor),
        )
        return [
            replace(known[spec.id], rule=rule)
            if spec.id in known
            else Budget(rule=rule, organization_id=actor.organization_id, created_at_ns=now, created_by=actor.id)
            for spec in specs
            for rule in (placed_budget(spec, Scope.KEY, key_id),)
        ]

    async def _change_limits(
        self, connection: AsyncConnection, actor: Actor, before: KeyView, wanted: Mapping[LimitKind, int | None], now: int
    ) -> tuple[Limit, ...]:
        """Limits stand one per kind on a key; what is not named stays."""
        amounts = dict(validation.limit_amounts({kind: amount for kind, amount in wanted.items() if amount is not None}))
        replaced = [limit for limit in before.limits if limit.rule.kind in wanted]
        await self._policies.remove_limits(connection, actor.organization_id, [limit.rule.id for limit in replaced])
        kept_ids = {limit.rule.kind: limit.rule.id for limit in replaced}
        made = [
            replace(limit, rule=replace(limit.rule, id=kept_ids.get(limit.rule.kind, limit.rule.id)))
            for limit in self._limits(actor, before.key.id, amounts, now)
        ]
        await self._policies.add_limits(connection, made)
        return (*(limit for limit in before.limits if limit.rule.kind not in wanted), *made)

    async def _change_budgets(
        self, work: UnitOfWork, actor: Actor, before: KeyView, wanted: Sequence[BudgetSpec], now: int
    ) -> tuple[Budget, ...]:
        after = await self._budgets(work, actor, before.key.id, wanted, before.budgets, now)
        await self._policies.remove_budgets(work.connection, actor.organization_id, [budget.rule.id for budget in before.budgets])
        await self._policies.add_budgets(work.connection, after)
        return tuple(after)


def _require_narrower(before: KeyView, after: KeyView) -> None:
    """What a developer may do to a live key of theirs. Raises `Forbidden`."""
    limits = {limit.rule.kind: limit.rule.amount for limit in after.limits}
    budgets = {budget.rule.id: budget.rule for budget in after.budgets}
    old, new = before.key, after.key
    narrower = (
        validation.narrows(new.rules, old.rules)
        and (old.policy_id is None or new.policy_id == old.policy_id)
        and set(old.tags) <= set(new.tags)
        and (old.expires_at_ns is None or (new.expires_at_ns is not None and new.expires_at_ns <= old.expires_at_ns))
        and all(limits.get(limit.rule.kind, limit.rule.amount + 1) <= limit.rule.amount for limit in before.limits)
        and all(_still_within(budget, budgets) for budget in before.budgets)
    )
    if not narrower:
        raise Forbidden("Developers may narrow a key of theirs, not widen it; ask an admin, or make a new key")


def _still_within(budget: Budget, after: Mapping[str, Any]) -> bool:
    now = after.get(budget.rule.id)
    return now is not None and now.amount_nano <= budget.rule.amount_nano and (now.mode is BudgetMode.HARD or now.mode is budget.rule.mode)
