"""schemathesis on our own OpenAPI document, against the whole product: as the owner, as a developer, and as nobody.

Every check of schemathesis runs on every operation but these:
- `positive_data_acceptance`: a body that fits the schema may still name what doesn't exist or isn't possible here (a team, a vendor, a
  time zone), which the document says with 404, 409 and 422;
- `negative_data_rejection`: ids in paths are replaced by real ones before a call is sent, so a call that was made up as invalid may not be;
  that bad input is refused is held by the areas' own tests;
- `allow_header_conformance`: `/policies/explain` is also a `/policies/{policy_id}`, so `Allow` names the methods of both, as it should.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from tests.postgresql import PostgresServer
from tests.running import RunningKeyGate

from keygate.api import openapi_document
from keygate.sandbox import SandboxServer, Vendor

schemathesis.checks.load_all_checks()
_EXCLUDED = CHECKS.get_by_names(["positive_data_acceptance", "negative_data_rejection", "allow_header_conformance"])
_FULL = os.environ.get("KEYGATE_DRILL") == "full"
_EXAMPLES = 60 if _FULL else 4
UNAUTHORIZED = 401
_PASSWORD = "a developer's password"


@dataclass
class Subject:
    keygate: RunningKeyGate
    ids: dict[str, list[str]]  # by path parameter: things that exist
    developer: dict[str, Any]
    session: requests.Session
    others: tuple[str, ...]  # who calls, besides the owner
    tokens: dict[str, str] = field(default_factory=dict)

    def authorise(self, who: str, *, again: bool = False) -> dict[str, str]:
        """Headers of somebody who is signed in."""
        if who == "nobody":
            return {}
        if who not in self.tokens or again:
            self.tokens[who] = self.keygate.sign_in() if who == "owner" else self._developer()
        return {"Authorization": f"Bearer {self.tokens[who]}"}

    def refresh(self, who: str) -> None:
        """Signs in again where a call has ended the sign-in."""
        answer = httpx.get(f"{self.keygate.url}/api/v1/auth/me", headers=self.authorise(who), timeout=20)
        if answer.status_code == UNAUTHORIZED:
            self.authorise(who, again=True)

    def _developer(self) -> str:
        user = self.developer
        self.keygate.sign_in()
        self.keygate.call("PUT", f"/users/{user['id']}/password", {"password": _PASSWORD})
        self.keygate.call("PATCH", f"/users/{user['id']}", {"status": "active", "role": "developer"})
        answer = httpx.post(f"{self.keygate.url}/api/v1/auth/login", json={"email": user["email"], "password": _PASSWORD})
        return str(answer.json()["access_token"])


def _furnish(keygate: RunningKeyGate, sandbox: SandboxServer) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """One of everything, so that calls reach beyond 404."""
    secret = sandbox.state.create_key(Vendor.OPENAI).value
    credential = keygate.credential("openai", sandbox.openai_base_url, secret)
    team = keygate.call("POST", "/teams", {"name": "fuzzed"})
    developer = keygate.call("POST", "/developers", {"name": "Fuzz", "email": "fuzz@example.com", "team_id": team["id"]})
    app = keygate.call("POST", "/apps", {"name": "fuzzed", "team_id": team["id"]})
    user = keygate.call(
        "POST", "/users",
        {"email": "fuzz@example.com", "name": "Fuzz", "role": "developer", "password": _PASSWORD, "developer_id": developer["id"]},
    )  # fmt: skip
    key = keygate.key("fuzzed", owner={"developer_id": developer["id"]})
    policy = keygate.call("POST", "/policies", {"name": "fuzzed"})
    terms = {"scope": "team", "scope_id": team["id"], "amount_usd": "10.00", "period": "month"}
    budget = keygate.call("POST", "/budgets", terms)
    limit = keygate.call("POST", "/limits", {"scope": "team", "scope_id": team["id"], "kind": "requests_per_minute", "amount": 1000})
    alias = keygate.call("POST", "/aliases", {"alias": "fuzzed", "target": "openai/gpt-4.1"})
    body = {"model": "gpt-4.1", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    served = httpx.post(f"{keygate.url}/openai/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key['key']}"})
    served.raise_for_status()
    admin = {"vendor": "openai", "admin_key": sandbox.state.admin[Vendor.OPENAI].create_credential().value}
    account = keygate.call("POST", "/vendors/configure", admin | {"settings": {"base_url": sandbox.openai_base_url}})
    leaver = keygate.call("POST", "/developers", {"name": "Leaver", "email": "leaver@example.com"})
    keygate.call("POST", "/keys/provision", {"vendor": "openai", "developer_id": leaver["id"]})
    keygate.call("DELETE", f"/developers/{leaver['id']}")
    receipt = keygate.call("GET", "/receipts")["items"][0]
    issued = keygate.call("POST", "/keys/provision", {"vendor": "openai", "developer_id": developer["id"], "deliver": "later"})
    order = keygate.call("POST", "/bulk", {"vendor": "openai", "rows": [{"email": "bulk@example.com"}], "create_developers": True})
    with sandbox.state.admin.lock:
        sandbox.state.admin.api(Vendor.OPENAI).console(sandbox.state.admin[Vendor.OPENAI], "keys", {"name": "by hand"})
    keygate.call("POST", "/inventory/scans", {"account": account["id"]})
    ends = time.monotonic() + 60
    while not (items := keygate.call("GET", "/inventory", kind="key", standing="unknown")["items"]):
        assert time.monotonic() < ends
        time.sleep(0.2)
    rotation = keygate.call("POST", "/rotation-policies", {"max_age_days": 90})
    token = keygate.call("POST", "/api-tokens", {"name": "fuzzed", "scopes": ["teams.read"]})
    ids = {
        "team_id": team, "developer_id": developer, "app_id": app, "user_id": user, "key_id": key, "policy_id": policy, "budget_id": budget,
        "limit_id": limit, "alias_id": alias, "credential_id": credential, "token_id": token,
        "account_id": account, "issued_key_id": issued, "receipt_id": receipt, "order_id": order, "item_id": items[0],
        "rotation_policy_id": rotation,
    }  # fmt: skip
    found = {name: [thing["id"]] for name, thing in ids.items()} | {"request_id": [served.headers["x-request-id"]]}
    return found, user


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def tested(request, tmp_path_factory) -> Iterator[Subject]:
    environment = {"KEYGATE_LOG_LEVEL": "warning"}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        environment["KEYGATE_DATABASE_URL"] = server.create("schemathesis")
    folder = tmp_path_factory.mktemp(f"schemathesis-{request.param}")
    with SandboxServer() as sandbox, RunningKeyGate(folder, environment=environment) as keygate, requests.Session() as session:
        served = httpx.get(f"{keygate.url}/api/v1/openapi.json").json()
        assert served == json.loads(openapi_document())  # what was tested is what is served
        ids, developer = _furnish(keygate, sandbox)
        others = {"sqlite": ("developer",), "postgresql": ("nobody",)}[request.param]
        yield Subject(keygate, ids, developer, session, ("developer", "nobody") if _FULL else others)
        assert keygate.process is not None
        assert keygate.process.poll() is None
        log = keygate.log.read_text(errors="replace")
        assert "Traceback" not in log, log[-6000:]


def _schema(*, coverage: bool) -> Any:
    config = SchemathesisConfig(seed=20260101)
    project = config.projects.default
    project.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE], max_examples=_EXAMPLES, deterministic=True)
    project.phases.coverage.enabled = coverage
    return schemathesis.openapi.from_dict(json.loads(openapi_document()), config=config)


def _call(case: schemathesis.Case, tested: Subject, who: str) -> None:
    for name, values in tested.ids.items():  # half of the cases are about what exists; the case itself decides, so that a failure repeats
        if name in case.path_parameters and len(str(case.path_parameters[name])) % 2 == 0:
            case.path_parameters[name] = values[0]
    if case.operation.definition.raw.get("x-permission") == "public" and who != "nobody":
        tested.refresh(who)  # its answer does not tell that the sign-in has ended, but a check asks for the path with other methods
    given = case.headers.get("Authorization")  # a case may be about this very header
    case.headers.update(tested.authorise(who) if given is None else {})
    answer = case.call(base_url=tested.keygate.url, session=tested.session, timeout=20)
    if answer.status_code == UNAUTHORIZED and given is None and who != "nobody":
        case.headers.update(tested.authorise(who, again=True))  # a call before this one ended the sign-in, or the account
        answer = case.call(base_url=tested.keygate.url, session=tested.session, timeout=20)
    case.validate_response(answer, excluded_checks=_EXCLUDED, transport_kwargs={"session": tested.session, "base_url": tested.keygate.url})


_SETTINGS = settings(
    max_examples=_EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)


@_schema(coverage=True).parametrize()
@_SETTINGS
def test_no_answer_to_an_owner_is_undocumented_or_a_failure_of_ours(case: schemathesis.Case, tested: Subject) -> None:
    _call(case, tested, "owner")


@_schema(coverage=False).parametrize()
@_SETTINGS
def test_no_answer_to_anybody_is_undocumented_or_a_failure_of_ours(case: schemathesis.Case, tested: Subject) -> None:
    for who in tested.others:
        _call(case, tested, who)
