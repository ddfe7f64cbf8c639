"""Admin credentials that a vendor does not know any more: found at work, asked about once more, and shown to everybody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.events import EventOutbox, EventType
from keygate.issued_keys.bench import worker_actor
from keygate.issued_keys.desks import Desks
from keygate.issued_keys.model import AccountStatus, VendorAccount
from keygate.issued_keys.records import account_record
from keygate.kit.clock import Clock
from keygate.vault import EnvelopeBroken
from keygate.vendors.admin import AdminKeyRefused, Provisioner, ProvisionerError

if TYPE_CHECKING:
    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.kit.database import Database

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 30.0


class Refusals:
    def __init__(
        self,
        *,
        database: Database,
        repository: VendorAccountRepository,
        desks: Desks,
        audit: AuditLog,
        outbox: EventOutbox,
        provisioners: Mapping[str, Provisioner],
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._desks = desks
        self._audit = audit
        self._outbox = outbox
        self._provisioners = provisioners
        self._clock = clock
        self._asking: set[str] = set()

    async def seen(self, account: VendorAccount) -> None:
        """A call was answered as if the credential were not known. A token may have ended, or a vendor stumbled: so it is asked about by
        the least calls, and only what these say counts. Never raises."""
        provisioner = self._provisioners.get(account.vendor)
        if provisioner is None or provisioner.facts.adopt_only or account.status is AccountStatus.REFUSED or account.id in self._asking:
            return
        self._asking.add(account.id)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await provisioner.verify(await self._desks.open(account, trial=True))
        except AdminKeyRefused as error:
            await self._mark(account, error.detail)
        except (ProvisionerError, EnvelopeBroken, TimeoutError) as error:
            _log.warning("vendor account %s: refused a call, and can't be asked about it: %s", account.id, type(error).__name__)
        finally:
            self._asking.discard(account.id)

    async def _mark(self, account: VendorAccount, detail: str) -> None:
        async with self._database.unit(account.organization_id) as work:
            current = await self._repository.get(work.connection, account.organization_id, account.id)
            if current is None or current.updated_at_ns != account.updated_at_ns or current.status is AccountStatus.REFUSED:
                return  # another credential was entered meanwhile, or it is known already
            after = replace(current, status=AccountStatus.REFUSED, notes=(detail,), verified_at_ns=self._clock.now_ns())
            record = account_record(after)
            actor = worker_actor(account.organization_id)
            await self._audit.record(work, actor, "vendor.refused", account.id, before=account_record(current), after=record)
            await self._repository.save(work.connection, after)
            payload = {"vendor": account.vendor, "name": account.name, "hint": account.hint, "detail": detail}
            await self._outbox.raise_event(work, account.organization_id, EventType.VENDOR_REFUSED, account.id, payload)
