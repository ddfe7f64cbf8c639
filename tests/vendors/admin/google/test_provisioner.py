"""Keys at Google: made, limited, rotated and revoked at the sandbox; Google's own clients read its side and use the keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.sdks.bridge import SdkError
from tests.sdks.google_clients import Google
from tests.vendors.admin.desks import Script, Steps, answer, desk, ended_early

from keygate.kit.clock import SystemClock
from keygate.kit.ids import new_id
from keygate.kit.outbound import Outbound
from keygate.kit.secret import Secret
from keygate.sandbox import SandboxServer
from keygate.sandbox.admin import Account, AdminFault, FaultKind
from keygate.sandbox.admin.google import budgets, projects
from keygate.sandbox.admin.google.api import BILLING_ACCOUNT, PARENT, PROJECT, cloud_of
from keygate.sandbox.admin.google.cloud import NO_SERVICE_ACCOUNT_API_KEYS, NO_SERVICE_ACCOUNT_KEYS
from keygate.vendors.admin import (
    AddsKey,
    AdminDesk,
    AdminKeyRefused,
    CeilingReached,
    Disables,
    Footprint,
    Lists,
    Mark,
    MissingRight,
    Order,
    Period,
    Presence,
    ProvisionerError,
    RateLimited,
    Rejected,
    Renames,
    Retires,
    SetsBudget,
    SetsLimits,
    SetsModels,
    Terms,
    Unavailable,
)
from keygate.vendors.admin.google import GoogleProvisioner, calls

GEMINI = "generativelanguage.googleapis.com"
VERTEX = "aiplatform.googleapis.com"
NANO = 10**9
TEXT = "This answer comes from the sandbox of KeyGate: no vendor was asked, nothing was paid."
provisioner = GoogleProvisioner()


@pytest.fixture
def open_desk(sandbox: SandboxServer, outbound: Outbound, admin_key: Callable[..., str]) -> Callable[..., AdminDesk]:
    def make(*without: str, own: bool = False, watcher: Any = None, admin: str | None = None, **more: str) -> AdminDesk:
        settings = {"base_url": sandbox.google_base_url, "project": PROJECT, **more}
        if own:
            settings |= {"parent": PARENT, "billing_account": BILLING_ACCOUNT}
        key = admin_key(*without) if admin is None else admin
        return desk(provisioner.facts, outbound, key, clock=SystemClock(), settings=settings, watcher=watcher)

    return make


@pytest.fixture
def use(genai: Google) -> Callable[[Secret], str]:
    """google-genai with nothing but the key and the address: the answer's text."""
    return lambda key: str(genai(key=key.open(), prompt="Hello")["text"])


def order(generation: int = 1, mark: Mark | None = None, footprint: Any = None, **terms: Any) -> Order:
    return Order(mark or Mark(new_id("ik")), generation, "priya, team search", Terms(**terms), footprint=footprint)


def test_what_google_can_is_told_by_its_protocols() -> None:
    for power in (AddsKey, Retires, SetsBudget, SetsLimits, Disables, Renames, Lists):
        assert isinstance(provisioner, power)
    assert not isinstance(provisioner, SetsModels)
    assert "models" in provisioner.facts.cannot


async def test_key_is_made_used_rotated_and_revoked(open_desk: Callable[..., AdminDesk], google: Google, use: Any) -> None:
    at = open_desk()
    first = order()
    made = await provisioner.create(at, first)
    assert (made.secret_env, use(made.secret)) == ("GEMINI_API_KEY", TEXT)
    assert made.env == {"GOOGLE_GEMINI_BASE_URL": at.base()}

    name = f"projects/{PROJECT}/locations/global/keys/{made.footprint.key}"
    key = google("apikeys", "v2", "projects.locations.keys.get", name=name)
    email = f"{first.mark.tag}@{PROJECT}.iam.gserviceaccount.com"
    assert (key["displayName"], key["serviceAccountEmail"]) == (first.mark.key_name(1), email)
    assert key["restrictions"] == {"apiTargets": [{"service": GEMINI}]}
    reading = await provisioner.read(at, made.footprint)
    assert (reading.presence, reading.terms) == (Presence.LIVE, Terms(scopes=(GEMINI,)))

    second = await provisioner.create(at, order(2, first.mark, made.footprint))
    assert second.footprint.place == made.footprint.place
    assert [use(each.secret) for each in (made, second, made, second)] == [TEXT] * 4, "both work while they overlap"

    await provisioner.revoke(at, made.footprint)
    with pytest.raises(SdkError, match="API key not valid"):
        use(made.secret)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.GONE
    assert "deleteTime" in google("apikeys", "v2", "projects.locations.keys.get", name=name)
    assert use(second.secret) == TEXT, "the other key of the account goes on"
    await provisioner.revoke(at, made.footprint)  # again is no error


