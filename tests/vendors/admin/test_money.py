"""A vendor's amounts as nano-dollars."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.vendors.admin import Rejected, Unavailable
from keygate.vendors.admin.money import dollars_only, nano_of


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=9))
def test_nine_decimals_are_exact_as_text_and_as_a_number(amount: Decimal) -> None:
    assert nano_of(str(amount), what="") == nano_of(amount, what="") == int(amount * 10**9)


@given(st.integers(-9 * 10**11, 9 * 10**11))
def test_cents_are_exact(cents: int) -> None:
    assert nano_of(cents, what="", per_dollar=100) == cents * 10**7


@pytest.mark.parametrize(("amount", "nano"), [(None, 0), ("", 0), ("0", 0), ("0.0000000015", 2), ("0.0000000025", 2), (0.1, 10**8)])
def test_what_is_absent_is_nothing_and_halves_go_to_even(amount: Any, nano: int) -> None:
    assert nano_of(amount, what="") == nano


@pytest.mark.parametrize("amount", ["NaN", "-Infinity", "1e30", "1,5", "one", True, [], {}, object()])
def test_what_is_no_amount_is_refused(amount: Any) -> None:
    with pytest.raises(Unavailable, match="read it"):
        nano_of(amount, what="read it")


@pytest.mark.parametrize("currency", [None, "", "usd", "USD"])
def test_dollars_are_taken(currency: Any) -> None:
    dollars_only(currency, what="")


@pytest.mark.parametrize("currency", ["EUR", "CNY", "credits", 5])
def test_other_currencies_are_refused(currency: Any) -> None:
    with pytest.raises(Rejected, match="US dollars only"):
        dollars_only(currency, what="read it")
