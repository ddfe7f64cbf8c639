"""Passwords: argon2id in threads, a bounded number at a time, and as long for an unknown account as for a known one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import TypeVar

import argon2

from keygate.errors import InvalidInput, Unavailable
from keygate.kit.secret import Secret

T = TypeVar("T")

MIN_LENGTH, MAX_LENGTH = 12, 200
_AT_ONCE, _WAITING = 2, 32


class Passwords:
    """Parameters follow the OWASP password storage cheat sheet (argon2id, m=19 MiB, t=2, p=1; checked 2026-11)."""

    def __init__(self, *, memory_kib: int = 19_456, passes: int = 2) -> None:
        self._hasher = argon2.PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._nobody: str | None = None

    async def hash(self, password: Secret) -> str:
        """A PHC string. Raises `InvalidInput` for a password that is too short or too long."""
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise InvalidInput(f"password: between {MIN_LENGTH} and {MAX_LENGTH} characters", field="password")
        return await self._run(lambda: self._hasher.hash(password.open().encode("utf-8", "surrogatepass")))

    async def matches(self, stored: str | None, password: Secret) -> bool:
        """False for no stored hash, after the same work."""
        if self._nobody is None:
            self._nobody = await self._run(lambda: self._hasher.hash(secrets.token_urlsafe(24)))
        against = stored or self._nobody
        found = await self._run(lambda: self._verify(against, password))
        return found and stored is not None

    def outdated(self, stored: str) -> bool:
        """True where the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def _verify(self, stored: str, password: Secret) -> bool:
        try:
            return self._hasher.verify(stored, password.open().encode("utf-8", "surrogatepass"))
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= _WAITING:
            raise Unavailable("Too many sign-ins at once; try again in a moment")
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1
