"""A sandbox that writes everything down, and, when the test is over, is read back from its file: what comes is what was there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from keygate.sandbox import SandboxServer, SandboxState, Store
from keygate.sandbox.admin import Account, IssuedSecret
from keygate.sandbox.admin.shelf import Eventual, Shelf


@contextmanager
def kept_sandbox(folder: Path) -> Iterator[SandboxServer]:
    file = folder / "sandbox.db"
    store = Store(file)
    with SandboxServer(store=store) as server:
        yield server
        server.state.keep()  # also what the test itself changed, past the APIs
    store.close()
    again = Store(file)
    found = differences(server.state, SandboxState(store=again))
    assert not found, "\n".join(found)
    again.close()


def differences(one: SandboxState, other: SandboxState) -> list[str]:
    """Where the two states differ, in value or in kind."""
    return [
        *_unlike("keys", one.keys, other.keys),
        *_unlike("own", one.own, other.own),
        *_unlike("behaviour", one.behaviour, other.behaviour),
        *_unlike("models", one.models, other.models),
        *_unlike("clock", one.admin.clock.ahead_ns, other.admin.clock.ahead_ns),
        *(
            unlike
            for vendor, account in one.admin.accounts().items()
            for unlike in _unlike(str(vendor), _parts(one, account), _parts(other, other.admin[vendor]))
        ),
    ]


def _parts(state: SandboxState, account: Account) -> dict[str, Any]:
    books = account.books
    return {
        "settings": account.settings,
        "faults": account.faults,
        "credentials": account.credentials,
        "shelves": {name: shelf for name, shelf in sorted(account.shelves.items()) if list(shelf.everything())},
        "cells": sorted(books.cells(), key=str),
        "months": {month: pico for month, pico in sorted(books._months.items(), key=str) if pico},
        **{name: things for name, (_, things) in state.admin.api(account.vendor).behind(account).items()},
    }


def _unlike(where: str, one: Any, other: Any) -> list[str]:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if type(one) is not type(other) and {type(one), type(other)} != {int, float}:
        return [f"{where}: {type(one).__name__} became {type(other).__name__}"]
    parts = _inside(one), _inside(other)
    if parts[0] is None or parts[1] is None:
        return [] if one == other else [f"{where}: {one!r} became {other!r}"]
    if list(parts[0]) != list(parts[1]):
        return [f"{where}: {list(parts[0])} became {list(parts[1])}"]
    return [unlike for name in parts[0] for unlike in _unlike(f"{where}/{name}", parts[0][name], parts[1][name])]


def _inside(value: Any) -> dict[Any, Any] | None:
    match value:
        case dict():
            return value
        case Shelf():
            return {entry.id: entry for entry in value.everything()}
        case Eventual():
            return {"changes": value.changes()}
        case IssuedSecret():
            return {name: getattr(value, name) for name in ("value", "id", "container", "expires_at_ns", "usable", "last_used_ns")}
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value) if not each.name.startswith("_")}
    return None
