"""How KeyGate makes, limits, reads and revokes keys at a vendor: what each vendor's provisioner promises.

A provisioner is `vendors/admin/<vendor>.py`, one object without state (`OPENAI_ADMIN = OpenAIProvisioner()`), listed in
`vendors/admin/registry.py`. It imports this file, `bills.py` (the protocols of money), `errors.py`, `bounds.py`, `http.py` and `kit`; no
area and no sibling. Five methods are required; what else a vendor can do stands in a protocol of its own below
(`isinstance(provisioner, SetsBudget)`), and what it can't is data in `facts`.

**Marks.** Everything made at a vendor carries `mark.tag` in its name (28 lower-case letters, digits and one hyphen: fits the strictest
vendor), and a key also its generation: `mark.key_name(2)`. So whatever a crash left behind is found again by `find`. A tag that is not in
our database may belong to another KeyGate: never touch what `find` was not asked for.

**Crashes.** `create` may be called again at any time, after any of its calls: it looks for each thing by name before making it. A key's
secret is told once, so the caller revokes keys of a generation whose secret is lost before it calls `create` again; `create` need not
look for a key of its generation.

**Truth.** Nothing is called enforced or revoked before `read` has shown it. `read` asks the vendor each time.

Every method raises `ProvisionerError` (see `errors.py`) and nothing else for what vendor and network do.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from keygate.kit.clock import Clock
from keygate.kit.ids import ALPHABET
from keygate.kit.secret import Secret
from keygate.vendors.admin.http import AdminHttp


@dataclass(frozen=True, slots=True)
class Mark:
    """An issued key's id (`ik_…`), and the form of it that vendors' names can hold."""

    id: str

    @property
    def tag(self) -> str:
        """`kg-` and 26 characters of a-z and 2-7: the id's 128 bits in base32 (RFC 4648), so the id can be told from it."""
        number = 0
        for digit in self.id.partition("_")[2]:
            number = number * 62 + ALPHABET.index(digit)
        return "kg-" + base64.b32encode(number.to_bytes(16, "big")).decode().rstrip("=").lower()

    def key_name(self, generation: int) -> str:
        return f"{self.tag}-{generation}"


def generation_of(name: str, mark: Mark) -> int | None:
    """The generation in a key's name at the vendor; None: not a name of this mark's keys."""
    head, _, tail = name.rpartition("-")
    return int(tail) if head == mark.tag and tail.isdecimal() and len(tail) < 6 else None


