"""The one inline policy of a user: which models, until when. Written by KeyGate, and read back to tell what is in force. Pure.

Both `bedrock:CallWithBearerToken` and `bedrock:InvokeModel` must be allowed for a call with an API key. An inference profile
(`us.anthropic.…`) needs the profile and the model that it leads to; its statements have names of their own, so that the models asked
for can be told from those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from keygate.kit.clock import NANOSECONDS, from_ns, to_ns
from keygate.vendors.admin.errors import Rejected, Unfit
from keygate.vendors.admin.interface import Term, Terms

MAX_SIZE = 2048  # all inline policies of a user, spaces not counted: IAM's quota
_ACTIONS = ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"]
_PROFILE = re.compile(r"(?:us|us-gov|eu|apac|jp|au|ca|global)\.(?=[\w-]+\.)")
_MODEL = re.compile(r"[\w.:-]{1,140}", re.ASCII)
_PLAIN, _PROFILES, _BEHIND, _TOKEN = "KeyGateModels", "KeyGateProfiles", "KeyGateProfileModels", "KeyGateToken"


def document(models: Sequence[str] | None, expires_at_ns: int | None, *, partition: str = "aws") -> str:
    """Raises `Unfit` for what is no model id, and for more models than a policy holds."""
    strange = next((each for each in models or () if not _MODEL.fullmatch(each)), None)
    if strange is not None:
        raise Unfit(Term.MODELS, f"{strange[:140]} is no model or inference profile id of Bedrock; name them as `anthropic.claude-…-v1:0`")
    plain = ["*"] if models is None else [each for each in models if not _PROFILE.match(each)]
    profiles = ["*"] if models is None else [each for each in models if _PROFILE.match(each)]
    behind = [] if models is None else sorted({_PROFILE.sub("", each) for each in profiles})
    foundation = f"arn:{partition}:bedrock:*::foundation-model/"
    statements = [
        _statement(_TOKEN, ["bedrock:CallWithBearerToken"], ["*"], expires_at_ns),
        _statement(_PLAIN, _ACTIONS, [foundation + each for each in plain], expires_at_ns),
        _statement(_PROFILES, _ACTIONS, [f"arn:{partition}:bedrock:*:*:inference-profile/{each}" for each in profiles], expires_at_ns),
        _statement(_BEHIND, _ACTIONS, [foundation + each for each in behind], expires_at_ns),
    ]
    text = json.dumps({"Version": "2012-10-17", "Statement": [one for one in statements if one["Resource"]]}, separators=(",", ":"))
    if len(text) > MAX_SIZE:
        raise Unfit(Term.MODELS, f"These models don't fit in an IAM user's policy ({len(text)} of {MAX_SIZE} characters); name fewer")
    return text


def terms_of(document_text: str) -> Terms | None:
    """What a policy allows, if it is one that KeyGate wrote; None: someone changed it, so nothing can be told."""
    try:
        policy = json.loads(unquote(document_text))
        statements = {str(one["Sid"]): one for one in policy["Statement"]}
        ends = {_end(one) for one in statements.values()}
        plain, profiles = _names(statements.get(_PLAIN)), _names(statements.get(_PROFILES))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    models = None if plain == ["*"] else tuple(sorted(plain + profiles))
    if len(ends) != 1:
        return None
    expires_at_ns = ends.pop()
    partition = str(statements.get(_PLAIN, statements.get(_PROFILES, {})).get("Resource", [""])[0]).split(":")[1:2]
    try:
        same = json.loads(document(models, expires_at_ns, partition=partition[0] if partition else "aws"))
    except Rejected:
        return None
    if _sorted(same) != _sorted(policy):
        return None
    return Terms(models=models, expires_at_ns=expires_at_ns)


def whole_second(expires_at_ns: int | None) -> int | None:
    """Policies know seconds: the end is never later than asked."""
    return None if expires_at_ns is None else expires_at_ns // NANOSECONDS * NANOSECONDS


def _statement(sid: str, actions: list[str], resources: list[str], expires_at_ns: int | None) -> dict[str, Any]:
    statement: dict[str, Any] = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    if expires_at_ns is not None:
        moment = from_ns(expires_at_ns).strftime("%Y-%m-%dT%H:%M:%SZ")
        statement["Condition"] = {"DateLessThan": {"aws:CurrentTime": moment}}
    return statement


def _end(statement: Mapping[str, Any]) -> int | None:
    condition = statement.get("Condition")
    return None if condition is None else to_ns(datetime.fromisoformat(condition["DateLessThan"]["aws:CurrentTime"]))


def _names(statement: Mapping[str, Any] | None) -> list[str]:
    return [] if statement is None else [str(each).rpartition("/")[2] for each in statement["Resource"]]


def _sorted(policy: Mapping[str, Any]) -> list[Any]:
    return sorted(json.dumps({**one, "Resource": sorted(one["Resource"])}, sort_keys=True) for one in policy["Statement"])
