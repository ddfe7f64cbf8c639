"""Which field is wrong: named as its caller has sent it, whatever the validator calls its own parts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.contract.house import House


@pytest.fixture(scope="module")
def token(house: House) -> str:
    return house.keygate.sign_in()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"budget_usd": 12.5}, "budget_usd"),
        ({"budget_usd": ["5"]}, "budget_usd"),
        ({"budget_usd": True}, "budget_usd"),
        ({"budget_usd": -1}, "budget_usd"),
        ({"models": ["gpt", 7]}, "models.1"),
        ({"rate_limit_rpm": 0}, "rate_limit_rpm"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"budget": "5"}, "budget"),
    ],
)
def test_a_wrong_field_has_the_name_that_its_caller_sent(house: House, token: str, body: dict[str, Any], field: str) -> None:
    answer = house.raw("POST", "/keys/provision", token=token, json={"vendor": "openai", **body})
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    rows = {"vendor": "openai", "rows": [{"email": "a@example.com", **body}]}
    answer = house.raw("POST", "/bulk/check", token=token, json=rows)
    assert (answer.status_code, answer.json()["field"]) == (422, f"rows.0.{field}")


def test_a_name_that_is_no_name_is_told_where_it_stands(house: House, token: str) -> None:
    answer = house.raw("POST", "/keys/provision", token=token, json={"vendor": "openai", "options": {"BAD KEY": "x"}})
    assert answer.json()["field"] == "options.BAD KEY"


def test_fields_that_exclude_each_other_are_told_as_such(house: House, token: str) -> None:
    body = {"vendor": "openai", "expires_in_days": 3, "expires_at": "2027-01-01T00:00:00Z"}
    problem = house.raw("POST", "/keys/provision", token=token, json=body).json()
    assert problem["detail"] == "send expires_in_days or expires_at, not both"
    assert house.raw("POST", "/keys/provision", token=token, json={}).json()["field"] == "vendor"


def test_no_address_names_a_field_that_nobody_sent(house: House, token: str) -> None:
    """Every address that takes a body, each of its fields once of a wrong kind."""
    document = house.client.get("/api/v1/openapi.json").json()
    wrong = {"{}": [{}]}
    named = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            for each in schema.get("anyOf", [schema]):
                parts = document["components"]["schemas"].get(each.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
                for part in parts:
                    answer = house.client.request(
                        method, re.sub(r"{[^}]*}", "x_1", path), json={part: wrong}, headers={"authorization": f"Bearer {token}"}
                    )
                    field = answer.json().get("field") if answer.status_code == 422 else None
                    if field is not None:
                        named += 1
                        assert set(field.split(".")) <= {*parts, "{}", "0"}, (method, path, part, field)
    assert named > 50


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/keys?vendor=OpenAI", "vendor: only small letters, digits, _, -"),
        ("/usage?group_by=KEY", "group_by: only small letters, _, commas"),
    ],
)
def test_what_a_text_may_hold_is_told_in_words(house: House, token: str, path: str, told: str) -> None:
    answer = house.raw("GET", path, token=token)
    assert (answer.status_code, answer.json()["detail"]) == (422, told)


def test_one_of_a_few_words_is_told_with_all_of_them(house: House, token: str) -> None:
    answer = house.raw("POST", "/keys/provision", token=token, json={"vendor": "openai", "deliver": "pigeon"})
    assert answer.json()["detail"] == "deliver: one of answer, link, later"