async def test_a_token_that_google_ended_early_is_traded_for_anew(open_desk: Callable[..., AdminDesk]) -> None:
    at = open_desk()
    await at.token("google", ended_early)
    made = await provisioner.create(at, order())
    assert (await provisioner.read(at, made.footprint)).presence is Presence.LIVE


async def test_last_key_of_an_account_is_dead_at_once_though_google_is_slow(
    open_desk: Callable[..., AdminDesk], account: Account, google: Google, use: Any
) -> None:
    account.settings = account.settings.with_changes({"revoked_key_s": 3600})
    at, first = open_desk(), order()
    made = await provisioner.create(at, first)
    await provisioner.revoke(at, made.footprint)
    with pytest.raises(SdkError, match="disabled"):
        use(made.secret)
    email = made.footprint.place["service_account"]
    assert google("iam", "v1", "projects.serviceAccounts.get", name=f"projects/{PROJECT}/serviceAccounts/{email}")["disabled"]
    again = await provisioner.create(at, order(2, first.mark, made.footprint))
    assert use(again.secret) == TEXT, "a new generation enables the account"


async def test_kill_switch_can_be_taken_back(open_desk: Callable[..., AdminDesk], use: Any) -> None:
    at = open_desk()
    made = await provisioner.create(at, order())
    await provisioner.set_enabled(at, made.footprint, enabled=False)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.DISABLED
    with pytest.raises(SdkError, match="disabled"):
        use(made.secret)
    await provisioner.set_enabled(at, made.footprint, enabled=True)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.LIVE
    assert use(made.secret) == TEXT


async def test_limits_read_back_from_google_equal_what_was_asked(
    open_desk: Callable[..., AdminDesk], google: Google, use: Any, account: Account
) -> None:
    at = open_desk(own=True)
    wanted = order(budget_nano=12_340_000_000, requests_per_minute=30)
    made = await provisioner.create(at, wanted)
    project = made.footprint.place["project"]
    assert project == wanted.mark.tag
    assert use(made.secret) == TEXT
    for place in ({"project": project}, made.footprint.place):
        assert (await provisioner.read(at, Footprint(place))).presence is Presence.LIVE, "the containers"
    reading = await provisioner.read(at, made.footprint)
    assert reading.terms == Terms(budget_nano=12_340_000_000, requests_per_minute=30, scopes=(GEMINI,))

    parent = f"billingAccounts/{BILLING_ACCOUNT}"
    [budget] = google("billingbudgets", "v1", "billingAccounts.budgets.list", parent=parent, scope=f"projects/{project}")["budgets"]
    assert budget["amount"] == {"specifiedAmount": {"currencyCode": "USD", "units": "12", "nanos": 340_000_000}}
    assert budget["spendCap"]["outputState"] == "CONFIGURED"
    name = f"projects/{project}/services/{GEMINI}/consumerQuotaMetrics/{GEMINI}%2Fgenerate_content_requests/limits/%2Fmin%2Fproject"
    limit = google("serviceusage", "v1beta1", "services.consumerQuotaMetrics.limits.get", name=name)
    assert limit["quotaBuckets"][0]["effectiveLimit"] == "30"

    again = await provisioner.create(at, Order(wanted.mark, 1, wanted.title, wanted.terms))
    assert (again.footprint, again.secret) == (made.footprint, made.secret), "made once, whatever is asked again"
    [_] = google("billingbudgets", "v1", "billingAccounts.budgets.list", parent=parent)["budgets"]

    await provisioner.set_budget(at, made.footprint, 5 * NANO, Period.MONTH)
    await provisioner.set_limits(at, made.footprint, Terms(requests_per_minute=10))
    assert (await provisioner.read(at, made.footprint)).terms == Terms(budget_nano=5 * NANO, requests_per_minute=10, scopes=(GEMINI,))
    await provisioner.set_budget(at, made.footprint, None, Period.MONTH)
    await provisioner.set_limits(at, made.footprint, Terms())
    assert (await provisioner.read(at, made.footprint)).terms == Terms(scopes=(GEMINI,))
    with pytest.raises(Rejected, match="monthly"):
        await provisioner.set_budget(at, made.footprint, NANO, Period.DAY)


