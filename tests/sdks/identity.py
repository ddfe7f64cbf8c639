"""An issuer of identity tokens for tests: ES256, as `vendors.admin.Issuer` promises."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from keygate.kit.clock import NANOSECONDS
from keygate.kit.secret import Secret


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TestIssuer:
    """`now_ns` is the time that its tokens are issued at."""

    __test__ = False
    url = "https://keygate.example"

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._now_ns = now_ns

    def jwks(self) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        point = {"x": _text(numbers.x.to_bytes(32, "big")), "y": _text(numbers.y.to_bytes(32, "big"))}
        return {"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "use": "sig", **point}]}

    def sign(self, claims: Mapping[str, Any]) -> Secret:
        now_s = self._now_ns() // NANOSECONDS
        header = {"alg": "ES256", "typ": "JWT", "kid": "one"}
        body = {"iss": self.url, "iat": now_s, **claims}
        signed = ".".join(_text(json.dumps(part).encode()) for part in (header, body))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return Secret(f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}")
