"""What stands at a vendor becomes older on request, so that what depends on age (`stale`, the age of a key that somebody adopted) can be
seen without waiting: `POST /_sandbox/admin/{vendor}/console/age`. Nobody's clock moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keygate.kit.clock import NANOSECONDS, from_ns, rfc3339
from keygate.sandbox.admin.account import Account, missing
from keygate.sandbox.admin.books import DAY_S
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.shelf import Entry

MOST_DAYS = 3_650
_STAMPS = ("created_at", "createTime")  # as the vendors' bodies call the time of their making


def wanted(account: Account, body: dict[str, Any]) -> tuple[str, int]:
    """The thing's id at the vendor, and when it was made, as {key, days} says. ValueError: the body doesn't fit."""
    days = body.get("days")
    if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MOST_DAYS:
        raise ValueError(f"days: must be a whole number from 1 to {MOST_DAYS}")
    if not isinstance(body.get("key"), str) or not body["key"]:
        raise ValueError("key: must be an id that the vendor shows")
    return body["key"], account.now_ns() - days * DAY_S * NANOSECONDS


def age(account: Account, body: dict[str, Any]) -> dict[str, Any]:
    """The key was made then, and used then for the last time if it was used at all; what holds it is at least as old. The same for a
    container, without what it holds. 404: nothing of this id stands here."""
    id_, then_ns = wanted(account, body)
    entry = next((each for shelf in account.shelves.values() for each in shelf if _named(each, id_)), None)
    if entry is None:
        raise missing("key", id_)
    _make(entry, then_ns)
    for holder in _holders(account, entry):
        if holder.made_at_ns > then_ns:
            _make(holder, then_ns)
    return told(id_, then_ns, used=use(account, entry.grant, then_ns))


def use(account: Account, grant: IssuedSecret | None, then_ns: int) -> bool:
    """A use that there was lies there now. Returns whether there was one."""
    used = grant is not None and grant.last_used_ns.last() is not None
    if grant is not None and used:
        grant.last_used_ns.set(then_ns, at_ns=account.now_ns())
    return used


def told(id_: str, then_ns: int, *, used: bool) -> dict[str, Any]:
    return {"key": id_, "made_at": rfc3339(then_ns), "last_used_at": rfc3339(then_ns) if used else None}


def _named(entry: Entry, id_: str) -> bool:
    """By the whole id, or its last part: Azure's are paths."""
    return id_ == entry.id or entry.id.lower().endswith(f"/{id_.lower()}")


def _holders(account: Account, entry: Entry) -> Iterator[Entry]:
    """Projects, workspaces, users and service accounts: what the thing stands in, and what that stands in."""
    for id_ in (entry.parent, entry.more.get("service_account")):
        for shelf in account.shelves.values():
            holder = None if id_ is None else shelf.get(id_)
            if holder is not None:
                yield holder
                yield from _holders(account, holder)


def _make(entry: Entry, then_ns: int) -> None:
    entry.made_at_ns = then_ns
    for name in _STAMPS:
        if entry.body.get(name) is not None:
            entry.body[name] = _alike(entry.body[name], then_ns)
    if hasattr(entry.more.get("it"), "made_at_ns"):
        entry.more["it"].made_at_ns = then_ns


def _alike(shown: Any, then_ns: int) -> Any:
    """The moment as the vendor writes moments: in seconds, or as RFC 3339."""
    if isinstance(shown, int):
        return then_ns // NANOSECONDS
    text = from_ns(then_ns).isoformat(timespec="milliseconds" if "." in shown else "seconds")
    return text.replace("+00:00", "Z")