async def test_service_of_a_cap_is_looked_up_or_taken_from_the_settings(
    open_desk: Callable[..., AdminDesk], monkeypatch: pytest.MonkeyPatch
) -> None:
    [(name, _)] = budgets.ELIGIBLE.items()
    monkeypatch.setattr(budgets, "ELIGIBLE", {name: "Renamed by Google"})
    monkeypatch.setattr(projects, "ELIGIBLE", {name: "Renamed by Google"})
    wanted = order(budget_nano=NANO)
    with pytest.raises(Rejected, match="billing_service"):
        await provisioner.create(open_desk(own=True), wanted)
    made = await provisioner.create(open_desk(own=True, billing_service=name.partition("/")[2]), wanted)
    assert (await provisioner.read(open_desk(own=True), made.footprint)).terms.budget_nano == NANO


async def test_cap_that_struck_is_lifted_when_the_budget_is_raised(open_desk: Callable[..., AdminDesk], use: Any) -> None:
    at = open_desk(own=True)
    made = await provisioner.create(at, order(budget_nano=1000))
    assert use(made.secret) == TEXT
    with pytest.raises(SdkError, match="spend cap"):
        use(made.secret)
    assert (await provisioner.read(at, made.footprint)).terms.budget_nano == 1000
    await provisioner.set_budget(at, made.footprint, NANO, Period.MONTH)
    assert use(made.secret) == TEXT
    assert (await provisioner.read(at, made.footprint)).terms.budget_nano == NANO


async def test_budget_without_a_project_of_its_own_is_refused_before_anything_is_made(open_desk: Callable[..., AdminDesk]) -> None:
    at = open_desk()
    wanted = order(budget_nano=NANO)
    with pytest.raises(Rejected, match="billing_account"):
        await provisioner.create(at, wanted)
    assert await provisioner.find(at, wanted.mark) == ()


async def test_retired_container_leaves_nothing(open_desk: Callable[..., AdminDesk], google: Google, use: Any) -> None:
    shared, own = open_desk(), open_desk(own=True)
    one, two = order(), order(budget_nano=NANO)
    for at, wanted in ((shared, one), (own, two)):
        made = await provisioner.create(at, wanted)
        await provisioner.retire(at, made.footprint)
        await provisioner.retire(at, made.footprint)
        with pytest.raises(SdkError):
            use(made.secret)
        assert (await provisioner.read(at, made.footprint)).presence is Presence.GONE
        assert await provisioner.find(at, wanted.mark) == ()
    assert "budgets" not in google("billingbudgets", "v1", "billingAccounts.budgets.list", parent=f"billingAccounts/{BILLING_ACCOUNT}")


async def test_find_shows_container_and_keys_of_its_mark_only(open_desk: Callable[..., AdminDesk]) -> None:
    for at in (open_desk(), open_desk(own=True)):
        other, wanted = order(), order()
        await provisioner.create(at, other)
        assert await provisioner.find(at, wanted.mark) == ()
        made = await provisioner.create(at, wanted)
        second = await provisioner.create(at, order(2, wanted.mark, made.footprint))
        found = await provisioner.find(at, wanted.mark)
        assert {each.generation: each.footprint for each in found if each.footprint.key} == {1: made.footprint, 2: second.footprint}
        assert all(wanted.mark.tag in each.name for each in found)


