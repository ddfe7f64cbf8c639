"""The token endpoint for service accounts: a JWT signed with the account's key for an access token (RFC 7523, as google-auth sends it)."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Collection, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from keygate.sandbox.admin.google.cloud import GoogleCloud
from keygate.sandbox.admin.google.errors import GoogleError, OAuthError
from keygate.sandbox.admin.google.model import Json, ServiceAccount

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LONGEST = 3600
_SKEW = 300


def exchange(cloud: GoogleCloud, form: Mapping[str, str], *, audiences: Collection[str]) -> Json:
    """An access token of an hour. `OAuthError` where the assertion isn't good or the account is disabled."""
    if form.get("grant_type") != GRANT:
        raise OAuthError("unsupported_grant_type", "Invalid grant_type")
    head, claims, signed, signature = _parts(form.get("assertion", ""))
    try:
        account = cloud.account(str(claims.get("iss", "")), visible=False)
    except GoogleError:
        raise OAuthError("invalid_grant", "Invalid grant: account not found") from None
    _verify(account, str(head.get("kid", "")), signed, signature)
    issued, expires = claims.get("iat"), claims.get("exp")
    if not isinstance(issued, int) or not isinstance(expires, int) or expires - issued > _LONGEST:
        raise OAuthError("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.")
    # By the caller's time, as the vendor's own clock may be moved forward; a caller that knows of that may go by it.
    if not any(now - _LONGEST - _SKEW <= issued <= now + _SKEW and expires > now for now in (time.time(), cloud.now())):
        raise OAuthError("invalid_grant", "Invalid JWT: Token must be in a reasonable timeframe.")
    if claims.get("aud") not in audiences:
        raise OAuthError("invalid_grant", "Invalid JWT: Failed audience check.")
    if not claims.get("scope"):
        raise OAuthError("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
    if account.disabled:
        raise OAuthError("invalid_grant", "Service account is disabled.")
    return {"access_token": cloud.issue_token(account.email, seconds=3599), "expires_in": 3599, "token_type": "Bearer"}


def _parts(assertion: str) -> tuple[Json, Json, bytes, bytes]:
    try:
        head, claims, seal = assertion.split(".")
        parsed = json.loads(_decode(head)), json.loads(_decode(claims))
        signed, signature = f"{head}.{claims}".encode(), _decode(seal)
    except (ValueError, binascii.Error):
        raise OAuthError("invalid_grant", "Bad Request") from None
    if not all(isinstance(each, dict) for each in parsed):
        raise OAuthError("invalid_grant", "Bad Request")
    return *parsed, signed, signature


def _verify(account: ServiceAccount, key_id: str, signed: bytes, signature: bytes) -> None:
    for key in account.keys.values():
        if key.disabled or (key_id and key.id != key_id):
            continue
        public = serialization.load_pem_public_key(key.public_pem)
        assert isinstance(public, rsa.RSAPublicKey)  # noqa: S101  (made by iam.py)
        try:
            public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            continue
        return
    raise OAuthError("invalid_grant", "Invalid JWT Signature.")


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
