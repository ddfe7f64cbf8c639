"""Calls to admin APIs: when they are repeated, when not, how they fail, and what they keep to themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from tests.vendors.admin.desks import NoIssuer, Script, Steps, admin_http, answer, resting

from keygate.kit.clock import ManualClock
from keygate.kit.ids import new_id
from keygate.kit.outbound import Answer, Outbound, Unreached
from keygate.kit.secret import Secret
from keygate.vendors.admin import (
    AdminDesk,
    AdminHttp,
    AdminKeyRefused,
    CeilingReached,
    Mark,
    MissingRight,
    NotFound,
    Pace,
    ProvisionerFacts,
    RateLimited,
    Rejected,
    TokenShelf,
    Unavailable,
    generation_of,
)
from keygate.vendors.admin.errors import quoted
from keygate.vendors.admin.interface import bearer

URL = "https://vendor.example/v1/projects"
CREATE = {"what": "create the project", "right": "projects.write"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_told_to_wait_it_waits_as_long_and_asks_again(clock: ManualClock) -> None:
    vendor = Script([answer(429, retry_after="7"), answer(200, {"id": "p1"})])
    before = clock.monotonic_ns()
    assert await admin_http(vendor, clock=clock).json("POST", URL, json={}, **CREATE) == {"id": "p1"}
    assert clock.monotonic_ns() - before == 7_000_000_000
    assert len(vendor.asked) == 2


async def test_a_wait_as_a_date_is_understood(clock: ManualClock) -> None:
    vendor = Script([answer(429, retry_after="Thu, 01 Jan 2026 00:00:20 GMT"), answer(200, {})])
    await admin_http(vendor, clock=clock).json("GET", URL, what="read", right="r")
    assert clock.monotonic_ns() == 20_000_000_000


async def test_a_storm_of_429_ends_with_the_wait_that_is_left(clock: ManualClock) -> None:
    vendor = Script([answer(429, retry_after="50")] * 9)
    with pytest.raises(RateLimited) as refused:
        await admin_http(vendor, clock=clock).json("POST", URL, json={}, **CREATE)
    assert refused.value.retry_after == 50
    assert len(vendor.asked) == 2  # a second wait of 50 seconds would be more than a call's patience


def throttled(told: Answer) -> RateLimited | None:
    """A vendor that tells its limit of calls with another status than 429: AWS."""
    return RateLimited("the vendor limits calls now") if b"Throttling" in told.body else None


async def test_a_limit_of_calls_is_waited_out_whatever_status_the_vendor_tells_it_with(clock: ManualClock) -> None:
    vendor = Script([answer(400, {"code": "Throttling"}), answer(400, {"code": "Throttling"}, retry_after="9"), answer(200, {"id": "p1"})])
    steps = Steps()
    told = await admin_http(vendor, clock=clock, watcher=steps).json("POST", URL, json={}, fault=throttled, **CREATE)
    assert told == {"id": "p1"}
    assert 9.3 < clock.monotonic_ns() / 1e9 < 9.7  # half a second of its own, then the nine that the vendor asked for
    assert steps.told == ["> create the project", "< create the project: 200"]  # a call that was not taken is no failed step


async def test_a_storm_of_such_limits_ends_as_rate_limited_with_a_time_to_come_back(clock: ManualClock) -> None:
    vendor = Script([answer(400, {"code": "Throttling"})] * 9)
    with pytest.raises(RateLimited) as refused:
        await admin_http(vendor, clock=clock).json("POST", URL, json={}, fault=throttled, **CREATE)
    assert refused.value.retry_after > 8
    assert len(vendor.asked) == 6


def refused(told: Answer) -> Rejected:
    return Rejected(f"the vendor refused: {told.body.decode()}", status=told.status)


@pytest.mark.parametrize("waits", [{}, {"retry_after": "2"}])
async def test_a_429_is_waited_out_whatever_the_vendors_own_reading_makes_of_its_code(clock: ManualClock, waits: dict[str, str]) -> None:
    vendor = Script([answer(429, {"code": "NeverHeardOf"}, **waits), answer(200, {"id": "p1"})])
    assert await admin_http(vendor, clock=clock).json("POST", URL, json={}, fault=refused, **CREATE) == {"id": "p1"}
    storm = Script([answer(429, {"code": "NeverHeardOf"}, **waits)] * 9)
    with pytest.raises(RateLimited, match="create the project") as limited:
        await admin_http(storm, clock=clock).json("POST", URL, json={}, fault=refused, **CREATE)
    assert limited.value.retry_after >= 2
    assert len(storm.asked) == 6


async def test_azures_counters_are_waited_for_the_longest_first(clock: ManualClock) -> None:
    waits = {"retry_after": "3", "x_ms_ratelimit_microsoft.costmanagement_qpu_retry_after": "12"}
    waits["x_ms_ratelimit_microsoft.consumption_retry_after"] = "soon"
    vendor = Script([answer(429, None, **waits), answer(200, {})])
    await admin_http(vendor, clock=clock).json("GET", URL, what="read costs", right="r")
    assert clock.monotonic_ns() == 12_000_000_000


async def test_exact_numbers_are_decimals(clock: ManualClock) -> None:
    vendor = Script([answer(200, b'{"amount": 0.1234567890123456789}')])
    found = await admin_http(vendor, clock=clock).json("GET", URL, what="read", right="r", exact=True)
    assert found == {"amount": Decimal("0.1234567890123456789")}


async def test_a_vendor_that_says_to_wait_for_nothing_is_not_asked_at_once_again(clock: ManualClock) -> None:
    vendor = Script([answer(429, retry_after="0")] * 9)
    with pytest.raises(RateLimited):
        await admin_http(vendor, clock=clock).json("GET", URL, what="read", right="r")
    assert len(vendor.asked) == 6
    assert clock.monotonic_ns() > 10_000_000_000


async def test_a_post_that_timed_out_is_not_repeated_and_is_uncertain(clock: ManualClock) -> None:
    vendor = Script([Unreached("did not answer", sent=True), answer(200, {})])
    with pytest.raises(Unavailable) as failed:
        await admin_http(vendor, clock=clock).json("POST", URL, json={}, **CREATE)
    assert failed.value.uncertain
    assert len(vendor.asked) == 1


class Silent:
    """Takes every call and answers none; after `calls` of them it is well."""

    def __init__(self, clock: ManualClock, calls: int = 1_000) -> None:
        self._clock, self._calls = clock, calls
        self.waits: list[float] = []

    async def send(self, *_: object, timeout: float | None = None, **__: object) -> Answer:
        assert timeout is not None
        self.waits.append(timeout)
        if len(self.waits) > self._calls:
            return answer(200, {})
        self._clock.advance(timeout)
        raise Unreached(f"did not answer within {timeout:g} seconds", sent=True)


async def test_all_calls_of_one_try_at_a_vendor_that_does_not_answer_end_within_about_a_minute(clock: ManualClock) -> None:
    vendor = Silent(clock)
    http = admin_http(vendor, clock=clock)
    before = clock.monotonic_ns()
    for method in ("DELETE", "DELETE", "GET"):
        with pytest.raises(Unavailable, match="did not answer"):
            await http.call(method, URL, what="revoke the key", right="r")
    assert vendor.waits == [30, 10, 10, 10]
    assert clock.monotonic_ns() - before < 75 * 10**9


async def test_an_answer_makes_a_vendor_worth_the_whole_patience_again(clock: ManualClock) -> None:
    vendor = Silent(clock, calls=2)
    http = admin_http(vendor, clock=clock)
    with pytest.raises(Unavailable):
        await http.call("DELETE", URL, what="revoke the key", right="r")
    await http.call("GET", URL, what="read the key", right="r")
    await http.call("GET", URL, what="read the key", right="r")
    assert vendor.waits == [30, 10, 10, 30]


async def test_waits_that_a_vendor_asks_for_are_bounded_over_all_calls_of_one_try(clock: ManualClock) -> None:
    vendor = Script([answer(429, retry_after="50")] * 4)
    http = admin_http(vendor, clock=clock)
    for _ in range(3):
        with pytest.raises(RateLimited):
            await http.call("DELETE", URL, what="revoke the key", right="r")
    assert len(vendor.asked) == 4
    assert clock.monotonic_ns() == 50 * 10**9


async def test_a_post_that_was_never_sent_is_repeated(clock: ManualClock) -> None:
    vendor = Script([Unreached("no connection", sent=False), answer(200, {"id": "p1"})])
    assert await admin_http(vendor, clock=clock).json("POST", URL, json={}, **CREATE) == {"id": "p1"}


async def test_a_post_that_failed_at_the_vendor_is_uncertain(clock: ManualClock) -> None:
    vendor = Script([answer(500, {"error": {"message": "oops"}})])
    with pytest.raises(Unavailable, match="oops") as failed:
        await admin_http(vendor, clock=clock).json("POST", URL, json={}, **CREATE)
    assert failed.value.uncertain


async def test_a_delete_is_repeated_until_it_is_done(clock: ManualClock) -> None:
    vendor = Script([answer(500), Unreached("broke", sent=True), answer(204)])
    await admin_http(vendor, clock=clock).call("DELETE", URL, what="delete", right="r")
    assert len(vendor.asked) == 3


async def test_retries_have_an_end(clock: ManualClock) -> None:
    vendor = Script([answer(503)] * 20)
    with pytest.raises(Unavailable) as failed:
        await admin_http(vendor, clock=clock).call("DELETE", URL, what="delete", right="r")
    assert len(vendor.asked) == 6
    assert not failed.value.uncertain


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AdminKeyRefused), (403, MissingRight), (404, NotFound), (400, Rejected), (409, Rejected)]
)
async def test_each_refusal_has_its_kind(clock: ManualClock, status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="create the project"):
        await admin_http(Script([answer(status, {"error": {"message": "no"}})]), clock=clock).json("POST", URL, json={}, **CREATE)


async def test_a_missing_right_is_named(clock: ManualClock) -> None:
    with pytest.raises(MissingRight, match=r"projects\.write") as refused:
        await admin_http(Script([answer(403)]), clock=clock).json("POST", URL, json={}, **CREATE)
    assert refused.value.right == "projects.write"


async def test_a_line_of_a_key_file_is_blacked_out_too(clock: ManualClock) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvAIBADANBgkqhkiG9w0BAQ\nrOiKTbC6qwBma1k0BzQTgM8+HD\n-----END PRIVATE KEY-----\n"
    file = json.dumps({"type": "service_account", "client_email": "keygate@example.com", "private_key": key})
    said = "bad key rOiKTbC6qwBma1k0BzQTgM8+HD of keygate@example.com"
    vendor = Script([answer(400, {"error": {"message": said}})])
    with pytest.raises(Rejected, match=r"bad key \[redacted\] of keygate@example\.com"):
        await admin_http(vendor, clock=clock, conceal=[Secret(file)]).json("POST", URL, json={}, **CREATE)


async def test_a_vendors_own_ceiling_is_told_and_not_retried(clock: ManualClock) -> None:
    vendor = Script([answer(429, {"error": {"code": "full"}}), answer(200, {})])
    with pytest.raises(CeilingReached):
        await admin_http(vendor, clock=clock).json("POST", URL, json={}, fault=lambda _: CeilingReached("projects", ceiling=3), **CREATE)
    assert len(vendor.asked) == 1


async def test_a_secret_that_the_vendor_repeats_is_blacked_out(clock: ManualClock) -> None:
    admin = "plain-admin-secret-0001"
    vendor = Script([answer(400, {"error": {"message": f"bad key {admin}, and sk-live-abcdefghijklmnop", "code": "odd"}})])
    with pytest.raises(Rejected) as refused:
        await admin_http(vendor, clock=clock, conceal=[Secret(admin)]).json("POST", URL, json={}, **CREATE)
    assert refused.value.reason == "odd"
    assert admin not in refused.value.detail
    assert "abcdefghijklmnop" not in refused.value.detail


def ceiling(told: Answer) -> CeilingReached:
    return CeilingReached("projects", told.body.decode())


async def test_a_vendors_own_reading_of_an_error_has_no_secret_either(clock: ManualClock) -> None:
    """Ceilings and a vendor's own codes are told in the vendor's words: those are blacked out before."""
    admin, token = 'admin "secret" 0001', "short-lived-token-0001"
    said = f"no room for {admin} and {token}"
    vendor = Script([answer(409, {"error": {"message": said}}), answer(409, f"<Message>{said}</Message>".encode())])
    http = admin_http(vendor, clock=clock, conceal=[Secret(admin)])
    headers = {"Authorization": f"Bearer {token}"}
    for _ in range(2):
        with pytest.raises(CeilingReached) as refused:
            await http.json("POST", URL, json={}, headers=headers, fault=ceiling, **CREATE)
        assert "no room for [redacted] and [redacted]" in refused.value.detail
        assert "0001" not in refused.value.detail


def in_the_vendors_words(told: Answer) -> Rejected:
    """As a vendor's own reading might, without a thought of secrets."""
    error = json.loads(told.body)["error"]
    return Rejected(f"the vendor refused: {error['message']}", reason=error["code"])


