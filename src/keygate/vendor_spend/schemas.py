"""Vendors' bills on the wire. Money is a decimal string of dollars, times are RFC 3339."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from keygate.kit.clock import from_ns, rfc3339
from keygate.kit.money import MAX_NANO, NANO, format_usd, parse_usd
from keygate.kit.routes import Schema
from keygate.vendor_spend.balance import AccountDay, Verdict
from keygate.vendor_spend.model import ImportState
from keygate.vendor_spend.reconciliation import Balance, BillStanding, UnknownKey
from keygate.vendor_spend.watch import DEFAULT_WARN_AT, AtEnd, Resumption, Stage, WatchRule
from keygate.vendor_spend.watching import Standing
from keygate.vendors.admin import Period

_Moment = str | None
Usd = Annotated[
    Annotated[str, StringConstraints(max_length=40)] | Annotated[int, Field(ge=0, le=MAX_NANO // NANO)],
    Field(description="Dollars as a decimal string: `10.00`", examples=["10.00"]),
]
_Percent = Annotated[int, Field(ge=1, le=99)]


class ImportOut(Schema):
    """How far an account's bill was read."""

    account_id: str
    vendor: str
    as_of: _Moment = Field(description="When the newest complete reading began; null: none yet")
    read_until: _Moment
    complete: bool = Field(description="False: there was more than one turn reads; it goes on by itself within a minute")
    next_at: _Moment
    error_code: str | None
    error: str | None

    @classmethod
    def of(cls, state: ImportState) -> ImportOut:
        return cls(
            account_id=state.account_id,
            vendor=state.vendor,
            as_of=rfc3339(state.as_of_ns),
            read_until=rfc3339(state.read_until_ns),
            complete=state.window is None and state.error is None,
            next_at=rfc3339(state.next_at_ns) if state.next_at_ns else None,
            error_code=state.error_code,
            error=state.trouble(),
        )


class UnknownKeyOut(Schema):
    vendor_key: str | None = Field(description="The vendor's id of the key; null: the bill names none")
    place: dict[str, str]
    amount_usd: str

    @classmethod
    def of(cls, key: UnknownKey) -> UnknownKeyOut:
        return cls(vendor_key=key.vendor_key, place=dict(key.place), amount_usd=format_usd(key.amount_nano))


class AccountDayOut(Schema):
    account_id: str
    account: str
    vendor: str
    day: str = Field(description="UTC")
    verdict: Verdict
    final: bool = Field(description="False: the vendor may still add to this day or restate it")
    ledger_usd: str = Field(description="What went through the gateway with this account's credentials, charges in doubt included")
    requests: int
    bill_usd: str | None = Field(description="null: not read, or the vendor tells none")
    issued_usd: str | None = Field(description="Of the bill: issued keys")
    other_usd: str | None = Field(description="Of the bill: the gateway's traffic, and what bypassed KeyGate")
    difference_usd: str | None = Field(description="`other_usd` less `ledger_usd`")
    low_usd: str = Field(description="From here to `high_usd` the bill may say of the gateway's traffic and still be right")
    high_usd: str
    bypassed_usd: str | None = Field(description="Billed above `high_usd`: traffic that did not go through KeyGate")
    untold_usd: str | None = Field(
        description="Of the bill: names nobody, on a day that can't be told by key (`bills` says what to do for it): may be issued keys', "
        "and is not called bypassed"
    )
    missing_usd: str | None = Field(description="Missing below `low_usd`")
    in_doubt_usd: str
    pending_usd: str = Field(description="Spent so late that the vendor's data delay may still hide it")
    midnight_usd: str = Field(description="Spent in the day's last ten minutes, or the last ten before it: may stand in another day's bill")
    restated_usd: str = Field(description="What the vendor added to the day, or took off, after it had told it first")
    unpriced_requests: int = Field(description="Of the ledger: their cost is in no sum of ours, but in the bill")
    unknown_keys: list[UnknownKeyOut] = Field(description="What the bill names that KeyGate did not make, the dearest first, at most 20")

    @classmethod
    def of(cls, day: AccountDay, keys: tuple[UnknownKey, ...]) -> AccountDayOut:
        read = day.bill_nano is not None

        def usd(nano: int | None) -> str | None:
            return None if nano is None or not read else format_usd(nano)

        return cls(
            account_id=day.account_id,
            account=day.account,
            vendor=day.vendor,
            day=from_ns(day.day_ns).date().isoformat(),
            verdict=day.verdict,
            final=day.final,
            ledger_usd=format_usd(day.ledger_nano),
            requests=day.requests,
            bill_usd=usd(day.bill_nano),
            issued_usd=usd(day.issued_nano),
            other_usd=usd(day.other_nano),
            difference_usd=usd(day.difference_nano),
            low_usd=format_usd(day.low_nano),
            high_usd=format_usd(day.high_nano),
            bypassed_usd=usd(day.bypassed_nano),
            untold_usd=usd(day.untold_nano),
            missing_usd=usd(day.missing_nano),
            in_doubt_usd=format_usd(day.in_doubt_nano),
            pending_usd=format_usd(day.pending_nano),
            midnight_usd=format_usd(day.late_nano + day.early_nano),
            restated_usd=format_usd(day.restated_nano),
            unpriced_requests=day.unpriced,
            unknown_keys=[UnknownKeyOut.of(key) for key in keys],
        )