class Period(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    LIFETIME = "lifetime"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a key may do, as it was asked for (in an order) or as the vendor tells it (in a reading). None: no such rule; in a
    reading also: the vendor does not tell. A vendor's own word where it has one: `models` are the vendor's ids."""

    budget_nano: int | None = None  # nano-dollars
    budget_period: Period = Period.MONTH
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    scopes: tuple[str, ...] | None = None
    expires_at_ns: int | None = None
    untold: tuple[str, ...] = field(default=(), compare=False)  # in a reading: terms (`Term`) that the vendor refused to tell this account


class Term(StrEnum):
    """The names of `Terms`, for `ProvisionerFacts` and for what was confirmed."""

    BUDGET = "budget"
    MODELS = "models"
    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    SCOPES = "scopes"
    EXPIRY = "expiry"


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where a key stands at the vendor: the vendor's own ids, by what they name (`{"project": "proj_…", "service_account": "…"}`), and
    the key's id. Stored as JSON, shown to people; holds no secret. `key` None: the container alone."""

    place: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    mark: Mark
    generation: int  # 1, and one more with each rotation
    title: str  # for people who read the vendor's console: `priya, team search`; at most 80 printable characters; nothing relies on it
    terms: Terms
    options: Mapping[str, str] = field(default_factory=dict)  # what only this vendor knows: region, capacity; as `facts.options` lists them
    footprint: Footprint | None = None  # what is known to exist already: the container, at a rotation
    must_set: frozenset[Term] = frozenset()  # of `facts.confirms_for_some`, what this account has: a refusal of them fails the order
    fresh: bool = False  # nothing was ever tried under this mark: `create` need not look for what may be there


@dataclass(frozen=True, slots=True)
class Made:
    """`secret` is told here and nowhere else. `env`: what else a client of the vendor's SDK needs, without secrets
    (`AZURE_OPENAI_ENDPOINT`); `secret_env`: the variable that holds the secret."""

    footprint: Footprint
    secret: Secret
    secret_env: str
    env: Mapping[str, str] = field(default_factory=dict)
    expires_at_ns: int | None = None  # where the vendor ends it by itself


class Presence(StrEnum):
    LIVE = "live"
    DISABLED = "disabled"  # refused now, can be enabled again
    EXPIRED = "expired"
    GONE = "gone"  # revoked for good, or never there


@dataclass(frozen=True, slots=True)
class Reading:
    """What the vendor said of a key just now."""

    presence: Presence
    terms: Terms = field(default_factory=Terms)
    last_used_at_ns: int | None = None  # None: never, or the vendor does not tell: `facts.tells_last_use`
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Something at the vendor that carries our mark, or in an inventory anything at all. `footprint.key` None: a container."""

    footprint: Footprint
    name: str
    presence: Presence
    generation: int | None = None
    last_used_at_ns: int | None = None
    created_at_ns: int | None = None
    owner: str | None = None  # as the vendor names its owner
    hint: str | None = None  # what the vendor shows of the secret: `sk-…abcd`
    terms: Terms | None = None  # where the list tells them


@dataclass(frozen=True, slots=True)
class Right:
    """A right that the admin credential needs, in the vendor's own words. `held` None: could not be told without making something."""

    name: str
    held: bool | None
    needed_for: str  # `create projects`


@dataclass(frozen=True, slots=True)
class Verification:
    """What the least calls told of an admin credential. `account`: the vendor's name for whose it is, where it tells."""

    rights: tuple[Right, ...]
    account: str | None = None
    notes: tuple[str, ...] = ()  # `3 of 100 workspaces are left`
    identity: str | None = None  # the organisation's id at the vendor: two credentials with the same one see the same things
    also_confirms: frozenset[Term] = frozenset()  # of `facts.confirms_for_some`, what this account has

    @property
    def missing(self) -> tuple[Right, ...]:
        return tuple(right for right in self.rights if right.held is False)


@dataclass(frozen=True, slots=True)
class ProvisionerFacts:
    """Capabilities as data. What the vendor can't do is said here in `cannot`, with what KeyGate does instead."""

    vendor: str  # `openai`
    title: str
    hosts: Mapping[str, str]  # name → address; the first is the main one; see `Desk.base`
    admin_key_env: tuple[str, ...]  # variables under which an admin credential is looked for
    admin_key_form: str  # for people: what to enter as the admin key
    confirms: frozenset[Term]  # terms that the vendor enforces and `read` shows
    tells_last_use: bool
    revoke_delay_seconds: int | None  # how long a revoked key may still work; None: the vendor does not say
    container: str  # what holds a key: `project`, `workspace`; empty: nothing
    ceiling: int | None  # how many containers the vendor allows by default
    calls_per_minute: int  # that KeyGate allows itself
    base_url_env: str | None = None  # how the vendor's SDK is pointed at another address
    settings: Mapping[str, str] = field(default_factory=dict)  # name → what it is, of `Desk.settings`; required ones end in `(required)`
    options: Mapping[str, str] = field(default_factory=dict)  # name → what it is, of `Order.options`
    cannot: Mapping[str, str] = field(default_factory=dict)  # what → what KeyGate does instead
    rights: Mapping[str, str] = field(default_factory=dict)  # least privilege: right → what it is needed for
    confirms_for_some: Mapping[Term, str] = field(default_factory=dict)  # terms that it confirms for some accounts → which; see `verify`
    takes: frozenset[Term] = frozenset()  # terms that the vendor takes and enforces, but no API of its shows again
    budget_per_key: bool = False  # a budget counts what the key itself has spent: the next generation begins with a whole one
    adopts: bool = False  # keys made by hand can be entered: `revoke` ends such a key, given its container alone, and nothing else
    lists_keys: bool = True  # False: an inventory tells containers, each with the keys in it as one
    adopt_only: bool = False  # KeyGate makes no keys there, whether its API would or not: keys made by hand are entered
    max_keys_per_container: int | None = None
    last_use_delay_seconds: int | None = None  # how late `last_used_at_ns` is told; None: the vendor does not say
    needs: Mapping[Term, str] = field(default_factory=dict)  # terms that every order must name → what to name
    sources: Mapping[str, str] = field(default_factory=dict)  # fact → source and date

    def of_account(self, also_confirms: frozenset[Term]) -> ProvisionerFacts:
        """What is true for an account that has these of `confirms_for_some`."""
        more = also_confirms & self.confirms_for_some.keys()
        cannot = {what: instead for what, instead in self.cannot.items() if what not in more}
        return replace(self, confirms=self.confirms | more, cannot=cannot) if more else self


class Issuer(Protocol):
    """KeyGate as an issuer of identity tokens, for vendors that trade them for tokens of their own (RFC 7523)."""

    @property
    def url(self) -> str:
        """`iss`: KeyGate's public address."""

    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517), for vendors that take them inline."""

    def sign(self, claims: Mapping[str, Any]) -> Secret:
        """A JWT, ES256 (RFC 7518). `iss` and `iat` are added."""


MakeToken = Callable[[], Awaitable[tuple[Secret, int]]]


class Desk(Protocol):
    """What a provisioner works with: one admin credential at one vendor, made by the caller. All time, HTTP and secrets come from here."""

    @property
    def admin(self) -> Secret:
        """The admin credential, as it was entered."""

    @property
    def settings(self) -> Mapping[str, str]:
        """As `facts.settings` lists them: organization, region, …"""

    @property
    def http(self) -> AdminHttp: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def issuer(self) -> Issuer: ...

    def base(self, name: str | None = None) -> str:
        """The address of a host of `facts.hosts`, without a slash at the end. The setting `base_url` stands in for the main host (None),
        and `<base_url>/<name>` for each other; the setting `<name>_url` for that one alone."""

    async def token(self, name: str, make: MakeToken, *, refused: Secret | None = None) -> Secret:
        """A short-lived token of the vendor's sign-in, kept until a minute before its end; `make` gives it and its end in nanoseconds.
        `refused`: one that the vendor does not take any more, which is not given again. Calls with such a token name `afresh` in
        `AdminHttp.call`."""


def bearer(token: Secret) -> dict[str, str]:
    """The header of a call with a token (RFC 6750)."""
    return {"authorization": f"Bearer {token.open()}"}


class Provisioner(Protocol):
    @property
    def facts(self) -> ProvisionerFacts: ...

    async def verify(self, desk: Desk) -> Verification:
        """Whose credential it is, which rights it has and what its account can beside others, each by the least call that proves it; makes
        nothing. Raises `AdminKeyRefused` for one that the vendor does not know."""

    async def create(self, desk: Desk, order: Order) -> Made:
        """Container (found or made), then the terms, then the key: a key never exists without its limits. Also the next generation in
        the same container, where the provisioner `AddsKey`. Terms outside of `facts.confirms` are left to KeyGate, those of
        `facts.confirms_for_some` where the vendor refuses them and the order does not insist. Idempotent but for the key itself."""

    async def find(self, desk: Desk, mark: Mark) -> tuple[Found, ...]:
        """Everything at the vendor that carries the mark and is not gone: the container, and each key with its generation."""

    async def read(self, desk: Desk, footprint: Footprint) -> Reading:
        """The key (with `key` None: the container) as the vendor has it now. Absent or archived: `Presence.GONE`, not an error."""

    async def revoke(self, desk: Desk, footprint: Footprint) -> None:
        """Ends this key for good; others in the container go on. One that is gone already is no error. The caller reads back."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for, before anything is made: `options` as `facts.options` lists them, `settings` of the account."""

    terms: Terms
    options: Mapping[str, str]
    settings: Mapping[str, str]
    now_ns: int

    @classmethod
    def by(cls, order: Order, desk: Desk) -> Wanted:
        return cls(order.terms, order.options, desk.settings, desk.clock.now_ns())


