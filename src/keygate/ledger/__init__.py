"""What was asked, held, spent: prices, holds, limits, the journal, the entries and the reports over them."""

from keygate.ledger.billed import Bill, BilledReport, BilledSum, Source, VendorUsage
from keygate.ledger.model import Ask, Hold, Outcome, Recording, Refusal, RefusalKind, Settlement, TokenUsage
from keygate.ledger.reports import CredentialDay, Selection, Sum, UsageReports

__all__ = [
    "Ask",
    "Bill",
    "BilledReport",
    "BilledSum",
    "CredentialDay",
    "Hold",
    "Outcome",
    "Recording",
    "Refusal",
    "RefusalKind",
    "Selection",
    "Settlement",
    "Source",
    "Sum",
    "TokenUsage",
    "UsageReports",
    "VendorUsage",
]
