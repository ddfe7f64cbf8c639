"""What may be written into rules, limits, budgets and aliases. Pure; every refusal names the field and the remedy."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from keygate.errors import InvalidInput
from keygate.policies.model import BESIDE, BudgetSpec, Rules
from keygate.policies.patterns import covers
from keygate.policies.state import LimitKind, Period, Scope
from keygate.vendors import EndpointGroup, Vendor

MAX_PATTERNS = 200
MAX_PATTERN = 200
MAX_AMOUNT = 2**53  # of a limit: exact in every JSON reader
MAX_TAGS = 50
_MAX_STARS = 8
_EXAMPLES = {Scope.VENDOR: "openai", Scope.MODEL: "anthropic/claude-opus-*", Scope.TAG: "project=search"}


def text(value: str, field: str, *, longest: int = 200, empty: bool = False) -> str:
    """Printable text, outer blanks removed."""
    value = value.strip()
    if not value and not empty:
        raise InvalidInput(f"{field}: must not be empty", field=field)
    if len(value) > longest:
        raise InvalidInput(f"{field}: at most {longest} characters", field=field)
    if any(unicodedata.category(character) in {"Cc", "Cs", "Cf"} and character not in "\n\t" for character in value):
        raise InvalidInput(f"{field}: control characters are not allowed", field=field)
    return value


def vendor_names(values: Sequence[str] | None, known: Mapping[str, Vendor], field: str = "vendors") -> tuple[str, ...] | None:
    if values is None:
        return None
    for value in values:
        if value not in known:
            raise InvalidInput(f"{field}: there is no vendor {value[:60]!r}; known are {', '.join(sorted(known))}", field=field)
    return tuple(dict.fromkeys(values))


def endpoint_groups(values: Sequence[str] | None, field: str = "endpoints") -> tuple[str, ...] | None:
    if values is None:
        return None
    known = {str(group) for group in EndpointGroup}
    for value in values:
        if value not in known:
            raise InvalidInput(f"{field}: there is no endpoint group {value[:60]!r}; known are {', '.join(sorted(known))}", field=field)
    return tuple(dict.fromkeys(str(value) for value in values))


def model_pattern(value: str, known: Mapping[str, Vendor], field: str = "models", *, denial: bool = False) -> str:
    """`vendor/model` with `*`. A bare name gets the vendor that owns names like it; in a denial, and where nobody does, any vendor's."""
    if not value or len(value) > MAX_PATTERN:
        raise InvalidInput(f"{field}: a pattern has 1 to {MAX_PATTERN} characters, for example openai/gpt-4.1*", field=field)
    if not value.isprintable() or any(character.isspace() for character in value):
        raise InvalidInput(f"{field}: {value!r} contains blanks or control characters; write a pattern such as anthropic/*", field=field)
    if value.count("*") > _MAX_STARS:
        raise InvalidInput(f"{field}: at most {_MAX_STARS} stars in a pattern", field=field)
    vendor, slash, _ = value.partition("/")
    if not slash:
        return value if value == "*" else f"{'*' if denial else _owner_of(value, known)}/{value}"
    if "*" not in vendor and vendor not in known:
        raise InvalidInput(
            f"{field}: {value!r} names no known vendor before the slash; write vendor/model with one of {', '.join(sorted(known))}",
            field=field,
        )
    return value


def model_patterns(
    values: Sequence[str] | None, known: Mapping[str, Vendor], field: str = "models", *, denial: bool = False
) -> tuple[str, ...] | None:
    if values is None:
        return None
    if len(values) > MAX_PATTERNS:
        raise InvalidInput(f"{field}: at most {MAX_PATTERNS} patterns", field=field)
    return tuple(dict.fromkeys(model_pattern(value, known, field, denial=denial) for value in values))


def _owner_of(name: str, known: Mapping[str, Vendor]) -> str:
    owners = [vendor.name for vendor in known.values() if name.startswith(tuple(vendor.model_prefixes))]
    return owners[0] if len(owners) == 1 else "*"


def model_name(value: str, known: Mapping[str, Vendor], field: str = "target") -> tuple[str, str]:
    """A whole `vendor/model`, or a bare name that one vendor owns, as (vendor, model)."""
    pattern = model_pattern(value, known, field)
    vendor, _, model = pattern.partition("/")
    if "*" in pattern or not model:
        raise InvalidInput(f"{field}: name one model as vendor/model, for example openai/gpt-4.1-mini", field=field)
    return vendor, model


