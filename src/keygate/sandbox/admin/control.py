"""Setting the admin side up and reading its books, under `/_sandbox/admin`. JSON.

GET    /_sandbox/admin                          the vendors that have an admin API, and the vendors' time
POST   /_sandbox/admin/clock                    {advance_seconds}: leases end, delayed bills arrive
GET    /_sandbox/admin/{vendor}                 settings, faults, what really stands, whatever lists show; the operations that faults know
PATCH  /_sandbox/admin/{vendor}                 settings: see `model.Settings`
POST   /_sandbox/admin/{vendor}/credentials     {value?, name?, rights?: […], without?: […], kind?} → 201: an admin credential, and as
                                                `configure` the body with which KeyGate's `POST /vendors/configure` takes it. Anthropic:
                                                `issuer`, KeyGate's answer to `GET /vendors/issuer`, adds the rule that makes keys
POST   /_sandbox/admin/{vendor}/configure       the same, and answers that body alone; Anthropic also takes the issuer as the whole body
DELETE /_sandbox/admin/{vendor}/credentials     {value}
POST   /_sandbox/admin/{vendor}/faults          {operation?, kind?, status?, …}: see `model.AdminFault`
DELETE /_sandbox/admin/{vendor}/faults          forgets them
POST   /_sandbox/admin/{vendor}/console/{action}  what people do in the vendor's web console: see the vendor's API; at every
                                                vendor `age` {key, days}: it was made, and last used, so many days ago
GET    /_sandbox/admin/{vendor}/calls           every call that the admin API saw
GET    /_sandbox/admin/{vendor}/books           what each key really used and cost
POST   /_sandbox/admin/{vendor}/books           {days_ago?, key_id?, container?, model, amount_usd}: a correction of a day that is past
"""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from keygate.kit.clock import NANOSECONDS, rfc3339
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminApi
from keygate.sandbox.admin.books import DAY_S, PICO
from keygate.sandbox.admin.model import AdminFault
from keygate.sandbox.admin.shelf import Entry
from keygate.sandbox.admin.state import AdminState
from keygate.sandbox.errors import VendorError
from keygate.sandbox.model import Vendor


def control(admin: AdminState, method: str, parts: list[str], body: dict[str, Any], *, address: str) -> tuple[int, Any]:
    """Answers one request; `parts` is the path below `/_sandbox/admin`, `address` the sandbox's own. ValueError: the body doesn't fit."""
    with admin.lock:
        match (method, *parts):
            case ("GET",):
                return 200, {"vendors": list(admin.accounts()), "now": rfc3339(admin.clock.now_ns())}
            case ("POST", "clock"):
                admin.clock.advance(float(body.get("advance_seconds", 0)))
                return 200, {"now": rfc3339(admin.clock.now_ns())}
            case (_, vendor, *rest) if vendor in admin.accounts():
                return _account(admin, admin[Vendor(vendor)], method, rest, body, address)
    raise VendorError(404, "no such thing in the sandbox; see keygate.sandbox.admin.control")


def _account(admin: AdminState, account: Account, method: str, rest: list[str], body: dict[str, Any], address: str) -> tuple[int, Any]:
    api = admin.api(account.vendor)
    match (method, *rest):
        case ("GET",):
            return 200, {**_standing(account), "operations": api.operations()}
        case ("PATCH",):
            account.settings = account.settings.with_changes(body)
            return 200, account.settings.as_dict()
        case ("POST", "credentials"):
            return 201, _admitted(api, account, body, address)
        case ("POST", "configure"):
            return 201, _admitted(api, account, {"issuer": body} if "jwks" in body else body, address)["configure"]
        case ("DELETE", "credentials"):
            account.credentials.pop(str(body.get("value")), None)
            return 200, {}
        case ("POST", "faults"):
            account.faults.append(_fault(body))
            return 201, account.faults[-1].as_dict()
        case ("DELETE", "faults"):
            account.faults.clear()
            return 200, {}
        case ("POST", "console", action):
            return 201, api.console(account, action, body)
        case ("GET", "calls"):
            return 200, {"calls": [call.as_dict() for call in account.calls]}
        case ("GET", "books"):
            return 200, {"cells": [_cell(cell) for cell in account.books.cells()], "total_usd": str(account.books.total_usd())}
        case ("POST", "books"):
            _correct(account, body)
            return 201, {"total_usd": str(account.books.total_usd())}
    raise VendorError(404, "no such thing in the sandbox; see keygate.sandbox.admin.control")


def _admitted(api: AdminApi, account: Account, body: dict[str, Any], address: str) -> dict[str, Any]:
    more = api.introduced(account, body.pop("issuer")) if "issuer" in body else {}
    made, admin_key = api.admit(account, address, body)
    entered = {"vendor": account.vendor, "admin_key": admin_key, "settings": {**api.settings(address, made), **more}}
    rights = None if made.rights is None else sorted(made.rights)
    return {"value": admin_key, "name": made.name, "rights": rights, "configure": entered}


def _fault(body: dict[str, Any]) -> AdminFault:
    try:
        return msgspec.convert(body, AdminFault)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _standing(account: Account) -> dict[str, Any]:
    return {
        "settings": account.settings.as_dict(),
        "faults": [fault.as_dict() for fault in account.faults],
        "things": {name: things for name, shelf in account.shelves.items() if (things := [_thing(entry) for entry in shelf])},
    }


def _thing(entry: Entry) -> dict[str, Any]:
    return {"id": entry.id, "parent": entry.parent, "body": entry.body}


def _cell(cell: Any) -> dict[str, Any]:
    return {
        "at": rfc3339(cell.minute_s * NANOSECONDS),
        "key_id": cell.key_id,
        "container": cell.container,
        "model": cell.model,
        "line": cell.line,
        "requests": cell.requests,
        "usage": asdict(cell.usage),
        "cost_usd": str(Decimal(cell.cost_pico) / PICO),
    }


def _correct(account: Account, body: dict[str, Any]) -> None:
    try:
        amount = Decimal(str(body["amount_usd"]))
    except (KeyError, InvalidOperation):
        raise ValueError("amount_usd: must be a decimal") from None
    now = account.now_ns()
    account.books.correct(
        now,
        at_ns=now - int(body.get("days_ago", 1)) * DAY_S * NANOSECONDS,
        key_id=body.get("key_id"),
        container=body.get("container"),
        model=str(body.get("model", "")),
        amount_usd=amount,
    )
