"""Reports: sums that are exact at their edges, fresh, narrowed to what the caller may see; entries; charges in doubt; the API over them."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from tests.ledger.journal_files import DAY, HOUR, JANUARY, settle, write

from keygate.api import problems
from keygate.api.envelope import Envelope
from keygate.errors import InvalidInput
from keygate.identities import Actor, ActorKind, Role
from keygate.kit.clock import Clock, ManualClock
from keygate.kit.database import Database
from keygate.kit.turns import gathered
from keygate.ledger import api
from keygate.ledger.fold import Fold
from keygate.ledger.ports import BudgetQuery
from keygate.ledger.report_queries import ReportQueries
from keygate.ledger.reports import MAX_ROWS, MEASURES, UsageReports
from keygate.ledger.repository import LedgerRepository
from keygate.ledger.service import OperatorPrices, Reconciliation

DOLLAR = 1_000_000_000
ADMIN = Actor(ActorKind.USER, "usr_1", "org_1", Role.ADMIN)
DEVELOPER = Actor(ActorKind.USER, "usr_2", "org_1", Role.DEVELOPER, developer_id="dev_2")


class Audit:
    """Keeps what was recorded."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, str, str]] = []

    async def record(self, work, actor, action, target, *, before=None, after=None, detail=None) -> None:
        self.recorded.append(("recorded", action, target))

    async def refused(self, actor, action, target, *, reason) -> None:
        self.recorded.append(("refused", action, target))


class Live:
    def __init__(self) -> None:
        self.corrected: list[tuple[str, int, int, int]] = []

    def correct(self, budget_id: str, window_start_ns: int, nano: int, in_doubt_nano: int) -> None:
        self.corrected.append((budget_id, window_start_ns, nano, in_doubt_nano))


@dataclass
class World:
    database: Database
    fold: Fold
    reports: UsageReports
    clock: ManualClock
    audit: Audit
    live: Live
    prices: OperatorPrices
    client: httpx.AsyncClient
    actor: list[Actor]


@pytest.fixture
async def world(database, clock, tmp_path) -> AsyncIterator[World]:
    repository = LedgerRepository()
    fold = Fold(database=database, repository=repository, directory=tmp_path / "journal", journal_id="node_1", clock=clock)
    reports = UsageReports(database=database, queries=ReportQueries(), clock=clock, fresh=fold)
    audit, live = Audit(), Live()
    prices = OperatorPrices(database=database, repository=repository, audit=audit, clock=clock)
    reconciliation = Reconciliation(database=database, repository=repository, audit=audit, clock=clock, fresh=fold, live=live)
    actor = [ADMIN]
    app = FastAPI()
    app.state.services = {UsageReports: reports, Reconciliation: reconciliation, OperatorPrices: prices, Clock: clock}

    async def authorise(request, permission) -> Actor:
        return actor[0]

    app.state.authorise = authorise
    for routes in api.ALL:
        routes.add_to(app, prefix="/api/v1")
    problems.install(app, audit)
    app.add_middleware(Envelope)
    (tmp_path / "journal").mkdir()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test/api/v1") as client:
        yield World(database, fold, reports, clock, audit, live, prices, client, actor)


async def total(world: World, start: int, end: int, **filters: tuple[str, ...]) -> int:
    report = await world.reports.usage(world.reports.selection(ADMIN, from_ns=start, to_ns=end, filters=filters), [])
    return sum(row.values["requests"] for row in report.rows)


@pytest.mark.parametrize("rolled", ["nothing", "half", "all"])
async def test_sums_are_exact_at_every_edge_whatever_has_been_rolled_up(world, tmp_path, rolled):
    moments = [JANUARY + n * 47 * 60 * 10**9 + n for n in range(150)]  # 47 minutes apart, over almost five days
    write(tmp_path / "journal", [settle(began_at_ns=moment) for moment in moments[:75]])
    await world.fold.tick()
    if rolled == "half":
        await world.fold.roll_up()
    write(tmp_path / "journal", [settle(began_at_ns=moment) for moment in moments[75:]])
    await world.fold.tick()
    if rolled == "all":
        await world.fold.roll_up()
    edges = [
        JANUARY,
        JANUARY + 1,
        JANUARY + HOUR,
        JANUARY + HOUR + 17,
        moments[10],
        moments[80] + 1,
        JANUARY + DAY,
        JANUARY + 2 * DAY + 5 * HOUR,
    ]
    edges += [JANUARY + 3 * DAY, JANUARY + 3 * DAY + 1, JANUARY + 9 * DAY]
    for start in edges:
        for end in edges:
            if start < end:
                assert await total(world, start, end) == sum(start <= moment < end for moment in moments), (start - JANUARY, end - JANUARY)


