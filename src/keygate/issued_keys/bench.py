"""One key at work: its row under a lease, its vendor account opened, every step written down before and after.

`save` commits a whole step of the key's life; the watcher commits a row before and after each vendor call that changes something. So
whenever the process ends, the next one knows what was begun, and the marks at the vendor tell what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from keygate.audit import AuditLog, digest_secret
from keygate.errors import KeyGateError
from keygate.events import EventOutbox
from keygate.identities import Actor, ActorKind, Role
from keygate.issued_keys.desks import PROOF_SETTING
from keygate.issued_keys.last_bill import LastBill
from keygate.issued_keys.model import IssuedKey, KnownSecret, VendorAccount, facts_of
from keygate.issued_keys.records import key_record
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.kit.secret import Secret
from keygate.vault import Place, Vault
from keygate.vendors.admin import (
    AdminDesk,
    Footprint,
    NotFound,
    Order,
    Presence,
    Provisioner,
    ProvisionerError,
    ProvisionerFacts,
    RateLimited,
    Reading,
)

if TYPE_CHECKING:
    from keygate.issued_keys.ports import Restraint, Restraints
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database, UnitOfWork

PROBE, FORMER_PROBE = "probe", "former_probe"  # columns of sealed copies that the vendor is asked with
LEASE_NS = 600 * NANOSECONDS
PATIENT_ATTEMPTS = 3  # to end a key, before it stands as irrevocable
LIMITED_WITHIN_NS = 300 * NANOSECONDS  # a vendor that does nothing but say "wait" has then refused
_LONGEST_ASKED_SECONDS = 3_600.0  # that a vendor may keep a key waiting for its next try
_POLL_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)  # a vendor's own reads may lag behind its writes

AtStep = Callable[[str], Awaitable[None]]


class Overtaken(Exception):
    """Somebody has changed the key since it was read (told it to end): read it again."""


class LeaseLost(Exception):
    """Another process works on this key now."""


async def nothing(_step: str) -> None:
    """The usual `AtStep`."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every bench works with."""

    database: Database
    repository: IssuedKeyRepository
    vault: Vault
    audit: AuditLog
    outbox: EventOutbox
    clock: Clock
    digest_key: bytes
    restraints: Restraints
    last_bill: LastBill
    at_step: AtStep = nothing  # called at every commit and vendor call; drills stop the process there
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(slots=True)
class Bench:
    tools: Tools
    key: IssuedKey
    lease: str
    account: VendorAccount | None = None
    provisioner: Provisioner | None = None
    desk: AdminDesk | None = None
    _open_step: int | None = field(default=None, repr=False)

    @property
    def now(self) -> int:
        return self.tools.clock.now_ns()

    @property
    def at_vendor(self) -> tuple[Provisioner, AdminDesk]:
        if self.provisioner is None or self.desk is None:
            raise KeyGateError("the vendor account is not open")
        return self.provisioner, self.desk

    @property
    def facts(self) -> ProvisionerFacts:
        """What is true of the vendor for this account."""
        return facts_of(self.at_vendor[0], self.account)

    async def save(
        self,
        after: IssuedKey,
        *,
        action: str | None = None,
        event: str | None = None,
        detail: str | None = None,
        secret: Secret | None = None,
        secret_ends_ns: int | None = None,
        witnesses: Mapping[str, Secret] | None = None,
    ) -> IssuedKey:
        """Commits the key as it is now, with its audit entry and its event; secrets of generations that live no more are noted as ended.
        `witnesses`: what the vendor is asked with from now on, by column. Raises `Overtaken` where it was changed meanwhile."""
        tools = self.tools
        after = replace(after, version=self.key.version + 1)
        async with tools.database.unit(after.organization_id) as work:
            if secret is not None:
                sealed = await tools.vault.seal(work, secret, secret_place(after))
                after = replace(after, secret=sealed, hint=secret.hint())
                known = known_secret(after, digest_secret(secret, tools.digest_key), self.now, expires_at_ns=secret_ends_ns)
                await tools.repository.note_secret(work.connection, known)
                after = await self._with_probes(work, after, secret)
            for column, witness in (witnesses or {}).items():
                after = with_copy(after, column, await tools.vault.seal(work, witness, column_place(after, column)))
            if action is not None:
                record = key_record(after)
                actor = worker_actor(after.organization_id)
                await tools.audit.record(work, actor, action, after.id, before={"state": self.key.state}, after=record, detail=detail)
            if event is not None:
                payload = {"vendor": after.vendor, "name": after.name, "state": str(after.state), "detail": detail}
                payload["owner"] = None if after.owner is None else after.owner.scope_id
                if after.former is not None:
                    payload |= {"cause": str(after.former.cause), "policy_id": after.former.policy_id}
                await tools.outbox.raise_event(work, after.organization_id, event, after.id, payload)
            if not await tools.repository.save(work.connection, after):
                raise Overtaken
            if ended := self.key.living - after.living:
                await tools.repository.end_secrets(work.connection, after.organization_id, after.id, ended, at_ns=self.now)
        self.key = after
        await tools.at_step(f"saved {after.state}")
        return after

    async def _with_probes(self, work: UnitOfWork, after: IssuedKey, secret: Secret) -> IssuedKey:
        """The copies to ask the vendor with, of the newest key and of the one that it replaces."""
        vault, former = self.tools.vault, None
        if after.former is not None and self.key.probe is not None:
            known = await vault.open(self.key.probe, column_place(after, PROBE))
            former = await vault.seal(work, known, column_place(after, FORMER_PROBE))
        newest = await vault.seal(work, secret, column_place(after, PROBE)) if keeps_proof(self) else None
        return replace(after, probe=newest, former_probe=former)

    async def moved(self, sealed: bytes | None, from_column: str, to_column: str) -> bytes | None:
        """A sealed copy as another column holds it."""
        if sealed is None:
            return None
        secret = await self.tools.vault.open(sealed, column_place(self.key, from_column))
        async with self.tools.database.unit(self.key.organization_id) as work:
            return await self.tools.vault.seal(work, secret, column_place(self.key, to_column))

    async def restraint(self) -> Restraint | None:
        """What KeyGate does to the key for its budget, as it is recorded now."""
        key = self.key
        async with self.tools.database.read() as connection:
            return (await self.tools.restraints.restraints(connection, key.organization_id, [key.id])).get(key.id)

    # Watcher

    async def before(self, what: str) -> None:
        tools, key = self.tools, self.key
        async with tools.database.unit() as work:
            until = self.now + LEASE_NS
            if not await tools.repository.extend(work.connection, key.organization_id, key.id, by=self.lease, until_ns=until):
                raise LeaseLost
            self._open_step = await tools.repository.add_step(work.connection, key.organization_id, key.id, what=what, at_ns=self.now)
        await tools.at_step(f"before: {what}")

    async def after(self, what: str, outcome: str) -> None:
        tools, key, sequence = self.tools, self.key, self._open_step
        await tools.at_step(f"after: {what}")
        if sequence is None:
            return
        self._open_step = None
        async with tools.database.unit() as work:
            await tools.repository.end_step(work.connection, key.organization_id, key.id, sequence, outcome=outcome, at_ns=self.now)
        await tools.at_step(f"noted: {what}")

    # What making, rotating and ending share

    def order(self, *, fresh: bool) -> Order:
        key = self.key
        return Order(
            mark=key.mark,
            generation=key.generation,
            title=title(key.name),
            terms=key.terms,
            options=key.options,
            footprint=None if key.footprint is None else replace(key.footprint, key=None),
            must_set=frozenset() if self.account is None else self.account.also_confirms,
            fresh=fresh,
        )

    @property
    def known(self) -> list[Footprint]:
        """What our rows say is there, whether the vendor's lists show it yet or not."""
        former = self.key.former
        return [each for each in (self.key.footprint, None if former is None else former.footprint) if each is not None]

    async def gone(self, footprint: Footprint) -> Reading:
        """Reads until the vendor shows the key gone, or has been asked often enough."""
        provisioner, desk = self.at_vendor
        for pause in (*_POLL_SECONDS, None):
            reading = await provisioner.read(desk, footprint)
            if is_gone(reading) or pause is None:
                return reading
            await self.tools.sleep(pause)
        raise AssertionError  # the loop returns

    async def clear(self, generation: int) -> None:
        """Ends keys of this generation whose secret nobody has: a former attempt made them, and its process ended before it could say. The
        one that is in use is spared, whatever the vendor shows."""
        provisioner, desk = self.at_vendor
        key = self.key
        mine = [] if key.footprint is None or key.secret_generation != generation else [key.footprint]
        found = [each.footprint for each in await provisioner.find(desk, key.mark) if each.generation == generation]
        for footprint in distinct([*mine, *found]):
            if key.former is None or footprint.key != key.former.footprint.key:
                await provisioner.revoke(desk, footprint)

    async def note_last_bills(self, words: Mapping[str, str | None]) -> None:
        """Of keys that are about to be ended: why what they cost could not be read for certain, or None. Saved before, so that it is in the
        evidence whoever writes that, and when."""
        evidence = self.key.evidence
        noted = {each["key"]: each["last_bill"] for each in evidence if "last_bill" in each}
        if any(noted.get(key) != word for key, word in words.items()):
            news = tuple({"key": key, "last_bill": word} for key, word in words.items() if word is not None)
            await self.save(replace(self.key, evidence=(*(each for each in evidence if each.get("key") not in words), *news)))

    def evidence(self, footprint: Footprint, reading: Reading) -> dict[str, str]:
        key = footprint.key or ""
        missing = next((each["last_bill"] for each in self.key.evidence if each.get("key") == key and "last_bill" in each), None)
        return {
            "key": key,
            "place": ", ".join(f"{name} {value}" for name, value in sorted(footprint.place.items())),
            "vendor_says": str(reading.presence),
            "read_at_ns": str(self.now),
            **({} if missing is None else {"last_bill": missing}),
        }