@runtime_checkable
class Checks(Protocol):
    def check(self, wanted: Wanted) -> None:
        """Raises `Unfit` for terms and options that this vendor can't keep, whatever the credential: bounds, periods, units. Pure: called
        before anything is recorded or made, and again by `create`, which needn't be. What only the vendor knows (a model that is not
        there, an organization's own maximum) is left to it."""


@runtime_checkable
class AddsKey(Protocol):
    """The container can hold the next key beside the former: `create` with the next generation rotates with overlap."""

    adds_key: bool


@runtime_checkable
class Retires(Protocol):
    async def retire(self, desk: Desk, footprint: Footprint) -> None:
        """Ends the container with everything in it (archives the project, deletes the account). Idempotent."""


@runtime_checkable
class SetsBudget(Protocol):
    async def set_budget(self, desk: Desk, footprint: Footprint, amount_nano: int | None, period: Period) -> None:
        """None removes it. Raises `Rejected` for a period that the vendor does not have."""


@runtime_checkable
class SetsLimits(Protocol):
    async def set_limits(self, desk: Desk, footprint: Footprint, terms: Terms) -> None:
        """Requests and tokens per minute of `terms`; None leaves the vendor's own."""


@runtime_checkable
class SetsModels(Protocol):
    async def set_models(self, desk: Desk, footprint: Footprint, models: tuple[str, ...] | None) -> None:
        """None: all."""


