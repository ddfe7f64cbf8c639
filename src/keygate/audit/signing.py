"""Ed25519 signatures on entries and heads. The private key lives in the vault: who only has the database can't sign."""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keygate.errors import InvalidInput
from keygate.kit.secret import Secret


class Checker:
    """Checks signatures of one public key. `key_id` is the first 16 hex digits of the SHA-256 of the raw public key."""

    def __init__(self, public_key: bytes) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(public_key)
        self.public_key = public_key
        self.key_id = hashlib.sha256(public_key).hexdigest()[:16]

    @classmethod
    def from_text(cls, text: str) -> Checker:
        """Reads the base64 form, as `keygate receipts key` and an export's last line show it. Raises `InvalidInput`."""
        try:
            return cls(base64.b64decode(text.strip(), validate=True))
        except (binascii.Error, ValueError):
            raise InvalidInput("public_key: not an Ed25519 public key in base64", field="public_key") from None

    def text(self) -> str:
        return base64.b64encode(self.public_key).decode()

    def valid(self, signature: str, message: bytes) -> bool:
        """`signature` in lower-case hex; anything else is not valid."""
        try:
            raw = bytes.fromhex(signature)
            self._key.verify(raw, message)
        except (InvalidSignature, ValueError):
            return False
        return raw.hex() == signature


class Signer:
    """Signs with the private key whose 32-byte seed it is given."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.checker = Checker(self._key.public_key().public_bytes_raw())
        self.key_id = self.checker.key_id

    @classmethod
    def from_secret(cls, secret: Secret) -> Signer:
        """From 32 bytes in URL-safe base64 without padding, as the vault makes its own secrets."""
        return cls(base64.urlsafe_b64decode(secret.open() + "="))

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)
