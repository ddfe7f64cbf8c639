"""Signed identity tokens (RFC 7519) checked against an inline key set (RFC 7517): ES256 and RS256."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

MAX_TOKEN = 16 * 1024


def read(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """`(header, claims, what was signed, signature)`. ValueError: not a token."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > MAX_TOKEN:
        raise ValueError("the assertion is not a JWT")
    try:
        header, claims = (msgspec.json.decode(_bytes(part), type=dict[str, Any]) for part in parts[:2])
        signature = _bytes(parts[2])
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError):
        raise ValueError("the assertion is not a JWT") from None
    return header, claims, f"{parts[0]}.{parts[1]}".encode(), signature


def verified(header: dict[str, Any], signed: bytes, signature: bytes, keys: list[dict[str, Any]]) -> bool:
    """Whether one of the keys made the signature; a `kid` in the header chooses among them."""
    kid = header.get("kid")
    return any(_fits(header.get("alg"), key, signed, signature) for key in keys if kid is None or key.get("kid") == kid)


def _fits(algorithm: Any, key: dict[str, Any], signed: bytes, signature: bytes) -> bool:
    try:
        if algorithm == "ES256" and key.get("kty") == "EC" and key.get("crv") == "P-256" and len(signature) == 64:
            curve = ec.EllipticCurvePublicNumbers(_number(key["x"]), _number(key["y"]), ec.SECP256R1()).public_key()
            pair = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
            curve.verify(pair, signed, ec.ECDSA(hashes.SHA256()))
            return True
        if algorithm == "RS256" and key.get("kty") == "RSA":
            modulus = rsa.RSAPublicNumbers(_number(key["e"]), _number(key["n"])).public_key()
            modulus.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
            return True
    except (InvalidSignature, KeyError, ValueError, TypeError, binascii.Error):
        return False
    return False


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _number(part: str) -> int:
    return int.from_bytes(_bytes(part), "big")