@runtime_checkable
class SetsExpiry(Protocol):
    async def set_expiry(self, desk: Desk, footprint: Footprint, expires_at_ns: int | None) -> None: ...


@runtime_checkable
class SetsTerms(Protocol):
    async def set_terms(self, desk: Desk, footprint: Footprint, terms: Terms) -> None:
        """All terms at once, whatever stands there now: for vendors where they are one document, which somebody may have rewritten."""


@runtime_checkable
class Disables(Protocol):
    async def set_enabled(self, desk: Desk, footprint: Footprint, *, enabled: bool) -> None:
        """The kill switch that can be taken back."""


@runtime_checkable
class Renames(Protocol):
    """Only where a key has a name of its own: what holds a key that somebody made by hand is not renamed."""

    async def rename(self, desk: Desk, footprint: Footprint, name: str) -> None: ...


@runtime_checkable
class Mints(Protocol):
    async def mint(self, desk: Desk, footprint: Footprint, *, expires_at_ns: int | None) -> Made:
        """A fresh short-lived token of a key that exists, where the vendor has no lasting secrets. Neither it nor what it is traded for
        outlives the key's end `expires_at_ns`; raises `Unfit` where that is too near for any."""


@dataclass(frozen=True, slots=True)
class Census:
    """How many containers stand at the vendor now, ours or not, and how many it allows: `told` by its API just now, else as documented, if
    it is. `place`: where the ceiling counts (a region, a project); empty: in the whole account. `remedy`: what helps where it is
    reached."""

    standing: int
    ceiling: int | None
    told: bool = False
    place: str = ""
    remedy: str = "end some there, or have the vendor raise the ceiling"


@runtime_checkable
class Counts(Protocol):
    async def count(self, desk: Desk, options: Mapping[str, str]) -> Census:
        """By reads only, and few of them: asked before an order changes anything. `options` are the order's."""


@runtime_checkable
class Probes(Protocol):
    async def answers(self, desk: Desk, footprint: Footprint, secret: Secret, env: Mapping[str, str]) -> bool | None:
        """Whether the vendor takes the key now: asked with the key itself, by a call that costs nothing (`desk.http.ask`).
        False only for a key that the vendor does not know (yet, or any more); a key that lacks a right or is limited is known. None: the
        answer tells neither. `env` is what was handed out beside the secret (`Made.env`)."""


@runtime_checkable
class Witnesses(Protocol):
    async def witness(self, desk: Desk, footprint: Footprint) -> Secret:
        """Where keys are traded for tokens that outlive them: a fresh one of those, got just before the key is ended. `answers` asks with
        it, so that the key is not called dead before what a holder may have got for it is."""

    def is_witness(self, secret: Secret) -> bool:
        """Whether this is such a token, and not the key that is traded for it."""


@runtime_checkable
class Lists(Protocol):
    async def list_page(self, desk: Desk, cursor: str | None) -> tuple[tuple[Found, ...], str | None]:
        """One page of everything there is at the vendor, ours or not, and the cursor of the next."""