async def test_a_key_of_anybodys_in_a_vendors_words_is_blacked_out_of_its_own_reading_too(clock: ManualClock) -> None:
    """An issued key, or one that was made by hand: KeyGate does not hold it, and can't look for it by its text."""
    key = "ABSKQmVkcm9ja0FQSUtleS1hYmNkLWF0LTEyMzQ1Njc4OTAxMjpsb25n"
    vendor = Script([answer(400, {"error": {"message": f"key {key} can't do that", "code": key}})])
    with pytest.raises(Rejected) as refused:
        await admin_http(vendor, clock=clock).json("POST", URL, json={}, fault=in_the_vendors_words, **CREATE)
    assert (refused.value.detail, str(refused.value)) == ("the vendor refused: key [redacted] can't do that",) * 2
    assert refused.value.reason == "[redacted]"


def test_words_are_cut_after_secrets_were_looked_for_in_them() -> None:
    """Half a key does not look like one."""
    said = quoted(f"{'x' * 290} ABSKQmVkcm9ja0FQSUtleS1hYmNkLWF0LTEyMzQ1Njc4OTAxMjpsb25n", most=300)
    assert said == f"{'x' * 290} [redacted"
    assert quoted("one\nline\x00 ") == "one line"
    assert quoted(None) == quoted({"a": 1}) == ""


