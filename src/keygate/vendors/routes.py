"""Which endpoint a path means. Whole paths are looked up in one dict made at import; paths with an id in them take a slower way."""

from __future__ import annotations

from typing import NamedTuple

from keygate.vendors.model import Endpoint, ErrorStyle, Vendor


class Match(NamedTuple):
    """A served endpoint. `vendor` None: `/v1/…`, chosen by the model's name; then `for_vendor` gives the vendor's own match."""

    vendor: Vendor | None
    endpoint: Endpoint
    style: ErrorStyle  # how refusals are worded here
    upstream_path: bytes  # below the credential's base URL: `/chat/completions` for OpenAI, `/v1/messages` for Anthropic
    parameter: str | None = None  # the id in the path, percent-decoded: `gpt-4.1` of `/v1/models/gpt-4.1`
