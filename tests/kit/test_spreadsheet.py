"""Cells that a spreadsheet would run."""

from __future__ import annotations

import pytest

from keygate.kit.spreadsheet import cell


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|x!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]
)
def test_a_formula_is_written_as_text(text: str) -> None:
    assert cell(text) == "'" + text


@pytest.mark.parametrize(("value", "written"), [(None, ""), (12, "12"), ("a=b@example.com", "a=b@example.com"), ("", "")])
def test_what_is_none_stays_as_it_is(value: str | int | None, written: str) -> None:
    assert cell(value) == written