def alias_name(value: str, known: Mapping[str, Vendor], field: str = "alias") -> str:
    """A name of one's own: no `*`, and not one that already means a vendor's model."""
    if not value or len(value) > 100 or not value.isprintable() or any(c.isspace() or c == "*" for c in value):
        raise InvalidInput(f"{field}: 1 to 100 printable characters without blanks and stars", field=field)
    if value.partition("/")[0] in known or _owner_of(value, known) != "*":
        raise InvalidInput(f"{field}: {value!r} already means a vendor's own model; choose another name", field=field)
    return value


def limit_amounts(values: Mapping[LimitKind, int], field: str = "limits") -> tuple[tuple[LimitKind, int], ...]:
    for kind, amount in values.items():
        if not 1 <= amount <= MAX_AMOUNT:
            raise InvalidInput(f"{field}.{kind}: a whole number from 1 to {MAX_AMOUNT}", field=f"{field}.{kind}")
    return tuple(sorted(values.items()))


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())


def budget_terms(spec: BudgetSpec, field: str = "budgets") -> BudgetSpec:
    if spec.amount_nano < 0:
        raise InvalidInput(f"{field}: an amount can't be less than zero", field=field)
    if spec.rolling and spec.period is Period.LIFETIME:
        raise InvalidInput(f"{field}: a lifetime budget has no window to roll", field=field)
    if spec.time_zone not in _time_zones():
        raise InvalidInput(f"{field}: no time zone {spec.time_zone[:60]!r}; write an IANA name such as Europe/Berlin", field=field)
    ZoneInfo(spec.time_zone)
    if len(spec.thresholds) > 10 or any(not 1 <= percent <= 1_000 for percent in spec.thresholds):
        raise InvalidInput(f"{field}: at most ten thresholds, each from 1 to 1000 per cent", field=field)
    return spec


def whole_rules(rules: Rules, known: Mapping[str, Vendor]) -> Rules:
    """The rules of a policy or key, each part checked and bare model names completed."""
    if rules.server_tool_ceiling_nano is not None and rules.server_tool_ceiling_nano <= 0:
        raise InvalidInput("server_tool_ceiling_usd: more than zero; leave it out to refuse such tools", field="server_tool_ceiling_usd")
    if len(rules.content_readers) > 100:
        raise InvalidInput("content_readers: at most 100", field="content_readers")
    return replace(
        rules,
        models_allow=model_patterns(rules.models_allow, known, "models"),
        models_deny=model_patterns(rules.models_deny, known, "models_deny", denial=True) or (),
        vendors=vendor_names(rules.vendors, known),
        endpoints=endpoint_groups(rules.endpoints),
        content_readers=tuple(dict.fromkeys(text(reader, "content_readers") for reader in rules.content_readers)),
    )


def tag_list(values: Sequence[str], field: str = "tags") -> tuple[str, ...]:
    """`name=value` or `name`; no blanks around, each once, in the order given."""
    if len(values) > MAX_TAGS:
        raise InvalidInput(f"{field}: at most {MAX_TAGS} tags", field=field)
    return tuple(dict.fromkeys(text(value, field, longest=100) for value in values))


def selector(scope: Scope, value: str | None, known: Mapping[str, Vendor], field: str = "selector") -> str | None:
    """What narrows a vendor, model or tag budget; the nesting scopes take none."""
    if scope not in BESIDE:
        if value is not None:
            raise InvalidInput(f"{field}: only budgets and limits of the scopes vendor, model and tag take one", field=field)
        return None
    if not value:
        raise InvalidInput(f"{field}: name the {scope} that this counts, for example {_EXAMPLES[scope]}", field=field)
    if scope is Scope.VENDOR:
        vendor_names([value], known, field)
        return value
    if scope is Scope.MODEL:
        return model_pattern(value, known, field)
    return text(value, field, longest=MAX_PATTERN)


def narrows(new: Rules, old: Rules) -> bool:
    """Whether `new` surely allows nothing that `old` does not: what a developer may do to a live key."""
    return (
        _within(new.vendors, old.vendors)
        and _within(new.endpoints, old.endpoints)
        and set(new.models_deny) >= set(old.models_deny)
        and (
            old.models_allow is None
            or (new.models_allow is not None and all(any(covers(o, n) for o in old.models_allow) for n in new.models_allow))
        )
    )


def _within(new: tuple[str, ...] | None, old: tuple[str, ...] | None) -> bool:
    return old is None or (new is not None and set(new) <= set(old))