async def test_a_report_contains_what_was_settled_a_moment_ago(world, tmp_path):
    assert await total(world, JANUARY, JANUARY + DAY) == 0
    write(tmp_path / "journal", [settle()])
    assert await total(world, JANUARY, JANUARY + DAY) == 1


async def test_groups_and_filters(world, tmp_path):
    world.clock.advance(2 * 86_400)
    write(
        tmp_path / "journal",
        [
            settle(key_id="vk_1", model="gpt-4.1", tags=("project=x",)),
            settle(key_id="vk_1", model="gpt-4.1-mini", team_id=None, began_at_ns=JANUARY + DAY),
            settle(key_id="vk_2", model="gpt-4.1", cost_nano=None, endpoint="embeddings", tags=("project=xy", 'quote"%_')),
            settle(key_id="vk_2", organization_id="org_2"),
        ],
    )
    for _ in range(2):
        reports = world.reports
        everything = reports.selection(ADMIN, from_ns=JANUARY, to_ns=JANUARY + 3 * DAY)
        by_key = await reports.usage(everything, ["key", "day"])
        assert [(row.group["key"], row.group["day"], row.values["cost_nano"], row.values["unpriced"]) for row in by_key.rows] == [
            ("vk_1", "2026-01-01", DOLLAR, 0),
            ("vk_2", "2026-01-01", 0, 1),
            ("vk_1", "2026-01-02", DOLLAR, 0),
        ]
        by_team = await reports.usage(everything, ["team"])
        assert {row.group["team"]: row.values["requests"] for row in by_team.rows} == {"team_1": 2, None: 1}
        by_month = await reports.usage(everything, ["month"])
        assert [(row.group, row.values["requests"]) for row in by_month.rows] == [({"month": "2026-01"}, 3)]
        by_endpoint = await reports.usage(everything, ["endpoint"])
        assert {row.group["endpoint"]: row.values["requests"] for row in by_endpoint.rows} == {"chat": 2, "embeddings": 1}
        assert await total(world, JANUARY, JANUARY + 3 * DAY, key_id=("vk_1", "vk_3"), model=("gpt-4.1",)) == 1
        for tag, expected in (("project=x", 1), ("project=xy", 1), ('quote"%_', 1), ("project", 0), ('quote"%a', 0)):
            tagged = await reports.usage(reports.selection(ADMIN, from_ns=JANUARY, to_ns=JANUARY + 3 * DAY, tag=tag), [])
            assert sum(row.values["requests"] for row in tagged.rows) == expected, tag
        totals = await reports.key_totals("org_1", "vk_1")
        assert (totals["requests"], totals["cost_nano"]) == (2, 2 * DOLLAR)
        assert (await reports.key_totals("org_1", "vk_none"))["requests"] == 0
        await world.fold.roll_up()
    with pytest.raises(InvalidInput, match="group_by"):
        await reports.usage(everything, ["prompt"])
    with pytest.raises(InvalidInput, match="group_by"):
        await reports.usage(everything, ["day", "hour"])


async def test_a_developer_sees_their_own_and_nothing_else(world, tmp_path):
    write(tmp_path / "journal", [settle(developer_id="dev_1"), settle(developer_id="dev_2"), settle(developer_id=None)])
    world.actor[0] = DEVELOPER
    span = {"from": "2026-01-01", "to": "2026-01-02"}
    seen = (await world.client.get("/usage", params={"group_by": "developer", **span})).json()
    assert [row["group"] for row in seen["items"]] == [{"developer": "dev_2"}]
    assert (await world.client.get("/usage", params={"developer_id": "dev_1", **span})).json()["items"] == []
    assert len((await world.client.get("/usage/entries", params=span)).json()["items"]) == 1
    world.actor[0] = replace(DEVELOPER, developer_id=None)
    assert (await world.client.get("/usage/entries", params=span)).json()["items"] == []


