"""Patterns with `*`, against the standard library's own as the reference."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.policies import covers, matches
from keygate.policies.patterns import compiled, compiled_caseless

alphabet = st.sampled_from("ab/.:*?[]")
patterns = st.text(alphabet, max_size=8)
names = st.text(st.sampled_from("ab/.:?[]"), max_size=10)


def reference(pattern: str, name: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None


@given(patterns, names)
def test_a_star_is_any_run_of_characters_and_nothing_else_is_special(pattern: str, name: str) -> None:
    assert matches(pattern, name) == reference(pattern, name)


@given(st.lists(patterns, max_size=5).map(tuple), names)
def test_a_list_matches_when_one_of_its_patterns_does(several: tuple[str, ...], name: str) -> None:
    assert compiled(several).match(name) == any(reference(pattern, name) for pattern in several)


@given(st.lists(st.text(st.sampled_from("aAbB*"), max_size=5), max_size=3).map(tuple), st.text(st.sampled_from("aAbB"), max_size=6))
def test_caseless_lists_match_every_spelling(several: tuple[str, ...], name: str) -> None:
    assert compiled_caseless(several).match(name.lower()) == any(reference(p.lower(), name.lower()) for p in several)


@given(patterns, patterns, names)
def test_a_covering_pattern_matches_whatever_the_covered_one_does(wider: str, narrower: str, name: str) -> None:
    if covers(wider, narrower) and matches(narrower, name):
        assert matches(wider, name)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("openai/gpt-4.1*", "openai/gpt-4.1", True),
        ("openai/gpt-4.1*", "openai/gpt-4.1-mini", True),
        ("openai/gpt-4.1*", "openai/gpt-4o", False),
        ("openai/gpt-4.1*", "openai/gpt-441", False),
        ("anthropic/*", "anthropic/claude-sonnet-4-5", True),
        ("*/gpt-4o", "openai/gpt-4o", True),
        ("*", "", True),
        ("hf/*:fast", "hf/meta-llama/Llama-3:fast", True),
        ("", "openai/gpt-4o", False),
    ],
)
def test_patterns_as_people_write_them(pattern: str, name: str, *, expected: bool) -> None:
    assert matches(pattern, name) is expected


def test_a_hostile_pattern_is_not_slow() -> None:
    assert not matches("*a" * 500 + "b", "a" * 5_000)
