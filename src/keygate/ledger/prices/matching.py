"""Which entry of a price table a model's name means: the rules of genai-prices, compiled. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

Clause = Sequence[Any]

_COMPACT_DATE = re.compile(r"(-)(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class Matcher:
    """The first entry whose rule fits wins. Exact names are looked up; only rules of other kinds are tried one by one."""

    def __init__(self, rules: Sequence[Clause]) -> None:
        self._exact: dict[str, int] = {}
        self._others: list[tuple[int, Callable[[str], bool]]] = []
        for index, rule in enumerate(rules):
            exact, others = _split(rule)
            for name in exact:
                self._exact.setdefault(name, index)
            if others:
                self._others.append((index, compile_clause(["|", *others])))

    def find(self, name: str) -> int | None:
        """The index of the entry that `name` (lower case) means."""
        best = self._exact.get(name)
        for index, fits in self._others:
            if best is not None and index >= best:
                break
            if fits(name):
                return index
        return best


def dashed_dates(name: str) -> str:
    """`gpt-5.2-20251211` → `gpt-5.2-2025-12-11`; what is no date stays."""
    return _COMPACT_DATE.sub(_dash, name)


def _dash(match: re.Match[str]) -> str:
    year, month, day = (int(match.group(index)) for index in (2, 3, 4))
    try:
        date(year, month, day)
    except ValueError:
        return match.group(0)
    return f"{match.group(1)}{year:04d}-{month:02d}-{day:02d}"


def _split(rule: Clause) -> tuple[list[str], list[Clause]]:
    if rule[0] == "=":
        return [rule[1]], []
    if rule[0] == "|":
        exact: list[str] = []
        others: list[Clause] = []
        for inner in rule[1:]:
            more_exact, more_others = _split(inner)
            exact += more_exact
            others += more_others
        return exact, others
    return [], [rule]


def compile_clause(rule: Clause) -> Callable[[str], bool]:
    sign, *rest = rule
    if sign in {"|", "&"}:
        parts = [compile_clause(inner) for inner in rest]
        if sign == "|":
            return lambda name: any(fits(name) for fits in parts)
        return lambda name: all(fits(name) for fits in parts)
    text: str = rest[0]
    if sign == "~":
        pattern = re.compile(text)
        return lambda name: pattern.search(name) is not None
    simple: dict[str, Callable[[str], bool]] = {
        "=": lambda name: name == text,
        "^": lambda name: name.startswith(text),
        "$": lambda name: name.endswith(text),
        "*": lambda name: text in name,
    }
    return simple[sign]
