"""KeyGate as an issuer of identity tokens: JWTs signed with ES256 (RFC 7515, RFC 7518 section 3.4), its public key as a JWK (RFC 7517)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from keygate.kit.clock import NANOSECONDS, Clock
from keygate.kit.secret import Secret

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (FIPS 186-5)


class TokenIssuer:
    """The `Issuer` of provisioners. `seed`: 32 bytes, KeyGate's own secret of this name."""

    def __init__(self, seed: bytes, *, url: str, clock: Clock) -> None:
        scalar = int.from_bytes(hashlib.sha512(b"keygate-issuer-1" + seed).digest(), "big") % (_ORDER - 1) + 1
        self._key = ec.derive_private_key(scalar, ec.SECP256R1())
        self._url = url
        self._clock = clock
        numbers = self._key.public_key().public_numbers()
        public = {"crv": "P-256", "kty": "EC", "x": _text(numbers.x.to_bytes(32, "big")), "y": _text(numbers.y.to_bytes(32, "big"))}
        thumbprint = json.dumps(public, sort_keys=True, separators=(",", ":")).encode()  # RFC 7638
        self._key_id = _text(hashlib.sha256(thumbprint).digest())
        self._public = {**public, "kid": self._key_id, "alg": "ES256", "use": "sig"}

    @property
    def url(self) -> str:
        return self._url

    def jwks(self) -> dict[str, Any]:
        return {"keys": [dict(self._public)]}

    def sign(self, claims: Mapping[str, Any]) -> Secret:
        head = {"alg": "ES256", "kid": self._key_id, "typ": "JWT"}
        body = {**claims, "iss": self._url, "iat": self._clock.now_ns() // NANOSECONDS}
        signed = ".".join(_text(json.dumps(part, separators=(",", ":")).encode()) for part in (head, body))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        return Secret(f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
