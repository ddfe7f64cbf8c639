"""What the sandbox writes down, and how it comes back: everything that its admin APIs made, keys, books, and how it was set up.

Not kept: the calls that were seen, what was served, and the requests of the last minute that rate limits count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.books import Cell
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.model import AdminFault, Credential, Settings
from keygate.sandbox.admin.shelf import Entry, Eventual, Shelf
from keygate.sandbox.catalogue import MODELS, Model
from keygate.sandbox.model import Behaviour, FaultPlan, Key, KeyStatus, Vendor
from keygate.sandbox.store import StateRefusedError, Store

if TYPE_CHECKING:
    from keygate.sandbox.state import SandboxState

_EVENTUAL = "~"  # {"~": [[at, value], …]}
_ITSELF = "sandbox"
Shelves = Iterator[tuple[str, Iterable[tuple[str, bytes]], bool]]


def _hook(value: Any) -> Any:
    match value:
        case Eventual():
            return {_EVENTUAL: value.changes()}
        case IssuedSecret():
            return value.value
    raise NotImplementedError(type(value))  # as msgspec's hooks say that a type is not theirs


_encode = msgspec.json.Encoder(enc_hook=_hook).encode
_decode = msgspec.json.Decoder().decode


class Kept:
    """A state and the file that it is kept in. `load` once; then each method writes what has changed since, and returns when it is in the
    file."""

    def __init__(self, state: SandboxState, store: Store) -> None:
        self._state = state
        self._store = store

    # ---- writing

    def everything(self) -> None:
        """Also what was changed in the same process, past the APIs."""
        accounts = self._state.admin.accounts().values()
        self._store.write([*self._itself(), *(shelf for account in accounts for shelf in self._account(account))])

    def account(self, account: Account) -> None:
        self._store.write(self._account(account))

    def cell(self, account: Account, cell: Cell) -> None:
        self._store.write([(f"{account.vendor}:cells", [_cell(cell)], False)])

    def key(self, key: Key) -> None:
        """After a call with it: its last use, its planned faults."""
        self._store.write([(f"{key.vendor}:keys", [(key.value, _encode(_key(key)))], False)])

    def _itself(self) -> Shelves:
        state = self._state
        told = {"ahead_ns": state.admin.clock.ahead_ns, "own": state.own, "behaviour": state.behaviour.as_dict()}
        yield _ITSELF, [(name, _encode(value)) for name, value in told.items()], False
        yield f"{_ITSELF}:models", [(name, _encode(each)) for name, each in state.models.items() if MODELS.get(name) != each], True

    def _account(self, account: Account) -> Shelves:
        vendor = account.vendor
        told = {"settings": account.settings, "faults": account.faults}
        yield f"{vendor}:account", [(name, _encode(value)) for name, value in told.items()], True
        yield f"{vendor}:credentials", [(each.value, _encode(each)) for each in account.credentials.values()], True
        yield f"{vendor}:keys", [(key.value, _encode(_key(key))) for key in self._state.keys.values() if key.vendor is vendor], True
        for name, shelf in account.shelves.items():
            yield f"{vendor}/{name}", [(entry.id, _encode(entry)) for entry in shelf.everything()], True
        for name, (_, things) in self._state.admin.api(vendor).behind(account).items():
            yield f"{vendor}|{name}", [(id_, _encode(each)) for id_, each in things.items()], True

    # ---- reading

    def load(self) -> None:
        """What the file holds takes the place of what stands at a fresh vendor; an empty file takes that. Raises `StateRefusedError`."""
        try:
            self._load()
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
            message = f"the sandbox's state {self._store.path} can't be read ({error}); delete it to begin afresh"
            raise StateRefusedError(message) from None
        self.everything()

    def _load(self) -> None:
        state, itself = self._state, {name: _decode(value) for name, value in self._store.read(_ITSELF)}
        if not itself:
            return
        state.admin.clock.ahead_ns = int(itself["ahead_ns"])
        state.own.update(itself["own"])
        state.behaviour = Behaviour().with_settings(itself["behaviour"])
        state.models.update({name: msgspec.json.decode(value, type=Model) for name, value in self._store.read(f"{_ITSELF}:models")})
        for account in state.admin.accounts().values():
            told = dict(self._store.read(f"{account.vendor}:account"))
            if told:  # else a vendor that this version has and the one that wrote the file had not
                self._load_account(account, told)

    def _load_account(self, account: Account, told: Mapping[str, bytes]) -> None:
        vendor, read = account.vendor, self._store.read
        account.settings = msgspec.json.decode(told["settings"], type=Settings)
        account.faults = msgspec.json.decode(told["faults"], type=list[AdminFault])
        account.credentials = {id_: msgspec.json.decode(value, type=Credential) for id_, value in read(f"{vendor}:credentials")}
        for _, value in read(f"{vendor}:keys"):
            key = _key_of(account, _decode(value))
            self._state.keys[key.value] = key
        for _, value in read(f"{vendor}:cells"):
            account.books.restore(msgspec.json.decode(value, type=Cell))
        api = self._state.admin.api(vendor)
        account.shelves.clear()
        for name in self._store.shelves(f"{vendor}/"):
            shelf = account.shelves[name.partition("/")[2]] = Shelf()
            kind = api.kinds.get(name.partition("/")[2])
            for _, value in read(name):
                shelf.add(self._entry(_decode(value), kind))
        for name, (kind, things) in api.behind(account).items():
            things.clear()
            things.update({id_: self._typed(_decode(value), kind) for id_, value in read(f"{vendor}|{name}")})

    def _entry(self, row: dict[str, Any], kind: type | None) -> Entry:
        more = {name: _revived(value) for name, value in row["more"].items()}
        if kind is not None:
            more["it"] = self._typed(row["more"]["it"], kind)
        grant = None if row["grant"] is None else self._secret(row["grant"])
        return Entry(**{**row, "grant": grant, "more": more})

    def _typed(self, value: Any, kind: Any) -> Any:
        return msgspec.convert(value, kind, dec_hook=self._typed_hook)

    def _typed_hook(self, kind: Any, value: Any) -> Any:
        if kind is IssuedSecret:
            return self._secret(value)
        if get_origin(kind) is Eventual:
            return Eventual.of([(at, self._typed(each, get_args(kind)[0])) for at, each in value[_EVENTUAL]])
        raise NotImplementedError(kind)  # as msgspec's hooks say that a type is not theirs

    def _secret(self, value: str) -> IssuedSecret:
        grant = self._state.keys[value].grant
        if grant is None:
            raise ValueError("a key without its grant")
        return grant


def _revived(value: Any) -> Any:
    """`more` of an entry is of any kind: its eventual values are known by their mark."""
    match value:
        case {"~": list(changes), **rest} if not rest:
            return Eventual.of([(at, each) for at, each in changes])
        case dict():
            return {name: _revived(each) for name, each in value.items()}
    return value


def _cell(cell: Cell) -> tuple[str, bytes]:
    return _encode([cell.minute_s, cell.key_id, cell.container, cell.model, cell.line]).decode(), _encode(cell)


def _key(key: Key) -> dict[str, Any]:
    grant = key.grant
    return {
        "value": key.value,
        "vendor": key.vendor,
        "status": key.status,
        "settings": key.settings,
        "plans": [{name: getattr(plan, name) for name in ("settings", "calls", "after", "probability", "seed")} for plan in key.plans],
        "grant": None
        if grant is None
        else {
            "id": grant.id,
            "container": grant.container,
            "expires_at_ns": grant.expires_at_ns,
            "usable": grant.usable.changes(),
            "last_used_ns": grant.last_used_ns.changes(),
        },
    }


def _key_of(account: Account, row: dict[str, Any]) -> Key:
    key = Key(row["value"], Vendor(row["vendor"]), KeyStatus(row["status"]), row["settings"], [FaultPlan(**plan) for plan in row["plans"]])
    told = row["grant"]
    if told is not None:
        key.grant = IssuedSecret(account, key.value, id_=told["id"], container=told["container"], expires_at_ns=told["expires_at_ns"])
        key.grant.usable = Eventual.of([(at, bool(each)) for at, each in told["usable"]])
        key.grant.last_used_ns = Eventual.of([(at, each) for at, each in told["last_used_ns"]])
    return key
