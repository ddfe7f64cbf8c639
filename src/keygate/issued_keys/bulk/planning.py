"""From a list of people to rows that can be made: who they are, what each key may do, and what is in the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from keygate.errors import KeyGateError
from keygate.identities import Developer, Team
from keygate.issued_keys.bulk.model import BulkDraft, Line, Problem, Row, RowState, merged
from keygate.vendors.admin import Terms

_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,250}")


@dataclass(frozen=True, slots=True)
class Known:
    """What the database says of everybody on the list."""

    by_email: Mapping[str, Developer]
    by_id: Mapping[str, Developer]
    members: Sequence[Developer]  # of the team that the order names
    teams: Sequence[Team]
    holders: Mapping[str, str | None]  # who has a key already, or is about to: developer's id or address → key

    def team(self, text: str) -> Team | None:
        return next((team for team in self.teams if text in {team.id, team.name}), None)


def lines_of(draft: BulkDraft, known: Known) -> list[Line]:
    """The list, and after it the members of the team who are not on it."""
    named = {(line.email or "").lower() for line in draft.lines} | {line.developer_id for line in draft.lines}
    last = max((line.line for line in draft.lines), default=0)
    fresh = [member for member in known.members if member.email not in named and member.id not in named]
    return [*draft.lines, *(Line(last + number, developer_id=member.id) for number, member in enumerate(fresh, 1))]


def plan_rows(
    draft: BulkDraft, lines: Sequence[Line], known: Known, *, organization_id: str, check: Callable[[Terms], None]
) -> tuple[list[Row], list[Problem]]:
    """A row or a problem for each line. `check` raises for terms that this vendor can't have."""
    rows: list[Row] = []
    problems: list[Problem] = []
    first: dict[str, int] = {}
    numbers: set[int] = set()
    for line in lines:
        if line.line in numbers:
            problems.append(Problem(line.line, "two rows have this line number"))
            continue
        numbers.add(line.line)
        found = _row(draft, line, known, organization_id)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        who = found.developer_id or found.email
        if who in first:
            problems.append(Problem(line.line, f"{found.email} stands on line {first[who]} already"))
            continue
        first[who] = line.line
        try:
            check(found.terms)
        except KeyGateError as error:
            problems.append(Problem(line.line, error.detail))
            continue
        rows.append(found)
    return rows, problems


def _row(draft: BulkDraft, line: Line, known: Known, organization_id: str) -> Row | Problem:
    email = (line.email or "").strip().lower()
    developer = known.by_id.get(line.developer_id) if line.developer_id is not None else known.by_email.get(email)
    terms = merged(draft.terms, line)
    if developer is None:
        return _newcomer(draft, line, known, organization_id, email, terms)
    if not developer.active:
        return Problem(line.line, f"{developer.email} is deactivated")
    row = Row(
        order_id="",
        line=line.line,
        organization_id=organization_id,
        state=RowState.WAITING,
        email=developer.email,
        name=developer.name,
        terms=terms,
        developer_id=developer.id,
    )
    return _unless_held(row, known)


def _newcomer(draft: BulkDraft, line: Line, known: Known, organization_id: str, email: str, terms: Terms) -> Row | Problem:
    if line.developer_id is not None:
        return Problem(line.line, f"there is no developer {line.developer_id}")
    if _EMAIL.fullmatch(email) is None:
        return Problem(line.line, "email: write it as priya@example.com")
    if not draft.create_developers:
        return Problem(line.line, f"{email} is no developer here yet; send create_developers to have such people made")
    team = None if line.team is None else known.team(line.team)
    if line.team is not None and team is None:
        return Problem(line.line, f"there is no team {line.team!r}")
    row = Row(
        order_id="",
        line=line.line,
        organization_id=organization_id,
        state=RowState.WAITING,
        email=email,
        name=line.name or email.partition("@")[0],
        terms=terms,
        team_id=None if team is None else team.id,
    )
    return _unless_held(row, known)


def _unless_held(row: Row, known: Known) -> Row:
    for name in (row.developer_id or "", row.email):
        if name in known.holders:
            held = known.holders[name]
            why = "stands in an order that is going on" if held is None else f"has the key {held} already"
            return replace(row, state=RowState.LEFT_OUT, key_id=held, error=why)
    return row
