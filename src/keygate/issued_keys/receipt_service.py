"""Receipts as people fetch them: signed as of now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keygate.audit import Signer
from keygate.errors import NotFound
from keygate.identities import Actor
from keygate.issued_keys import receipts
from keygate.issued_keys.receipts import Receipt
from keygate.kit.clock import Clock

if TYPE_CHECKING:
    from keygate.issued_keys.repository import IssuedKeyRepository
    from keygate.kit.database import Database


class ReceiptService:
    def __init__(self, *, database: Database, repository: IssuedKeyRepository, signer: Signer, clock: Clock) -> None:
        self._database = database
        self._repository = repository
        self._signer = signer
        self._clock = clock

    async def page(self, actor: Actor, *, subject: str | None = None, before: str | None, limit: int) -> list[Receipt]:
        async with self._database.read() as connection:
            return await self._repository.receipts(connection, actor.organization_id, subject=subject, before=before, limit=limit)

    async def document(self, actor: Actor, receipt_id: str) -> dict[str, Any]:
        """What each vendor has confirmed by now, and what remains. Raises `NotFound`."""
        async with self._database.read() as connection:
            found = await self._repository.receipt(connection, actor.organization_id, receipt_id)
            if found is None:
                raise NotFound("There is no receipt with this id")
            ids = [each.partition("#")[0] for each in found.issued_keys]
            keys = await self._repository.by_ids(connection, actor.organization_id, ids)
        return receipts.document(found, keys, at_ns=self._clock.now_ns(), signer=self._signer)
