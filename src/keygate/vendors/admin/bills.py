"""What a vendor tells of money: the protocols of provisioners that read its bill, beside those of `interface.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from keygate.vendors.admin.interface import Desk, Disables, Footprint

MISSHAPEN = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)
"""What reading an answer of another shape than known raises."""


@dataclass(frozen=True, slots=True)
class SpendRow:
    """What one key or container cost in one bucket of time. The same `(footprint, start_ns, item)` told again replaces the former: vendors
    restate. `amount_nano` is what the vendor bills, in nano-dollars."""

    place: Mapping[str, str]
    key: str | None
    start_ns: int
    end_ns: int
    item: str  # model or line item, as the vendor names it
    amount_nano: int
    requests: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class SpendFacts:
    """What an account's bill tells, and how it is to be read."""

    bucket_seconds: int
    delay_seconds: int | None  # how late numbers come; None: the vendor does not say
    restated_days: int  # how far back numbers may still change: read again each time
    per_key: bool  # False: by what holds a key
    means: str  # for people: what a number is, and whose
    every_seconds: int | None = None  # between two readings; None: as the delay is, within bounds
    window_days: int = 7  # read at a time
    reach_days: int | None = None  # days before this are told no more; None: not known
    forgets_keys: bool = False  # keys that are gone are told no more: what was told of a day stays, though it isn't told again


@runtime_checkable
class ReportsSpend(Protocol):
    @property
    def spend_facts(self) -> SpendFacts: ...

    async def spend_page(self, desk: Desk, from_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:
        """A page of what `[from_ns, until_ns)` cost, and the cursor of the next; `from_ns` is a UTC midnight. Each row is told once in all
        pages. A currency other than USD is refused (`Rejected`): rates are not ours to choose."""


@dataclass(frozen=True, slots=True)
class ByKey:
    """Whether a bill can be told by key. `since_ns` None: not now, and `why_not` says what to do for it; else of days that begin then or
    later."""

    since_ns: int | None
    why_not: str | None = None


@runtime_checkable
class TellsByKey(Protocol):
    """`ReportsSpend` whose bill names keys only once somebody has set that up at the vendor."""

    async def by_key(self, desk: Desk) -> ByKey:
        """Asked after each reading. Raises `ProvisionerError` where it can't be seen."""


@runtime_checkable
class TellsLastSpend(Disables, Protocol):
    """`ReportsSpend` whose bill tells of a key that is gone no more, or not of the running day: so what a key cost is read once more when
    it is disabled already, and then it is ended. Rows are those of `spend_page`."""

    async def last_spend(self, desk: Desk, footprint: Footprint) -> tuple[SpendRow, ...]:
        """What this key cost on each day that the vendor still tells, the running one among them; `requests` 0: the vendor says that it was
        never used. Raises `NotFound` for a key that is gone, `ToldInPart` where some days can't be read."""

    async def spend_of_gone(self, desk: Desk, key: str, from_ns: int, until_ns: int) -> tuple[SpendRow, ...]:
        """What the vendor tells of a key that is gone, in complete days of `[from_ns, until_ns)`. None: it tells nothing, which is no proof
        that there was nothing."""


@runtime_checkable
class ReportsSpendByChoice(Protocol):
    """`ReportsSpend` only for accounts that are set up for it."""

    def spend_off(self, settings: Mapping[str, str]) -> str | None:
        """Why the bill of an account with these settings is not read, and what to do for it; None: it is."""


def spend_of(provisioner: object, settings: Mapping[str, str]) -> SpendFacts | None:
    """None: the bill of an account with these settings is not read; `why_no_spend` says why."""
    return provisioner.spend_facts if isinstance(provisioner, ReportsSpend) and why_no_spend(provisioner, settings) is None else None


def why_no_spend(provisioner: object, settings: Mapping[str, str]) -> str | None:
    """None: the bill is read."""
    if not isinstance(provisioner, ReportsSpend):
        return "KeyGate reads no costs of this vendor; those of a virtual key are counted by KeyGate itself"
    return provisioner.spend_off(settings) if isinstance(provisioner, ReportsSpendByChoice) else None
