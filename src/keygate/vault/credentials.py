"""Vendor credentials: what is stored, what is shown, and the opened form that the gateway uses. Frozen values, pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypedDict

from keygate.errors import InvalidInput
from keygate.kit.redaction import of_ours
from keygate.kit.secret import Secret

MAX_SECRET = 8_192


class CredentialStatus(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as it is stored: `secret` is sealed."""

    id: str  # cred_…
    organization_id: str
    vendor: str
    name: str  # unique per organisation and vendor
    secret: bytes = field(repr=False)
    secret_digest: str = field(repr=False)  # keyed: tells whether two credentials have the same secret
    hint: str
    base_url: str
    account: str | None
    weight: int
    models: tuple[str, ...] | None
    status: CredentialStatus
    created_at_ns: int
    updated_at_ns: int
    last_used_at_ns: int | None = None
    imported_digest: str | None = field(default=None, repr=False)  # of the secret that the environment last offered under this name


@dataclass(frozen=True, slots=True)
class OpenedCredential:
    """Ready for use: what `gateway.ports.UpstreamCredential` asks for."""

    id: str
    organization_id: str
    vendor: str
    base_url: str
    secret: Secret
    weight: int
    models: tuple[str, ...] | None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class NewCredential:
    vendor: str
    name: str
    secret: Secret
    base_url: str | None = None  # None: as the vendor's own SDK has it
    account: str | None = None
    weight: int = 1
    models: tuple[str, ...] | None = None


class CredentialChanges(TypedDict, total=False):
    """What an update sets; what is left out stays."""

    name: str
    secret: Secret
    base_url: str | None  # None: back to the vendor's own
    account: str | None
    weight: int
    models: tuple[str, ...] | None
    status: CredentialStatus


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What the vendor said to the least call there is. `status` is its HTTP status, None where it did not answer."""

    ok: bool
    status: int | None
    detail: str
    latency_ms: int


def checked_secret(secret: Secret) -> Secret:
    """Without white space around it. Raises `InvalidInput`, whose message says nothing of the value."""
    text = secret.open().strip()
    if not 0 < len(text) <= MAX_SECRET or not all("!" <= character <= "~" for character in text):
        raise InvalidInput(
            f"secret: 1 to {MAX_SECRET} printable ASCII characters without spaces, as the vendor shows its key", field="secret"
        )
    if of_ours(text):
        raise InvalidInput("secret: this is a token of KeyGate's own, not a vendor's key", field="secret")
    return Secret(text)
