"""What virtual keys need from others. The ports are those of policies; they stand here under the names that this area uses."""

from __future__ import annotations

from keygate.policies import BudgetStanding, KeyUsage, LimitStanding, OwnerDirectory, StatePublisher, UsageReader

__all__ = ["BudgetStanding", "KeyUsage", "LimitStanding", "OwnerDirectory", "StatePublisher", "UsageReader"]
