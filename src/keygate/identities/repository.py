"""All SQL about organisations and owners: teams, developers, apps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.identities.model import App, Developer, Organization, Status, Team
from keygate.identities.tables import apps, developers, organizations, teams, users
from keygate.kit.database import insert_or_ignore, lock

_BATCH = 5_000  # below the number of parameters that either database takes


def _organization(row: Mapping[Any, Any]) -> Organization:
    return Organization(**row)


def _team(row: Mapping[Any, Any]) -> Team:
    return Team(**row)


def _developer(row: Mapping[Any, Any]) -> Developer:
    return Developer(**{**row, "status": Status(row["status"])})


def _app(row: Mapping[Any, Any]) -> App:
    return App(**{**row, "status": Status(row["status"])})


class OwnerRepository:
    """Rows are found only inside the organisation that asks."""

    async def lock_start(self, connection: AsyncConnection) -> None:
        await lock(connection, "keygate:bootstrap")

    async def any_organization(self, connection: AsyncConnection) -> Organization | None:
        row = (await connection.execute(sa.select(organizations).order_by(organizations.c.id).limit(1))).mappings().first()
        return _organization(row) if row else None

    async def add_organization(self, connection: AsyncConnection, organization: Organization) -> None:
        await connection.execute(sa.insert(organizations).values(**_values(organization, organizations)))

    async def organization(self, connection: AsyncConnection, organization_id: str) -> Organization | None:
        row = await _one(connection, organizations, organizations.c.id == organization_id)
        return _organization(row) if row else None

    async def update_organization(self, connection: AsyncConnection, organization_id: str, changes: Mapping[str, Any]) -> None:
        await connection.execute(sa.update(organizations).where(organizations.c.id == organization_id).values(**changes))

    async def add_team(self, connection: AsyncConnection, team: Team) -> bool:
        """False where an active team has this name."""
        return await insert_or_ignore(connection, teams, _values(team, teams))

    async def team(self, connection: AsyncConnection, organization_id: str, team_id: str) -> Team | None:
        row = await _one(connection, teams, teams.c.organization_id == organization_id, teams.c.id == team_id)
        return _team(row) if row else None

    async def team_named(self, connection: AsyncConnection, organization_id: str, name: str) -> Team | None:
        row = await _one(
            connection, teams, teams.c.organization_id == organization_id, teams.c.name == name, teams.c.archived_at_ns.is_(None)
        )
        return _team(row) if row else None

    async def teams(
        self, connection: AsyncConnection, organization_id: str, *, after: str | None, limit: int, only: str | None, archived: bool
    ) -> list[Team]:
        """By id; `only` narrows to one team."""
        found = [teams.c.organization_id == organization_id]
        if only is not None:
            found.append(teams.c.id == only)
        if not archived:
            found.append(teams.c.archived_at_ns.is_(None))
        return [_team(row) for row in await _page(connection, teams, found, after=after, limit=limit)]

    async def update_team(self, connection: AsyncConnection, team: Team, changes: Mapping[str, Any]) -> None:
        await _update(connection, teams, team.organization_id, team.id, changes)

    async def members(self, connection: AsyncConnection, organization_id: str, team_id: str) -> tuple[list[Developer], list[App]]:
        """The active developers and apps of a team. An app that names no team of its own has its developer's."""
        people = (developers.c.organization_id == organization_id, developers.c.team_id == team_id, developers.c.status == Status.ACTIVE)
        theirs = sa.and_(apps.c.team_id.is_(None), apps.c.developer_id.in_(sa.select(developers.c.id).where(*people)))
        programs = (apps.c.organization_id == organization_id, apps.c.status == Status.ACTIVE, sa.or_(apps.c.team_id == team_id, theirs))
        found = await connection.execute(sa.select(developers).where(*people).order_by(developers.c.id))
        also = await connection.execute(sa.select(apps).where(*programs).order_by(apps.c.id))
        return [_developer(row) for row in found.mappings()], [_app(row) for row in also.mappings()]

    async def add_developer(self, connection: AsyncConnection, developer: Developer) -> bool:
        """False where the e-mail address is taken."""
        return await insert_or_ignore(connection, developers, _values(developer, developers))

    async def developer(self, connection: AsyncConnection, organization_id: str, developer_id: str) -> Developer | None:
        row = await _one(
            connection,
            developers,
            developers.c.organization_id == organization_id,
            developers.c.id == developer_id,
        )
        return _developer(row) if row else None

    async def developer_with_email(self, connection: AsyncConnection, organization_id: str, email: str) -> Developer | None:
        row = await _one(connection, developers, developers.c.organization_id == organization_id, developers.c.email == email)
        return _developer(row) if row else None

    async def developers_with_emails(self, connection: AsyncConnection, organization_id: str, emails: Iterable[str]) -> list[Developer]:
        asked, rows = sorted(set(emails)), []
        for start in range(0, len(asked), _BATCH):
            statement = sa.select(developers).where(
                developers.c.organization_id == organization_id, developers.c.email.in_(asked[start : start + _BATCH])
            )
            rows += [_developer(dict(row)) for row in (await connection.execute(statement)).mappings()]
        return rows

    async def developers(
        self,
        connection: AsyncConnection,
        organization_id: str,
        *,
        after: str | None,
        limit: int,
        only: str | None,
        team_id: str | None,
        status: Status | None,
    ) -> list[Developer]:
        found = [developers.c.organization_id == organization_id]
        for column, value in ((developers.c.id, only), (developers.c.team_id, team_id), (developers.c.status, status)):
            if value is not None:
                found.append(column == value)
        return [_developer(row) for row in await _page(connection, developers, found, after=after, limit=limit)]

    async def update_developer(self, connection: AsyncConnection, developer: Developer, changes: Mapping[str, Any]) -> None:
        await _update(connection, developers, developer.organization_id, developer.id, changes)

    async def add_app(self, connection: AsyncConnection, app: App) -> bool:
        """False where an active app has this name."""
        return await insert_or_ignore(connection, apps, _values(app, apps))

    async def app(self, connection: AsyncConnection, organization_id: str, app_id: str) -> App | None:
        row = await _one(connection, apps, apps.c.organization_id == organization_id, apps.c.id == app_id)
        return _app(row) if row else None

    async def app_named(self, connection: AsyncConnection, organization_id: str, name: str) -> App | None:
        row = await _one(
            connection, apps, apps.c.organization_id == organization_id, apps.c.name == name, apps.c.deactivated_at_ns.is_(None)
        )
        return _app(row) if row else None

    async def apps(
        self,
        connection: AsyncConnection,
        organization_id: str,
        *,
        after: str | None,
        limit: int,
        developer_id: str | None,
        team_id: str | None,
        status: Status | None,
    ) -> list[App]:
        found = [apps.c.organization_id == organization_id]
        for column, value in ((apps.c.developer_id, developer_id), (apps.c.team_id, team_id), (apps.c.status, status)):
            if value is not None:
                found.append(column == value)
        return [_app(row) for row in await _page(connection, apps, found, after=after, limit=limit)]

    async def update_app(self, connection: AsyncConnection, app: App, changes: Mapping[str, Any]) -> None:
        await _update(connection, apps, app.organization_id, app.id, changes)

    async def with_policy(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> int:
        """How many of organisation, active teams, developers and apps name this policy."""
        asked = (
            sa.select(organizations.c.id).where(organizations.c.id == organization_id, organizations.c.policy_id == policy_id),
            sa.select(teams.c.id).where(
                teams.c.organization_id == organization_id, teams.c.policy_id == policy_id, teams.c.archived_at_ns.is_(None)
            ),
            *(
                sa.select(table.c.id).where(
                    table.c.organization_id == organization_id, table.c.policy_id == policy_id, table.c.status == Status.ACTIVE
                )
                for table in (developers, apps)
            ),
        )
        every = sa.union_all(*asked).subquery()
        return (await connection.execute(sa.select(sa.func.count()).select_from(every))).scalar_one()

    def ended(self, organization_id: str) -> sa.Select[tuple[str]]:
        """The ids of teams, developers and apps that are ended, or stand below one that is."""
        archived = sa.select(teams.c.id).where(teams.c.organization_id == organization_id, teams.c.archived_at_ns.is_not(None))
        here = developers.c.organization_id == organization_id
        left = sa.select(developers.c.id).where(here, sa.or_(developers.c.status != Status.ACTIVE, developers.c.team_id.in_(archived)))
        away = sa.select(developers.c.id).where(here, developers.c.status != Status.ACTIVE)
        stopped = sa.select(apps.c.id).where(
            apps.c.organization_id == organization_id,
            sa.or_(
                apps.c.status != Status.ACTIVE,
                apps.c.team_id.in_(archived),
                apps.c.developer_id.in_(away),
                sa.and_(apps.c.team_id.is_(None), apps.c.developer_id.in_(left)),  # its developer's team is its own then
            ),
        )
        every = sa.union_all(archived, left, stopped).subquery()
        return sa.select(every.c.id)

    async def by_ids(
        self, connection: AsyncConnection, organization_id: str, ids: Iterable[str]
    ) -> tuple[list[Team], list[Developer], list[App]]:
        """What of these ids there is, and the developers and teams that it belongs to. Three statements for up to 5,000 ids."""
        wanted = set(ids)
        found_apps = [_app(row) for row in await _many(connection, apps, organization_id, wanted, prefix="app_")]
        wanted.update(app.developer_id for app in found_apps if app.developer_id)
        found_developers = [_developer(row) for row in await _many(connection, developers, organization_id, wanted, prefix="dev_")]
        wanted.update(app.team_id for app in found_apps if app.team_id)
        wanted.update(developer.team_id for developer in found_developers if developer.team_id)
        found_teams = [_team(row) for row in await _many(connection, teams, organization_id, wanted, prefix="team_")]
        return found_teams, found_developers, found_apps

    async def users_among(self, connection: AsyncConnection, organization_id: str, ids: Iterable[str]) -> frozenset[str]:
        """Those of these ids, a few, that are users of the organisation."""
        query = sa.select(users.c.id).where(users.c.organization_id == organization_id, users.c.id.in_(sorted(set(ids))))
        return frozenset(await connection.scalars(query))


def _values(value: Any, table: sa.Table) -> dict[str, Any]:
    return {column.name: getattr(value, column.name) for column in table.columns}


async def _one(connection: AsyncConnection, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> Mapping[str, Any] | None:
    statement = sa.select(table).where(*conditions)
    row = (await connection.execute(statement)).mappings().first()
    return dict(row) if row else None


async def _many(connection: AsyncConnection, table: sa.Table, organization_id: str, ids: set[str], *, prefix: str) -> list[dict[str, Any]]:
    asked = sorted(each for each in ids if each.startswith(prefix))
    rows: list[dict[str, Any]] = []
    for start in range(0, len(asked), _BATCH):
        statement = sa.select(table).where(table.c.organization_id == organization_id, table.c.id.in_(asked[start : start + _BATCH]))
        rows += [dict(row) for row in (await connection.execute(statement)).mappings()]
    return rows


async def _page(
    connection: AsyncConnection, table: sa.Table, conditions: list[sa.ColumnElement[bool]], *, after: str | None, limit: int
) -> list[dict[str, Any]]:
    statement = sa.select(table).where(*conditions).order_by(table.c.id).limit(limit)
    if after is not None:
        statement = statement.where(table.c.id > after)
    return [dict(row) for row in (await connection.execute(statement)).mappings()]


async def _update(connection: AsyncConnection, table: sa.Table, organization_id: str, row_id: str, changes: Mapping[str, Any]) -> None:
    await connection.execute(sa.update(table).where(table.c.organization_id == organization_id, table.c.id == row_id).values(**changes))