async def test_lost_secret_is_replaced_though_google_keeps_the_id_of_a_deleted_key(open_desk: Callable[..., AdminDesk], use: Any) -> None:
    at, wanted = open_desk(), order()
    made = await provisioner.create(at, wanted)
    await provisioner.revoke(at, made.footprint)
    again = await provisioner.create(at, wanted)
    assert again.footprint.key != made.footprint.key
    assert use(again.secret) == TEXT
    found = [each for each in await provisioner.find(at, wanted.mark) if each.footprint.key]
    assert [(each.generation, each.footprint) for each in found] == [(1, again.footprint)]


async def test_slow_google_is_waited_for(open_desk: Callable[..., AdminDesk], account: Account, use: Any) -> None:
    account.settings = account.settings.with_changes({"new_key_s": 0.6, "lists_s": 0.8})
    made = await provisioner.create(open_desk(), order())
    assert use(made.secret) == TEXT


@pytest.mark.parametrize("operation", ["apikeys.keys.create", "iam.serviceAccounts.create"])
async def test_answer_lost_after_success_leaves_no_second_thing(
    open_desk: Callable[..., AdminDesk], account: Account, use: Any, operation: str
) -> None:
    at, wanted = open_desk(), order()
    account.faults.append(AdminFault(operation, FaultKind.RESET, performed=True))
    with pytest.raises(Unavailable) as caught:
        await provisioner.create(at, wanted)
    assert caught.value.uncertain
    made = await provisioner.create(at, wanted)
    assert use(made.secret) == TEXT
    found = await provisioner.find(at, wanted.mark)
    assert sorted(each.generation or 0 for each in found) == [0, 1]


async def test_google_failing_on_delete_is_tried_again(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    at = open_desk()
    made = await provisioner.create(at, order())
    account.faults.append(AdminFault("apikeys.keys.delete", status=500, calls=2))
    await provisioner.revoke(at, made.footprint)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.GONE


async def test_rate_limit_is_waited_out(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    at = open_desk()
    account.faults.append(AdminFault("iam.*", status=429, retry_after="1", calls=2))
    assert (await provisioner.create(at, order())).footprint.key


@pytest.mark.parametrize(
    "told",
    [
        {"code": 403, "message": "Rate Limit Exceeded", "errors": [{"domain": "usageLimits", "reason": "rateLimitExceeded"}]},
        {"code": 403, "message": "User Rate Limit Exceeded", "errors": [{"domain": "usageLimits", "reason": "userRateLimitExceeded"}]},
        {
            "code": 403,
            "status": "PERMISSION_DENIED",
            "message": "Quota exceeded",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com"},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"},
            ],
        },
        {
            "code": 429,
            "status": "RESOURCE_EXHAUSTED",
            "message": "Quota exceeded",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"}],
        },
        {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded"},
        {"code": 429, "message": "Too many requests"},
    ],
)
async def test_google_telling_its_rate_limit_in_whatever_form_is_waited_out(told: dict[str, Any], admin_key: Callable[..., str]) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    token = answer(200, {"access_token": "t", "expires_in": 3600})
    vendor = Script([token, answer(told["code"], {"error": told}), answer(200, {"email": "a@b"})])
    at = desk(provisioner.facts, vendor, admin_key(), clock=SystemClock(), settings={"project": PROJECT}, sleep=sleep)
    assert await calls.account_of(at, PROJECT, "a") == {"email": "a@b"}
    assert len(waits) == 1
    assert waits[0] == pytest.approx(2.5 if "details" in told else 0.5, rel=0.3)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 8, "message": "Quota exceeded"}, RateLimited),
        ({"code": 8, "message": "You have exceeded your allotted project quota."}, CeilingReached),
        ({"code": 14, "message": "The service is unavailable"}, Unavailable),
        ({"code": 3, "message": "The name is not valid"}, Rejected),
        ("odd", Rejected),
    ],
)
async def test_an_operation_that_ends_badly_says_whether_to_come_back(
    error: Any, kind: type[Exception], admin_key: Callable[..., str]
) -> None:
    at = desk(provisioner.facts, Script([]), admin_key(), clock=SystemClock(), settings={"project": PROJECT})
    with pytest.raises(kind) as ended:
        await calls.finish(at, "cloudresourcemanager", "v3", {"done": True, "error": error}, "create the project")
    if isinstance(ended.value, RateLimited):
        assert ended.value.retry_after == 60


