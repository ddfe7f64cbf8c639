"""What the engine of money and limits needs from the database. Implemented beside `repository.py`, wired in `processes/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from keygate.ledger.journal.records import Position


class WindowSpend(NamedTuple):
    """What the fold has posted to one window of a budget (one bucket of a rolling one)."""

    window_start_ns: int
    spent_nano: int  # in-doubt charges included
    in_doubt_nano: int


class BudgetQuery(NamedTuple):
    budget_id: str
    since_ns: int  # windows that start at or after this instant


class LimitUse(NamedTuple):
    """What requests that began in [`bucket_ns`, `bucket_ns` + 5 minutes) counted towards a limit per day."""

    bucket_ns: int
    amount: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """One consistent snapshot: all of it as of `position` in the journal."""

    position: Position
    budgets: Mapping[str, Sequence[WindowSpend]]
    limits: Mapping[str, Sequence[LimitUse]]


class SpendSource(Protocol):
    async def load(self, budgets: Sequence[BudgetQuery], limit_ids: Sequence[str], limits_since_ns: int) -> Loaded:
        """What stands in the database. Ids without rows may be left out. Raises `Unavailable` when it can't be asked."""


class SliceSource(Protocol):
    """Durable permission of this node to spend. One node alone is granted the whole of every budget."""

    def granted(self, budget_id: str, amount_nano: int) -> int:
        """How much of a budget of `amount_nano` this node may have spent and held at once; 0 when the grant is lost."""


class PriceRow(NamedTuple):
    """A price of the operator's own. Rates are nano-dollars per million tokens (`web_search`: per thousand searches)."""

    vendor: str
    model: str  # pattern with `*` on the bare model name
    rates: Mapping[
        str, int
    ]  # `input`, `output`, `cache_read`, `cache_write`, `cache_write_1h`, `input_audio`, `output_audio`, `web_search`
    id: str = ""
    organization_id: str | None = None  # None: every organisation


class PriceOverrides(Protocol):
    def rows(self) -> Sequence[PriceRow]:
        """The operator's own prices, the first match wins. Called when the price book is (re)loaded."""