def distinct(footprints: Iterable[Footprint]) -> list[Footprint]:
    """The keys among them, each once."""
    return list({footprint.key: footprint for footprint in footprints if footprint.key is not None}.values())


def with_copy(key: IssuedKey, column: str, sealed: bytes | None) -> IssuedKey:
    return replace(key, probe=sealed) if column == PROBE else replace(key, former_probe=sealed)


def keeps_proof(bench: Bench) -> bool:
    """Whether the operator lets KeyGate keep copies of this account's keys to ask the vendor with."""
    return bench.account is None or bench.account.settings.get(PROOF_SETTING) != "off"


def is_gone(reading: Reading) -> bool:
    return reading.presence in {Presence.GONE, Presence.EXPIRED}


def is_lasting(error: ProvisionerError) -> bool:
    """Whether the same call would fail again. A thing just made may be not found yet."""
    return error.lasting and not isinstance(error, NotFound)


def pause_ns(error: ProvisionerError, attempts: int, *, longest: float) -> int:
    """How long to wait before the next try: what the vendor said, an hour at most; else twice as long each time."""
    seconds = min(_LONGEST_ASKED_SECONDS, error.retry_after) if isinstance(error, RateLimited) else min(longest, 2.0 ** min(attempts, 20))
    return int(max(1.0, seconds) * NANOSECONDS)


def known_secret(
    key: IssuedKey, digest: str, now_ns: int, *, minted_by: str | None = None, expires_at_ns: int | None = None
) -> KnownSecret:
    """A secret of the generation that the key's footprint goes with."""
    return KnownSecret(digest, key.id, key.organization_id, key.secret_generation, now_ns, minted_by, expires_at_ns)


def secret_place(key: IssuedKey) -> Place:
    return column_place(key, "secret")


def column_place(key: IssuedKey, column: str) -> Place:
    return Place("issued_keys", key.id, key.organization_id, column)


def title(name: str) -> str:
    """For people who read the vendor's console: plain ASCII, short."""
    plain = "".join(character if character.isascii() and (character.isalnum() or character in " .@-_") else "-" for character in name)
    return plain[:80].strip() or "keygate"


def worker_actor(organization_id: str) -> Actor:
    return Actor(kind=ActorKind.SYSTEM, id="worker", organization_id=organization_id, role=Role.OWNER)


Handler = Callable[[Bench], Awaitable[Any]]
