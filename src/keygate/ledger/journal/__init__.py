"""The journal: what began and how it ended, in files that survive the process."""

from keygate.ledger.journal.reader import Batch, read_from
from keygate.ledger.journal.records import START, Begin, Boot, Position, Settle
from keygate.ledger.journal.segments import JournalCorrupt

__all__ = ["START", "Batch", "Begin", "Boot", "JournalCorrupt", "Position", "Settle", "read_from"]