class UnassignedOut(Schema):
    """Spent with a credential that belongs to no vendor account whose bill is read; name its account on the credential."""

    vendor: str
    credential_id: str
    requests: int
    cost_usd: str


class BillOut(Schema):
    """How well an account's bill is known."""

    account_id: str
    account: str
    vendor: str
    reported: bool = Field(description="False: this bill is not read")
    why_not: str | None = Field(description="Why it is not read, and what to do for it")
    means: str | None = Field(description="What a number of this bill is, and whose")
    as_of: _Moment = Field(description="When it was last read to its end; null: never")
    delay_seconds: int | None = Field(description="How late the vendor's numbers come; null: it does not say (a day is assumed)")
    restated_days: int | None = Field(description="How far back the vendor may change them; these days are read again each time")
    error: str | None

    @classmethod
    def of(cls, bill: BillStanding) -> BillOut:
        return cls(
            account_id=bill.account.id,
            account=bill.account.name,
            vendor=bill.account.vendor,
            reported=bill.facts is not None,
            why_not=bill.why_not,
            means=None if bill.facts is None else bill.facts.means,
            as_of=rfc3339(None if bill.state is None else bill.state.as_of_ns),
            delay_seconds=None if bill.facts is None else bill.facts.delay_seconds,
            restated_days=None if bill.facts is None else bill.facts.restated_days,
            error=None if bill.state is None or bill.facts is None else bill.state.trouble(),
        )


class BalanceOut(Schema):
    from_: str = Field(serialization_alias="from")
    to: str
    items: list[AccountDayOut]
    unassigned: list[UnassignedOut]
    bills: list[BillOut]

    @classmethod
    def of(cls, balance: Balance) -> BalanceOut:
        return cls(
            from_=rfc3339(balance.from_ns) or "",
            to=rfc3339(balance.to_ns) or "",
            items=[AccountDayOut.of(day, keys) for day, keys in balance.days],
            unassigned=[
                UnassignedOut(
                    vendor=each.vendor, credential_id=each.credential_id, requests=each.requests, cost_usd=format_usd(each.cost_nano)
                )
                for each in balance.unassigned
            ],
            bills=[BillOut.of(bill) for bill in balance.bills],
        )


class WatchIn(Schema):
    warn_at_percent: Annotated[list[_Percent], Field(max_length=10)] = Field(
        list(DEFAULT_WARN_AT), description="Of the budget; an event is raised at each, and always at 100"
    )
    lower_at_percent: _Percent | None = Field(None, description="The key's own limits are lowered from here on, until the next period")
    lower_to_percent: _Percent = Field(25, description="Of the key's own limits")
    at_end: AtEnd = Field(AtEnd.DEFAULT, description="default: disabled where the vendor can take that back, else only announced")

    @model_validator(mode="after")
    def _plain(self) -> WatchIn:
        if len(set(self.warn_at_percent)) != len(self.warn_at_percent):
            raise PydanticCustomError("warn_at_percent", "Name each percent once")
        return self

    def rule(self) -> WatchRule:
        return WatchRule(tuple(sorted(self.warn_at_percent)), self.lower_at_percent, self.lower_to_percent, self.at_end)


