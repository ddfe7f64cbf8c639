"""Issued keys: real vendor keys, made, limited, rotated and revoked at the vendor, each step confirmed by it."""

from keygate.issued_keys.access import IssuedKeyAccess
from keygate.issued_keys.accounts import VendorAccountService
from keygate.issued_keys.bench import worker_actor
from keygate.issued_keys.handover import Handover, Told
from keygate.issued_keys.leaks import LeakService
from keygate.issued_keys.life import ENDED, LIVE, State
from keygate.issued_keys.minting import MintingService
from keygate.issued_keys.model import SEALED, WATCHED, Enforcement, IssuedFilter, IssuedKey, IssueDraft, VendorAccount
from keygate.issued_keys.operations import Operations
from keygate.issued_keys.ports import KeptBudget, Restraint
from keygate.issued_keys.receipt_service import ReceiptService
from keygate.issued_keys.receipts import MAX_BYTES as MAX_RECEIPT_BYTES
from keygate.issued_keys.receipts import WHOSE, Verdict, verify
from keygate.issued_keys.service import IssuedKeyService

__all__ = [
    "ENDED",
    "LIVE",
    "MAX_RECEIPT_BYTES",
    "SEALED",
    "WATCHED",
    "WHOSE",
    "Enforcement",
    "Handover",
    "IssueDraft",
    "IssuedFilter",
    "IssuedKey",
    "IssuedKeyAccess",
    "IssuedKeyService",
    "KeptBudget",
    "LeakService",
    "MintingService",
    "Operations",
    "ReceiptService",
    "Restraint",
    "State",
    "Told",
    "VendorAccount",
    "VendorAccountService",
    "Verdict",
    "verify",
    "worker_actor",
]
