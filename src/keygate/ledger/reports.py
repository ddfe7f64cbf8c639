"""What was used and spent: sums, single entries, charges in doubt. Every answer folds the journal first, so it is true as of the answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from keygate.errors import InvalidInput, Unavailable
from keygate.identities import Actor, Role
from keygate.kit.clock import Clock, from_ns, to_ns
from keygate.kit.turns import pieces
from keygate.ledger.posting import DAY_NS

if TYPE_CHECKING:
    from keygate.kit.database import Database
    from keygate.ledger.report_queries import ReportQueries

GROUPS: Mapping[str, str] = {
    "key": "key_id",
    "team": "team_id",
    "developer": "developer_id",
    "app": "app_id",
    "vendor": "vendor",
    "model": "model",
    "endpoint": "endpoint",
    "credential": "credential_id",
    "status": "status",
    "outcome": "outcome",
}
MEASURES = (
    "requests",
    "errors",
    "unpriced",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "web_searches",
    "cost_nano",
    "in_doubt_nano",
)
TIMES = ("hour", "day", "month")
MAX_ROWS = 10_000
MAX_EXPORTED = 100_000  # rows of a file: a thousand keys by the day, for three months
FRESH_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries a report is about. `filters` are columns and the values they may have."""

    organization_id: str
    from_ns: int
    to_ns: int  # exclusive
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tag: str | None = None
    in_doubt: bool = False


class Freshness(Protocol):
    async def flush(self, timeout: float) -> bool:
        """Brings everything settled so far into the database; False where the time did not suffice."""


@dataclass(frozen=True, slots=True)
class Sum:
    """One line of a report: the group it stands for, and its sums."""

    group: Mapping[str, str | int | None]
    values: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class UsageReport:
    from_ns: int
    to_ns: int
    rows: tuple[Sum, ...]
    truncated: bool  # there are more groups than a report holds


@dataclass(frozen=True, slots=True)
class CredentialDay:
    """What one credential spent on one UTC day. `late_nano`: by requests that began in the day's last minutes, which a vendor may bill to
    the next day."""

    vendor: str
    credential_id: str | None  # None: the request reached no vendor
    day_ns: int
    requests: int
    unpriced: int
    cost_nano: int
    in_doubt_nano: int
    late_nano: int


