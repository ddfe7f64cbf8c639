"""The admin side of every vendor that the sandbox plays."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from keygate.kit.clock import SystemClock
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminApi, AdminRequest, send
from keygate.sandbox.admin.model import VendorClock
from keygate.sandbox.admin.prices import price_of
from keygate.sandbox.admin.registry import APIS
from keygate.sandbox.catalogue import Model
from keygate.sandbox.model import Call, Key, Usage, Vendor
from keygate.sandbox.wire import Connection

if TYPE_CHECKING:
    from keygate.sandbox.kept import Kept


class AdminState:
    """Lives in memory beside the inference state and shares its keys. `lock` guards all of it: handlers hold it, and so does a test that
    changes something from its own thread."""

    def __init__(self, keys: dict[str, Key], models: dict[str, Model]) -> None:
        self.lock = threading.RLock()
        self.clock = VendorClock(SystemClock())
        self.kept: Kept | None = None
        self._keys = keys
        self._models = models
        self._accounts: dict[Vendor, Account] = {}
        for api in APIS:
            account = Account(api.vendor, clock=self.clock, keys=keys, ceilings=api.ceilings, rule=api.refuses)
            self._accounts[api.vendor] = account
            api.prepare(account)

    def __getitem__(self, vendor: Vendor) -> Account:
        """KeyError: the sandbox has no admin API of this vendor."""
        return self._accounts[vendor]

    def keep(self, kept: Kept) -> None:
        """From now on every change is written down before it is answered."""
        self.kept = kept
        for account in self._accounts.values():
            account.books.changed = partial(kept.cell, account)

    def accounts(self) -> dict[Vendor, Account]:
        return dict(self._accounts)

    def api(self, vendor: Vendor) -> AdminApi:
        return next(api for api in APIS if api.vendor is vendor)

    def find(self, path: str) -> AdminApi | None:
        return next((api for api in APIS if api.owns(path)), None)

    async def serve(self, api: AdminApi, connection: Connection) -> None:
        request = AdminRequest.read(connection, await connection.body())
        with self.lock:
            account = self._accounts[api.vendor]
            answer, fault = api.run(account, request)
            if self.kept is not None and (request.method not in {"GET", "HEAD"} or fault is not None):
                self.kept.account(account)
        await send(connection, api.headers(answer, request), answer, fault)

    def bill(self, call: Call, usage: Usage) -> None:
        """Books tokens of an inference call. Keys that no admin API issued are booked on the account itself."""
        key = self._keys.get(call.key or "")
        account = self._accounts.get(call.vendor)
        if key is None or account is None or call.model is None:
            return
        grant = key.grant
        with self.lock:
            account.books.use(
                account.now_ns(),
                key_id=key.id if grant is None else grant.id,
                container=None if grant is None else grant.container,
                model=call.model,
                usage=usage,
                price=price_of(self._models, call.vendor, call.model),
                request=not call.produced,
            )
            if grant is not None:
                account.count_tokens(grant, call.model, usage)
