"""The words of the admin side: how a vendor's account behaves, who may call it, what goes wrong on request. Values; no sockets here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from keygate.kit.clock import NANOSECONDS, Clock


@dataclass(frozen=True, slots=True)
class Settings:
    """How one vendor's account behaves. Times are seconds; zero means at once.

    `ceilings` are the most of a container that may stand at a time, by the name of its shelf (`projects`, `workspaces`); each admin API
    brings the vendor's own numbers.
    """

    new_key_s: float = 0  # a new key is unknown to the inference side
    revoked_key_s: float = 0  # a revoked or disabled key still works
    limits_s: float = 0  # a changed limit is not yet enforced
    operations_s: float = 0  # a long-running call (Azure) is not done yet
    lists_s: float = 0  # lists don't show what is new, and still show what is gone
    last_used_s: float = 0  # a use doesn't show yet in the key's `last used`
    costs_late_s: float = 0  # usage and costs don't show yet
    costs_first_share: float = 1  # what a cost shows at first …
    costs_restated_s: float = 0  # … and how much later it is restated to what it really is
    requests_per_minute: int | None = None  # of each admin credential; more is a 429
    ceilings: Mapping[str, int] = field(default_factory=dict)

    def with_changes(self, changes: Mapping[str, Any]) -> Settings:
        """A copy with these members; ceilings are merged. ValueError names what doesn't fit."""
        given = dict(changes)
        if "ceilings" in given and isinstance(given["ceilings"], Mapping):
            given["ceilings"] = {**self.ceilings, **given["ceilings"]}
        unknown = given.keys() - _SETTINGS
        if unknown:
            raise ValueError(f"{min(unknown)}: no such setting; there are {', '.join(sorted(_SETTINGS))}")
        try:
            settings = msgspec.convert({**asdict(self), **given}, Settings)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
        if settings.costs_first_share > 1 or any(value < 0 for value in asdict(settings).values() if isinstance(value, int | float)):
            raise ValueError("times are not negative, and a share is at most 1")
        return settings

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_SETTINGS = frozenset(Settings.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Credential:
    """An admin credential. `rights` None: all of them; else the rights that it has, by the names that the vendor's refusals use."""

    value: str = field(repr=False)
    name: str = "admin"
    rights: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    kind: str = "admin_key"  # vendors that tell admin keys from other bearers: Anthropic's `oauth`

    def may(self, right: str) -> bool:
        return right not in self.without and (self.rights is None or right in self.rights)


class FaultKind(StrEnum):
    STATUS = "status"  # answers `status` with the vendor's error body
    RESET = "reset"  # the connection is reset before the first byte
    STALL = "stall"  # no byte is ever sent: the caller's time-out
    GARBAGE = "garbage"  # bytes that are not HTTP


@dataclass(slots=True)
class AdminFault:
    """What goes wrong with some calls of an operation (`projects.create`, `*.delete`, `*`): skips `after` of them, then strikes `calls`
    times (None: for ever). `about`: only calls that name this thing, by its id at the vendor, in path, query or body. `performed`: the
    vendor does what was asked first, and fails only then: a time-out after success."""

    operation: str = "*"
    kind: FaultKind = FaultKind.STATUS
    status: int = 500
    message: str = "The sandbox was asked to fail."
    code: str | None = None
    retry_after: str | None = None
    performed: bool = False
    after: int = 0
    calls: int | None = 1
    about: str | None = None

    def strikes(self, operation: str, told: str) -> bool:
        """Whether this call is hit, given all that it told; counts it."""
        if not fnmatchcase(operation, self.operation) or self.calls == 0 or (self.about is not None and self.about not in told):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.calls is not None:
            self.calls -= 1
        return True

    def taken(self) -> AdminFault:
        """What struck, apart from the plan that goes on counting."""
        return replace(self)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class AdminCall:
    """One call that an admin API saw."""

    method: str
    path: str
    at_ns: int
    operation: str = ""  # empty: no such path
    credential: str | None = None  # its name, never its value
    status: int = 0  # 0: none was sent
    fault: FaultKind | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class VendorClock:
    """The vendor's time: this machine's, moved forward on request, so that leases end and bills arrive without waiting."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ahead_ns = 0

    def now_ns(self) -> int:
        return self._clock.now_ns() + self.ahead_ns

    def monotonic_ns(self) -> int:
        return self._clock.monotonic_ns() + self.ahead_ns

    def now_s(self) -> int:
        return self.now_ns() // NANOSECONDS

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("time goes forward only")
        self.ahead_ns += round(seconds * NANOSECONDS)
