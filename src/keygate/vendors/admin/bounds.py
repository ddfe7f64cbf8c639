"""Bounds that several vendors have in common, for their `check`. Pure."""

from __future__ import annotations

from keygate.kit.money import NANO
from keygate.vendors.admin.errors import Unfit
from keygate.vendors.admin.interface import Period, Term

_CENT_NANO = NANO // 100


def monthly_cents(title: str, amount_nano: int, period: Period) -> int:
    """The amount in cents. Raises `Unfit` for a limit that is not by month, or not of whole cents."""
    monthly(title, period)
    cents, rest = divmod(amount_nano, _CENT_NANO)
    if rest or cents < 1:
        raise Unfit(Term.BUDGET, f'{title} takes whole cents, one at least: write it as "5.00"')
    return cents


def monthly(title: str, period: Period) -> None:
    if period is not Period.MONTH:
        raise Unfit("budget_period", f"{title}'s spend limits are monthly: ask for a budget by month, or give out a virtual key")
