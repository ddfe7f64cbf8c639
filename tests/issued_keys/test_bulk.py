"""Bulk orders: checked whole before the first call, at the vendor's pace, resumable wherever they were cut off, and right at the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from tests.drills.figures import length, write
from tests.issued_keys.workshop import Workshop, most_in_a_minute, stranger

from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound
from keygate.identities import Actor, ActorKind, Role
from keygate.identities.wiring import Identities
from keygate.issued_keys import IssuedFilter, State
from keygate.issued_keys.bulk.model import WINDOW, BulkDraft, Line, OrderState, RowState
from keygate.kit.clock import NANOSECONDS
from keygate.kit.money import NANO
from keygate.kit.secret import Secret
from keygate.vendors.admin import Period, Terms

MANY = length(30, 1_000)
A_MINUTE = length(25, 100)  # calls that the vendor takes; so few that an order of MANY has to wait for it


def lines(count: int) -> list[Line]:
    return [Line(number + 1, email=f"dev{number}@example.com", name=f"Dev {number}") for number in range(1, count + 1)]


def order_of(count: int, **options: object) -> BulkDraft:
    return BulkDraft("openai", None, lines(count), create_developers=True, **options)


@pytest.mark.timeout(1_800)
async def test_a_thousand_developers_at_a_hundred_calls_a_minute_through_crashes_and_under_a_ceiling(workshop: Workshop) -> None:
    account = workshop.account
    before = len(account.calls)
    account.settings = account.settings.with_changes(
        {"requests_per_minute": A_MINUTE, "ceilings": {"projects": MANY + 1}}
    )  # and the default one
    await workshop.configure(calls_per_minute=str(A_MINUTE), ceiling=str(MANY - 4))

    changes = workshop.changes()
    # The ceiling is told before anything is made: the vendor is asked how many stand there, and nothing else.
    plan = await workshop.stock.bulk.check(workshop.owner, order_of(MANY))
    assert (plan.wanted, plan.left, plan.fits) == (MANY, MANY - 5, False)
    with pytest.raises(Conflict, match=f"{MANY} keys are wanted and {MANY - 5} fit: the vendor allows {MANY - 4} projects"):
        await workshop.order(order_of(MANY))
    assert workshop.changes() == changes
    await workshop.configure(calls_per_minute=str(A_MINUTE), ceiling=str(MANY + 1))
    workshop.clock.advance(61)  # what was called until now is past

    terms = Terms(budget_nano=20 * NANO)
    began = workshop.clock.now_ns()
    ordered = await workshop.order(order_of(MANY, terms=terms, request_id="list-1"))
    deaths = []
    for share in (0.2, 0.5, 0.8):  # steps of a whole run are about 19 a key
        workshop.life.end_at = int(MANY * 19 * share) - sum_of_steps(workshop)
        await workshop.turns()
        assert workshop.life.ended.is_set()
        deaths.append(len(account.calls))
        await workshop.start()
        again = await workshop.order(order_of(MANY, terms=terms, request_id="list-1"))
        assert again.order.id == ordered.order.id
    await workshop.turns()

    done = await workshop.stock.bulk.get(workshop.owner, ordered.order.id)
    assert (done.order.state, done.counts[RowState.MADE], done.order.total) == (OrderState.DONE, MANY, MANY), done.order.note
    keys = await workshop.orders.keys.page(workshop.owner, IssuedFilter(), after=None, limit=2 * MANY)
    assert len(keys) == MANY
    assert {key.state for key in keys} == {State.ACTIVE}
    assert len({key.owner for key in keys}) == MANY
    assert workshop.standing() == (MANY, MANY)
    lives = [list(account.calls)[first:last] for first, last in pairwise([before, *deaths, len(account.calls)])]
    tried = [most_in_a_minute(life) for life in lives]
    assert max(tried) <= 1.1 * A_MINUTE, "calls that the vendor refused count too; a few arrive later than they were let go"
    assert max(tried) >= 0.9 * A_MINUTE, "the pace was never in the way: this shows nothing"
    too_many = [sum(call.status == 429 for call in life) for life in lives]
    assert too_many[0] == 0
    assert max(too_many) <= length(6, WINDOW), "after a death the vendor says it, and how long to wait: not call after call"
    links, rest = await workshop.stock.bulk.links(workshop.owner, ordered.order.id, expires_in_seconds=3_600, after=0, limit=2 * MANY)
    assert (len(links), rest) == (MANY, None)
    minutes = (workshop.clock.now_ns() - began) / 60e9
    write(
        "bulk-paced",
        f"{MANY} keys in {minutes:.0f} minutes of the vendor's at {A_MINUTE} calls a minute, through 3 crashes; each once",
        keys=MANY,
    )


def sum_of_steps(workshop: Workshop) -> int:
    return sum(life.steps for life, _ in workshop._lives[:-1])


async def test_a_pace_that_is_kept_is_never_told_to_wait(workshop: Workshop) -> None:
    account = workshop.account
    account.settings = account.settings.with_changes({"requests_per_minute": 100})
    workshop.clock.advance(61)
    await workshop.configure(calls_per_minute="90")
    workshop.clock.advance(61)
    await workshop.order(order_of(25))
    await workshop.turns()
    assert [call for call in account.calls if call.status == 429] == []
    assert workshop.standing() == (25, 25)


async def test_every_line_that_cannot_be_is_named_and_nothing_is_made(workshop: Workshop) -> None:
    gone = await workshop.developer("gone")
    await workshop.developers.deactivate(workshop.owner, gone.id)
    wrong = [
        Line(2, email="nobody"),
        Line(3, email="gone@example.com"),
        Line(4, email="ann@example.com"),
        Line(5, email="Ann@example.com"),
        Line(6, email="bo@example.com", team="nowhere"),
        Line(7, developer_id="dev_unknown"),
        Line(8, email="eve@example.com", terms=Terms(expires_at_ns=1)),
    ]
    changes = workshop.changes()
    plan = await workshop.stock.bulk.check(workshop.owner, BulkDraft("openai", None, wrong, create_developers=True))
    assert [problem.line for problem in plan.problems] == [2, 3, 5, 6, 7, 8]
    with pytest.raises(InvalidInput, match="Nothing was made: line 2"):
        await workshop.order(BulkDraft("openai", None, wrong, create_developers=True))
    with pytest.raises(InvalidInput, match="no developer here yet"):
        await workshop.order(BulkDraft("openai", None, lines(1)))
    assert workshop.changes() == changes
    assert await workshop.stock.bulk.page(workshop.owner, before=None, limit=10) == []


async def test_as_many_as_fit_are_made_where_that_was_asked_for(workshop: Workshop) -> None:
    await workshop.configure(ceiling="4")  # the default one among them
    ordered = await workshop.order(order_of(5, fit=True))
    await workshop.turns()
    done = await workshop.stock.bulk.get(workshop.owner, ordered.order.id)
    assert (done.counts[RowState.MADE], done.counts[RowState.LEFT_OUT]) == (3, 2)
    left = await workshop.stock.bulk.rows(workshop.owner, ordered.order.id, state=RowState.LEFT_OUT, after=0, limit=10)
    assert {str(row.error).partition(",")[0] for row in left} == {"no room: the vendor allows 4 projects"}


async def test_a_vendor_that_is_full_after_all_halts_the_order_and_it_goes_on_later(workshop: Workshop) -> None:
    account = workshop.account
    account.settings = account.settings.with_changes({"ceilings": {"projects": 4}})  # the default one among them
    ordered = await workshop.order(order_of(40))
    await workshop.turns()
    halted = await workshop.stock.bulk.get(workshop.owner, ordered.order.id)
    assert (halted.order.state, halted.counts[RowState.MADE]) == (OrderState.HALTED, 3)
    assert halted.counts[RowState.FAILED] <= 16  # a window's worth, not all
    assert "allows" in (halted.order.note or "")
    assert workshop.standing() == (3, 3)
    account.settings = account.settings.with_changes({"ceilings": {"projects": 100}})
    await workshop.stock.bulk.resume(workshop.owner, ordered.order.id)
    await workshop.turns()
    done = await workshop.stock.bulk.get(workshop.owner, ordered.order.id)
    assert (done.order.state, done.counts[RowState.MADE], done.counts[RowState.FAILED]) == (OrderState.DONE, 40, 0)
    assert workshop.standing() == (40, 40)


async def test_whoever_has_a_key_in_the_account_is_left_out_unless_asked_for(workshop: Workshop) -> None:
    for batch, made in ((None, 3), (None, 3), ("second", 6), ("second", 6)):
        ordered = await workshop.order(order_of(3, batch=batch))
        await workshop.turns()
        done = await workshop.stock.bulk.get(workshop.owner, ordered.order.id)
        assert done.order.state is OrderState.DONE
        assert workshop.standing()[0] == made


async def test_whoever_stands_in_an_order_that_is_going_on_is_left_out_of_another(workshop: Workshop) -> None:
    await workshop.order(order_of(3))
    plan = await workshop.stock.bulk.check(workshop.owner, order_of(5))
    assert (plan.wanted, [row.error for row in plan.rows[:3]]) == (2, ["stands in an order that is going on"] * 3)


async def test_each_link_tells_its_secret_once(workshop: Workshop) -> None:
    ordered = await workshop.order(order_of(1))
    await workshop.turns()
    [link], _ = await workshop.stock.bulk.links(workshop.owner, ordered.order.id, expires_in_seconds=600, after=0, limit=10)
    told = await workshop.orders.handover.open_link(link.token, address=None, request_id=None)
    assert told.secret is not None
    assert workshop.works(told.secret.open())
    with pytest.raises(NotFound):
        await workshop.orders.handover.open_link(link.token, address=None, request_id=None)
    assert await workshop.stock.bulk.links(workshop.owner, ordered.order.id, expires_in_seconds=600, after=0, limit=10) == ([], None)


async def test_an_order_for_a_team_makes_a_key_for_each_active_member(workshop: Workshop, people) -> None:
    team = await people.teams.create(workshop.owner, name="Search")
    for name in ("ann", "bo", "cy"):
        await people.developers.create(workshop.owner, name=name, email=f"{name}@example.com", team_id=team.id)
    gone = await people.developers.create(workshop.owner, name="di", email="di@example.com", team_id=team.id)
    await workshop.developers.deactivate(workshop.owner, gone.id)
    ordered = await workshop.order(BulkDraft("openai", None, [], team_id=team.id))
    await workshop.turns()
    rows = await workshop.stock.bulk.rows(workshop.owner, ordered.order.id, state=None, after=0, limit=10)
    assert {row.email for row in rows if row.state is RowState.MADE} == {"ann@example.com", "bo@example.com", "cy@example.com"}


async def test_a_cancelled_order_makes_no_further_keys(workshop: Workshop) -> None:
    ordered = await workshop.order(order_of(40))
    await workshop.stock.runner.tick()
    await workshop.stock.bulk.cancel(workshop.owner, ordered.order.id)
    await workshop.turns()
    done = await workshop.stock.bulk.get(workshop.owner, ordered.order.id)
    assert done.order.state is OrderState.CANCELLED
    assert done.counts[RowState.MADE] + done.counts[RowState.LEFT_OUT] == 40
    assert workshop.standing() == (done.counts[RowState.MADE],) * 2
    with pytest.raises(Conflict, match="cancelled"):
        await workshop.stock.bulk.resume(workshop.owner, ordered.order.id)


async def test_another_organisation_sees_no_order_and_whoever_may_not_make_developers_makes_none(workshop: Workshop) -> None:
    ordered = await workshop.order(order_of(1))
    other = stranger(workshop.owner)
    assert await workshop.stock.bulk.page(other, before=None, limit=10) == []
    for call in (
        workshop.stock.bulk.get(other, ordered.order.id),
        workshop.stock.bulk.cancel(other, ordered.order.id),
        workshop.stock.bulk.rows(other, ordered.order.id, state=None, after=0, limit=1),
    ):
        with pytest.raises(NotFound):
            await call
    token = Actor(
        kind=ActorKind.API_TOKEN,
        id="tok_1",
        organization_id=workshop.owner.organization_id,
        role=Role.ADMIN,
        scopes=frozenset({"issued_keys.write"}),
    )
    with pytest.raises(Forbidden, match=r"developers\.write"):
        await workshop.stock.bulk.order(token, order_of(2))


async def test_terms_that_the_vendor_cannot_keep_are_problems_of_their_lines(workshop: Workshop) -> None:
    await workshop.configure()
    calls = len(workshop.account.calls)
    rows = lines(3)
    rows[1] = replace(rows[1], terms=Terms(budget_nano=5 * NANO + 5_000_000))
    rows[2] = replace(rows[2], terms=Terms(budget_nano=5 * NANO, budget_period=Period.DAY))
    order = replace(order_of(3), lines=rows)
    plan = await workshop.stock.bulk.check(workshop.owner, order)
    assert [(problem.line, problem.detail.partition(":")[0]) for problem in plan.problems] == [(3, "budget_usd"), (4, "budget_period")]
    with pytest.raises(InvalidInput, match="Nothing was made"):
        await workshop.order(order)
    changing = [call for call in list(workshop.account.calls)[calls:] if call.method != "GET"]
    assert changing == []


async def test_an_order_whose_terms_only_the_vendor_finds_wrong_is_halted_before_all_of_it_has_failed(workshop: Workshop) -> None:
    await workshop.configure()
    ordered = await workshop.order(order_of(3 * WINDOW, terms=Terms(requests_per_minute=2**40)))
    await workshop.turns()
    standing = await workshop.stock.bulk.get(workshop.owner, ordered.order.id)
    assert standing.order.state is OrderState.HALTED
    assert "the vendor refused (400)" in (standing.order.note or "")
    assert standing.counts[RowState.WAITING] >= WINDOW
    assert workshop.standing() == (0, 0)


@pytest.mark.parametrize("what", ["deactivated", "demoted", "token revoked", "token over"])
async def test_an_order_stops_where_its_orderer_may_no_more_and_goes_on_in_the_name_of_whoever_resumes_it(
    workshop: Workshop, people: Identities, what: str
) -> None:
    password = Secret("a long enough password")
    user = await people.users.create(workshop.owner, email="second@example.com", name="Second", role=Role.ADMIN, password=password)
    admin = Actor(kind=ActorKind.USER, id=user.id, organization_id=user.organization_id, role=Role.ADMIN, user_id=user.id)
    if what.startswith("token"):
        scopes = {"issued_keys.write", "developers.write"}
        ends = workshop.clock.now_ns() + 3_600 * NANOSECONDS
        token, _ = await people.api_tokens.create(admin, name="list", scopes=scopes, expires_at_ns=ends)
        admin = replace(admin, kind=ActorKind.API_TOKEN, id=token.id, scopes=token.scopes)
    ordered, _ = await workshop.stock.bulk.order(admin, order_of(WINDOW + 4))
    assert await workshop.stock.runner.tick()
    match what:
        case "deactivated":
            await people.users.deactivate(workshop.owner, user.id)
        case "demoted":
            await people.users.update(workshop.owner, user.id, {"role": Role.VIEWER})
        case "token revoked":
            await people.api_tokens.revoke(workshop.owner, admin.id)
        case "token over":
            workshop.clock.advance(3_601)

    await workshop.turns()
    told = await workshop.stock.bulk.get(workshop.owner, ordered.order.id)
    assert (told.order.state, told.counts[RowState.MADE], told.counts[RowState.WAITING]) == (OrderState.HALTED, WINDOW, 4)
    assert admin.id in (told.order.note or "")
    assert "resume the order in your own name" in (told.order.note or "")

    await workshop.stock.bulk.resume(workshop.owner, ordered.order.id)
    await workshop.turns()
    done = await workshop.stock.bulk.get(workshop.owner, ordered.order.id)
    assert (done.order.state, done.counts[RowState.MADE]) == (OrderState.DONE, WINDOW + 4)
    keys = await workshop.orders.keys.page(workshop.owner, IssuedFilter(), after=None, limit=100)
    assert Counter(key.created_by for key in keys) == {admin.id: WINDOW, workshop.owner.id: 4}


async def test_a_row_that_was_just_taken_up_is_not_ordered_in_the_name_of_somebody_who_is_gone(
    workshop: Workshop, people: Identities
) -> None:
    password = Secret("a long enough password")
    user = await people.users.create(workshop.owner, email="second@example.com", name="Second", role=Role.ADMIN, password=password)
    admin = Actor(kind=ActorKind.USER, id=user.id, organization_id=user.organization_id, role=Role.ADMIN, user_id=user.id)
    ordered, _ = await workshop.stock.bulk.order(admin, order_of(1))
    [row] = await workshop.stock.bulk.rows(workshop.owner, ordered.order.id, state=None, after=0, limit=10)
    async with workshop.database.unit() as work:  # as a process leaves it that ends right after it has taken the row up
        taken = replace(row, state=RowState.ORDERED, claimed_at_ns=0, claimed_by="node-0")
        assert await workshop.stock.runner._repository.save_row(work.connection, taken, was=RowState.WAITING)
    await people.users.deactivate(workshop.owner, user.id)
    await workshop.turns()
    [row] = await workshop.stock.bulk.rows(workshop.owner, ordered.order.id, state=None, after=0, limit=10)
    assert (row.state, row.key_id, row.error_code) == (RowState.FAILED, None, "forbidden")
    assert workshop.standing() == (0, 0)
