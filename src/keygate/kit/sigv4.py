"""AWS Signature Version 4 over headers: to sign a request, and to check one.

Source: AWS General Reference, "Create a signed AWS API request"; the vectors in `tests/kit/test_sigv4.py` are botocore's. Every service but
S3 encodes the path, percent-encoded as it is sent, once more. A cloud SDK for a handful of signed calls would be larger than KeyGate.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit

from keygate.kit.clock import NANOSECONDS
from keygate.kit.secret import Secret

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_SECONDS = 300  # how far a request's time may be from the verifier's
_AUTHORIZATION = re.compile(
    ALGORITHM + r" Credential=([\w-]+)/(\d{8})/([\w-]+)/([\w-]+)/aws4_request, ?SignedHeaders=([\w;-]+), ?Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class AwsKey:
    """An access key pair; `session` for temporary ones."""

    id: str
    secret: Secret
    session: Secret | None = None


@dataclass(frozen=True, slots=True)
class Signed:
    """What an `Authorization` header claims."""

    key_id: str
    day: str
    region: str
    service: str
    headers: tuple[str, ...]
    signature: str


def sign(
    key: AwsKey, method: str, url: str, *, headers: Mapping[str, str], body: bytes, region: str, service: str, now_ns: int
) -> dict[str, str]:
    """The headers to send: those given, with `host`, `x-amz-date`, the session token where there is one, and `authorization`."""
    parts = urlsplit(url)
    stamp = datetime.fromtimestamp(now_ns // NANOSECONDS, UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = {name.lower(): value for name, value in headers.items()}
    sent |= {"host": parts.netloc, "x-amz-date": stamp}
    if key.session is not None:
        sent["x-amz-security-token"] = key.session.open()
    names = sorted(sent)
    canonical = _canonical(method, parts.path, parts.query, sent, names, body)
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    signature = _signature(key.secret.open(), scope, stamp, canonical)
    sent["authorization"] = f"{ALGORITHM} Credential={key.id}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return sent


def read_authorization(header: str) -> Signed | None:
    """None: not a signature of this kind."""
    found = _AUTHORIZATION.fullmatch(header.strip())
    if found is None:
        return None
    key_id, day, region, service, names, signature = found.groups()
    return Signed(key_id, day, region, service, tuple(names.split(";")), signature)


def verifies(signed: Signed, secret: str, *, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the signature fits. `path` and `query` as they stand in the request line; header names are lower case. The request's time
    is the caller's to judge."""
    if "host" not in signed.headers or any(name not in headers for name in signed.headers):
        return False
    stamp = headers.get("x-amz-date", "")
    if not stamp.startswith(signed.day):
        return False
    canonical = _canonical(method, path, query, headers, signed.headers, body)
    scope = f"{signed.day}/{signed.region}/{signed.service}/aws4_request"
    return hmac.compare_digest(signed.signature, _signature(secret, scope, stamp, canonical))


def _canonical(method: str, path: str, query: str, headers: Mapping[str, str], names: Iterable[str], body: bytes) -> str:
    pairs = sorted(tuple(_once(side) for side in part.partition("=")[::2]) for part in query.split("&") if part)
    return "\n".join(
        [
            method,
            quote(path or "/", safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{' '.join(headers[name].split())}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        ]
    )


def _once(text: str) -> str:
    """Percent-encoded once, whatever the caller's spelling was."""
    return quote(unquote(text), safe="-_.~")


def _signature(secret: str, scope: str, stamp: str, canonical: str) -> str:
    text = "\n".join([ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
