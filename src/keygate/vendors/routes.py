"""Which endpoint a path means. Whole paths are looked up in one dict made at import; paths with an id in them take a slower way.

Mounts: `/openai/v1/…`, `/openai/…` (an SDK whose base URL lacks `/v1`), `/v1/openai/…`, `/v1/openai/v1/…`, and `/v1/…`, where the model's
name chooses the vendor. `/v1/v1/…` is taken as `/v1/…`: SDK versions disagree on who adds it. Paths are compared as they came: an encoded
or dotted spelling of a served path is not that path.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from keygate.vendors.model import Dialect, Endpoint, ErrorStyle, Vendor
from keygate.vendors.registry import VENDORS

_SHARED = ErrorStyle.OPENAI  # of `/v1/…`
_PARAMETER = "/{model}"


class Match(NamedTuple):
    """A served endpoint. `vendor` None: under `/v1/…`, chosen by the model's name; `for_vendor` then gives that vendor's own match."""

    vendor: Vendor | None
    endpoint: Endpoint
    style: ErrorStyle  # how refusals are worded here
    upstream_path: bytes  # below the credential's base URL: `/chat/completions` for OpenAI, `/v1/messages` for Anthropic
    parameter: str | None = None  # the id in the path, decoded: `gpt-4.1` of `/v1/models/gpt-4.1`

    def for_vendor(self, vendor: Vendor) -> Match | None:
        """The same operation at this vendor; None: it has no such endpoint."""
        found = _BY_VENDOR.get((vendor.name, self.endpoint.method, self.endpoint.path))
        return None if found is None else found._replace(style=self.style, parameter=self.parameter)


class Refused(NamedTuple):
    """A path of a vendor that is not served. `known` False: we don't know it either; the gateway passes nothing that it can't meter."""

    vendor: Vendor | None
    style: ErrorStyle
    status: int  # 403 known and not served, 404 unknown, 405 served under another method
    code: str  # endpoint_not_served, unknown_endpoint, method_not_allowed
    message: str
    allow: bytes = b""  # for 405


def _match(vendor: Vendor, endpoint: Endpoint) -> Match:
    style = ErrorStyle.OPENAI if endpoint.dialect is Dialect.OPENAI_CHAT else vendor.error_style
    return Match(vendor, endpoint, style, endpoint.path.removeprefix(vendor.root_path).encode())


def _spellings(vendor: Vendor, path: str) -> tuple[str, ...]:
    bare = path.removeprefix("/v1")
    return tuple(f"{mount}{tail}" for mount in (f"/{vendor.name}", f"/v1/{vendor.name}") for tail in (path, f"/v1{path}", bare))


def _tables() -> tuple[dict[tuple[bytes, bytes], Match], dict[tuple[bytes, bytes], Match], dict[tuple[str, str, str], Match]]:
    whole: dict[tuple[bytes, bytes], Match] = {}
    prefixed: dict[tuple[bytes, bytes], Match] = {}
    by_vendor: dict[tuple[str, str, str], Match] = {}
    for vendor in VENDORS.values():
        for endpoint in vendor.endpoints:
            match = _match(vendor, endpoint)
            by_vendor[vendor.name, endpoint.method, endpoint.path] = match
            shared = () if vendor.error_style is not _SHARED else (endpoint.path, f"/v1{endpoint.path}")
            for spelling in (*_spellings(vendor, endpoint.path), *shared):
                found = match._replace(vendor=None, style=_SHARED) if spelling in shared else match
                table, path = (prefixed, spelling.removesuffix(_PARAMETER) + "/") if spelling.endswith(_PARAMETER) else (whole, spelling)
                table[endpoint.method.encode(), path.encode()] = found
    return whole, prefixed, by_vendor


_WHOLE, _PREFIXED, _BY_VENDOR = _tables()
_METHODS: dict[bytes, bytes] = {}
for _method, _path in _WHOLE:
    _METHODS[_path] = b", ".join(filter(None, (_METHODS.get(_path), _method)))


def resolve(method: bytes, path: bytes) -> Match | Refused | None:
    """What a request for `path` (without its query) is; None: not a gateway path."""
    return _WHOLE.get((method, path)) or _resolve_slowly(method, path)


def _resolve_slowly(method: bytes, path: bytes) -> Match | Refused | None:
    vendor, style, below = _mounted(path)
    if below is None:
        return None
    allow = _METHODS.get(path)
    if allow is not None:
        name = below.decode("ascii", "replace")
        return Refused(vendor, style, 405, "method_not_allowed", f"{name} is served for {allow.decode()} only", allow)
    for (its_method, prefix), match in _PREFIXED.items():
        if its_method == method and path.startswith(prefix):
            parameter = unquote_to_bytes(path[len(prefix) :]).decode("utf-8", "replace")
            if parameter and len(parameter) <= 256 and parameter.isprintable():
                return match._replace(parameter=parameter)
    for its in VENDORS.values() if vendor is None else (vendor,):
        for refused, what in its.refused:
            prefix = refused.encode()
            if below == prefix or below.startswith(prefix if prefix.endswith(b"/") else prefix + b"/"):
                message = f"KeyGate does not serve {what} yet: they can't be metered, so they don't pass"
                return Refused(vendor, style, 403, "endpoint_not_served", message)
    return Refused(vendor, style, 404, "unknown_endpoint", "No such endpoint here: KeyGate serves only what it can meter")


def _mounted(path: bytes) -> tuple[Vendor | None, ErrorStyle, bytes | None]:
    """The vendor of a path's mount, and the path below it as the vendor spells it (`/v1/files/…`)."""
    rest = path[3:] if path.startswith((b"/v1/", b"/v1?")) or path == b"/v1" else path
    for vendor in VENDORS.values():
        mount = b"/" + vendor.name.encode()
        if rest == mount or rest.startswith(mount + b"/"):
            return vendor, vendor.error_style, _vendor_path(rest[len(mount) :])
    if rest is path:
        return None, _SHARED, None
    return None, _SHARED, _vendor_path(rest)


def _vendor_path(below: bytes) -> bytes:
    while below.startswith(b"/v1/"):
        below = below[3:]
    return b"/v1" if below in (b"", b"/", b"/v1") else b"/v1" + below