class UsageReports:
    def __init__(self, *, database: Database, queries: ReportQueries, clock: Clock, fresh: Freshness | None = None) -> None:
        self._database = database
        self._queries = queries
        self._clock = clock
        self._fresh = fresh

    def selection(
        self,
        actor: Actor,
        *,
        from_ns: int | None = None,
        to_ns: int | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
        tag: str | None = None,
        in_doubt: bool = False,
    ) -> Selection:
        """Thirty days up to now unless told otherwise. A developer sees what is their own; whatever else they ask for is empty."""
        end = self._clock.now_ns() + 1 if to_ns is None else to_ns
        start = end - 30 * DAY_NS if from_ns is None else from_ns
        if start >= end:
            raise InvalidInput("from: must be before `to`", field="from")
        chosen = {name: tuple(values) for name, values in (filters or {}).items() if values}
        if actor.role is Role.DEVELOPER:
            own = actor.developer_id or "-"
            asked = chosen.get("developer_id", (own,))
            chosen["developer_id"] = (own,) if own in asked else ("-",)
        return Selection(actor.organization_id, start, end, chosen, tag, in_doubt)

    async def usage(self, selection: Selection, group_by: Sequence[str], *, most: int = MAX_ROWS) -> UsageReport:
        """Sums per group, most expensive first, in order of time where a group is one; `most` of them. Raises `InvalidInput` for unknown
        groups."""
        for name in group_by:
            if name not in GROUPS and name not in TIMES:
                raise InvalidInput(f"group_by: {name} is not one of {', '.join((*GROUPS, *TIMES))}", field="group_by")
        times = [name for name in group_by if name in TIMES]
        if len(times) > 1 or len(set(group_by)) != len(group_by):
            raise InvalidInput("group_by: each group once, and at most one of hour, day, month", field="group_by")
        time = times[0] if times else None
        columns = [GROUPS[name] for name in group_by if name in GROUPS]
        limit = (MAX_ROWS + 1) * 31 if time == "month" else most + 1  # months are added up here, of days
        await self.refresh()
        async with self._database.read() as connection:
            found = await self._queries.sums(
                connection,
                selection,
                columns,
                step="day" if time == "month" else time,
                limit=limit,
            )
        rows: list[Sum] = []
        async for piece in pieces(found):
            rows += [_sum(row, group_by) for row in piece if row.requests]
        if time == "month":
            rows = await _merged(rows)
        truncated = len(rows) > most or len(found) >= limit
        return UsageReport(selection.from_ns, selection.to_ns, tuple(rows[:most]), truncated=truncated)

    async def entries(self, selection: Selection, *, before: tuple[int, int] | None, limit: int) -> Sequence[Any]:
        """Single entries, newest first."""
        await self.refresh()
        async with self._database.read() as connection:
            return await self._queries.entries(connection, selection, before=before, limit=limit)

    async def by_credential(self, organization_id: str, *, from_ns: int, to_ns: int) -> list[CredentialDay]:
        """Sums per credential and UTC day, from single entries: their age is bounded by the retention of entries."""
        await self.refresh()
        async with self._database.read() as connection:
            found = await self._queries.by_credential(connection, organization_id, from_ns=from_ns, to_ns=to_ns)
        return [CredentialDay(*row) for row in found]

    async def spent_since(self, organization_id: str, *, vendor: str, credential_ids: Sequence[str], since_ns: int, until_ns: int) -> int:
        """Nano-dollars of requests of these credentials that began in `[since_ns, until_ns)`, charges in doubt included."""
        if not credential_ids or since_ns >= until_ns:
            return 0
        filters = {"vendor": (vendor,), "credential_id": tuple(credential_ids)}
        async with self._database.read() as connection:
            found = await self._queries.sums(connection, Selection(organization_id, since_ns, until_ns, filters), (), step=None, limit=1)
        return int(found[0].cost_nano or 0) if found else 0

    async def key_totals(self, organization_id: str, key_id: str) -> Mapping[str, int]:
        """All that a key has ever used; what is gone by retention included."""
        selection = Selection(organization_id, 0, self._clock.now_ns() + DAY_NS, {"key_id": (key_id,)})
        await self.refresh()
        async with self._database.read() as connection:
            found = await self._queries.sums(connection, selection, (), step=None, limit=1)
        return {name: value or 0 for name, value in found[0]._mapping.items()}  # noqa: SLF001  (the public name of a row's mapping)

    async def refresh(self) -> None:
        """Raises `Unavailable` where the journal can't be folded in time: an old number is never passed off as a current one."""
        if self._fresh is not None and not await self._fresh.flush(FRESH_SECONDS):
            raise Unavailable("The ledger is catching up with the journal; try again in a moment")


def parse_moment(text: str | None, field: str) -> int | None:
    """RFC 3339, or a date (midnight UTC). Raises `InvalidInput`."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        instant = to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise InvalidInput(f"{field}: write a date (2026-11-21) or a time such as 2026-11-21T09:00:00Z", field=field) from None
    if not 0 <= instant < 2**62:
        raise InvalidInput(f"{field}: must be between 1970 and 2116", field=field)
    return instant


def _sum(row: Any, group_by: Sequence[str]) -> Sum:
    values = dict(row._mapping)  # noqa: SLF001  (as above)
    group: dict[str, str | int | None] = {}
    for name in group_by:
        if name in GROUPS:
            value = values.pop(GROUPS[name])
            group[name] = None if value == "" else value
        else:
            moment = from_ns(values.pop("bucket_ns"))
            group[name] = moment.strftime({"hour": "%Y-%m-%dT%H:00:00Z", "day": "%Y-%m-%d", "month": "%Y-%m"}[name])
    return Sum(group, values)


async def _merged(rows: Sequence[Sum]) -> list[Sum]:
    merged: dict[tuple[object, ...], tuple[Sum, dict[str, int]]] = {}
    async for piece in pieces(rows):
        for row in piece:
            key = tuple(row.group.values())
            if key in merged:
                total = merged[key][1]
                for name, value in row.values.items():
                    total[name] += value
            else:
                merged[key] = (row, dict(row.values))
    return [Sum(row.group, total) for row, total in merged.values()]
