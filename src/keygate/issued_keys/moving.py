"""Vendor accounts follow their vendor to another address: for the sandbox, the one vendor whose address KeyGate itself chooses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keygate.audit import AuditLog
from keygate.identities import Actor
from keygate.issued_keys.records import account_record
from keygate.kit.clock import Clock

if TYPE_CHECKING:
    from keygate.issued_keys.account_repository import VendorAccountRepository
    from keygate.kit.database import Database


async def move_accounts(
    actor: Actor, former: str, address: str, *, database: Database, repository: VendorAccountRepository, audit: AuditLog, clock: Clock
) -> int:
    """Every setting that is the former address, or lies below it, names the new one. Returns how many accounts were moved, each in a
    transaction of its own."""
    moved = 0
    async with database.read() as connection:
        accounts = await repository.all(connection, actor.organization_id)
    for account in accounts:
        settings = {name: _moved(value, former, address) for name, value in account.settings.items()}
        if settings == dict(account.settings):
            continue
        after = replace(account, settings=settings, updated_at_ns=clock.now_ns())
        async with database.unit(actor.organization_id) as work:
            await audit.record(work, actor, "vendor.move", account.id, before=account_record(account), after=account_record(after))
            await repository.save(work.connection, after)
        moved += 1
    return moved


def _moved(value: str, former: str, address: str) -> str:
    return address + value.removeprefix(former) if value == former or value.startswith(f"{former}/") else value