async def test_what_changes_something_is_told_before_and_after(clock: ManualClock) -> None:
    steps = Steps()
    http = admin_http(Script([answer(200, {}), answer(200, {}), answer(403)]), clock=clock, watcher=steps)
    await http.json("GET", URL, what="look", right="r")
    await http.json("POST", URL, json={}, **CREATE)
    with pytest.raises(MissingRight):
        await http.json("DELETE", URL, what="delete", right="r")
    assert steps.told == ["> create the project", "< create the project: 200", "> delete", "< delete: missing_right"]


async def test_no_minute_sees_more_calls_than_the_pace(clock: ManualClock) -> None:
    pace = Pace(10, clock=clock, sleep=resting(clock))
    times = []
    for _ in range(35):
        await pace.wait()
        times.append(clock.monotonic_ns())
        clock.advance(0.5)
    assert all(later - earlier >= 60_000_000_000 for earlier, later in zip(times, times[10:], strict=False))


async def test_an_answer_that_is_no_object_is_a_failure_of_the_vendor(clock: ManualClock) -> None:
    for body in (b"<html>", b"[]", b"[" * 100_000):
        with pytest.raises(Unavailable):
            await admin_http(Script([answer(200, body)]), clock=clock).json("POST", URL, json={}, **CREATE)


