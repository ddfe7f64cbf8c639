"""How every other area writes to the audit log: in its own transaction, before the effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from keygate.identities import Actor

if TYPE_CHECKING:
    from keygate.kit.database import UnitOfWork


class AuditLog(Protocol):
    async def record(
        self,
        work: UnitOfWork,
        actor: Actor,
        action: str,
        target: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        detail: str | None = None,
    ) -> None:
        """Appends one entry to the organisation's chain, inside `work`: if it can't be written the effect doesn't happen. `work` is a
        unit of the actor's organisation (a RuntimeError otherwise), so that entries of one chain are written one after another.

        `action` is `noun.verb` (`virtual_key.revoke`), `target` an id. Values of `before`/`after` must be JSON; `Secret`s are
        written as digests (`sha256:…` keyed by the pepper), never in the clear.
        """

    async def refused(self, actor: Actor, action: str, target: str, *, reason: str) -> None:
        """Records a refusal to change something, in a transaction of its own."""


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries a list shows. None: any. `actor` and `target` are ids; times are `from ≤ time < to`."""

    from_ns: int | None = None
    to_ns: int | None = None
    actor: str | None = None
    action: str | None = None
    target: str | None = None
    outcome: str | None = None
