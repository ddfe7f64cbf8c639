"""Bounds that several vendors have in common, for their `check`. Pure."""

from __future__ import annotations

from keygate.kit.money import NANO, format_usd
from keygate.vendors.admin.errors import Unfit
from keygate.vendors.admin.interface import Period, Term

_CENT_NANO = NANO // 100


def monthly_cents(title: str, amount_nano: int, period: Period) -> int:
    """The amount in cents. Raises `Unfit` for a limit that is not by month, or not of whole cents."""
    monthly(title, period)
    return whole(title, amount_nano, _CENT_NANO, "cents")


def whole(title: str, amount_nano: int, unit_nano: int, units: str) -> int:
    """The amount in units that the vendor takes. Raises `Unfit` where it is none of them, and names those beside it."""
    number, rest = divmod(amount_nano, unit_nano)
    if rest or number < 1:
        beside = [format_usd(each * unit_nano) for each in (number, number + 1) if each > 0]
        raise Unfit(Term.BUDGET, f"{title} takes whole {units}, one at least: {' or '.join(beside)}, not {format_usd(amount_nano)}")
    return number


def monthly(title: str, period: Period) -> None:
    if period is not Period.MONTH:
        raise Unfit("budget_period", f"{title}'s spend limits are monthly: ask for a budget by month, or give out a virtual key")
