"""What vendors bill, as reports over it look. Frozen values, and the port that `GET /usage` asks; implemented by `vendor_spend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from keygate.identities import Actor
from keygate.ledger.reports import MAX_ROWS, Selection


class Source(StrEnum):
    GATEWAY = "gateway"  # requests that went through KeyGate, by our own ledger
    VENDOR = "vendor"  # what vendors bill: issued keys, and whatever else the account was used for
    ALL = "all"  # requests that went through KeyGate, and issued keys by the vendors' bills


@dataclass(frozen=True, slots=True)
class BilledSum:
    """One line of a report. None: not everything in the sum is told by its vendor."""

    group: Mapping[str, str | int | None]
    requests: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_nano: int
    in_doubt_nano: int = 0
    restated_nano: int = 0  # part of the cost that vendors told only later


@dataclass(frozen=True, slots=True)
class Bill:
    """How well an account's bill is known: what it says ends at `as_of_ns`, less the vendor's own delay."""

    account_id: str
    account: str
    vendor: str
    reported: bool  # False: this bill is not read; `why_not` says why
    why_not: str | None  # for people, with what to do for it
    means: str | None  # for people: what a number is, and whose
    as_of_ns: int | None  # None: never read
    delay_seconds: int | None  # None: the vendor does not say
    restated_days: int | None
    unknown_nano: int  # of the range: billed to keys that KeyGate did not make; what the gateway's own credentials used is in it
    error: str | None


@dataclass(frozen=True, slots=True)
class BilledReport:
    from_ns: int
    to_ns: int
    rows: tuple[BilledSum, ...]
    bills: tuple[Bill, ...]
    truncated: bool


class VendorUsage(Protocol):
    async def usage(
        self, actor: Actor, selection: Selection, group_by: Sequence[str], *, source: Source, most: int = MAX_ROWS
    ) -> BilledReport:
        """At most `most` rows. Raises `InvalidInput` for groups and filters that vendors' bills do not know."""

    async def issued(self, selection: Selection) -> int | None:
        """What vendors have billed for issued keys, in nano-dollars. None: bills can't tell it for this selection."""
