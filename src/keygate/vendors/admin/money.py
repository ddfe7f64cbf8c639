"""A vendor's amounts as nano-dollars: decimals all the way, never floats. What is no amount, or no dollars, is refused and not guessed."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from keygate.kit.money import NANO
from keygate.vendors.admin.errors import Rejected, Unavailable

_MOST = 9 * 10**18  # nano-dollars: what a column holds, nine billion dollars


def nano_of(amount: Any, *, what: str, per_dollar: int = 1) -> int:
    """Nano-dollars of a decimal string or a JSON number, rounded to even; absent is nothing. `per_dollar`: 100 for an amount in cents."""
    if amount is None or amount == "":
        return 0
    try:
        nano = (Decimal(str(amount)) * NANO / per_dollar).to_integral_value()
        whole = int(nano)
    except (InvalidOperation, ValueError, OverflowError):
        whole = _MOST + 1
    if isinstance(amount, bool) or abs(whole) > _MOST:
        raise Unavailable(f"{what}: the vendor tells an amount that is none: {str(amount)[:40]!r}")
    return whole


def dollars_only(currency: Any, *, what: str) -> None:
    """Raises `Rejected` for a bill in another currency; one that names none is in dollars."""
    if currency is not None and str(currency).upper() not in {"USD", ""}:
        raise Rejected(f"{what}: the bill is in {str(currency)[:20]}; KeyGate reads bills in US dollars only", reason="currency")
