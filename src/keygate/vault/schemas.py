"""Credentials on the wire. A secret comes in and never goes out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints

from keygate.kit.clock import rfc3339
from keygate.kit.routes import Schema
from keygate.kit.secret import Secret
from keygate.vault.addresses import MAX_URL
from keygate.vault.credentials import MAX_SECRET, Credential, CredentialChanges, CredentialStatus, NewCredential, ProbeResult

_TEXT = r"^[^\x00-\x1f\x7f]+$"

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_TEXT, strip_whitespace=True)]
Account = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
ModelPattern = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
Models = Annotated[list[ModelPattern], Field(max_length=200, description="Patterns on the vendor's model names, with `*`; null: all")]
Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)]
SecretText = Annotated[SecretStr, Field(min_length=1, max_length=MAX_SECRET)]
Weight = Annotated[int, Field(ge=1, le=1000, description="Share of the calls among credentials that serve the same model")]


class CredentialIn(Schema):
    vendor: Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[a-z0-9_-]+$")]
    name: Name
    secret: SecretText = Field(description="The vendor's key; it is never shown again")
    base_url: Url | None = Field(None, description="API root as the vendor's SDK has it; null: the vendor's own")
    account: Account | None = None
    weight: Weight = 1
    models: Models | None = None

    def value(self) -> NewCredential:
        return NewCredential(
            vendor=self.vendor,
            name=self.name,
            secret=Secret(self.secret.get_secret_value()),
            base_url=self.base_url,
            account=self.account,
            weight=self.weight,
            models=None if self.models is None else tuple(self.models),
        )


class CredentialPatch(Schema):
    """Only what is sent changes. `base_url` on another host needs `secret` with it."""

    name: Name = Field(None, validate_default=False)  # type: ignore[assignment]  # left out is not null: null is refused
    secret: SecretText = Field(None, validate_default=False)  # type: ignore[assignment]  # as above
    base_url: Url | None = None
    account: Account | None = None
    weight: Weight = 1
    models: Models | None = None
    status: CredentialStatus = CredentialStatus.ENABLED

    def value(self) -> CredentialChanges:
        sent = self.model_fields_set
        changes: CredentialChanges = {}
        if "name" in sent:
            changes["name"] = self.name
        if "secret" in sent:
            changes["secret"] = Secret(self.secret.get_secret_value())
        if "base_url" in sent:
            changes["base_url"] = self.base_url
        if "account" in sent:
            changes["account"] = self.account
        if "weight" in sent:
            changes["weight"] = self.weight
        if "models" in sent:
            changes["models"] = None if self.models is None else tuple(self.models)
        if "status" in sent:
            changes["status"] = self.status
        return changes


class CredentialOut(Schema):
    id: str
    vendor: str
    name: str
    hint: str = Field(description="The last four characters of the secret")
    base_url: str
    account: str | None
    weight: int
    models: list[str] | None
    status: CredentialStatus
    created_at: str
    updated_at: str
    last_used_at: str | None

    @classmethod
    def of(cls, credential: Credential) -> CredentialOut:
        return cls(
            id=credential.id,
            vendor=credential.vendor,
            name=credential.name,
            hint=credential.hint,
            base_url=credential.base_url,
            account=credential.account,
            weight=credential.weight,
            models=None if credential.models is None else list(credential.models),
            status=credential.status,
            created_at=rfc3339(credential.created_at_ns) or "",
            updated_at=rfc3339(credential.updated_at_ns) or "",
            last_used_at=rfc3339(credential.last_used_at_ns),
        )


class ProbeOut(Schema):
    ok: bool
    status: int | None = Field(description="The vendor's HTTP status; null where it did not answer")
    detail: str
    latency_ms: int

    @classmethod
    def of(cls, result: ProbeResult) -> ProbeOut:
        return cls(ok=result.ok, status=result.status, detail=result.detail, latency_ms=result.latency_ms)
