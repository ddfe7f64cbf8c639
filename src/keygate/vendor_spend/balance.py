"""One account's day: our ledger against the vendor's bill, with what may lie between them. Pure.

What the bill may rightly say of the gateway's traffic is a range, not a number:

    low  = ledger − in doubt − pending − late        charges in doubt may be nothing; what is younger than the vendor's delay is not billed
                                                     yet; what began just before midnight may stand in the next day's bill
    high = ledger + early                            what began just before the midnight before may stand in this one

What is billed above `high` went past KeyGate, unless requests of the day had no price in our ledger, or the bill can't be told by key: then
what it says of nobody may be issued keys'. What is missing below `low` is a price
of ours that is too high, or a credential that belongs to another account.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from keygate.kit.money import NANO

CENT_NANO = NANO // 100


class Verdict(StrEnum):
    AGREES = "agrees"  # to the cent, within the range
    BYPASSED = "bypassed"  # the vendor bills more than went through KeyGate
    UNCLEAR = "unclear"  # it bills more, and some requests had no price, or the bill can't be told by key
    BELOW = "below"  # it bills less than our ledger
    NOT_READ = "not_read"  # the bill of this day has not been read yet
    NOT_REPORTED = "not_reported"  # the bill of this account is not read at all


@dataclass(frozen=True, slots=True)
class AccountDay:
    """Amounts in nano-dollars. `bill_nano` None: there is no bill to compare with."""

    account_id: str
    account: str
    vendor: str
    day_ns: int
    ledger_nano: int = 0  # charges in doubt included
    requests: int = 0
    unpriced: int = 0
    in_doubt_nano: int = 0
    pending_nano: int = 0
    late_nano: int = 0
    early_nano: int = 0
    bill_nano: int | None = None
    issued_nano: int = 0  # of the bill: issued keys
    restated_nano: int = 0
    untold_nano: int = 0  # of the bill: names nobody, on a day that can't be told by key
    reported: bool = True
    final: bool = False  # the vendor will not restate this day any more, as far as is known of it

    @property
    def other_nano(self) -> int | None:
        """The bill without issued keys: the gateway's traffic, and what bypassed KeyGate."""
        return None if self.bill_nano is None else self.bill_nano - self.issued_nano

    @property
    def difference_nano(self) -> int | None:
        other = self.other_nano
        return None if other is None else other - self.ledger_nano

    @property
    def low_nano(self) -> int:
        return max(0, self.ledger_nano - self.in_doubt_nano - self.pending_nano - self.late_nano)

    @property
    def high_nano(self) -> int:
        return self.ledger_nano + self.early_nano

    @property
    def excess_nano(self) -> int:
        """Billed beyond what the gateway's traffic explains; requests without a price are not counted off."""
        return max(0, (self.other_nano or 0) - self.high_nano)

    @property
    def bypassed_nano(self) -> int:
        """Of that, what can't be issued keys' either."""
        return max(0, self.excess_nano - self.untold_nano)

    @property
    def missing_nano(self) -> int:
        return 0 if self.other_nano is None else max(0, self.low_nano - self.other_nano)

    @property
    def verdict(self) -> Verdict:
        if not self.reported:
            return Verdict.NOT_REPORTED
        if self.bill_nano is None:
            return Verdict.NOT_READ
        if self.bypassed_nano >= CENT_NANO:
            return Verdict.UNCLEAR if self.unpriced else Verdict.BYPASSED
        if self.excess_nano >= CENT_NANO:
            return Verdict.UNCLEAR
        return Verdict.BELOW if self.missing_nano >= CENT_NANO else Verdict.AGREES
