"""The vendor's books: what each key used and what it cost, to the pico-dollar; reported late, and at first too low, where it is set so.

A cell is one minute of one key and model. It shows in reports once `costs_late_s` have passed since its last use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.model import Settings
from keygate.sandbox.admin.prices import Price
from keygate.sandbox.model import Usage

PICO = 10**12
MINUTE_S = 60
DAY_S = 86_400


@dataclass(slots=True)
class Cell:
    """`cost_pico` is what it really cost. `line` tells corrections from use."""

    minute_s: int
    key_id: str | None
    container: str | None
    model: str
    line: str = "use"
    requests: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_pico: int = 0
    last_at_ns: int = 0
    price: Price | None = None

    def reported_pico(self, now_ns: int, settings: Settings) -> int | None:
        """The cost as a report shows it now; None: not yet at all."""
        shown_at = self.last_at_ns + round(settings.costs_late_s * NANOSECONDS)
        if shown_at > now_ns:
            return None
        if shown_at + round(settings.costs_restated_s * NANOSECONDS) > now_ns:
            return int(self.cost_pico * Decimal(str(settings.costs_first_share)))
        return self.cost_pico


class Books:
    """`changed` is called with each cell that a use or a correction was booked in."""

    def __init__(self, changed: Callable[[Cell], None] | None = None) -> None:
        self.changed = changed
        self._cells: dict[tuple[int, str | None, str | None, str, str], Cell] = {}
        self._months: defaultdict[tuple[str, str | None], int] = defaultdict(int)

    def _cell(self, now_ns: int, key_id: str | None, container: str | None, model: str, line: str) -> Cell:
        minute_s = now_ns // NANOSECONDS // MINUTE_S * MINUTE_S
        at = (minute_s, key_id, container, model, line)
        cell = self._cells.get(at)
        if cell is None:
            cell = self._cells[at] = Cell(minute_s, key_id, container, model, line)
        return cell

    def use(self, now_ns: int, *, key_id: str | None, container: str | None, model: str, usage: Usage, price: Price, request: bool) -> int:
        """Books tokens that were produced this moment; `request`: they are the first of their call. Returns what they cost."""
        cell = self._cell(now_ns, key_id, container, model, "use")
        cost = price.cost_pico(usage)
        cell.requests += request
        cell.usage.add(usage)
        cell.cost_pico += cost
        cell.last_at_ns = now_ns
        cell.price = price
        self._add_month(now_ns // NANOSECONDS, container, cost)
        self._tell(cell)
        return cost

    def correct(self, now_ns: int, *, at_ns: int, key_id: str | None, container: str | None, model: str, amount_usd: Decimal) -> None:
        """The vendor bills more, or less, for a moment that has passed: a day that was already read is restated."""
        cell = self._cell(at_ns, key_id, container, model, "correction")
        cell.cost_pico += int(amount_usd * PICO)
        cell.last_at_ns = now_ns
        self._add_month(at_ns // NANOSECONDS, container, int(amount_usd * PICO))
        self._tell(cell)

    def _tell(self, cell: Cell) -> None:
        if self.changed is not None:
            self.changed(cell)

    def restore(self, cell: Cell) -> None:
        """A cell as it was written down."""
        self._cells[cell.minute_s, cell.key_id, cell.container, cell.model, cell.line] = cell
        self._add_month(cell.minute_s, cell.container, cell.cost_pico)

    @staticmethod
    def month(at_s: int) -> str:
        """`2026-11`, UTC."""
        return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m")

    def _add_month(self, at_s: int, container: str | None, pico: int) -> None:
        month = self.month(at_s)
        self._months[month, None] += pico
        if container is not None:
            self._months[month, container] += pico

    def month_pico(self, month: str, container: str | None = None) -> int:
        """What a month really cost so far: of a container, or of the whole account."""
        return self._months[month, container]

    def cells(self, *, since_s: int = 0, until_s: int | None = None) -> Iterator[Cell]:
        """The cells of `[since_s, until_s)`, in no order."""
        return (cell for cell in self._cells.values() if cell.minute_s >= since_s and (until_s is None or cell.minute_s < until_s))

    def total_usd(self, *, key_id: str | None = None, container: str | None = None, since_s: int = 0) -> Decimal:
        """What it really cost, whatever reports say yet; of one key or container, where it is named."""
        return Decimal(
            sum(
                cell.cost_pico
                for cell in self.cells(since_s=since_s)
                if (key_id is None or cell.key_id == key_id) and (container is None or cell.container == container)
            )
        ) / Decimal(PICO)
