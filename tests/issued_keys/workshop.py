"""Issued keys, bulk orders and the inventory in this process, on a real database and against the sandbox's OpenAI; time is the test's.

A wait lets time pass, for KeyGate and vendor alike, so that a rate limit of a hundred calls a minute is kept and shown in moments.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from keygate.audit import AuditEntry, AuditService, EntryFilter, HeadsFile, Signer
from keygate.audit.repository import AuditRepository
from keygate.config import Settings
from keygate.events import EventOutbox
from keygate.events.repository import EventRepository
from keygate.identities import Actor, ActorKind, Developer, NoPublisher, Role
from keygate.identities.access_repository import AccessRepository
from keygate.identities.developers import DeveloperService
from keygate.identities.directory import OwnerDirectory
from keygate.identities.repository import OwnerRepository
from keygate.issued_keys import IssuedKey, IssueDraft
from keygate.issued_keys.bulk.model import BulkDraft
from keygate.issued_keys.bulk.service import Standing
from keygate.issued_keys.inventory.model import Item, Scan, Wanted
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database
from keygate.kit.secret import Secret
from keygate.policies import Place, Scope
from keygate.processes.control import Announcer, credential_service
from keygate.processes.foundation import Foundation
from keygate.processes.issuing import Issuing, issuing
from keygate.processes.stocktaking import Stocktaking, stocktaking
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, AdminCall
from keygate.vault import LocalKeySource, NewCredential, Vault
from keygate.vault.repository import VaultRepository
from keygate.vendors.admin import PROVISIONERS, Provisioner, Terms

NODE = "node-1"


class Listener:
    """Tells issued keys of holders that end; there are no virtual keys here."""

    def __init__(self, orders: Issuing) -> None:
        self._orders = orders

    async def developer_deactivated(self, work: Any, actor: Actor, developer_id: str) -> None:
        await self._orders.keys.holder_ended(
            work, actor, cause="developer.deactivate", subject=developer_id, name=developer_id, reason="left", virtual_keys=[]
        )

    async def app_deactivated(self, work: Any, actor: Actor, app_id: str) -> None: ...

    async def team_archived(self, work: Any, actor: Actor, team_id: str, *, ended: Sequence[str]) -> None: ...


class Life:
    """Of one KeyGate process. `end` stops it for good wherever it is, as kill -9 does: nothing of it goes on, nothing is given back."""

    def __init__(self) -> None:
        self.steps = 0
        self.end_at: int | None = None
        self.ended = asyncio.Event()

    async def at_step(self, _step: str) -> None:
        self.steps += 1
        if self.end_at is not None and self.steps >= self.end_at:
            self.ended.set()
        if self.ended.is_set():
            await asyncio.Event().wait()


class Workshop:
    def __init__(self, database: Database, clock: ManualClock, folder: Path, sandbox: SandboxServer, owner: Actor) -> None:
        self.database, self.clock, self.folder, self.sandbox, self.owner = database, clock, folder, sandbox, owner
        clock.advance(time.time() - clock.now_ns() / 1e9)  # what stands at a fresh vendor was made just now
        sandbox.state.admin.clock._clock = clock
        self.admin_key = self.account.create_credential().value
        self.outbox_rows = EventRepository()
        self.life = Life()
        self._lives: list[tuple[Life, Issuing]] = []
        self.orders: Issuing
        self.stock: Stocktaking
        self.base: Foundation
        self.developers: DeveloperService

    @property
    def account(self) -> Account:
        return self.sandbox.state.admin[Vendor.OPENAI]

    async def _rest(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def start(self, *, end_at: int | None = None, provisioners: Mapping[str, Provisioner] = PROVISIONERS, **settings: Any) -> None:
        """A fresh process on the same database."""
        self.life = Life()
        self.life.end_at = end_at
        audit = AuditService(
            self.database,
            AuditRepository(),
            signer=Signer(b"s" * 32),
            digest_key=b"d" * 32,
            heads=HeadsFile(self.folder),
            clock=self.clock,
        )
        vault = Vault(self.database, VaultRepository(), source=LocalKeySource(self.folder / "data"), clock=self.clock)
        await vault.start()
        base = Foundation(
            settings=Settings(data_dir=self.folder / "data", **settings),
            directory=self.folder,
            clock=self.clock,
            database=self.database,
            keys=LocalKeySource(self.folder / "data"),
            vault=vault,
            audit=audit,
            signer=Signer(b"s" * 32),
            pepper=b"p" * 32,
            digest_key=b"d" * 32,
        )
        self.audit, self.base = audit, base
        outbox = EventOutbox(database=self.database, repository=EventRepository(), clock=self.clock)
        rows = OwnerRepository()
        self.orders = await issuing(
            base, outbox, OwnerDirectory(rows), node_id=NODE, at_step=self.life.at_step, sleep=self._rest, provisioners=provisioners
        )
        self._lives.append((self.life, self.orders))
        self.developers = DeveloperService(
            self.database,
            rows,
            access=AccessRepository(),
            audit=audit,
            clock=self.clock,
            publisher=NoPublisher(),
            holders=Listener(self.orders),
            outbox=outbox,
        )
        self.stock = await stocktaking(base, self.orders, outbox, self.developers, node_id=NODE, sleep=self._rest)

    async def audited(self) -> list[AuditEntry]:
        return list(await self.audit.find(self.owner.organization_id, EntryFilter(), before=None, limit=500))

    async def close(self) -> None:
        for _, orders in self._lives:
            await orders.close()

    async def configure(self, **settings: str) -> None:
        wanted = {"base_url": self.sandbox.openai_base_url, "calls_per_minute": "100000", **settings}
        await self.orders.accounts.configure(self.owner, vendor="openai", name="default", admin_key=Secret(self.admin_key), settings=wanted)

    async def developer(self, name: str) -> Developer:
        return await self.developers.create(self.owner, name=name, email=f"{name}@example.com")

    async def provision(self, name: str, **terms: Any) -> IssuedKey:
        """A key of a developer who is made for it."""
        developer = await self.developer(name)
        draft = IssueDraft("openai", Place(Scope.DEVELOPER, developer.id), Terms(**terms))
        return (await self.orders.keys.provision(self.owner, draft)).key

    async def credential(self, secret: Secret) -> None:
        """The gateway serves from this secret."""
        new = NewCredential(vendor="openai", name="main", secret=secret, base_url=self.sandbox.openai_base_url)
        await credential_service(self.base, Announcer()).create(self.owner, new)

    def by_hand(self, name: str, *, user: str = "someone@example.com", project_id: str = "proj_default") -> tuple[str, str]:
        """A key that a person makes in OpenAI's web console: its id and the secret."""
        with self.sandbox.state.admin.lock:
            made = self.sandbox.state.admin.api(Vendor.OPENAI).console(
                self.account, "keys", {"name": name, "user": user, "project_id": project_id}
            )
        return made["id"], made["value"]

    async def console(self, method: str, path: str, body: Any = None) -> Any:
        """What people change in the console, past KeyGate."""
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {self.admin_key}"}, timeout=10) as client:
            answer = await client.request(method, f"{self.sandbox.openai_base_url}/organization{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def works(self, secret: str) -> bool:
        body = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.post(f"{self.sandbox.openai_base_url}/chat/completions", json=body, headers=headers, timeout=10).status_code == 200

    def switch(self, account: str, *, enabled: bool) -> None:
        """A service account's access to its project, and so that of its keys."""
        with self.sandbox.state.admin.lock:
            entry = self.account.shelves["service_accounts"].get(account)
            assert entry is not None
            entry.body["role"] = "member" if enabled else "none"

    def changes(self) -> int:
        """Calls at the vendor that may have changed something; `verify` asks for rights by some that can't."""
        with self.sandbox.state.admin.lock:
            return sum(call.method != "GET" and call.status in {0, 200, 201} for call in self.account.calls)

    async def scan(self) -> Scan:
        """Looks at the vendor from beginning to end."""
        [scan] = await self.stock.inventory.scan(self.owner, None)
        while await self.stock.scanner.tick():
            self.clock.advance(1)
        [done] = await self.stock.inventory.scans(self.owner, before=None, limit=1)
        assert done.id == scan.id
        return done

    async def items(self, **wanted: Any) -> dict[str, Item]:
        found = await self.stock.inventory.page(self.owner, Wanted(**wanted), after=None, limit=500)
        return {(item.footprint.key or item.footprint.place["project"]): item for item in found}

    async def item_of(self, key: IssuedKey) -> Item:
        assert key.footprint is not None
        return (await self.items())[key.footprint.key or ""]

    async def order(self, draft: BulkDraft) -> Standing:
        return (await self.stock.bulk.order(self.owner, draft))[0]

    async def turns(self) -> None:
        """Worker's turns until no order has anything left to do, or this life has ended."""
        ended = asyncio.create_task(self.life.ended.wait())
        working = asyncio.create_task(self._turns())
        await asyncio.wait({ended, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            ended.cancel()
            working.result()
            return
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    async def _turns(self) -> None:
        while await self.stock.runner.tick():
            await self.orders.operations.tick()
            self.clock.advance(1)

    def standing(self) -> tuple[int, int]:
        """Projects at the vendor that are not archived, and keys in them that work."""
        with self.sandbox.state.admin.lock:
            projects = {
                each.id for each in self.account.shelves["projects"] if each.body["status"] == "active" and each.id != "proj_default"
            }
            return len(projects), sum(each.parent in projects for each in self.account.shelves["keys"])


def most_in_a_minute(calls: Sequence[AdminCall]) -> int:
    """The most calls that were tried at the vendor in any 60 seconds: those that it refused as too many are among them."""
    times = [call.at_ns for call in calls if call.credential is not None]
    first, most = 0, 0
    for last, at_ns in enumerate(times):
        while times[first] <= at_ns - 60_000_000_000:
            first += 1
        most = max(most, last - first + 1)
    return most


def stranger(owner: Actor) -> Actor:
    """Somebody of another organisation."""
    return replace(owner, id="usr_other", organization_id="org_other")


def viewer(owner: Actor) -> Actor:
    return Actor(kind=ActorKind.USER, id="usr_viewer", organization_id=owner.organization_id, role=Role.VIEWER)


__all__ = ["Life", "Workshop", "most_in_a_minute", "stranger", "viewer"]
