"""What an operator does on the data directory itself, with or without a running server: `keygate db`, `vault`, `audit verify`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from keygate import schema
from keygate.audit import Checker, Verification, verify_export_file
from keygate.config import Settings
from keygate.errors import StartRefused, Unavailable
from keygate.identities.model import operator_actor
from keygate.identities.repository import OwnerRepository
from keygate.issued_keys import MAX_RECEIPT_BYTES, WHOSE
from keygate.issued_keys import verify as verify_signed
from keygate.kit.database import Database
from keygate.processes.foundation import Foundation, lay
from keygate.processes.node import DataDirectory
from keygate.processes.store import open_store, unusable
from keygate.vault import read_master_key, rotate_master_key

T = TypeVar("T")


def _existing() -> tuple[Settings, DataDirectory]:
    settings = Settings()
    directory = DataDirectory(settings.data_dir)
    if not directory.path.is_dir():
        raise StartRefused(f"there is no KeyGate data directory at {directory.path}; name one with KEYGATE_DATA_DIR")
    if not _has_database(settings, directory):
        raise StartRefused(f"there is no database in {directory.path} yet; a start of `keygate serve` makes it")
    return settings, directory


def _has_database(settings: Settings, directory: DataDirectory) -> bool:
    """To look must not make one."""
    return settings.database_url is not None or (directory.path / "keygate.db").is_file()


@asynccontextmanager
async def _store() -> AsyncIterator[Database]:
    settings, directory = _existing()
    database = open_store(settings, directory.path)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def _foundation() -> AsyncIterator[Foundation]:
    settings, directory = _existing()
    base = await lay(settings, directory)
    try:
        yield base
    finally:
        await base.close()


def _run(work: Callable[[], Awaitable[T]]) -> T:
    async def whole() -> T:
        return await work()

    return asyncio.run(whole())


def upgrade_database() -> str:
    """Brings the database to this version's shape; makes the data directory where there is none."""

    async def work() -> str:
        settings = Settings()
        database = open_store(settings, DataDirectory(settings.data_dir).prepare().path)
        try:
            return await schema.upgrade(database)
        finally:
            await database.close()

    return f"The database is at {_run(work)}."


def check_database() -> dict[str, Any]:
    async def work() -> dict[str, Any]:
        async with _store() as database:
            try:
                report = await schema.check(database)
            except Unavailable:
                raise StartRefused(unusable(database)) from None
        found = {"ok": report.ok, **asdict(report)}
        return found if report.current else found | {"drift": ["there are no tables yet: `keygate db upgrade` makes them"]}

    return _run(work)


def backup_database(file: Path) -> str:
    async def work() -> None:
        async with _store() as database:
            await schema.backup(database, file)

    _run(work)
    return f"Copied to {file}. The master key is not in it: keep that apart, or the copy can't be opened."


def vault_status() -> dict[str, Any]:
    async def work() -> dict[str, Any]:
        async with _foundation() as base:
            keys = await base.vault.status()
            return {
                "master_key": base.keys.place,
                "wrapped_by": sorted({key.kek_id for key in keys}),
                "data_keys": len(keys),
                "organizations": len({key.organization_id for key in keys}),
            }

    return _run(work)


def rotate(new_key_file: Path | None) -> str:
    async def work() -> str:
        async with _foundation() as base:
            async with base.database.read() as connection:
                organization = await OwnerRepository().any_organization(connection)
            if organization is None:
                raise StartRefused("this database has no organisation yet; start KeyGate once first")
            new = read_master_key(new_key_file) if new_key_file else None
            actor = operator_actor(organization.id)
            done = await rotate_master_key(base.database, base.vault, base.keys, audit=base.audit, actor=actor, new=new)
            return f"{done.keys} data keys are now wrapped by {done.kek_id}." + (f" {done.advice}" if done.advice else "")

    return _run(work)


def _report(found: Verification) -> dict[str, Any]:
    fault = found.fault
    return {
        "ok": fault is None,
        "organization": found.organization_id,
        "entries": found.entries,
        "first_bad_entry": None if fault is None else fault.sequence,
        "first_bad_id": None if fault is None else fault.entry_id,
        "fault": None if fault is None else f"{fault.kind.value}: {fault.detail}",
        **({} if found.witnessed is None else {"heads_file": _witness(found.witnessed_from or 0, found.witnessed)}),
    }


def _witness(oldest: int, newest: int) -> str:
    if newest == 0:
        return "gone or empty: newest entries that were cut off could not be found"
    return f"up to entry {newest}" if oldest == 1 else f"from entry {oldest} to entry {newest}"


def verify_receipt(file: Path, public_key: str | None) -> dict[str, Any]:
    """Checked against the key that is named, or this data directory's, where there is one."""

    async def work() -> dict[str, Any]:
        trusted = await _trusted(public_key)
        with file.open("rb") as opened:
            text = opened.read(MAX_RECEIPT_BYTES + 1)
        found = verify_signed(text, trusted=trusted)
        return {"ok": found.ok, **asdict(found)}

    return _run(work)


async def _trusted(public_key: str | None) -> Checker | None:
    """The key that is named, or else this data directory's. None: there is neither, so whose a signature is can't be told."""
    if public_key is not None:
        return Checker.from_text(public_key)
    settings = Settings()
    directory = DataDirectory(settings.data_dir)
    if not (directory.path.is_dir() and _has_database(settings, directory)):
        return None
    async with _foundation() as base:
        return base.audit.checker()


def receipt_key() -> str:
    """What receipts and audit exports are verified with."""

    async def work() -> str:
        async with _foundation() as base:
            return base.audit.public_key()

    return _run(work)


def verify_audit(file: Path | None, public_key: str | None = None, *, heads_from: int = 1) -> list[dict[str, Any]]:
    """One report for each organisation, or for the export. An export is checked against the key that is named, or this data directory's;
    where there is neither, it is not `ok`: who could rewrite the file could have signed it again."""

    async def work() -> list[dict[str, Any]]:
        if file is None:
            async with _foundation() as base:
                return [_report(found) for found in await base.audit.verify_all(heads_from=heads_from)]
        trusted = await _trusted(public_key)
        found = verify_export_file(file, trusted=trusted)
        report = {**_report(found), "trusted": trusted is not None}
        if trusted is None:
            report |= {"ok": False, "signed_by": f"{found.key_id}; {WHOSE}"}
        return [report]

    return _run(work)
