"""Who did what: a hash chain per organisation with signed heads, verification and export."""

from keygate.audit.ports import AuditLog

__all__ = ["AuditLog"]
