"""A limit is created in its own words, or as keys write theirs."""

import pytest
from pydantic import ValidationError

from keygate.policies.schemas import LimitCreate


def test_a_limit_is_read_as_keys_write_theirs() -> None:
    plain = LimitCreate.model_validate({"scope": "team", "scope_id": "team_1", "kind": "requests_per_minute", "amount": 60})
    assert LimitCreate.model_validate({"scope": "team", "scope_id": "team_1", "requests_per_minute": 60}) == plain


@pytest.mark.parametrize(
    "body", [{}, {"requests_per_minute": 1, "requests_per_day": 2}, {"requests_per_hour": 1}, {"requests_per_day": "x"}]
)
def test_what_is_neither_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LimitCreate.model_validate({"scope": "organization", **body})
