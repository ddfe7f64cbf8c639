"""The ledger on the wire. Money is a decimal string of dollars, times are RFC 3339."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from keygate.errors import InvalidInput
from keygate.kit.clock import rfc3339
from keygate.kit.money import NANO, format_usd, parse_usd
from keygate.kit.routes import Schema
from keygate.ledger.billed import Bill, BilledReport, BilledSum, Source
from keygate.ledger.content import Content
from keygate.ledger.reports import Sum, UsageReport

Usd = Annotated[str, StringConstraints(min_length=1, max_length=24, pattern=r"^[0-9]+(\.[0-9]+)?$")]
RateName = Literal[
    "input", "output", "cache_read", "cache_write", "cache_write_1h", "input_audio", "output_audio", "reasoning", "web_search", "request"
]

MAX_RATE = 1_000_000 * NANO
_SCALE = {"web_search": 1_000, "request": 1_000}  # said per thousand, kept per million


class UsageRow(Schema):
    group: dict[str, str | int | None] = Field(
        description="One value per name in `group_by`; null where there is none, for instance no team"
    )
    requests: int
    errors: int
    unpriced_requests: int = Field(description="Requests whose price was not known; their cost is in no sum")
    input_tokens: int = Field(description="Whole prompts, cached parts included")
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int = Field(description="Reasoning included")
    reasoning_tokens: int
    web_searches: int
    cost_usd: str = Field(description="Charges in doubt included")
    in_doubt_usd: str

    @staticmethod
    def of(row: Sum) -> UsageRow:
        return UsageRow(**UsageRow.plain(row))

    @staticmethod
    def plain(row: Sum) -> dict[str, Any]:
        """As `of`, for reports of thousands of rows: a model of each takes ten times as long."""
        values = dict(row.values)
        return {
            "group": row.group,
            "unpriced_requests": values.pop("unpriced"),
            "cost_usd": format_usd(values.pop("cost_nano")),
            "in_doubt_usd": format_usd(values.pop("in_doubt_nano")),
            **values,
        }


class UsageView(Schema):
    from_: str = Field(serialization_alias="from")
    to: str
    items: list[UsageRow]
    truncated: bool = Field(description="There are more groups; narrow the range or the filters")
    source: Literal[Source.GATEWAY] = Field(Source.GATEWAY, description="What went through KeyGate, by our own ledger")
    issued_keys_usd: str | None = Field(
        description="What issued keys cost in the range beside that, by their vendors' bills and UTC days: they go past the gateway, so it "
        "is in no row. `source=all` has both in one report. null: bills can't tell it for these filters"
    )

    @staticmethod
    def of(report: UsageReport, *, issued_nano: int | None = None) -> UsageView:
        """All but the rows."""
        return UsageView(
            issued_keys_usd=None if issued_nano is None else format_usd(issued_nano),
            from_=rfc3339(report.from_ns) or "",
            to=rfc3339(report.to_ns) or "",
            items=[],
            truncated=report.truncated,
        )


class BilledUsageRow(Schema):
    group: dict[str, str | int | None] = Field(
        description="One value per name in `group_by`; null where there is none, for instance a key that KeyGate did not make"
    )
    requests: int | None = Field(description="null: a vendor's bill does not tell it")
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: str = Field(description="Charges in doubt included")
    in_doubt_usd: str
    restated_usd: str = Field(description="Part of the cost that vendors added, or took off, after they had told it first")

    @staticmethod
    def plain(row: BilledSum) -> dict[str, Any]:
        return {
            "group": row.group,
            "requests": row.requests,
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "cost_usd": format_usd(row.cost_nano),
            "in_doubt_usd": format_usd(row.in_doubt_nano),
            "restated_usd": format_usd(row.restated_nano),
        }


class BillView(Schema):
    """How well the bill of a vendor account is known."""

    account_id: str
    account: str
    vendor: str
    reported: bool = Field(description="False: this bill is not read")
    why_not: str | None = Field(description="Why it is not read, and what to do for it")
    means: str | None = Field(description="What a number of this bill is, and whose")
    as_of: str | None = Field(description="When it was last read to its end; null: never")
    delay_seconds: int | None = Field(description="How much older than that the numbers may be; null: the vendor does not say")
    restated_days: int | None = Field(description="How far back the vendor may change them")
    unknown_usd: str = Field(
        description="Billed in the range to keys that KeyGate did not make, those of the gateway's credentials included"
    )
    error: str | None

    @staticmethod
    def of(bill: Bill) -> BillView:
        return BillView(
            account_id=bill.account_id,
            account=bill.account,
            vendor=bill.vendor,
            reported=bill.reported,
            why_not=bill.why_not,
            means=bill.means,
            as_of=rfc3339(bill.as_of_ns),
            delay_seconds=bill.delay_seconds,
            restated_days=bill.restated_days,
            unknown_usd=format_usd(bill.unknown_nano),
            error=bill.error,
        )


class BilledUsageView(Schema):
    """Answers with another source than the gateway."""

    from_: str = Field(serialization_alias="from")
    to: str
    source: Source
    items: list[BilledUsageRow]
    truncated: bool = Field(description="There are more groups; narrow the range or the filters")
    bills: list[BillView]

    @staticmethod
    def of(source: Source, report: BilledReport) -> BilledUsageView:
        """All but the rows."""
        return BilledUsageView(
            from_=rfc3339(report.from_ns) or "",
            to=rfc3339(report.to_ns) or "",
            source=source,
            items=[],
            truncated=report.truncated,
            bills=[BillView.of(bill) for bill in report.bills],
        )


class EntryView(Schema):
    request_id: str
    at: str
    key_id: str
    team_id: str | None
    developer_id: str | None
    app_id: str | None
    vendor: str
    endpoint: str
    model_asked: str
    model: str
    model_served: str | None
    credential_id: str | None
    status: int
    outcome: str
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    web_searches: int
    price_id: str | None
    service_tier: str | None
    cost_usd: str | None = Field(description="null: the price was not known")
    hold_usd: str
    in_doubt: bool = Field(description="Charged at its hold, because the true cost is not known")
    latency_ms: int
    first_token_ms: int | None
    streamed: bool
    tags: list[str]
    upstream_request_id: str | None
    reconciled_at: str | None
    reconciled_by: str | None

    @staticmethod
    def of(row: Any) -> EntryView:
        same = {name: getattr(row, name) for name in EntryView.model_fields if hasattr(row, name)}
        return EntryView(
            **{
                **same,
                "at": rfc3339(row.at_ns),
                "cost_usd": None if row.cost_nano is None else format_usd(row.cost_nano),
                "hold_usd": format_usd(row.hold_nano),
                "in_doubt": bool(row.in_doubt),
                "streamed": bool(row.streamed),
                "tags": json.loads(row.tags) if row.tags else [],
                "reconciled_at": rfc3339(row.reconciled_at_ns),
            }
        )


class ReconcileBody(Schema):
    cost_usd: Usd = Field(description="What the vendor billed for this request", examples=["0.0123"])


class ContentView(Schema):
    request_id: str
    at: str
    key_id: str
    prompt: str = Field(description="The body as the caller sent it; undecodable bytes are replaced")
    answer: str
    prompt_base64: str
    answer_base64: str
    truncated: bool

    @staticmethod
    def of(content: Content) -> ContentView:
        return ContentView(
            request_id=content.request_id,
            at=rfc3339(content.at_ns) or "",
            key_id=content.key_id,
            prompt=content.prompt.decode(errors="replace"),
            answer=content.answer.decode(errors="replace"),
            prompt_base64=base64.b64encode(content.prompt).decode(),
            answer_base64=base64.b64encode(content.answer).decode(),
            truncated=content.truncated,
        )


class StatsView(Schema):
    """What a dashboard's first page shows."""

    today: UsageRow
    yesterday: UsageRow
    last_30_days: UsageRow
    by_day: list[UsageRow]
    top_models: list[UsageRow]
    top_keys: list[UsageRow]
    top_teams: list[UsageRow]


