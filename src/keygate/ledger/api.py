"""Usage, entries, charges in doubt, recorded content, the operator's own prices."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from keygate.errors import InvalidInput
from keygate.identities import Actor
from keygate.kit.clock import Clock
from keygate.kit.money import parse_usd
from keygate.kit.routes import Page, PageQuery, Routes, current_actor, service
from keygate.kit.spreadsheet import cell
from keygate.ledger.billed import Source, VendorUsage
from keygate.ledger.content import ContentReader
from keygate.ledger.posting import DAY_NS
from keygate.ledger.reports import MEASURES, Selection, Sum, UsageReports, parse_moment
from keygate.ledger.schemas import (
    BilledUsageRow,
    BilledUsageView,
    ContentView,
    EntryView,
    PriceBody,
    PriceView,
    ReconcileBody,
    StatsView,
    UsageRow,
    UsageView,
)
from keygate.ledger.service import OperatorPrices, Reconciliation

usage_routes = Routes("/usage", tag="usage")
dashboard_routes = Routes("/dashboard", tag="usage")
price_routes = Routes("/prices", tag="prices")
ALL: tuple[Routes, ...] = (usage_routes, dashboard_routes, price_routes)

Caller = Annotated[Actor, Depends(current_actor)]
Reports = Annotated[UsageReports, service(UsageReports)]
_Text = Annotated[str, Query(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Values = Annotated[list[_Text] | None, Query(max_length=50)]
Moment = Annotated[str | None, Query(max_length=40, description="RFC 3339, or a date", examples=["2026-11-01"])]
RequestId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]
Vendor = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[a-z0-9_-]+$")]
Model = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^\x00-\x20\x7f]+$")]
_BUSY: dict[int | str, dict[str, Any]] = {503: {"description": "The ledger is catching up; try again in a moment"}}
_NO_ENTRY: dict[int | str, dict[str, Any]] = {404: {"description": "No such entry, or not visible to you"}}


class UsageQuery:
    """Range and filters, as every report takes them."""

    def __init__(
        self,
        from_: Annotated[Moment, Query(alias="from")] = None,
        to: Moment = None,
        key_id: Values = None,
        team_id: Values = None,
        developer_id: Values = None,
        app_id: Values = None,
        vendor: Values = None,
        model: Values = None,
        tag: Annotated[str | None, Query(min_length=1, max_length=200, pattern=r"^[^\x00]+$")] = None,
    ) -> None:
        self._from = parse_moment(from_, "from")
        self._to = parse_moment(to, "to")
        self._tag = tag
        self._filters: dict[str, Sequence[str]] = {
            name: values
            for name, values in (
                ("key_id", key_id),
                ("team_id", team_id),
                ("developer_id", developer_id),
                ("app_id", app_id),
                ("vendor", vendor),
                ("model", model),
            )
            if values
        }

    def selection(self, reports: UsageReports, actor: Actor, *, in_doubt: bool = False) -> Selection:
        return reports.selection(actor, from_ns=self._from, to_ns=self._to, filters=self._filters, tag=self._tag, in_doubt=in_doubt)


@usage_routes.get(
    permission="usage.read", response_model=UsageView | BilledUsageView, responses={**_BUSY, 200: {"content": {"text/csv": {}}}}
)
async def report_usage(
    request: Request,
    actor: Caller,
    reports: Reports,
    query: Annotated[UsageQuery, Depends()],
    group_by: Annotated[
        str,
        Query(
            max_length=100,
            pattern=r"^[a-z_,]*$",
            description="Several with commas: key, team, developer, app, vendor, model; one of hour, day, month; and those of the source",
        ),
    ] = "",
    format_: Annotated[Literal["json", "csv"] | None, Query(alias="format", description="Default: what `Accept` asks for")] = None,
    source: Annotated[
        Source,
        Query(
            description="gateway (the default, exact as of the answer): our ledger; vendor: what vendors bill; all: one report over our "
            "ledger and issued keys, these by the vendors' bills"
        ),
    ] = Source.GATEWAY,
) -> Any:
    """What was used and spent, true as of the answer. Thirty days up to now unless `from` and `to` say otherwise (`to` is exclusive).

    By default (`source=gateway`) what went through KeyGate. Issued keys go past it: what they cost by their vendors' bills stands in
    `issued_keys_usd`, and `source=all` has both in one report.

    A filter by tag, and groups that only single entries know (endpoint, credential, status, outcome), read entries: their age is bounded
    by the retention of entries, other sums are kept for good.

    Other sources than the gateway are as late as the vendors' bills, which `bills` tells of; they come by UTC day, and a day counts where
    its beginning lies in the range. With them `source` is a group, and with `source=vendor` also account, vendor_key and item.
    """
    groups = [name for name in group_by.split(",") if name]
    selection = query.selection(reports, actor)
    view: UsageView | BilledUsageView
    if source is Source.GATEWAY:
        bills: VendorUsage | None = request.app.state.services.get(VendorUsage)
        issued_nano = None if bills is None else await bills.issued(selection)
        view = UsageView.of(await reports.usage(selection, groups), issued_nano=issued_nano)
    else:
        billed: VendorUsage = request.app.state.services[VendorUsage]
        view = BilledUsageView.of(source, await billed.usage(actor, selection, groups, source=source))
    if (format_ or ("csv" if request.headers.get("accept", "").lower().startswith("text/csv") else "json")) == "json":
        return view
    return StreamingResponse(
        _csv(view, groups), media_type="text/csv; charset=utf-8", headers={"content-disposition": 'attachment; filename="usage.csv"'}
    )


@usage_routes.get("/entries", permission="usage.read", responses=_BUSY)
async def list_ledger_entries(
    actor: Caller, reports: Reports, query: Annotated[UsageQuery, Depends()], page: Annotated[PageQuery, Depends()]
) -> Page[EntryView]:
    """Single requests, newest first."""
    return await _entries(actor, reports, query, page, in_doubt=False)


@usage_routes.get("/in-doubt", permission="usage.read", responses=_BUSY)
async def list_in_doubt(
    actor: Caller, reports: Reports, query: Annotated[UsageQuery, Depends()], page: Annotated[PageQuery, Depends()]
) -> Page[EntryView]:
    """Requests that were charged at their hold, because it is not known what they cost: the process died, or the vendor never said."""
    return await _entries(actor, reports, query, page, in_doubt=True)


@usage_routes.post("/in-doubt/{request_id}", permission="usage.write", responses={**_NO_ENTRY, 409: {"description": "Not in doubt"}})
async def reconcile_entry(
    actor: Caller,
    reconciliation: Annotated[Reconciliation, service(Reconciliation)],
    request_id: RequestId,
    body: ReconcileBody,
) -> EntryView:
    """Replaces a charge in doubt by what the vendor billed; budgets are corrected at once."""
    return EntryView.of(await reconciliation.reconcile(actor, request_id, parse_usd(body.cost_usd, field="cost_usd")))


@usage_routes.get("/entries/{request_id}/content", permission="content.read", responses=_NO_ENTRY)
async def read_recorded_content(
    actor: Caller, reader: Annotated[ContentReader, service(ContentReader)], request_id: RequestId
) -> ContentView:
    """The recorded prompt and answer, for those whom the key's policy names. Every read is audited."""
    return ContentView.of(await reader.read(actor, request_id))


