"""What was asked, held, spent: prices, holds, limits, the journal, the entries and the reports over them."""

from keygate.ledger.model import Ask, Hold, Outcome, Recording, Refusal, RefusalKind, Settlement, TokenUsage

__all__ = ["Ask", "Hold", "Outcome", "Recording", "Refusal", "RefusalKind", "Settlement", "TokenUsage"]
