"""What the vault needs from others, and what it offers to providers of key-encryption keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from keygate.kit.secret import Secret
from keygate.vault.credentials import ProbeResult
from keygate.vendors import Vendor

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class KeyEncryptionProvider(Protocol):
    """Wraps data keys. The local one derives its key from the master key; one for a cloud's KMS keeps only the name of a key there.

    `context` is bound to the wrapped key: unwrapping with another context fails.
    """

    @property
    def id(self) -> str:
        """Public and stable: names the key, never tells it (`local:3f…`, an ARN)."""

    async def wrap(self, key: bytes, context: bytes) -> bytes:
        """Raises `Unavailable` where the provider can't be asked."""

    async def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Raises `EnvelopeBroken` where the wrapped key is not one of this provider's, `Unavailable` where it can't be asked."""


class KeyEncryptionSource(Protocol):
    """Finds the provider at a start, and again after another process has rotated the master key."""

    async def provider(self, kek_id: str | None) -> KeyEncryptionProvider:
        """The provider with this id; with None (the database holds no wrapped key yet) the one to begin with, made if need be.

        Raises `StartRefused` with the remedy where there is none. The message names files and variables, never a key.
        """


class StatePublisher(Protocol):
    """How the gateway learns of changed credentials. Called after the commit; when it returns, the change holds for every next request."""

    async def credentials_changed(self) -> None: ...


class IssuedSecrets(Protocol):
    """What issued keys spend is counted by their vendors' bills, so none of them may serve the gateway, which counts too."""

    async def key_with(self, connection: AsyncConnection, organization_id: str, digest: str) -> str | None:
        """The id of this organisation's issued key whose secret it is, a former or revoked one too, by the secret's keyed digest. None: no
        bill that KeyGate reads counts it."""


class CredentialProbe(Protocol):
    async def check(self, vendor: Vendor, base_url: str, secret: Secret) -> ProbeResult:
        """Makes the least call that needs the secret. Raises for nothing that vendor or network do; repeats nothing of the answer."""
