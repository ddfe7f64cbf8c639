"""What issued keys need from others. Ports of policies stand here under the names that this area uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from keygate.identities import Actor
from keygate.policies import OwnerDirectory

__all__ = ["Budgets", "KeptBudget", "OwnerDirectory"]


@dataclass(frozen=True, slots=True)
class KeptBudget:
    """Who keeps a key's budget, and why that can't be relied on."""

    enforced_by: str  # vendor, keygate or nobody
    trouble: str | None


class Budgets(Protocol):
    """Budgets by the vendors' bills. Implemented by vendor_spend."""

    async def kept(self, actor: Actor, key_id: str) -> KeptBudget:
        """Raises `NotFound` for a key that is not this actor's to see."""

    async def held_back(self, organization_id: str, key_ids: Sequence[str]) -> Mapping[str, str]:
        """What KeyGate does to keys at vendors for their budgets: `lowered` or `disabled`, as the vendor has confirmed it, by key; keys
        that work as agreed are left out."""
