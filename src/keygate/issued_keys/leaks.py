"""Leak reports: whoever finds a secret of an issued key can have it ended, and is told the truth about one that is dead already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from keygate.audit import AuditLog, digest_secret
from keygate.errors import NotFound
from keygate.events import EventOutbox, EventType
from keygate.issued_keys.handover import finder
from keygate.issued_keys.life import ENDED, State
from keygate.issued_keys.model import IssuedKey, KnownSecret
from keygate.issued_keys.operations import Operations
from keygate.issued_keys.receipts import Receipt
from keygate.issued_keys.service import IssuedKeyService
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret
from keygate.policies import change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database, UnitOfWork
    from keygate.vendors.admin import Provisioner

REASON = "reported as leaked"
_ENDING = frozenset({State.REVOKING, State.IRREVOCABLE})


class Plight(StrEnum):
    """What a secret that was found is."""

    KEY = "key"  # it works: the key is revoked
    FORMER = "former"  # it works until its rotation is over: it alone is cut, the next one goes on
    ENDING = "ending"  # the vendor was told already and has not confirmed yet
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class LeakAnswer:
    """What the finder is told: nothing of whose it is. `ended_at_ns` None: the vendor is being told. `works_until_ns`: until when it, or
    what it was traded for, may still work; None: the vendor does not say, or it does not work any more."""

    vendor: str
    ended_at_ns: int | None
    works_until_ns: int | None


class LeakService:
    def __init__(
        self,
        *,
        database: Database,
        repository: IssuedKeyRepository,
        keys: IssuedKeyService,
        operations: Operations,
        audit: AuditLog,
        outbox: EventOutbox,
        digest_key: bytes,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._keys = keys
        self._operations = operations
        self._audit = audit
        self._outbox = outbox
        self._digest_key = digest_key
        self._provisioners = provisioners
        self._clock = clock

    async def report(self, secret: Secret, *, address: str | None) -> LeakAnswer:
        """Ends what the secret opens, in every organisation that has it: the key, or during a rotation the former one alone. Former
        secrets and fetched tokens are known too. Raises `NotFound` for one that is not of ours."""
        digest = digest_secret(secret, self._digest_key)
        async with self._database.read() as connection:
            known = await self._repository.secrets_with(connection, digest)
        if not known:
            raise NotFound("This is not a key that KeyGate issued")
        answers = [await self._one(each, address=address) for each in known]
        return max(answers, key=lambda answer: (answer.ended_at_ns is None, answer.ended_at_ns or 0))

    async def _one(self, known: KnownSecret, *, address: str | None) -> LeakAnswer:
        actor = replace(finder(known.organization_id), id="leak-report", address=address)
        async with change(self._database, self._audit, actor, "issued_key.report_leak", known.key_id) as work:
            key = await self._repository.get(work.connection, known.organization_id, known.key_id, lock=True)
            known = await self._repository.secret(work.connection, known.organization_id, known.key_id, known.digest) or known
            if key is None:
                raise NotFound("This is not a key that KeyGate issued")
            now, lag = self._clock.now_ns(), self._lag_ns(key)
            found = plight(key, known, now, lag_ns=lag or 0)
            if known.reported_at_ns is None:  # whoever reports it again and again fills no log with it
                said = _said(key, known, found)
                await self._audit.record(work, actor, "issued_key.report_leak", key.id, after=said)
                await self._outbox.raise_event(work, key.organization_id, EventType.ISSUED_KEY_LEAKED, key.id, {"name": key.name, **said})
                await self._repository.note_leak(work.connection, known, at_ns=now)
                if found is not Plight.DEAD:
                    await self._repository.add_receipt(work.connection, _receipt(key, found, actor.id, now))
            if found is Plight.KEY:
                await self._keys.tell_to_end(work, actor, key, REASON, now)
                self._begin(work, key)
            elif found is Plight.FORMER and key.former is not None and not key.former.insist:
                await self._keys.tell_to_cut(work, actor, key, key.former, now)
                self._begin(work, key)
        return _answer(key, known, found, now, lag)

    def _begin(self, work: UnitOfWork, key: IssuedKey) -> None:
        async def begin() -> None:
            self._operations.start(key.organization_id, key.id)

        work.after_commit(begin)

    def _lag_ns(self, key: IssuedKey) -> int | None:
        provisioner = self._provisioners.get(key.vendor)
        seconds = None if provisioner is None else provisioner.facts.revoke_delay_seconds
        return None if seconds is None else seconds * NANOSECONDS


def plight(key: IssuedKey, known: KnownSecret, now_ns: int, *, lag_ns: int) -> Plight:
    """`lag_ns`: how long what the secret was traded for outlives it. A token that is over counts as alive for so long: what was fetched
    with it in its last moment still works, and ends with the key."""
    if known.ended_at_ns is not None or known.generation not in key.living:
        return Plight.DEAD
    if known.expires_at_ns is not None and now_ns >= known.expires_at_ns + lag_ns:
        return Plight.DEAD
    if key.state in _ENDING or key.state in ENDED:
        return Plight.ENDING
    if key.former is not None and key.former.cut_at_ns is not None and known.generation == key.former.generation:
        return Plight.FORMER
    return Plight.KEY


def _answer(key: IssuedKey, known: KnownSecret, found: Plight, now_ns: int, lag_ns: int | None) -> LeakAnswer:
    ends = [moment for moment in (known.ended_at_ns, known.expires_at_ns) if moment is not None]
    if found is Plight.DEAD:
        ended = min(ends, default=key.ended_at_ns or known.known_at_ns)
        until = None if lag_ns is None else ended + lag_ns
        return LeakAnswer(key.vendor, ended, until if until is not None and until > now_ns else None)
    latest = None if known.expires_at_ns is None or lag_ns is None else known.expires_at_ns + lag_ns
    return LeakAnswer(key.vendor, None, latest)


def _receipt(key: IssuedKey, found: Plight, by: str, now_ns: int) -> Receipt:
    """Of what the report ends: the key, or during a rotation the former one alone. Other keys of its owner go on."""
    former = key.former.footprint.key if found is Plight.FORMER and key.former is not None else None
    return Receipt(
        id=new_id("rcp"),
        organization_id=key.organization_id,
        cause="issued_key.report_leak",
        subject=key.id,
        subject_name=key.name,
        issued_keys=[key.id if former is None else f"{key.id}#{former}"],
        virtual_keys=[],
        created_at_ns=now_ns,
        created_by=by,
    )


def _said(key: IssuedKey, known: KnownSecret, found: Plight) -> dict[str, str | int | None]:
    return {
        "vendor": key.vendor,
        "owner": None if key.owner is None else key.owner.scope_id,
        "state": str(key.state),
        "generation": known.generation,
        "found": str(found),
        "token_of": known.minted_by,
    }
