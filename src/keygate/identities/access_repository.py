"""All SQL about who may sign in: users, sessions, API tokens, attempts to log in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.identities.model import ApiToken, Role, Status, User
from keygate.identities.tables import api_tokens, login_attempts, sessions, users
from keygate.identities.throttle import Attempts
from keygate.kit.database import insert_or_ignore

_USER = [column for column in users.columns if column.name != "password_hash"]
_TOKEN = [column for column in api_tokens.columns if column.name != "digest"]


@dataclass(frozen=True, slots=True)
class SessionRow:
    id: str
    expires_at_ns: int
    user: User


def _user(row: Mapping[Any, Any]) -> User:
    values = {column.name: row[column.name] for column in _USER}
    return User(**{**values, "role": Role(row["role"]), "status": Status(row["status"])})


def _token(row: Mapping[Any, Any]) -> ApiToken:
    values = {column.name: row[column.name] for column in _TOKEN}
    return ApiToken(**{**values, "scopes": frozenset(row["scopes"])})


class AccessRepository:
    async def add_user(self, connection: AsyncConnection, user: User, *, password_hash: str) -> bool:
        """False where the e-mail address is taken."""
        values = {column.name: getattr(user, column.name) for column in _USER}
        return await insert_or_ignore(connection, users, {**values, "password_hash": password_hash})

    async def user(self, connection: AsyncConnection, organization_id: str, user_id: str) -> User | None:
        statement = sa.select(*_USER).where(users.c.organization_id == organization_id, users.c.id == user_id)
        row = (await connection.execute(statement)).mappings().first()
        return _user(row) if row else None

    async def password_hash(self, connection: AsyncConnection, organization_id: str, user_id: str) -> str | None:
        asked = sa.select(users.c.password_hash).where(users.c.organization_id == organization_id, users.c.id == user_id)
        return (await connection.execute(asked)).scalar_one_or_none()

    async def user_with_email(self, connection: AsyncConnection, email: str) -> tuple[User, str] | None:
        """The one user of this KeyGate with this address, and the hash of their password. The only search across organisations."""
        row = (await connection.execute(sa.select(users).where(users.c.email == email))).mappings().first()
        return (_user(row), row["password_hash"]) if row else None

    async def users(self, connection: AsyncConnection, organization_id: str, *, after: str | None, limit: int) -> list[User]:
        statement = sa.select(*_USER).where(users.c.organization_id == organization_id).order_by(users.c.id).limit(limit)
        if after is not None:
            statement = statement.where(users.c.id > after)
        return [_user(row) for row in (await connection.execute(statement)).mappings()]

    async def users_of(self, connection: AsyncConnection, organization_id: str, developer_id: str) -> list[User]:
        """Who signs in as this developer."""
        asked = sa.select(*_USER).where(users.c.organization_id == organization_id, users.c.developer_id == developer_id)
        return [_user(row) for row in (await connection.execute(asked)).mappings()]

    async def owner_ids(self, connection: AsyncConnection, organization_id: str) -> list[str]:
        """The active owners."""
        asked = sa.select(users.c.id).where(
            users.c.organization_id == organization_id, users.c.role == Role.OWNER, users.c.status == Status.ACTIVE
        )
        return list((await connection.execute(asked.order_by(users.c.id))).scalars())

    async def update_user(self, connection: AsyncConnection, user: User, changes: Mapping[str, Any]) -> None:
        await connection.execute(
            sa.update(users).where(users.c.organization_id == user.organization_id, users.c.id == user.id).values(**changes)
        )

    async def end_access(
        self, connection: AsyncConnection, user: User, *, now_ns: int, keep_session: str | None = None, tokens: bool = True
    ) -> None:
        """Ends every session of a user, but one, and revokes their API tokens."""
        ended = sa.delete(sessions).where(sessions.c.organization_id == user.organization_id, sessions.c.user_id == user.id)
        if keep_session is not None:
            ended = ended.where(sessions.c.id != keep_session)
        await connection.execute(ended)
        if tokens:
            await connection.execute(
                sa.update(api_tokens)
                .where(
                    api_tokens.c.organization_id == user.organization_id,
                    api_tokens.c.user_id == user.id,
                    api_tokens.c.revoked_at_ns.is_(None),
                )
                .values(revoked_at_ns=now_ns)
            )

    async def add_session(
        self, connection: AsyncConnection, user: User, *, session_id: str, digest: str, now_ns: int, until_ns: int
    ) -> None:
        await connection.execute(sa.delete(sessions).where(sessions.c.expires_at_ns <= now_ns))
        await connection.execute(
            sa.insert(sessions).values(
                id=session_id,
                organization_id=user.organization_id,
                user_id=user.id,
                digest=digest,
                created_at_ns=now_ns,
                expires_at_ns=until_ns,
            )
        )

    async def session(self, connection: AsyncConnection, digest: str) -> SessionRow | None:
        asked = (
            sa.select(*_USER, sessions.c.id.label("session_id"), sessions.c.expires_at_ns)
            .join_from(sessions, users, sa.and_(users.c.id == sessions.c.user_id, users.c.organization_id == sessions.c.organization_id))
            .where(sessions.c.digest == digest)
        )
        row = (await connection.execute(asked)).mappings().first()
        return SessionRow(id=row["session_id"], expires_at_ns=row["expires_at_ns"], user=_user(row)) if row else None

    async def end_session(self, connection: AsyncConnection, organization_id: str, session_id: str) -> None:
        await connection.execute(sa.delete(sessions).where(sessions.c.organization_id == organization_id, sessions.c.id == session_id))

    async def add_token(self, connection: AsyncConnection, token: ApiToken, *, digest: str) -> None:
        values = {column.name: getattr(token, column.name) for column in _TOKEN}
        await connection.execute(sa.insert(api_tokens).values(**{**values, "scopes": sorted(token.scopes), "digest": digest}))

    async def token_with_digest(self, connection: AsyncConnection, digest: str) -> tuple[ApiToken, User] | None:
        row = (await connection.execute(sa.select(*_TOKEN).where(api_tokens.c.digest == digest))).mappings().first()
        if row is None:
            return None
        user = await self.user(connection, row["organization_id"], row["user_id"])
        return (_token(row), user) if user else None

    async def token(self, connection: AsyncConnection, organization_id: str, token_id: str, *, user_id: str | None) -> ApiToken | None:
        found = [api_tokens.c.organization_id == organization_id, api_tokens.c.id == token_id]
        if user_id is not None:
            found.append(api_tokens.c.user_id == user_id)
        row = (await connection.execute(sa.select(*_TOKEN).where(*found))).mappings().first()
        return _token(row) if row else None

    async def tokens(
        self, connection: AsyncConnection, organization_id: str, *, user_id: str | None, after: str | None, limit: int
    ) -> list[ApiToken]:
        found = [api_tokens.c.organization_id == organization_id]
        if user_id is not None:
            found.append(api_tokens.c.user_id == user_id)
        if after is not None:
            found.append(api_tokens.c.id > after)
        asked = sa.select(*_TOKEN).where(*found).order_by(api_tokens.c.id).limit(limit)
        return [_token(row) for row in (await connection.execute(asked)).mappings()]

    async def update_token(self, connection: AsyncConnection, token: ApiToken, changes: Mapping[str, Any]) -> None:
        await connection.execute(
            sa.update(api_tokens)
            .where(api_tokens.c.organization_id == token.organization_id, api_tokens.c.id == token.id)
            .values(**changes)
        )

    async def attempts(self, connection: AsyncConnection, subject: str, *, now_ns: int) -> Attempts | None:
        """The counts of a subject, locked until the transaction ends; a row is made where there is none."""
        fresh = {"subject": subject, "organization_id": None, "failures": 0, "blocked_until_ns": 0, "updated_at_ns": now_ns}
        if await insert_or_ignore(connection, login_attempts, fresh):
            return None
        asked = sa.select(login_attempts).where(login_attempts.c.subject == subject).with_for_update()
        row = (await connection.execute(asked)).mappings().one()
        return Attempts(failures=row["failures"], blocked_until_ns=row["blocked_until_ns"], updated_at_ns=row["updated_at_ns"])

    async def trusted_since(self, connection: AsyncConnection, subject: str) -> int | None:
        asked = sa.select(login_attempts.c.updated_at_ns).where(login_attempts.c.subject == subject)
        return (await connection.execute(asked)).scalar_one_or_none()

    async def set_attempts(
        self, connection: AsyncConnection, subject: str, attempts: Attempts, *, organization_id: str | None = None
    ) -> None:
        await connection.execute(
            sa.update(login_attempts)
            .where(login_attempts.c.subject == subject)
            .values(
                failures=attempts.failures,
                blocked_until_ns=attempts.blocked_until_ns,
                updated_at_ns=attempts.updated_at_ns,
                organization_id=organization_id,
            )
        )

    async def forget_attempts(self, connection: AsyncConnection, *, before_ns: int, trusted_before_ns: int) -> None:
        """Waits for nobody: a row that is in use is no old one by the next time."""
        trusted = login_attempts.c.subject.startswith("trusted:")
        old = sa.select(login_attempts.c.subject).where(
            sa.or_(
                sa.and_(login_attempts.c.updated_at_ns < before_ns, sa.not_(trusted)),
                sa.and_(login_attempts.c.updated_at_ns < trusted_before_ns, trusted),
            )
        )
        some = old.limit(1_000).with_for_update(skip_locked=True)
        await connection.execute(sa.delete(login_attempts).where(login_attempts.c.subject.in_(some)))
