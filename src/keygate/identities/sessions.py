"""Signing in and out, and finding out who calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keygate.errors import Unauthenticated
from keygate.identities.attempts import AttemptCounter
from keygate.identities.bearer import ACCESS, digest, kind_of, mint
from keygate.identities.model import Actor, Session, User, actor_of
from keygate.identities.passwords import Passwords
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret

if TYPE_CHECKING:
    from keygate.audit import AuditLog
    from keygate.identities.access_repository import AccessRepository
    from keygate.kit.database import Database

LIFETIME_SECONDS = 12 * 3600
_USED_EVERY_NS = 60 * NANOSECONDS
_REFUSED = "E-mail address or password is wrong"


class SessionService:
    def __init__(self, database: Database, repository: AccessRepository, *, passwords: Passwords, audit: AuditLog, clock: Clock) -> None:
        self._database = database
        self._repository = repository
        self._passwords = passwords
        self._audit = audit
        self._clock = clock
        self._attempts = AttemptCounter(database, repository, clock=clock)

    async def login(self, email: str, password: Secret, *, address: str | None, request_id: str | None = None) -> tuple[User, Session]:
        """A new sign-in. Raises `Unauthenticated`, always in the same words and after the same work, and `Throttled` where this account or
        address has to wait. The attempt counts before the password is looked at."""
        email = email.strip().lower()
        async with self._database.read() as connection:
            found = await self._repository.user_with_email(connection, email)
        user, stored = found or (None, None)
        await self._attempts.take(email, address, user)
        right = await self._passwords.matches(stored, password)
        if user is None or not right or not user.active:
            if user is not None:
                reason = "wrong password" if not right else "deactivated"
                await self._audit.refused(actor_of(user, address=address, request_id=request_id), "session.login", user.id, reason=reason)
            raise Unauthenticated(_REFUSED)
        rehashed = await self._passwords.hash(password) if stored and self._passwords.outdated(stored) else None
        return user, await self._begin(user, email, rehashed, actor_of(user, address=address, request_id=request_id))

    async def logout(self, actor: Actor) -> None:
        """Ends the sign-in in use. An API token is not a sign-in: it is revoked, and nothing happens here."""
        if actor.session_id is None:
            return
        async with self._database.unit(actor.organization_id) as work:
            await self._repository.end_session(work.connection, actor.organization_id, actor.session_id)
            await self._audit.record(work, actor, "session.logout", actor.session_id)

    async def authenticate(self, token: str, *, address: str | None, request_id: str | None) -> Actor:
        """Whose access or API token this is. Raises `Unauthenticated` for one that is unknown, expired or ended."""
        kind = kind_of(token)
        if kind is None:
            raise _unknown()
        now = self._clock.now_ns()
        if kind == ACCESS:
            async with self._database.read() as connection:
                session = await self._repository.session(connection, digest(token))
            if session is None or session.expires_at_ns <= now or not session.user.active:
                raise _unknown()
            return actor_of(session.user, address=address, request_id=request_id, session_id=session.id)
        async with self._database.read() as connection:
            found = await self._repository.token_with_digest(connection, digest(token))
        if found is None:
            raise _unknown()
        held, user = found
        if not held.usable(now) or not user.active:
            raise _unknown()
        if held.last_used_at_ns is None or now - held.last_used_at_ns >= _USED_EVERY_NS:
            async with self._database.unit() as work:
                await self._repository.update_token(work.connection, held, {"last_used_at_ns": now})
        return actor_of(user, held, address=address, request_id=request_id)

    async def _begin(self, user: User, email: str, rehashed: str | None, actor: Actor) -> Session:
        token, now = mint(ACCESS), self._clock.now_ns()
        session = Session(id=new_id("ses"), token=token, expires_at_ns=now + LIFETIME_SECONDS * NANOSECONDS, expires_in=LIFETIME_SECONDS)
        async with self._database.unit(user.organization_id) as work:
            current = await self._repository.user(work.connection, user.organization_id, user.id)
            if current is None or not current.active:  # ended while the password was being checked
                raise Unauthenticated(_REFUSED)
            await self._attempts.forgive(work.connection, email, actor.address, user)
            changes = {"last_login_at_ns": now} | ({"password_hash": rehashed} if rehashed else {})
            await self._repository.update_user(work.connection, user, changes)
            await self._repository.add_session(
                work.connection, user, session_id=session.id, digest=digest(token.open()), now_ns=now, until_ns=session.expires_at_ns
            )
            await self._audit.record(work, actor, "session.login", session.id)
        return session


def _unknown() -> Unauthenticated:
    return Unauthenticated("The token is not known, has expired or was revoked; sign in again")
