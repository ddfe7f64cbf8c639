"""What issued keys need from others. The ports are those of policies; they stand here under the names that this area uses."""

from __future__ import annotations

from keygate.policies import OwnerDirectory

__all__ = ["OwnerDirectory"]