@dashboard_routes.get("/stats", permission="dashboard.read", responses=_BUSY)
async def dashboard_stats(actor: Caller, reports: Reports, clock: Annotated[Clock, service(Clock)]) -> StatsView:
    """Today, yesterday, thirty days, and who and what stands behind them. Days are UTC."""
    now = clock.now_ns() + 1
    today = now // DAY_NS * DAY_NS

    async def report(start: int, end: int, *groups: str) -> list[UsageRow]:
        found = await reports.usage(reports.selection(actor, from_ns=start, to_ns=end), groups)
        return [UsageRow.of(row) for row in found.rows]

    month = today - 29 * DAY_NS
    return StatsView(
        today=_only(await report(today, now)),
        yesterday=_only(await report(today - DAY_NS, today)),
        last_30_days=_only(await report(month, now)),
        by_day=await report(month, now, "day"),
        top_models=(await report(month, now, "vendor", "model"))[:10],
        top_keys=(await report(month, now, "key"))[:10],
        top_teams=(await report(month, now, "team"))[:10],
    )


@price_routes.get(permission="prices.read")
async def list_prices(actor: Caller, prices: Annotated[OperatorPrices, service(OperatorPrices)]) -> list[PriceView]:
    """Prices of your own. Models that are not here are priced by the shipped tables."""
    return [PriceView.of(row) for row in await prices.list(actor)]


@price_routes.put("/{vendor}/{model:path}", permission="prices.write")
async def put_price(
    actor: Caller, prices: Annotated[OperatorPrices, service(OperatorPrices)], vendor: Vendor, model: Model, body: PriceBody
) -> PriceView:
    """Sets the price of a model, or of a pattern with `*`. Requests from now on are priced by it."""
    return PriceView.of(await prices.put(actor, vendor, model, body.rates()))


@price_routes.delete(
    "/{vendor}/{model:path}", permission="prices.write", status_code=204, responses={404: {"description": "No price of your own"}}
)
async def delete_price(actor: Caller, prices: Annotated[OperatorPrices, service(OperatorPrices)], vendor: Vendor, model: Model) -> Response:
    """The shipped price counts again."""
    await prices.delete(actor, vendor, model)
    return Response(status_code=204)


async def _entries(actor: Actor, reports: UsageReports, query: UsageQuery, page: PageQuery, *, in_doubt: bool) -> Page[EntryView]:
    before: tuple[int, int] | None = None
    if page.after is not None:
        at, _, seq = page.after.partition(".")
        if not (at.isascii() and at.isdigit() and seq.isascii() and seq.isdigit() and len(at) < 20 and len(seq) < 19):
            raise InvalidInput("cursor: not one that we gave out; start again without it", field="cursor")
        before = (min(int(at), 2**62), int(seq))
    rows = await reports.entries(query.selection(reports, actor, in_doubt=in_doubt), before=before, limit=page.limit + 1)
    kept, cursor = page.page(rows, key=lambda row: f"{row.at_ns}.{row.seq}")
    return Page(items=[EntryView.of(row) for row in kept], next_cursor=cursor)


def _only(rows: list[UsageRow]) -> UsageRow:
    if rows:
        return rows[0]
    return UsageRow.of(Sum({}, dict.fromkeys(MEASURES, 0)))


def _csv(view: UsageView | BilledUsageView, groups: Sequence[str]) -> Iterator[str]:
    """RFC 4180. A cell that a spreadsheet would run as a formula is written as text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    fields = UsageRow.model_fields if isinstance(view, UsageView) else BilledUsageRow.model_fields
    measures = [name for name in fields if name != "group"]
    writer.writerow([*groups, *measures])
    rows: Sequence[UsageRow | BilledUsageRow] = view.items
    for number, row in enumerate(rows):
        writer.writerow([*(cell(row.group[name]) for name in groups), *(getattr(row, name) for name in measures)])
        if number % 200 == 199:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