async def test_entries_come_newest_first_in_pages_without_gaps(world, tmp_path):
    write(tmp_path / "journal", [settle(began_at_ns=JANUARY + n // 2, request_id=f"req_{n}") for n in range(9)])
    seen: list[str] = []
    params: dict[str, str] = {"from": "2026-01-01", "to": "2026-01-02", "limit": "4"}
    while True:
        page = (await world.client.get("/usage/entries", params=params)).json()
        seen += [entry["request_id"] for entry in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == [f"req_{n}" for n in reversed(range(9))]
    wrong = await world.client.get("/usage/entries", params={"cursor": "cmVxXzE"})
    assert wrong.status_code == 422
    entry = (await world.client.get("/usage/entries", params={"from": "2026-01-01", "to": "2026-01-02", "limit": 1})).json()["items"][0]
    assert entry["cost_usd"] == "1.00"
    assert entry["at"].startswith("2026-01-01T00:00:00")


async def test_an_export_runs_no_formula_in_a_spreadsheet(world, tmp_path):
    write(
        tmp_path / "journal",
        [settle(model='=HYPERLINK("http://evil")', model_asked="x"), settle(model="@SUM(A1)"), settle(model='gpt,"quoted"')],
    )
    answer = await world.client.get("/usage", params={"group_by": "model", "format": "csv", "from": "2026-01-01", "to": "2026-01-02"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["model"] for row in rows} == {'\'=HYPERLINK("http://evil")', "'@SUM(A1)", 'gpt,"quoted"'}
    assert rows[0]["cost_usd"] == "1.00"


async def test_a_report_with_more_groups_than_it_holds_says_so_and_a_file_is_whole_or_refused(world, tmp_path, monkeypatch):
    write(tmp_path / "journal", [settle(model=f"model-{n}", model_asked="x") for n in range(9)])
    span = {"group_by": "model", "from": "2026-01-01", "to": "2026-01-02"}
    monkeypatch.setattr(api, "MAX_ROWS", 4)
    told = (await world.client.get("/usage", params=span)).json()
    assert (told["truncated"], len(told["items"])) == (True, 4)
    assert len(list(csv.DictReader(io.StringIO((await world.client.get("/usage", params=span | {"format": "csv"})).text)))) == 9
    monkeypatch.setattr(api, "MAX_EXPORTED", 9)
    assert (await world.client.get("/usage", params=span | {"format": "csv"})).status_code == 200
    monkeypatch.setattr(api, "MAX_EXPORTED", 8)
    refused = await world.client.get("/usage", params=span | {"format": "csv"})
    assert refused.status_code == 422
    assert "narrow the range" in refused.text
    monkeypatch.setattr(api, "MAX_ROWS", 9)
    assert (await world.client.get("/usage", params=span)).json()["truncated"] is False


class ManyRows(ReportQueries):
    """A report as large as they get, without the entries behind it."""

    async def sums(self, connection, selection, columns, *, step, limit):
        rows = min(limit, MAX_ROWS)
        numbers = f"WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})"
        measures = ", ".join(f"n AS {name}" for name in MEASURES)
        bucket = f", {JANUARY} AS bucket_ns" if step else ""
        query = sa.text(f"{numbers} SELECT 'model-' || n AS model{bucket}, {measures} FROM n")
        return await gathered((await connection.execute(query)).partitions(500))


@pytest.mark.parametrize("asked", [{}, {"format": "csv"}, {"group_by": "model,month"}])
async def test_a_report_of_many_rows_leaves_the_loop_to_others(world, asked):
    """Others have a turn for every hundred rows that are read or written."""
    world.reports._queries = ManyRows()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    waiting = asyncio.create_task(others())
    answer = await world.client.get("/usage", params={"group_by": "model", "from": "2026-01-01", "to": "2026-01-02"} | asked)
    waiting.cancel()
    assert answer.status_code == 200
    assert answer.text.count("model-") == MAX_ROWS
    assert turns >= MAX_ROWS // 100


@pytest.mark.parametrize("rolled", [True, False])
async def test_a_charge_in_doubt_is_corrected_once_everywhere(world, tmp_path, rolled):
    doubtful = settle(in_doubt=True, cost_nano=2 * DOLLAR, usage=None, outcome="upstream_lost", status=0)
    write(tmp_path / "journal", [doubtful, settle(), settle(organization_id="org_2", in_doubt=True)])
    await world.fold.tick()
    if rolled:
        await world.fold.roll_up()
    span = {"from": "2026-01-01", "to": "2026-01-02"}
    listed = (await world.client.get("/usage/in-doubt", params=span)).json()["items"]
    assert [entry["request_id"] for entry in listed] == [doubtful.request_id]
    row = (await world.client.get("/usage", params=span)).json()["items"][0]
    assert (row["cost_usd"], row["in_doubt_usd"]) == ("3.00", "2.00")

    answer = await world.client.post(f"/usage/in-doubt/{doubtful.request_id}", json={"cost_usd": "0.25"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["cost_usd"], answer.json()["in_doubt"], answer.json()["reconciled_by"]) == ("0.25", False, "usr_1")
    again = await world.client.post(f"/usage/in-doubt/{doubtful.request_id}", json={"cost_usd": "0.50"})
    assert again.status_code == 409
    assert (await world.client.post("/usage/in-doubt/req_none", json={"cost_usd": "1"})).status_code == 404

    if not rolled:
        await world.fold.roll_up()
    row = (await world.client.get("/usage", params=span)).json()["items"][0]
    assert (row["cost_usd"], row["in_doubt_usd"]) == ("1.25", "0.00")
    async with world.database.read() as connection:
        spend = await LedgerRepository().spend(connection, [BudgetQuery("bud_key", 0)])
    assert spend["bud_key"] == [(JANUARY, 2 * DOLLAR + DOLLAR // 4, DOLLAR)]  # the other organisation's test entry names the same budget
    assert world.live.corrected == [("bud_key", JANUARY, -1_750_000_000, -2 * DOLLAR), ("bud_org", JANUARY, -1_750_000_000, -2 * DOLLAR)]
    assert world.audit.recorded == [("recorded", "ledger_entry.reconcile", doubtful.request_id)]


async def test_the_dashboard_shows_days_and_the_top_of_each_list(world, tmp_path):
    world.clock.advance(3 * 86_400 + 60)
    write(tmp_path / "journal", [settle(began_at_ns=world.clock.now_ns() - n * DAY, key_id=f"vk_{n}") for n in range(3)])
    stats = (await world.client.get("/dashboard/stats")).json()
    assert [stats[name]["requests"] for name in ("today", "yesterday", "last_30_days")] == [1, 1, 3]
    assert len(stats["by_day"]) == 3
    assert {row["group"]["key"] for row in stats["top_keys"]} == {"vk_0", "vk_1", "vk_2"}


async def test_prices_of_the_operators_own_are_kept_audited_and_handed_to_the_book(world):
    body = {"rates_usd": {"input": "2.00", "output": "8.00", "web_search": "10"}}
    assert (await world.client.put("/prices/openai/gpt-4.1*", json=body)).status_code == 200
    answer = await world.client.put("/prices/openai/ft:gpt-4.1/x", json={"rates_usd": {"input": "3"}})
    assert answer.json()["rates_usd"] == {"input": "3.00"}
    assert [(row.model, dict(row.rates)) for row in world.prices.rows()] == [
        ("ft:gpt-4.1/x", {"input": 3 * DOLLAR}),
        ("gpt-4.1*", {"input": 2 * DOLLAR, "output": 8 * DOLLAR, "web_search": 10_000 * DOLLAR}),
    ]
    listed = (await world.client.get("/prices")).json()
    assert (
        listed[1]["rates_usd"] == {"input": "2.00", "output": "8.00", "web_search": "10.00"}
        or listed[0]["rates_usd"]["web_search"] == "10.00"
    )
    assert (await world.client.delete("/prices/openai/gpt-4.1*")).status_code == 204
    assert (await world.client.delete("/prices/openai/gpt-4.1*")).status_code == 404
    assert len(world.prices.rows()) == 1
    for wrong in (
        {"rates_usd": {}},
        {"rates_usd": {"cache_read": "1"}},
        {"rates_usd": {"input": "-1"}},
        {"rates_usd": {"input": "99999999999999999"}},
    ):
        assert (await world.client.put("/prices/openai/gpt-4.1", json=wrong)).status_code == 422
    assert [action for _, action, _ in world.audit.recorded] == ["price.set", "price.set", "price.delete"]


@pytest.mark.parametrize(
    "params",
    [{"from": "yesterday"}, {"from": "2026-01-02", "to": "2026-01-01"}, {"from": "9999-12-31T23:59:59-14:00"}, {"from": "0001-01-01"}],
)
async def test_a_range_that_makes_no_sense_is_refused_by_name(world, params):
    answer = await world.client.get("/usage", params=params)
    assert answer.status_code == 422
