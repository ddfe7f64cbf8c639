"""Request bodies: decoding only what is needed, checking what is governed, changing single members.

A body must mean the same to us and to the vendor. So it must be UTF-8, and a governed member must stand in it once: parsers differ
in whether the first or the last of two wins. msgspec decodes escaped names (`mod\\u0065l`) as what they mean, and calls the decoding
hook for each occurrence, so counting those calls finds duplicates in every spelling at the price of one call a member.
Names that differ in case are other names (RFC 8259); both vendors refuse members that they don't know.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from keygate.gateway.dialects.interface import BadBody

Shape = TypeVar("Shape", bound=msgspec.Struct)

MAX_MODEL = 256
MAX_COUNT = 2**31


@final
class Member:
    """The value of one occurrence of a governed member, of any JSON type. A field's type is `Member | UnsetType`; absent is UNSET."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


Governed = Member | UnsetType


class BodyDecoder(Generic[Shape]):
    """Decodes bodies into `shape`, whose `Governed` fields are checked to occur once. For use on one thread."""

    __slots__ = ("_decoder", "_governed", "_met")

    def __init__(self, shape: type[Shape]) -> None:
        self._met: list[object] = []
        self._governed = tuple(field.name for field in msgspec.structs.fields(shape) if field.type == Governed)
        self._decoder = msgspec.json.Decoder(shape, dec_hook=self._meet)

    def _meet(self, _kind: type, value: Any) -> Member:
        member = Member(value)
        self._met.append(member)
        return member

    def decode(self, body: bytes, content_type: bytes | None) -> Shape:
        """Raises `BadBody`."""
        if content_type is not None and not is_json(content_type):
            raise BadBody("", "send the body as application/json", code="unsupported_media_type")
        met = self._met
        met.clear()
        try:
            if not body.isascii():
                body.decode()  # msgspec skips strings that it doesn't need without looking at their encoding
            shape = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _wrong_type(str(error)) from None
        except RecursionError:
            raise BadBody("", "the JSON is nested too deeply") from None
        except UnicodeError:
            raise BadBody("", "the body is not valid UTF-8") from None
        except msgspec.DecodeError as error:
            raise BadBody("", f"the body is not valid JSON: {error}") from None
        if met:
            missing = len(met) + msgspec.structs.astuple(shape).count(UNSET) - len(self._governed)
            for tool in getattr(shape, "tools", None) or ():
                if tool.type is not UNSET:
                    missing -= 1
            met.clear()
            if missing:
                raise BadBody("", f"a member stands twice in the body; send each once ({', '.join(self._governed)}, type of a tool)")
        return shape


def is_json(content_type: bytes) -> bool:
    if content_type.startswith(b"application/json"):
        return True
    kind = content_type.partition(b";")[0].strip().lower()
    return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))


def _wrong_type(message: str) -> BadBody:
    what, _, where = message.partition(" - at `$")
    return BadBody(where.rstrip("`").lstrip("."), what[:1].lower() + what[1:])


def model_name(member: Governed) -> str:
    value = None if isinstance(member, UnsetType) else member.value
    if not isinstance(value, str) or not value:
        raise BadBody("model", "name the model, for example gpt-4.1-mini")
    if len(value) > MAX_MODEL or not value.isprintable():
        raise BadBody("model", f"must be at most {MAX_MODEL} printable characters")
    return value


def flag(name: str, member: Governed) -> bool:
    if isinstance(member, UnsetType) or member.value is None:
        return False
    if member.value is True or member.value is False:
        return bool(member.value)
    raise BadBody(name, "must be true or false")


def count(name: str, member: Governed, *, least: int = 0, most: int = MAX_COUNT) -> int | None:
    """A whole number, or None where the member is absent or null."""
    if isinstance(member, UnsetType) or member.value is None:
        return None
    value = member.value
    if type(value) is not int or not least <= value <= most:
        raise BadBody(name, f"must be a whole number from {least} to {most}")
    return value


def text(name: str, member: Governed) -> str | None:
    if isinstance(member, UnsetType) or member.value is None:
        return None
    if not isinstance(member.value, str) or len(member.value) > MAX_MODEL:
        raise BadBody(name, f"must be a string of at most {MAX_MODEL} characters")
    return member.value


def given(member: Governed) -> bool:
    """Present and not null, false, empty."""
    return not isinstance(member, UnsetType) and bool(member.value)


def safe_word(value: object) -> str:
    """A type name from a body as it may stand in an error or a ledger entry."""
    if isinstance(value, str) and 0 < len(value) <= 64 and value.isascii() and value.replace("_", "").replace("-", "").isalnum():
        return value
    return "unknown"


_members: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.encode


def insert(body: bytes, name: str, value: object) -> bytes:
    """`body` with a member that it doesn't have, at its front. The object must have members already."""
    start = body.index(b"{") + 1
    return body[:start] + _encode(name) + b":" + _encode(value) + b"," + body[start:]


def replace(body: bytes, changes: dict[str, object], *, drop: tuple[str, ...] = ()) -> bytes:
    """`body` with members set or dropped; the values of all others keep their bytes (white space between members goes)."""
    members: dict[str, Any] = dict(_members.decode(body))
    for name in drop:
        members.pop(name, None)
    members.update(changes)
    return _encode(members)


def member_value(body: bytes, name: str) -> Any:
    """The decoded value of one top-level member, None if absent."""
    raw = _members.decode(body).get(name)
    return None if raw is None else msgspec.json.decode(raw)
