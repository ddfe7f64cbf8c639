"""Bulk orders and their rows. Frozen values, pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from keygate.issued_keys.life import ENDED, State
from keygate.issued_keys.model import IssuedKey, Room
from keygate.vendors.admin import Terms

MAX_ROWS = 5_000
WINDOW = 16  # keys of one order at work at the same time
CLAIM_NS = 60_000_000_000  # after that a row whose process ended in the middle is taken up again
CALLS_A_KEY = 8  # about, at most vendors: container, identity, key, terms, and reading them back

HALTING = frozenset({"ceiling_reached", "missing_right", "admin_key_refused"})
"""What one key failed of and every other one would: the order stops there, so that a thousand don't fail one by one."""


class OrderState(StrEnum):
    RUNNING = "running"
    HALTED = "halted"  # `note` says why; goes on once told to
    DONE = "done"  # every row has an end
    CANCELLED = "cancelled"  # no further keys are made; those that are stay


class RowState(StrEnum):
    WAITING = "waiting"
    ORDERED = "ordered"  # being made
    MADE = "made"
    FAILED = "failed"
    LEFT_OUT = "left_out"  # on purpose: the holder has a key already, there was no room, the order was cancelled


@dataclass(frozen=True, slots=True)
class Line:
    """One key that is wanted. Of its terms only what differs from the order's."""

    line: int  # as people count: in a CSV the header is line 1
    email: str | None = None
    developer_id: str | None = None
    name: str | None = None  # of a developer who is not known yet
    team: str | None = None  # id or name, as above
    terms: Terms = field(default_factory=Terms)


@dataclass(frozen=True, slots=True)
class BulkDraft:
    vendor: str
    account: str | None
    lines: Sequence[Line]
    team_id: str | None = None  # every active developer of it, beside `lines`
    terms: Terms = field(default_factory=Terms)
    options: Mapping[str, str] = field(default_factory=dict)
    rotate_every_days: int | None = None
    rotate_overlap_seconds: int | None = None
    allow_unenforced: bool = False
    create_developers: bool = False
    batch: str | None = None  # None: whoever has a key in the account is left out; else whoever has one of this batch
    fit: bool = False  # as many as there is room for
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    order_id: str
    line: int
    organization_id: str
    state: RowState
    email: str
    name: str
    terms: Terms
    developer_id: str | None = None  # None: to be made
    team_id: str | None = None
    attempt: int = 1
    key_id: str | None = None
    claimed_at_ns: int | None = None
    claimed_by: str | None = None
    error_code: str | None = None
    error: str | None = None

    @property
    def request_id(self) -> str:
        """Under which the key is ordered: asking twice makes one key."""
        return f"{self.order_id}-{self.line}-{self.attempt}"


@dataclass(frozen=True, slots=True)
class Order:
    id: str  # bo_…
    organization_id: str
    vendor: str
    account_id: str
    state: OrderState
    total: int
    options: Mapping[str, str]
    allow_unenforced: bool
    created_at_ns: int
    created_by: str
    created_by_kind: str
    rotate_every_days: int | None = None
    rotate_overlap_seconds: int | None = None
    batch: str | None = None
    busy: bool = True  # rows may be at work
    note: str | None = None
    request_id: str | None = None
    updated_at_ns: int = 0
    ended_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that can't be ordered as it stands."""

    line: int
    detail: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What an order would do, told before anything is changed at the vendor."""

    account_id: str
    vendor: str
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    room: Room
    calls_per_minute: int

    @property
    def wanted(self) -> int:
        return sum(row.state is RowState.WAITING for row in self.rows)

    @property
    def left(self) -> int | None:
        """None: no ceiling is known."""
        return self.room.left

    @property
    def fits(self) -> bool:
        return self.left is None or self.wanted <= self.left

    @property
    def minutes(self) -> int:
        """About how long the vendor's pace makes it."""
        return -(-self.wanted * CALLS_A_KEY // self.calls_per_minute)

    def cut(self) -> Plan:
        """With the rows for which there is no room left out."""
        left, rows = self.left, []
        for row in self.rows:
            if row.state is RowState.WAITING and left is not None:
                if left == 0:
                    rows.append(replace(row, state=RowState.LEFT_OUT, error=f"no room: {self.room.told}"))
                    continue
                left -= 1
            rows.append(row)
        return replace(self, rows=tuple(rows))


def settled(row: Row, key: IssuedKey | None) -> Row | None:
    """The row as its key's state makes it; None: the key is still being made."""
    if key is None:
        return replace(row, state=RowState.FAILED, error_code="not_found", error="the key is not there any more")
    if key.activated_at_ns is not None:
        return replace(row, state=RowState.MADE, error_code=None, error=None)
    if key.state in ENDED or key.state in {State.REVOKING, State.IRREVOCABLE}:
        detail = key.error or (f"told to end: {key.end_reason}" if key.end_reason else f"the key is {key.state}")
        return replace(row, state=RowState.FAILED, error_code=key.error_code or "ended", error=detail)
    return None


def merged(terms: Terms, line: Line) -> Terms:
    """The order's terms with the line's own over them."""
    own = {
        name: value for name in Terms.__dataclass_fields__ if name != "budget_period" and (value := getattr(line.terms, name)) is not None
    }
    if line.terms.budget_nano is not None:
        own["budget_period"] = line.terms.budget_period
    return replace(terms, **own)