async def test_a_key_in_googles_words_is_blacked_out(admin_key: Callable[..., str]) -> None:
    key = "AQ.Ab8RN6JexampleexampleexampleexampleEXAMPLE0123"
    words = [
        answer(400, {"error": "invalid_grant", "error_description": f"no {key}"}),
        answer(400, {"error": f"no {key}"}),
    ]
    for told in words:
        at = desk(provisioner.facts, Script([told]), admin_key(), clock=SystemClock(), settings={"project": PROJECT})
        with pytest.raises(AdminKeyRefused, match=r"no \[redacted\]"):
            await calls.account_of(at, PROJECT, "a")
    details = [{"reason": "IAM_PERMISSION_DENIED", "metadata": {"permission": key, "resource": key}}]
    errors = [
        {"code": 400, "message": f"no {key}"},
        {"code": 403, "message": "Access Denied: Table " + key},
        {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": f"project quota {key}"},
        {"code": 403, "details": details},
    ]
    for error in errors:
        told = answer(error["code"], {"error": error})
        vendor = Script([answer(200, {"access_token": "a-token-that-lasts", "expires_in": 3600}), told])
        at = desk(provisioner.facts, vendor, admin_key(), clock=SystemClock(), settings={"project": PROJECT})
        with pytest.raises(ProvisionerError) as refused:
            await calls.account_of(at, PROJECT, "a")
        assert "[redacted]" in refused.value.detail
        assert key[:12] not in f"{refused.value.detail} {getattr(refused.value, 'right', '')}"


async def test_ceiling_of_service_accounts_is_told(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    at = open_desk()
    account.settings = account.settings.with_changes({"ceilings": {"service_accounts": 1}})
    with pytest.raises(CeilingReached, match="Maximum number of service accounts"):
        await provisioner.create(at, order())


async def test_verify_names_each_missing_right_before_anything_is_made(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    whole = await provisioner.verify(open_desk(own=True))
    assert whole.missing == ()
    assert whole.account is not None
    assert whole.account.endswith(f"@{PROJECT}.iam.gserviceaccount.com")
    lacking = ("apikeys.keys.create", "iam.serviceAccounts.disable", "billing.budgets.create", "resourcemanager.projects.create")
    poor = await provisioner.verify(open_desk(*lacking, own=True))
    assert {right.name for right in poor.missing} == set(lacking)
    assert all(right.needed_for for right in poor.missing)
    cloud = cloud_of(account)
    assert len(cloud.projects) == 1
    assert not cloud.keys


async def test_verify_tells_an_organisation_policy_that_forbids_bound_keys(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    cloud_of(account).projects[PROJECT].policies[NO_SERVICE_ACCOUNT_API_KEYS] = {"enforce": True}
    [missing] = (await provisioner.verify(open_desk())).missing
    assert NO_SERVICE_ACCOUNT_API_KEYS in missing.name
    with pytest.raises(Rejected, match="or use virtual keys"):
        await provisioner.create(open_desk(), order())
    [unknown] = [right for right in (await provisioner.verify(open_desk("orgpolicy.policy.get"))).rights if right.held is None]
    assert NO_SERVICE_ACCOUNT_API_KEYS in unknown.name


async def test_verify_does_not_mind_a_policy_against_key_files(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    for constraint in NO_SERVICE_ACCOUNT_KEYS:
        cloud_of(account).projects[PROJECT].policies[constraint] = {"enforce": True}
    assert (await provisioner.verify(open_desk())).missing == ()


async def test_verify_tells_a_service_that_is_not_enabled(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    cloud_of(account).projects[PROJECT].services.discard(GEMINI)
    assert GEMINI in (await provisioner.verify(open_desk())).missing[0].name


@pytest.mark.parametrize("right", ["iam.serviceAccounts.create", "apikeys.keys.create", "iam.serviceAccountApiKeyBindings.create"])
async def test_right_taken_away_is_named_at_the_call(open_desk: Callable[..., AdminDesk], right: str) -> None:
    with pytest.raises(MissingRight) as caught:
        await provisioner.create(open_desk(right), order())
    assert caught.value.right == right


@pytest.mark.parametrize("admin", ["no JSON", "{}", '{"type": "authorized_user"}', '{"type": "service_account", "client_email": "a@b"}'])
async def test_what_is_no_key_file_is_refused_without_being_shown(open_desk: Callable[..., AdminDesk], admin: str) -> None:
    with pytest.raises(AdminKeyRefused) as caught:
        await provisioner.verify(open_desk(admin=admin))
    assert admin not in str(caught.value)


async def test_key_file_of_a_disabled_or_unknown_account_is_refused(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    at = open_desk()
    for each in cloud_of(account).accounts.values():
        each.disabled = True
    with pytest.raises(AdminKeyRefused, match="disabled"):
        await provisioner.verify(at)
    cloud_of(account).accounts.clear()
    with pytest.raises(AdminKeyRefused, match="not found"):
        await provisioner.verify(at)


async def test_inventory_shows_keys_made_by_hand_and_ours_in_every_project(open_desk: Callable[..., AdminDesk], google: Google) -> None:
    own = open_desk(own=True)
    by_hand = {"displayName": "by hand", "restrictions": {"apiTargets": [{"service": GEMINI}]}}
    google("apikeys", "v2", "projects.locations.keys.create", parent=f"projects/{PROJECT}/locations/global", body=by_hand)
    ours = [await provisioner.create(own, order()) for _ in range(2)]
    shown, cursor = [], None
    while True:
        page, cursor = await provisioner.list_page(own, cursor)
        shown += page
        if cursor is None:
            break
    keys = [each for each in shown if each.owner and each.footprint.key]
    assert sorted(str(each.footprint) for each in keys) == sorted(str(made.footprint) for made in ours)
    assert {each.presence for each in keys} == {Presence.LIVE}
    assert len([each for each in shown if each.footprint.key is None]) == 2, "and their containers"
    [found] = [each for each in shown if each.owner is None]
    assert (found.name, found.presence, found.terms) == ("by hand", Presence.LIVE, Terms(scopes=(GEMINI,)))
    assert found.created_at_ns is not None
    await provisioner.set_enabled(own, ours[0].footprint, enabled=False)
    page, _ = await provisioner.list_page(own, "1")
    more, _ = await provisioner.list_page(own, "2")
    assert sorted(str(each.presence) for each in (*page, *more) if each.footprint.key) == ["disabled", "live"]
    await provisioner.rename(own, found.footprint, "adopted")
    assert (await provisioner.read(own, found.footprint)).name == "adopted"
    await provisioner.revoke(own, found.footprint)
    assert (await provisioner.read(own, found.footprint)).presence is Presence.GONE


async def test_every_change_is_told_step_by_step(open_desk: Callable[..., AdminDesk]) -> None:
    steps = Steps()
    await provisioner.create(open_desk(watcher=steps), order())
    assert steps.told == [
        "> make the service account",
        "< make the service account: 200",
        "> make the key",
        "< make the key: 200",
    ]


async def test_addresses_that_may_use_the_key_are_set(open_desk: Callable[..., AdminDesk], google: Google) -> None:
    wanted = Order(Mark(new_id("ik")), 1, "ci", Terms(), options={"allowed_ips": "203.0.113.7, 203.0.113.8"})
    made = await provisioner.create(open_desk(), wanted)
    key = google("apikeys", "v2", "projects.locations.keys.get", name=f"projects/{PROJECT}/locations/global/keys/{made.footprint.key}")
    assert key["restrictions"]["serverKeyRestrictions"] == {"allowedIps": ["203.0.113.7", "203.0.113.8"]}


async def test_two_at_once_make_one_key(open_desk: Callable[..., AdminDesk], use: Any) -> None:
    at, wanted = open_desk(), order()
    one, two = await asyncio.gather(provisioner.create(at, wanted), provisioner.create(at, wanted))
    assert (one.footprint, one.secret) == (two.footprint, two.secret)


def allow_vertex(account: Account) -> None:
    """As an administrator of the organisation does; and the API is enabled."""
    project = cloud_of(account).projects[PROJECT]
    project.services.add(VERTEX)
    project.policies[NO_SERVICE_ACCOUNT_API_KEYS] = {"enforce": True, "parameters": {"allowedServices": [GEMINI, VERTEX]}}


async def test_key_of_vertex_works_through_the_role_of_its_account(
    open_desk: Callable[..., AdminDesk], account: Account, google: Google, genai: Google
) -> None:
    at = open_desk(service=VERTEX)
    assert {right.name for right in (await provisioner.verify(at)).missing} == {
        f"organisation policy {NO_SERVICE_ACCOUNT_API_KEYS}: not in force for {VERTEX}",
        f"{VERTEX} enabled in {PROJECT}",
    }
    allow_vertex(account)
    assert (await provisioner.verify(at)).missing == ()
    made = await provisioner.create(at, order())
    assert (made.secret_env, made.env["GOOGLE_GENAI_USE_VERTEXAI"]) == ("GOOGLE_API_KEY", "true")
    member = f"serviceAccount:{made.footprint.place['service_account']}"
    name = f"projects/{PROJECT}"
    policy = google("cloudresourcemanager", "v3", "projects.getIamPolicy", resource=name, body={})
    assert {"role": "roles/aiplatform.user", "members": [member]} in policy["bindings"]
    assert genai(key=made.secret.open(), prompt="Hello", vertex=True)["text"] == TEXT
    with pytest.raises(SdkError, match="blocked"):
        genai(key=made.secret.open(), prompt="Hello")
    policy["bindings"] = []
    google("cloudresourcemanager", "v3", "projects.setIamPolicy", resource=name, body={"policy": policy})
    with pytest.raises(SdkError, match="denied"):
        genai(key=made.secret.open(), prompt="Hello", vertex=True)


async def test_roles_of_many_accounts_are_given_at_once_and_others_bindings_stay(
    open_desk: Callable[..., AdminDesk], account: Account
) -> None:
    allow_vertex(account)
    cloud = cloud_of(account)
    theirs = {"role": "roles/viewer", "members": ["group:all@example.com"]}
    cloud.projects[PROJECT].bindings.append(theirs)
    at = open_desk(service=VERTEX)
    made = await asyncio.gather(*(provisioner.create(at, order()) for _ in range(4)))
    members = sorted(f"serviceAccount:{each.footprint.place['service_account']}" for each in made)
    assert cloud.projects[PROJECT].bindings == [theirs, {"role": "roles/aiplatform.user", "members": members}]
    for each in made:
        await provisioner.retire(at, each.footprint)
    assert cloud.projects[PROJECT].bindings == [theirs]


async def test_role_is_given_once_google_knows_the_account(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    allow_vertex(account)
    account.settings = account.settings.with_changes({"lists_s": 0.8})
    made = await provisioner.create(open_desk(service=VERTEX), order())
    assert len(cloud_of(account).projects[PROJECT].bindings) == 1
    assert made.footprint.key is not None


async def test_right_to_give_roles_is_needed_only_where_a_role_is(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    allow_vertex(account)
    right = "resourcemanager.projects.setIamPolicy"
    assert (await provisioner.verify(open_desk(right))).missing == ()
    assert [each.name for each in (await provisioner.verify(open_desk(right, service=VERTEX))).missing] == [right]
    with pytest.raises(MissingRight) as caught:
        await provisioner.create(open_desk(right, service=VERTEX), order())
    assert caught.value.right == right


async def test_budget_of_vertex_is_refused(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    allow_vertex(account)
    with pytest.raises(Rejected, match="Gemini API only"):
        await provisioner.create(open_desk(own=True, service=VERTEX), order(budget_nano=NANO))


async def test_sandbox_takes_the_key_file_that_its_console_gives_under_another_name_of_its_address(
    sandbox: SandboxServer, open_desk: Callable[..., AdminDesk]
) -> None:
    async with httpx.AsyncClient(base_url=sandbox.address, timeout=10) as client:
        made = (await client.post("/_sandbox/admin/google/console/admin_key", json={})).json()
        await provisioner.create(
            open_desk(admin=made["credentials"], base_url=sandbox.google_base_url.replace("127.0.0.1", "localhost")), order()
        )
        standing = (await client.post("/_sandbox/admin/google/console/standing", json={})).json()
    assert (len(standing["keys"]), standing["projects"]) == (1, [PROJECT])


async def test_project_that_is_not_shown_is_not_called_gone(open_desk: Callable[..., AdminDesk]) -> None:
    """Google refuses to show a project that is not there with the same words as one that may not be seen."""
    made = await provisioner.create(open_desk(own=True), order(budget_nano=NANO))
    blind = open_desk("resourcemanager.projects.get", own=True)
    for asked in (provisioner.read, provisioner.revoke, provisioner.retire):
        with pytest.raises(MissingRight) as caught:
            await asked(blind, made.footprint)
        assert caught.value.right == "resourcemanager.projects.get"
    assert (await provisioner.read(open_desk(own=True), made.footprint)).presence is Presence.LIVE
    await provisioner.retire(open_desk(own=True), made.footprint)
    assert (await provisioner.read(blind, made.footprint)).presence is Presence.GONE


async def test_budget_of_another_period_is_refused_before_anything_is_made(open_desk: Callable[..., AdminDesk]) -> None:
    at, wanted = open_desk(own=True), order(budget_nano=NANO, budget_period=Period.DAY)
    with pytest.raises(Rejected, match="monthly"):
        await provisioner.create(at, wanted)
    assert await provisioner.find(at, wanted.mark) == ()


async def test_right_that_google_does_not_take_a_question_about_is_not_known(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    at = open_desk("billing.budgets.create", own=True)
    account.faults.append(AdminFault("cloudbilling.billingAccounts.testIamPermissions", status=400, calls=2))
    told = await provisioner.verify(at)
    assert [right.name for right in told.missing] == ["billing.budgets.create"]
    assert [right.name for right in told.rights if right.held is None] == ["billing.resourceAssociations.create"]


async def test_service_that_was_just_enabled_is_waited_for_and_one_that_is_not_is_told(
    open_desk: Callable[..., AdminDesk], account: Account
) -> None:
    words = "apikeys.googleapis.com has not been used in project 1 before or it is disabled."
    account.faults.append(AdminFault("apikeys.keys.create", status=403, message=words, code="SERVICE_DISABLED", calls=2))
    with pytest.raises(Unavailable, match="not enabled") as caught:
        await provisioner.create(open_desk(own=True), order(budget_nano=NANO))
    assert not caught.value.lasting
    with pytest.raises(Rejected, match="enable it there"):
        await provisioner.create(open_desk(), order())


async def test_account_that_google_does_not_show_yet_is_not_called_gone(open_desk: Callable[..., AdminDesk], account: Account) -> None:
    at = open_desk()
    made = await provisioner.create(at, order())
    account.settings = account.settings.with_changes({"lists_s": 100})
    with pytest.raises(Unavailable, match="yet"):
        await provisioner.read(at, made.footprint)
    account.settings = account.settings.with_changes({"lists_s": 0})
    assert (await provisioner.read(at, made.footprint)).presence is Presence.LIVE
