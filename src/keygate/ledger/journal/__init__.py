"""The journal: what began and how it ended, in files that survive the process."""

from keygate.ledger.journal.reader import Batch, JournalReader, read_from
from keygate.ledger.journal.records import START, Begin, Boot, Context, Position, Settle
from keygate.ledger.journal.recovery import Recovered, Use, claim, recover
from keygate.ledger.journal.segments import JournalCorrupt
from keygate.ledger.journal.writer import Journal, JournalUnwritable, Written

__all__ = [
    "START",
    "Batch",
    "Begin",
    "Boot",
    "Context",
    "Journal",
    "JournalCorrupt",
    "JournalReader",
    "JournalUnwritable",
    "Position",
    "Recovered",
    "Settle",
    "Use",
    "Written",
    "claim",
    "read_from",
    "recover",
]
