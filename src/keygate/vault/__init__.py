"""Secrets at rest: envelope encryption, key-encryption keys and their rotation, vendor credentials."""

from keygate.vault.addresses import checked_base_url, refuse_link_local
from keygate.vault.credential_service import CredentialService
from keygate.vault.credentials import Credential, CredentialStatus, NewCredential, OpenedCredential, ProbeResult
from keygate.vault.envelope import EnvelopeBroken, Place
from keygate.vault.model import SYSTEM, KeyStatus, SealedColumn
from keygate.vault.ports import CredentialProbe, IssuedSecrets, KeyEncryptionProvider, KeyEncryptionSource, StatePublisher
from keygate.vault.probe import HttpProbe
from keygate.vault.providers import LocalKeySource, LocalProvider, read_master_key
from keygate.vault.rotation import Rotation, rotate_data_key, rotate_master_key
from keygate.vault.service import SEALED_COLUMNS, Vault

__all__ = [
    "SEALED_COLUMNS",
    "SYSTEM",
    "Credential",
    "CredentialProbe",
    "CredentialService",
    "CredentialStatus",
    "EnvelopeBroken",
    "HttpProbe",
    "IssuedSecrets",
    "KeyEncryptionProvider",
    "KeyEncryptionSource",
    "KeyStatus",
    "LocalKeySource",
    "LocalProvider",
    "NewCredential",
    "OpenedCredential",
    "Place",
    "ProbeResult",
    "Rotation",
    "SealedColumn",
    "StatePublisher",
    "Vault",
    "checked_base_url",
    "read_master_key",
    "refuse_link_local",
    "rotate_data_key",
    "rotate_master_key",
]
