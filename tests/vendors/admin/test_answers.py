"""What a vendor's answer to a call with a key says of the key: known, unknown, or neither. What tells neither changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.vendors.admin.desks import Script, answer, desk

from keygate.kit.clock import ManualClock
from keygate.kit.outbound import Answer, Unreached
from keygate.kit.secret import Secret
from keygate.vendors.admin import PROVISIONERS, Footprint, Probes, Unavailable

KEY = Secret("a-key-that-was-issued")
ENV = {"AZURE_OPENAI_ENDPOINT": "https://kg-1.openai.azure.com/"}
SETTINGS = {
    "azure": {"tenant": "t", "client_id": "c", "subscription": "s", "resource_group": "g", "region": "eastus"},
    "bedrock": {"access_key_id": "AKIA", "region": "eu-west-1"},
}


def _google(reason: str, status: int = 403) -> Answer:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}]
    return answer(status, {"error": {"code": status, "message": "no", "status": "X", "details": details}})


def _error(status: int, message: str) -> Answer:
    return answer(status, {"error": {"message": message}})


async def _asked(vendor: str, *answers: Answer | Unreached, settings: dict[str, str] | None = None) -> tuple[Any, Script]:
    provisioner, script = PROVISIONERS[vendor], Script(answers)
    assert isinstance(provisioner, Probes)
    made = desk(provisioner.facts, script, "admin", clock=ManualClock(), settings=settings or SETTINGS.get(vendor))
    place = {"account": "kg-1", "project": "p", "user": "kg-1", "workspace": "w", "service_account": "sa"}
    return await provisioner.answers(made, Footprint(place, "key-1"), KEY, ENV), script


@pytest.mark.parametrize(
    ("vendor", "told", "means"),
    [
        ("openai", answer(200, {"data": []}), True),
        ("openai", _error(401, "Incorrect API key provided"), False),
        ("openai", _error(401, "You have insufficient permissions for this operation. Missing scopes: api.model.read"), True),
        ("openai", _error(403, "Missing scopes"), True),
        ("openai", _error(404, "no such path behind this proxy"), None),
        ("openrouter", answer(200, {"data": {}}), True),
        ("openrouter", _error(401, "User not found."), False),
        ("openrouter", _error(402, "Insufficient credits"), True),
        ("openrouter", _error(403, "blocked"), None),
        ("xai", answer(200, {"data": []}), True),
        ("xai", answer(403, {"error": "no such endpoint for this key"}), True),
        ("xai", answer(401, {"error": "invalid"}), False),
        ("xai", answer(400, {"error": "Incorrect API key provided: xa***"}), False),
        ("xai", answer(400, {"error": "something else"}), None),
        ("google", answer(200, {"models": []}), True),
        ("google", _google("API_KEY_INVALID", 400), False),
        ("google", _google("FAILED_PRECONDITION", 400), None),
        ("google", _google("API_KEY_IP_ADDRESS_BLOCKED"), True),
        ("google", _google("CONSUMER_SUSPENDED"), None),
        ("google", answer(401, b"not json"), False),
        ("azure", answer(200, {"data": []}), True),
        ("azure", _error(401, "Access denied due to invalid subscription key"), False),
        ("azure", _error(403, "Access denied due to Virtual Network/Firewall rules."), None),
        ("bedrock", answer(400, {"message": "The provided model identifier is invalid."}), True),
        ("bedrock", answer(403, {"message": "Authentication failed: Please make sure your API Key is valid."}), False),
        ("bedrock", answer(403, {"message": "User: arn:… is not authorized to perform: bedrock:InvokeModel"}), True),
    ],
)
async def test_what_an_answer_says_of_the_key(vendor: str, told: Answer, means: bool | None) -> None:
    said, script = await _asked(vendor, told)
    assert said is means
    [(_, url, headers, _)] = script.asked
    assert KEY.open() in "".join(headers.values()), "with the key itself"
    assert "admin" not in headers.values()
    assert KEY.open() not in url, "addresses are written to logs"


@pytest.mark.parametrize("vendor", [name for name, each in PROVISIONERS.items() if isinstance(each, Probes) and name != "anthropic"])
@pytest.mark.parametrize("trouble", [answer(429), answer(503), Unreached("did not answer", sent=True)])
async def test_a_vendor_in_trouble_says_nothing_of_the_key(vendor: str, trouble: Answer | Unreached) -> None:
    with pytest.raises(Unavailable):
        await _asked(vendor, trouble, *([answer(200, {"access_token": "t", "expires_in": 600}), answer(200, {"name": "kg-1"})]))


async def test_an_azure_account_that_is_gone_takes_its_address_with_it() -> None:
    token = answer(200, {"access_token": "t", "expires_in": 600})
    said, _ = await _asked("azure", Unreached("can't be found", sent=False), token, answer(404, {"error": {"code": "ResourceNotFound"}}))
    assert said is False


async def test_bedrock_is_asked_in_the_accounts_region_and_not_where_iam_stands_elsewhere() -> None:
    _, script = await _asked("bedrock", answer(400, {}))
    assert script.asked[0][1].startswith("https://bedrock-runtime.eu-west-1.amazonaws.com/model/")
    _, script = await _asked("bedrock", answer(400, {}), settings={**SETTINGS["bedrock"], "partition": "aws-cn", "region": "cn-north-1"})
    assert script.asked[0][1].startswith("https://bedrock-runtime.cn-north-1.amazonaws.com.cn/model/")
    _, script = await _asked("bedrock", answer(400, {}), settings={**SETTINGS["bedrock"], "base_url": "https://iam.us-gov.amazonaws.com"})
    assert script.asked[0][1].startswith("https://bedrock-runtime.eu-west-1.amazonaws.com/model/"), "AWS's own: the region tells"
    for elsewhere in ("http://127.0.0.1:9/iam", "https://amazonaws.com.example.com"):
        said, script = await _asked("bedrock", settings={**SETTINGS["bedrock"], "base_url": elsewhere})
        assert (said, script.asked) == (None, [])


async def test_vertex_ai_is_not_asked() -> None:
    said, script = await _asked("google", settings={"project": "p", "service": "aiplatform.googleapis.com"})
    assert (said, script.asked) == (None, [])
