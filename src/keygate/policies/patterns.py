"""Patterns on names: `openai/gpt-4.1*`, `anthropic/*`, `project=x`. Pure; used by rules and by the selectors of budgets and limits.

`*` stands for any run of characters, slashes and colons included, also for none; every other character is itself. A pattern covers
the whole name. There are no regular expressions below this, so no pattern can be slow: matching is linear in the length of the name.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


def matches(pattern: str, name: str) -> bool:
    """Whether `pattern` covers `name`, upper and lower case told apart."""
    if "*" not in pattern:
        return pattern == name
    first, *middle, last = pattern.split("*")
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def covers(wider: str, narrower: str) -> bool:
    """True only if everything that `narrower` matches is matched by `wider` too: a `*` is covered by nothing but a `*`."""
    return matches(wider, narrower)


class Patterns(NamedTuple):
    """A list of patterns, sorted by how they are matched."""

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    others: tuple[str, ...]

    def match(self, name: str) -> bool:
        return name in self.exact or name.startswith(self.prefixes) or any(matches(pattern, name) for pattern in self.others)


@lru_cache(maxsize=4096)
def compiled(patterns: tuple[str, ...]) -> Patterns:
    """Cheap to make again, so a full cache costs microseconds and nothing more."""
    exact, prefixes, others = [], [], []
    for pattern in patterns:
        if "*" not in pattern:
            exact.append(pattern)
        elif pattern.index("*") == len(pattern) - 1:
            prefixes.append(pattern[:-1])
        else:
            others.append(pattern)
    return Patterns(frozenset(exact), tuple(prefixes), tuple(others))


@lru_cache(maxsize=4096)
def compiled_caseless(patterns: tuple[str, ...]) -> Patterns:
    """For denials; match it against a name in lower case."""
    return compiled(tuple(pattern.lower() for pattern in patterns))
