"""What Google bills by project: Google's own client asks the same export, in another way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.sdks.bridge import SdkError
from tests.vendors.admin.desks import answer, desk

from keygate.kit.clock import SystemClock
from keygate.kit.ids import new_id
from keygate.kit.outbound import Outbound
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, AdminFault
from keygate.sandbox.admin.prices import UNLISTED
from keygate.sandbox.model import Usage
from keygate.vendors.admin import AdminDesk, Mark, MissingRight, NotFound, Order, RateLimited, Rejected, Terms, Unavailable
from keygate.vendors.admin.google import GoogleProvisioner, costs

NS, DAY_NS = 10**9, 86_400 * 10**9
provisioner = GoogleProvisioner()


@pytest.fixture
def table(sandbox: SandboxServer, account: Account) -> str:
    return str(sandbox.state.admin.api(Vendor.GOOGLE).console(account, "billing_export", {})["table"])


@pytest.fixture
def open_desk(sandbox: SandboxServer, outbound: Outbound, admin_key: Callable[..., str], table: str) -> Callable[..., AdminDesk]:
    def make(*without: str, sender: Any = None, **settings: str) -> AdminDesk:
        known = {"base_url": f"{sandbox.address}/google", "project": "sandbox-project", "billing_export_table": table}
        return desk(provisioner.facts, sender or outbound, admin_key(*without), clock=SystemClock(), settings={**known, **settings})

    return make


def spend(account: Account, project: str | None, tokens: int, *, model: str = "gemini-2.5-flash", days_ago: float = 0) -> None:
    at_ns = account.now_ns() - round(days_ago * DAY_NS)
    usage = Usage(input=0, output=tokens)
    account.books.use(at_ns, key_id="k", container=project, model=model, usage=usage, price=UNLISTED, request=True)


def parameters(days: int = 3) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    moments = {"begin": now - timedelta(days=days), "end": now + timedelta(days=1)}
    given = [
        {"name": name, "parameterType": {"type": "TIMESTAMP"}, "parameterValue": {"value": at.isoformat()}} for name, at in moments.items()
    ]
    kind, values = {"type": "ARRAY", "arrayType": {"type": "STRING"}}, {"arrayValues": [{"value": "Gemini API"}]}
    return [*given, {"name": "services", "parameterType": kind, "parameterValue": values}]


async def bill(at: AdminDesk, account: Account, days: int = 3) -> list[Any]:
    now, rows, cursor = account.now_ns(), [], None
    while True:
        found, cursor = await provisioner.spend_page(at, (now - days * DAY_NS) // DAY_NS * DAY_NS, now, cursor)
        rows += found
        if cursor is None:
            return rows


async def test_googles_client_reads_the_same_costs(
    open_desk: Callable[..., AdminDesk], account: Account, google: Callable[..., Any], table: str
) -> None:
    for number, project in enumerate(("kg-a", "kg-b", "other-project", None), 1):
        spend(account, project, 100_001 * number)
        spend(account, project, 7 * number, days_ago=1)
    query = (
        f"SELECT project.id AS project_id, SUM(CAST(cost AS NUMERIC)) AS amount FROM `{table}` WHERE usage_start_time >= @begin "
        "AND usage_start_time < @end AND service.description IN UNNEST(@services) GROUP BY project_id"
    )
    body = {"query": query, "useLegacySql": False, "parameterMode": "NAMED", "queryParameters": parameters()}
    told = google("bigquery", "v2", "jobs.query", projectId="sandbox-project", body=body)
    theirs = {row["f"][0]["v"]: Decimal(row["f"][1]["v"]) for row in told["rows"]}
    assert sum(theirs.values()) == account.books.total_usd()
    ours: dict[str, Decimal] = {}
    for row in await bill(open_desk(), account):
        [project] = row.place.values()
        ours[project] = ours.get(project, Decimal(0)) + Decimal(row.amount_nano) / NS
        assert set(row.place) == ({"project"} if project.startswith("kg-") else {"billing_project"})
    assert ours == theirs


async def test_calls_that_googles_sdk_makes_with_the_key_are_its_projects_costs(
    open_desk: Callable[..., AdminDesk], account: Account, genai: Callable[..., Any]
) -> None:
    at = open_desk(parent="folders/100", billing_account="01A2B3-C4D5E6-F7A8B9")
    made = await provisioner.create(at, Order(Mark(new_id("ik")), 1, "ada", Terms()))
    genai(key=made.secret.open(), prompt="Hello")
    [row] = await bill(at, account)
    assert row.place == {"project": made.footprint.place["project"]}
    assert row.amount_nano == int(account.books.total_usd() * NS) > 0


async def test_pages_are_the_whole_bill_once(open_desk: Callable[..., AdminDesk], account: Account, monkeypatch: Any) -> None:
    monkeypatch.setattr(costs, "_ROWS", 2)
    for days in range(3):
        for model in ("a", "b", "c"):
            spend(account, "kg-a", 1_000 + days, model=model, days_ago=days)
    rows = await bill(open_desk(), account)
    assert len({(row.start_ns, row.item) for row in rows}) == len(rows) == 9
    assert sum(row.amount_nano for row in rows) == int(account.books.total_usd() * NS)


async def test_the_sandbox_answers_nothing_that_it_did_not_understand(google: Callable[..., Any], table: str) -> None:
    for query in (
        f"SELECT 1 AS one FROM `{table}` WHERE usage_start_time >= @begin",
        f"DELETE FROM `{table}` WHERE true",
        "SELECT 1",
        f"SELECT project.id AS project FROM `{table}` WHERE usage_start_time >= @begin GROUP BY project",
    ):
        body = {"query": query, "useLegacySql": False, "queryParameters": parameters()}
        with pytest.raises(SdkError) as refused:
            google("bigquery", "v2", "jobs.query", projectId="sandbox-project", body=body)
        assert refused.value.code == 400


async def test_rights_are_seen_by_a_query_that_is_not_run(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    whole = await provisioner.verify(open_desk())
    held = {right.name: right.held for right in whole.rights}
    assert (held["bigquery.jobs.create"], held["bigquery.tables.getData"]) == (True, True)
    for right in ("bigquery.jobs.create", "bigquery.tables.getData"):
        poor = await provisioner.verify(open_desk(right))
        assert [each.name for each in poor.missing] == [right]
        with pytest.raises(MissingRight) as caught:
            await bill(open_desk(right), account)
        assert caught.value.right == right


async def test_a_table_that_is_not_there_is_noted_and_keys_can_be_made(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    at = open_desk(billing_export_table="sandbox-project.billing.gcp_billing_export_v1_000000_000000_000000")
    told = await provisioner.verify(at)
    assert not told.missing
    assert "the bill can't be read" in " ".join(told.notes)
    with pytest.raises(NotFound):
        await bill(at, account)


async def test_without_the_setting_no_right_of_it_is_asked_for(open_desk: Callable[..., AdminDesk]) -> None:
    told = await provisioner.verify(open_desk(billing_export_table=""))
    assert not [right for right in told.rights if right.name.startswith("bigquery")]
    assert "billing_export_table" in (provisioner.spend_off({}) or "")


@pytest.mark.parametrize(
    "table",
    [
        "my-project.billing.gcp_billing_export_v1_01A2B3_C4D5E6_F7A8B9",
        "my-project.billing.gcp_billing_export_resource_v1_01A2B3_C4D5E6_F7A8B9",
        "example.com:my-project.billing.gcp_billing_export_v1_1",
        "`my-project.billing.gcp_billing_export_v1_1`",
    ],
)
def test_tables_of_the_export_are_taken(table: str) -> None:
    assert costs.table_of({"billing_export_table": table}) == table.strip("`")


@pytest.mark.parametrize(
    "table",
    [
        "p.d.t",
        "my-project.billing.other",
        "my-project.billing.gcp_billing_export_v1_1` UNION ALL",
        "my-project.b`.gcp_billing_export_v1_1",
        "x" * 5000,
    ],
)
def test_nothing_else_gets_into_a_query(table: str) -> None:
    assert costs.table_of({"billing_export_table": table}) is None


class Scripted:
    """Sign-in as it is, BigQuery from a script."""

    def __init__(self, outbound: Outbound, *bodies: Any) -> None:
        self._outbound = outbound
        self.bodies = list(bodies)

    async def send(self, method: str, url: str, **options: Any) -> Any:
        if "/bigquery/" not in url:
            return await self._outbound.send(method, url, **options)
        return self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]


def told(*row: Any, **more: Any) -> Any:
    body = {"jobComplete": True, "jobReference": {"projectId": "p", "jobId": "j", "location": "EU"}, **more}
    return answer(200, {**body, "rows": [{"f": [{"v": value} for value in row]}]} if row else body)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (told("2026-11-20", "kg-a", "sku", "EUR", "1.5"), Rejected),
        (told("2026-11-20", "kg-a", "sku", "USD", "many"), Unavailable),
        (told("2026-11-20", "kg-a", "sku", "USD"), ValueError),
        (told(jobComplete=False), Unavailable),
        (answer(403, {"error": {"code": 403, "message": "slow", "errors": [{"reason": "rateLimitExceeded"}]}}), RateLimited),
        (answer(400, {"error": {"code": 400, "message": "Query exceeded limit for bytes billed", "status": "INVALID_ARGUMENT"}}), Rejected),
    ],
)
async def test_what_bigquery_may_answer_else(
    open_desk: Callable[..., AdminDesk], outbound: Outbound, account: Account, body: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await bill(open_desk(sender=Scripted(outbound, body)), account)


async def test_amounts_are_exact_and_corrections_may_be_negative(
    open_desk: Callable[..., AdminDesk], outbound: Outbound, account: Account
) -> None:
    at = open_desk(sender=Scripted(outbound, told("2026-11-20", "kg-a", "sku", "USD", "-0.000000001")))
    [row] = await bill(at, account)
    assert (row.amount_nano, row.place, row.item) == (-1, {"project": "kg-a"}, "sku")


async def test_limits_of_calls_are_waited_out(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    spend(account, "kg-a", 1_000)
    account.faults.append(AdminFault(operation="bigquery.queries.create", status=429, retry_after="0"))
    assert len(await bill(open_desk(), account)) == 1