async def _raw_server(said: bytes, *, hang: bool = False) -> tuple[asyncio.Server, str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        if hang:
            await reader.read()  # until the caller gives up
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    made = Outbound(timeout=0.5, max_answer=1000)
    yield made
    await made.close()


async def test_an_answer_over_the_bound_is_given_up(outbound: Outbound) -> None:
    server, url = await _raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5000)
    with pytest.raises(Unreached, match="more than"):
        await outbound.send("GET", url, headers={})
    server.close()


async def test_a_silent_vendor_is_given_up_and_may_have_acted(outbound: Outbound) -> None:
    server, url = await _raw_server(b"HTTP/1.1 200 OK\r\n", hang=True)
    with pytest.raises(Unreached) as failed:
        await outbound.send("POST", url, headers={}, body=b"{}")
    assert failed.value.sent
    server.close()


async def test_a_closed_port_was_never_sent_to(outbound: Outbound) -> None:
    server, url = await _raw_server(b"")
    server.close()
    await server.wait_closed()
    with pytest.raises(Unreached) as failed:
        await outbound.send("POST", url, headers={}, body=b"{}")
    assert not failed.value.sent


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://0.0.0.0/"])
async def test_metadata_addresses_are_never_called(outbound: Outbound, url: str) -> None:
    with pytest.raises(Unreached, match="no address") as failed:
        await outbound.send("GET", url, headers={})
    assert not failed.value.sent


