"""What issued keys need from others. `OwnerDirectory` is a port of policies; it stands here under the name that this area uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from keygate.policies import OwnerDirectory

__all__ = ["HeldBack", "OwnerDirectory"]


class HeldBack(Protocol):
    """What KeyGate itself does to keys at vendors for their budgets. Implemented by vendor_spend."""

    async def held_back(self, organization_id: str, key_ids: Sequence[str]) -> Mapping[str, str]:
        """`lowered` or `disabled`, as the vendor has confirmed it, by key; keys that work as agreed are left out."""
