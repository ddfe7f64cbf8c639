"""Whether a rule of a vendor, a model or a tag concerns a request. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase

from keygate.policies import BudgetRule, LimitRule, Scope


def applies(rule: BudgetRule | LimitRule, vendor: str, model: str, tags: tuple[str, ...]) -> bool:
    """Rules of nesting scopes concern every request of the key. `*` in a selector stands for any text; case does not matter."""
    selector = rule.selector
    if rule.scope is Scope.TAG:
        return selector is None or any(_fits(tag, selector) or _fits(tag.partition("=")[0], selector) for tag in tags)
    if selector is None:
        return True
    if rule.scope is Scope.VENDOR:
        return _fits(vendor, selector)
    if rule.scope is Scope.MODEL:
        return _fits(f"{vendor}/{model}", selector) or ("/" not in selector and _fits(model, selector))
    return True


def _fits(text: str, pattern: str) -> bool:
    escaped = pattern.lower().replace("[", "[[]").replace("?", "[?]")
    return fnmatchcase(text.lower(), escaped)