class ResumeIn(Schema):
    """Why the key may go on; one of these."""

    budget_usd: Usd | None = Field(None, description="Another budget from now on, higher than the present one")
    extra_usd: Usd | None = Field(None, description="So much more in this period, beyond what is allowed now")
    ignore_until_period_end: bool = Field(False, description="Whatever comes until the period ends: announced, and nothing is done")

    @model_validator(mode="after")
    def _one(self) -> ResumeIn:
        if (self.budget_usd is not None) + (self.extra_usd is not None) + self.ignore_until_period_end != 1:
            raise PydanticCustomError("resume", "Send one of budget_usd, extra_usd and ignore_until_period_end")
        return self

    def resumption(self) -> Resumption:
        return Resumption(
            budget_nano=None if self.budget_usd is None else parse_usd(self.budget_usd, field="budget_usd"),
            extra_nano=None if self.extra_usd is None else parse_usd(self.extra_usd, field="extra_usd"),
            ignore=self.ignore_until_period_end,
        )


class WatchOut(Schema):
    """A key's budget by the vendor's bill. Where KeyGate watches it, it can be overspent: by what the key uses within the vendor's data
    delay, and until the next look."""

    key_id: str
    enforced_by: str = Field(
        description="`vendor`: it refuses; `keygate`: watched, not hard (beside the vendor, where that counts for each key of a "
        "rotation by itself, shows another budget than agreed, or tells of none any more); `nobody`: the bill is not read, or can't be "
        "told by key"
    )
    unkept: str | None = Field(
        description="Why the vendor does not keep the budget that it was told to, and what to do for it; null: it does, or was never told"
    )
    budget_usd: str | None
    budget_period: Period | None
    allowed_usd: str | None = Field(
        description="What may be spent in this period: the budget, and what somebody allowed beyond it; null: no budget, or it is ignored"
    )
    ignored: bool = Field(description="Somebody let the key go on past its budget until the period ends")
    spent_usd: str | None = Field(
        description="Since `period_start`, as billed so far; null: the bill was never read, or can't be told by key"
    )
    spent_percent: int | None = Field(description="Of `allowed_usd`, or of the budget where that is ignored")
    period_start: _Moment
    resets_at: _Moment
    as_of: _Moment = Field(description="When the bill was last read to its end")
    delay_seconds: int | None = Field(description="How much older than that the number may be; null: the vendor does not say")
    import_error: str | None = Field(description="What is wrong with the number, and what to do for it")
    warn_at_percent: list[int]
    lower_at_percent: int | None
    lower_to_percent: int
    at_end: AtEnd
    wanted: Stage = Field(description="What the spend calls for")
    stage: Stage = Field(description="What the vendor has confirmed")
    confirmed_at: _Moment
    error_code: str | None
    error: str | None
    next_try_at: _Moment

    @classmethod
    def of(cls, standing: Standing) -> WatchOut:
        key, watch, imported, facts = standing.key, standing.watch, standing.imported, standing.facts
        as_of = None if imported is None else imported.as_of_ns
        known = as_of is not None and (standing.told or facts is None)
        return cls(
            key_id=key.id,
            enforced_by=standing.enforced_by,
            unkept=standing.unkept,
            budget_usd=None if key.terms.budget_nano is None else format_usd(key.terms.budget_nano),
            budget_period=None if key.terms.budget_nano is None else key.terms.budget_period,
            allowed_usd=None if standing.allowed_nano is None else format_usd(standing.allowed_nano),
            ignored=key.terms.budget_nano is not None and standing.allowed_nano is None,
            spent_usd=format_usd(standing.spent_nano) if known else None,
            spent_percent=standing.percent if known else None,
            period_start=rfc3339(standing.window_start_ns) if standing.resets_at_ns is not None else None,
            resets_at=rfc3339(standing.resets_at_ns),
            as_of=rfc3339(as_of),
            delay_seconds=None if facts is None else facts.delay_seconds,
            import_error=standing.trouble,
            warn_at_percent=list(watch.rule.warn_at),
            lower_at_percent=watch.rule.lower_at,
            lower_to_percent=watch.rule.lower_to,
            at_end=watch.rule.at_end,
            wanted=watch.wanted,
            stage=watch.stage,
            confirmed_at=rfc3339(watch.confirmed_at_ns),
            error_code=watch.error_code,
            error=watch.error,
            next_try_at=rfc3339(watch.next_at_ns) if watch.error is not None else None,
        )