class PriceBody(Schema):
    rates_usd: dict[RateName, Usd] = Field(
        min_length=1,
        max_length=16,
        description="Dollars per million tokens; `web_search` and `request` per thousand",
        examples=[{"input": "2.00", "cache_read": "0.50", "output": "8.00"}],
    )

    def rates(self) -> dict[str, int]:
        """Nano-dollars per million of each."""
        rates: dict[str, int] = {}
        for name, text in self.rates_usd.items():
            nano = parse_usd(text, field=f"rates_usd.{name}")
            if nano > MAX_RATE:
                raise InvalidInput(f"rates_usd.{name}: at most {MAX_RATE // NANO} dollars", field=f"rates_usd.{name}")
            rates[name] = nano * _SCALE.get(name, 1)
        return rates


class PriceView(Schema):
    id: str
    vendor: str
    model: str
    rates_usd: dict[str, str]
    updated_at: str
    updated_by: str

    @staticmethod
    def of(row: Any) -> PriceView:
        return PriceView(
            id=row.id,
            vendor=row.vendor,
            model=row.model,
            rates_usd={name: format_usd(nano // _SCALE.get(name, 1)) for name, nano in json.loads(row.rates).items()},
            updated_at=rfc3339(row.updated_at_ns) or "",
            updated_by=row.updated_by,
        )
