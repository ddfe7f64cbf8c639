"""Cells of a CSV that somebody opens in a spreadsheet."""

from __future__ import annotations

_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the wide forms too: some programs read them as the narrow ones


def cell(value: str | int | None) -> str:
    """As text, where a spreadsheet would run it as a formula: what others chose (names, addresses, a vendor's words) must not be able to
    send a neighbouring cell away. OWASP, "CSV Injection"."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
