"""`keygate serve`: gateway, control plane and worker in one process.

Order of a start, each step relying on the one before: data directory and its lock · socket · database, migrated · vault · audit log ·
journal recovered, budgets granted · gateway · control plane · first owner, credentials, sandbox · listen. A stop is the reverse: no
new connections, requests in flight finish, the journal is folded, the lock is released.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

import sqlalchemy as sa
import uvloop
from pydantic import ValidationError

from keygate import __version__
from keygate.api.app import create_app
from keygate.api.health import Check
from keygate.config import Settings, proxy_environment, unknown_variables, wrong_setting
from keygate.errors import KeyGateError, StartRefused, Unavailable
from keygate.gateway.gateway import Gateway, GatewaySettings
from keygate.gateway.proxies import ProxySettings
from keygate.gateway.verdicts import Verdicts
from keygate.identities.model import system_actor
from keygate.identities.repository import OwnerRepository
from keygate.issued_keys.bench import AtStep, nothing
from keygate.processes import first_start, logs
from keygate.processes.control import Announcer, Control, control, credential_service, outbox, sources
from keygate.processes.foundation import Foundation, lay
from keygate.processes.issuing import Issuing, issuing
from keygate.processes.last_use import EVERY_SECONDS as LAST_USE_SECONDS
from keygate.processes.last_use import LastUse
from keygate.processes.ledgering import Ledger, ledger
from keygate.processes.listening import Server, configuration, listen
from keygate.processes.metrics import exposition
from keygate.processes.migrating import bring_up_to_date
from keygate.processes.node import DataDirectory
from keygate.processes.sandboxed import Sandboxed, start_sandboxed
from keygate.processes.spending import spending
from keygate.processes.stocktaking import stocktaking
from keygate.processes.tracing import tracing
from keygate.processes.worker import Worker
from keygate.vault import Credential, CredentialService
from keygate.vault.credential_repository import CredentialRepository

# Objects of a request die by their counts; looking for cycles at every 700th, as CPython does unasked, is a tenth of a request's cost.
_COLLECT = (5_000, 20, 50)
_log = logging.getLogger("keygate.serve")


def _gateway_settings(settings: Settings) -> GatewaySettings:
    return GatewaySettings(
        max_body_bytes=settings.max_body_bytes,
        connect_timeout=settings.connect_timeout,
        first_byte_timeout=settings.first_byte_timeout,
        idle_timeout=settings.idle_timeout,
        drain_timeout=settings.drain_timeout,
        client_timeout=settings.client_timeout,
        shutdown_timeout=settings.shutdown_timeout,
    )


def _proxies() -> ProxySettings:
    try:
        return ProxySettings.read(proxy_environment())
    except ValueError as error:
        raise StartRefused(f"a proxy variable in the environment can't be used: {error}") from None


async def _check_audit(base: Foundation) -> None:
    """Raises `StartRefused` where the data directory belongs to another database: its journal must not be folded into this one."""
    named, owners = base.audit.first_outside(), OwnerRepository()
    async with base.database.read() as connection:
        known = await (owners.organization(connection, named) if named else owners.any_organization(connection))
    if named and known is None:
        raise StartRefused(
            f"the data directory {base.directory} belongs to another database: its audit-heads.jsonl tells of {named}, which this database "
            "does not know. Give this database a KEYGATE_DATA_DIR of its own, or go back to the former KEYGATE_DATABASE_URL"
        )


async def _reconcile_audit(base: Foundation) -> None:
    """Once this process may spend: what it finds missing is recorded, and a second gateway that is refused must record nothing."""
    for fault in await base.audit.reconcile():
        _log.error("audit log: %s (entry %s); run `keygate audit verify`", fault.detail, fault.sequence)


async def _prepare(
    base: Foundation, plane: Control, credentials: CredentialService, orders: Issuing, *, sandbox: Sandboxed | None
) -> tuple[first_start.Welcome | None, list[Credential]]:
    """What a start puts in place; what the first start has to tell, and the credentials that stand before the sandbox."""
    owner = await first_start.first_owner(base.settings, plane.identities.users)
    organization = await plane.identities.users.organization()
    if organization is None:
        raise StartRefused("there is no organisation in this database, and none could be made")
    for made in await first_start.import_credentials(organization.id, credentials):
        _log.info("credential %s (%s) taken from the environment", made.name, made.vendor)
    before = await first_start.place_sandbox(organization.id, credentials, sandbox)
    if sandbox is not None and sandbox.former is not None:
        await orders.move(system_actor(organization.id), sandbox.former, sandbox.address, base)
    if owner is None:
        return None, before
    email, password = owner
    usable = bool(await credentials.load())
    key = await first_start.first_key(system_actor(organization.id), plane.virtual_keys) if usable else None
    return first_start.Welcome(email, password, key), before


async def _serve(settings: Settings, *, with_sandbox: bool, at_step: AtStep = nothing) -> None:
    async with AsyncExitStack() as stack:
        directory = DataDirectory(settings.data_dir).prepare().lock()
        stack.callback(directory.release)
        listener = listen(settings.host, settings.port)
        stack.callback(listener.close)
        await bring_up_to_date(settings, directory.path)
        base = await lay(settings, directory)
        stack.push_async_callback(base.close)
        await _check_audit(base)
        events, source = outbox(base), sources(base)
        last_use = LastUse(database=base.database, keys=source.key_rows, credentials=CredentialRepository(), clock=base.clock)
        stack.push_async_callback(last_use.close)
        books = await ledger(base, events, posted=last_use.saw)
        stack.push_async_callback(books.close)
        await _reconcile_audit(base)
        if books.in_doubt:
            _log.warning("%d requests had no end when the last process ended; they are charged at their holds, in doubt", books.in_doubt)
        spans = tracing(settings)
        if spans is not None:
            stack.push_async_callback(spans.close)
        news = Announcer()
        credentials = credential_service(base, news)
        gateway = Gateway(
            _gateway_settings(settings),
            keys=source.keys,
            credentials=credentials,
            accounts=books.accounts,
            prices=books.book,
            pepper=base.pepper,
            proxies=_proxies(),
            recorder=books.recorder,
            observer=spans,
        )
        news.gateway = gateway
        services: dict[type, object] = {CredentialService: credentials, type(events): events, **books.services}
        orders = await issuing(base, events, source.owners, node_id=books.node_id, at_step=at_step)
        stack.push_async_callback(orders.close)
        bills = await spending(base, events, source.owners, orders, books.reports, node_id=books.node_id)
        services |= orders.services | bills.services
        plane = control(
            base,
            source,
            publisher=news,
            usage=books.usage,
            prices=books.estimates,
            answers=Verdicts(gateway.book),
            issued=orders.keys,
            outbox=events,
            services=services,
        )
        stock = await stocktaking(base, orders, events, plane.identities.developers, node_id=books.node_id)
        sandbox = None
        if with_sandbox:
            sandbox = await start_sandboxed(directory.path, settings.sandbox_port)
            stack.push_async_callback(sandbox.stop)
        welcome, before = await _prepare(base, plane, credentials, orders, sandbox=sandbox)
        await gateway.start()
        worker = Worker()
        books.schedule(worker)
        orders.schedule(worker)
        stock.schedule(worker)
        bills.schedule(worker)
        worker.every(LAST_USE_SECONDS, "last-use", last_use.write)
        worker.start()
        stack.push_async_callback(worker.stop)
        stack.push_async_callback(gateway.stop)
        app = create_app(
            services=plane.services | stock.services,
            sessions=plane.identities.sessions,
            audit=base.audit,
            public_url=settings.address,
            checks={"database": _database_check(base), "journal": _journal_check(books)},
            metrics=exposition(gateway, books, worker),
            proxies=settings.proxies,
        )
        gc.collect()
        gc.freeze()  # what a start has made stays: later collections need not look at it
        gc.set_threshold(*_COLLECT)
        server = Server(
            configuration(app, http=gateway.http_class, shutdown_timeout=settings.shutdown_timeout),
            listening=lambda: _greet(settings, welcome, sandbox, before),
            stopping=gateway.shutting_down,
            hurrying=gateway.hurry,
        )
        await server.serve(sockets=[listener])


def _database_check(base: Foundation) -> Check:
    async def check() -> None:
        async with base.database.read() as connection:
            await connection.execute(sa.select(1))

    return check


def _journal_check(books: Ledger) -> Check:
    async def check() -> None:
        health = books.accounts.health
        if health.journal_failing or health.settles_waiting:
            raise Unavailable(f"the journal can't be written: {health.journal_failing}")

    return check


def _greet(settings: Settings, welcome: first_start.Welcome | None, sandbox: Sandboxed | None, before: Sequence[Credential]) -> None:
    lines = [first_start.welcome_text(welcome, settings.address)] if welcome else []
    lines.append(f"KeyGate {__version__} listens on {settings.address}")
    if sandbox:
        lines.append(f"Sandbox vendor on {sandbox.address} (control API under /_sandbox)")
    lines += [f"Not to the sandbox: calls to {each.vendor} go to {each.base_url} with the credential {each.name}" for each in before]
    print("\n".join(lines), flush=True)  # noqa: T201  (what the operator started it for)


def main(arguments: Sequence[str] | None = None, *, at_step: AtStep = nothing) -> int:
    """`at_step` is called at every commit and vendor call of issued keys; drills end the process there."""
    parser = argparse.ArgumentParser(prog="keygate serve")
    parser.add_argument("--sandbox", action="store_true")
    options = parser.parse_args(arguments)
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            print(f"keygate: {wrong_setting(problem)}", file=sys.stderr)  # noqa: T201  (before logs are set up)
        return 2
    logs.configure(level=settings.log_level, form=settings.log_format)
    for name in unknown_variables():
        _log.warning("%s is not a setting of KeyGate; is it misspelt? docs/settings.md has them all", name)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            uvloop.run(_serve(settings, with_sandbox=options.sandbox, at_step=at_step))
        except KeyGateError as error:
            print(f"keygate: {error.detail}", file=sys.stderr)  # noqa: T201  (a sentence for the operator, not a log line)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
