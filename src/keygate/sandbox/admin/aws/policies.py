"""What an IAM policy allows: as much of AWS's evaluation as keys for Bedrock need.

Source: IAM User Guide, "Policy evaluation logic" and "IAM JSON policy elements": an explicit deny wins, then an allow, else it is
denied; `*` and `?` are wildcards; action names ignore case. Of conditions only DateLessThan and DateGreaterThan on `aws:CurrentTime`
are known: with another one an allow doesn't hold and a deny does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from keygate.kit.clock import to_ns


def read_policy(document: str) -> list[Mapping[str, Any]]:
    """Its statements. ValueError: malformed, as `MalformedPolicyDocument` is told."""
    try:
        policy = json.loads(document)
    except (ValueError, RecursionError):
        raise ValueError("Syntax errors in policy.") from None
    statements = policy.get("Statement") if isinstance(policy, dict) else None
    statements = [statements] if isinstance(statements, dict) else statements
    if not isinstance(statements, list) or policy.get("Version") not in {"2012-10-17", "2008-10-17"}:
        raise ValueError("Syntax errors in policy.")
    for one in statements:
        whole = (
            isinstance(one, dict) and one.get("Effect") in {"Allow", "Deny"} and _texts(one.get("Action")) and _texts(one.get("Resource"))
        )
        if not whole:
            raise ValueError("Policy statement must contain actions and resources.")
    return statements


def allows(statements: Iterable[Mapping[str, Any]], action: str, resource: str, *, now_ns: int) -> bool:
    allowed = False
    for one in statements:
        named = any(_matches(pattern.lower(), action.lower()) for pattern in _texts(one.get("Action")))
        if not named or not any(_matches(pattern, resource) for pattern in _texts(one.get("Resource"))):
            continue
        met = _met(one.get("Condition"), now_ns)
        if one["Effect"] == "Deny" and met is not False:
            return False
        allowed = allowed or (one["Effect"] == "Allow" and met is True)
    return allowed


def _texts(value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    return values if isinstance(values, list) and values and all(isinstance(each, str) for each in values) else []


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text) is not None


def _met(condition: Any, now_ns: int) -> bool | None:
    """None: can't be told."""
    if condition is None:
        return True
    if not isinstance(condition, dict):
        return None
    for operator, keys in condition.items():
        if operator not in {"DateLessThan", "DateGreaterThan"} or not isinstance(keys, dict) or set(keys) != {"aws:CurrentTime"}:
            return None
        try:
            moment_ns = to_ns(datetime.fromisoformat(keys["aws:CurrentTime"]))
        except (ValueError, TypeError):
            return None
        if (now_ns < moment_ns) is not (operator == "DateLessThan"):
            return False
    return True
