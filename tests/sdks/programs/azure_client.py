"""Microsoft's own clients of Azure's administration, and OpenAI's of its inference side: one JSON request a line, one JSON answer a line.

{"client": "cognitive" | "costs", "call": "accounts.begin_create", "args": […], "options": {…},
     "as": [base URL, client id, secret, subscription]}                                      → {"result": …}
{"client": "chat", "endpoint", "key", "deployment", "text", "v1"?}                                → {"text", "model"}
"""

import functools
import json
import sys
import urllib.parse
import urllib.request

from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from azure.mgmt.costmanagement import CostManagementClient
from openai import APIStatusError, AzureOpenAI, OpenAI


class Bearer(SansIOHTTPPolicy):
    """The SDK's own policy refuses plain HTTP. The token is asked for as azure-identity asks for it."""

    def __init__(self, base, client_id, secret):
        self.base, self.client_id, self.secret = base, client_id, secret
        self.token = None

    def on_request(self, request):
        if self.token is None:
            form = {
                "grant_type": "client_credentials",
                "client_id": self.client_id,
                "client_secret": self.secret,
                "scope": "https://management.azure.com/.default",
            }
            url = f"{self.base}/login/the-tenant/oauth2/v2.0/token"
            with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), timeout=10) as answer:
                self.token = json.load(answer)["access_token"]
        request.http_request.headers["Authorization"] = f"Bearer {self.token}"


class Nobody:
    def get_token(self, *scopes, **options):
        raise AssertionError("the policy brings the token")


@functools.lru_cache(maxsize=8)
def clients(base, client_id, secret, subscription):
    options = {"base_url": base, "authentication_policy": Bearer(base, client_id, secret), "retry_total": 0}
    cognitive = CognitiveServicesManagementClient(Nobody(), subscription, **options)
    return {"cognitive": cognitive, "costs": CostManagementClient(Nobody(), **options)}


def plain(value):
    if hasattr(value, "result") and hasattr(value, "polling_method"):
        return plain(value.result(timeout=20))
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if value is None or isinstance(value, str | int | float):
        return value
    return [plain(each) for each in value]


def manage(request):
    target = clients(*request["as"])[request["client"]]
    for part in request["call"].split("."):
        target = getattr(target, part)
    given = dict(request.get("options", {}))
    if request["call"].rpartition(".")[2].startswith("begin_"):
        given["polling_interval"] = 0.05
    return {"result": plain(target(*request.get("args", ()), **given))}


def chat(request):
    common = {"api_key": request["key"], "max_retries": 0, "timeout": 10}
    if request.get("v1"):
        client = OpenAI(base_url=f"{request['endpoint'].rstrip('/')}/openai/v1/", **common)
    else:
        client = AzureOpenAI(azure_endpoint=request["endpoint"], api_version="2024-10-21", **common)
    with client:
        messages = [{"role": "user", "content": request["text"]}]
        answer = client.chat.completions.create(model=request["deployment"], messages=messages)
    return {"text": answer.choices[0].message.content, "model": answer.model, "usage": answer.usage.total_tokens}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        try:
            told = chat(request) if request["client"] == "chat" else manage(request)
        except HttpResponseError as error:
            told = {"error": {"status": error.status_code, "code": error.error.code if error.error else None, "message": error.message}}
        except APIStatusError as error:
            told = {"error": {"status": error.status_code, "code": error.code, "message": error.message, "reason": type(error).__name__}}
        print(json.dumps(told, default=str), flush=True)


main()
