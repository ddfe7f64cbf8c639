"""Who did what: a hash chain per organisation with signed heads, verification and export."""

from keygate.audit.chain import canonical, digest_secret
from keygate.audit.export import ExportEnd, read_end, verify_export, verify_export_file
from keygate.audit.heads import HeadsFile
from keygate.audit.model import AuditEntry, AuditOutcome, Fault, FaultKind, SignedHead, Verification
from keygate.audit.ports import AuditLog, EntryFilter
from keygate.audit.service import AuditService
from keygate.audit.signing import Checker, Signer

__all__ = [
    "AuditEntry",
    "AuditLog",
    "AuditOutcome",
    "AuditService",
    "Checker",
    "EntryFilter",
    "ExportEnd",
    "Fault",
    "FaultKind",
    "HeadsFile",
    "SignedHead",
    "Signer",
    "Verification",
    "canonical",
    "digest_secret",
    "read_end",
    "verify_export",
    "verify_export_file",
]
