"""Answers of AWS's query protocol. Shapes: botocore 1.44.6, iam 2010-05-08 and sts 2011-06-15; lists are `<member>` elements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

NAMESPACES = {"iam": "https://iam.amazonaws.com/doc/2010-05-08/", "sts": "https://sts.amazonaws.com/doc/2011-06-15/"}


@dataclass(frozen=True, slots=True)
class Entries:
    """A map: `<entry><key/><value/></entry>`."""

    members: Mapping[str, Any]


def result(service: str, action: str, members: Mapping[str, Any] | None, request_id: str) -> bytes:
    """`<ActionResponse><ActionResult>…`; None: an action that answers nothing."""
    inner = "" if members is None else _element(f"{action}Result", members)
    meta = f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
    return f'<{action}Response xmlns="{NAMESPACES[service]}">{inner}{meta}</{action}Response>'.encode()


def failure(service: str, status: int, code: str, message: str, request_id: str) -> bytes:
    kind = "Sender" if status < 500 else "Receiver"
    inner = _element("Error", {"Type": kind, "Code": code, "Message": message})
    return f'<ErrorResponse xmlns="{NAMESPACES[service]}">{inner}<RequestId>{request_id}</RequestId></ErrorResponse>'.encode()


def _element(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        inner = "".join(_element(each, member) for each, member in value.items() if member is not None)
    elif isinstance(value, Entries):
        inner = "".join(_element("entry", {"key": each, "value": member}) for each, member in value.members.items())
    elif isinstance(value, list | tuple):
        inner = "".join(_element("member", each) for each in value)
    else:
        inner = str(value).lower() if isinstance(value, bool) else escape(str(value))
    return f"<{name}>{inner}</{name}>"