def test_a_tag_is_short_lower_case_and_tells_its_id_apart() -> None:
    marks = [Mark(new_id("ik")) for _ in range(50)]
    tags = {mark.tag for mark in marks}
    assert len(tags) == 50
    for mark in marks:
        assert len(mark.tag) == 29
        assert set(mark.tag[3:]) <= set("abcdefghijklmnopqrstuvwxyz234567")
        assert generation_of(mark.key_name(12), mark) == 12
        assert generation_of(mark.tag, mark) is None
        assert generation_of(marks[0].key_name(1) if mark is not marks[0] else "other-1", mark) is None


async def test_a_token_that_is_refused_is_made_anew_once_for_all_who_had_it_and_never_in_a_circle(clock: ManualClock) -> None:
    shelf, made = TokenShelf(clock), 0

    async def make() -> tuple[Secret, int]:
        nonlocal made
        made += 1
        return Secret(f"token-{made}"), clock.now_ns() + 600 * 1_000_000_000

    async def read(vendor: Script, token: Secret, steps: Steps | None = None) -> None:
        async def afresh() -> dict[str, str]:
            return bearer(await shelf.token("arm", make, refused=token))

        http = admin_http(vendor, clock=clock, watcher=steps)
        await http.json("POST", URL, json={}, headers=bearer(token), afresh=afresh, **CREATE)

    first, vendor, steps = await shelf.token("arm", make), Script([answer(401), answer(200, {}), answer(401), answer(200, {})]), Steps()
    await read(vendor, first, steps)
    await read(vendor, first)  # another who had it
    assert [headers["authorization"] for _, _, headers, _ in vendor.asked] == [f"Bearer token-{number}" for number in (1, 2, 1, 2)]
    assert steps.told == ["> create the project", "< create the project: 200"]
    refusing = Script([answer(401)] * 9)
    with pytest.raises(AdminKeyRefused):
        await read(refusing, await shelf.token("arm", make))
    assert (len(refusing.asked), made) == (2, 3)


async def test_a_token_is_made_once_and_again_before_it_ends(clock: ManualClock) -> None:
    made = []

    async def make() -> tuple[Secret, int]:
        made.append(clock.now_ns())
        return Secret(f"token-{len(made)}"), clock.now_ns() + 600 * 1_000_000_000

    shelf = TokenShelf(clock)
    first = await shelf.token("arm", make)
    assert (await shelf.token("arm", make)) == first
    clock.advance(541)
    assert (await shelf.token("arm", make)).open() == "token-2"


async def test_whoever_waits_while_a_sign_in_fails_has_failed_too_and_whoever_asks_later_has_a_try_of_their_own(clock: ManualClock) -> None:
    shelf, tried, answers = TokenShelf(clock), 0, asyncio.Event()

    async def make() -> tuple[Secret, int]:
        nonlocal tried
        tried += 1
        if tried == 1:
            await answers.wait()
            raise Unavailable("sign in: the vendor did not answer")
        return Secret(f"token-{tried}"), clock.now_ns() + 600 * 1_000_000_000

    asking = [asyncio.create_task(shelf.token("arm", make)) for _ in range(8)]
    await asyncio.sleep(0)
    answers.set()
    failed = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in failed] == [Unavailable] * 8
    assert tried == 1
    assert (await shelf.token("arm", make)).open() == "token-2"


def test_an_address_of_the_settings_stands_in_for_the_vendors(clock: ManualClock) -> None:
    facts = ProvisionerFacts(
        vendor="cloud",
        title="Cloud",
        hosts={"api": "https://api.example/v1", "iam": "https://iam.example"},
        admin_key_env=(),
        admin_key_form="",
        confirms=frozenset(),
        tells_last_use=False,
        revoke_delay_seconds=None,
        container="",
        ceiling=None,
        calls_per_minute=60,
    )

    def desk(settings: dict[str, str]) -> AdminDesk:
        http: AdminHttp = admin_http(Script([]), clock=clock)
        return AdminDesk(facts, Secret("x" * 20), settings, http, clock, NoIssuer(), TokenShelf(clock))

    assert [desk({}).base(), desk({}).base("iam")] == ["https://api.example/v1", "https://iam.example"]
    near = desk({"base_url": "http://127.0.0.1:9/x/"})
    assert [near.base(), near.base("iam")] == ["http://127.0.0.1:9/x", "http://127.0.0.1:9/x/iam"]
    assert desk({"base_url": "http://a", "iam_url": "http://b"}).base("iam") == "http://b"
