"""Money is an integer of nano-dollars inside, and a decimal string of dollars on the wire. Never a float."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from keygate.errors import InvalidInput

NANO = 1_000_000_000
MAX_NANO = 9_000_000_000 * NANO  # fits a signed 64-bit column


def parse_usd(text: str | int | Decimal, *, field: str = "amount_usd") -> int:
    """`"10.00"` → 10_000_000_000. Refuses floats, negatives, more than nine decimals and absurd sizes."""
    if isinstance(text, bool | float):
        raise InvalidInput(f'{field}: send money as a decimal string, for example "10.00"', field=field)
    try:
        value = Decimal(text)
    except (InvalidOperation, ValueError):
        raise InvalidInput(f'{field}: not an amount of money; write dollars such as "10.00"', field=field) from None
    if not value.is_finite() or value < 0:
        raise InvalidInput(f"{field}: must be zero or more", field=field)
    if value > MAX_NANO // NANO:
        raise InvalidInput(f"{field}: must be at most {MAX_NANO // NANO} dollars", field=field)
    nano = value * NANO
    if nano != nano.to_integral_value():
        raise InvalidInput(f"{field}: at most nine decimals", field=field)
    return int(nano)


def format_usd(nano: int) -> str:
    """10_000_000_000 → `"10.00"`; always at least two decimals, never more than nine, no exponent."""
    sign = "-" if nano < 0 else ""
    digits = str(abs(nano)).rjust(10, "0")
    fraction = digits[-9:].rstrip("0")
    return f"{sign}{digits[:-9]}.{fraction if len(fraction) > 1 else fraction.ljust(2, '0')}"
