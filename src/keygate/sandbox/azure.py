"""Azure OpenAI's inference side: `/azure/accounts/{subdomain}/openai/…`, by deployment and api-version or as `/openai/v1`.

Paths and the `api-key` header: openai 3.55.1 `lib/azure.py`. Bodies of refusals: users' reports of Azure's answers, read 2026-11-26.
"""

from __future__ import annotations

import re
from typing import Any

from keygate.sandbox.admin.azure.model import Azure, Deployment, Resource
from keygate.sandbox.answer import Dialect
from keygate.sandbox.catalogue import Use
from keygate.sandbox.errors import VendorError
from keygate.sandbox.inference import Exchange, Plain
from keygate.sandbox.model import Call, Key, KeyStatus, Vendor
from keygate.sandbox.openai_chat import Chat, Completions
from keygate.sandbox.openai_inputs import model_list, read_embeddings
from keygate.sandbox.openai_responses import Responses
from keygate.sandbox.state import SandboxState
from keygate.sandbox.wire import Connection

PREFIX = "/azure/accounts/"
_PATH = re.compile(r"/azure/accounts/([\w.-]+)/openai(?:/deployments/([^/]+))?(?:/(v1))?/([\w/]+)")
_BY_DEPLOYMENT: dict[str, Dialect | Plain] = {
    "chat/completions": Chat(),
    "completions": Completions(),
    "embeddings": Plain(Use.EMBEDDINGS, read_embeddings, billed=True),
}
_BY_BODY: dict[str, Dialect | Plain] = {**_BY_DEPLOYMENT, "responses": Responses()}


class AzureExchange(Exchange):
    """A call of one account's endpoint. Its model is a deployment's."""

    def __init__(self, state: SandboxState, connection: Connection, call: Call, subdomain: str, deployment: str | None) -> None:
        super().__init__(state, connection, call)
        self._azure = Azure(state.admin[Vendor.AZURE])
        self._subdomain = subdomain
        self._deployment = deployment
        self._resource: Resource | None = None

    def _authenticate(self) -> Key:
        headers = self._connection.headers
        bearer = headers.get(b"authorization", b"").decode("latin-1")
        shown = headers.get(b"api-key", b"").decode("latin-1") or (bearer[7:].strip() if bearer[:7].lower() == "bearer " else "")
        key = self._state.keys.get(shown)
        self._resource = resource = self._azure.at(self._subdomain)
        if resource is None:
            raise VendorError(404, "Resource not found", code="404")
        mine = key is not None and key.vendor is Vendor.AZURE and key.grant is not None and key.grant.container == resource.id
        if key is None or not mine or key.standing() is not KeyStatus.VALID:
            message = (
                "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active "
                "subscription and use a correct regional API endpoint for your resource."
            )
            raise VendorError(401, message, code="401")
        self._call.key = key.value
        return key

    async def models(self) -> None:
        """Models - List: what the account could deploy. For whoever has a key of it."""
        self._authenticate()
        await self._json(model_list(model for model in self._state.models.values() if model.vendor is Vendor.OPENAI))

    def _decode(self, raw: bytes) -> dict[str, Any]:
        body = super()._decode(raw)
        name = str(body.get("model")) if self._deployment is None else self._deployment
        body["model"] = self._deployed(name).model
        return body

    def _deployed(self, name: str) -> Deployment:
        deployment = None if self._resource is None else self._resource.deployments.get(name)
        if deployment is None or deployment.ready_at_ns > self._azure.now_ns():
            message = (
                "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please "
                "wait a moment and try again."
            )
            raise VendorError(404, message, code="DeploymentNotFound")
        if deployment.paused:
            raise VendorError(423, "The deployment is paused.", code="DeploymentPaused")
        return deployment


async def serve(state: SandboxState, connection: Connection, call: Call) -> None:
    """Answers one call below `/azure/accounts`. Raises `VendorError`."""
    found = _PATH.fullmatch(connection.scope["path"])
    dialect: Dialect | Plain | None = None
    if found and connection.scope["method"] == "POST":
        subdomain, deployment, v1, rest = found.groups()
        versioned = b"api-version=" in connection.scope["query_string"]
        if deployment is not None and v1 is None and versioned:
            dialect = _BY_DEPLOYMENT.get(rest)
        elif deployment is None and (v1 is not None or versioned):
            dialect = _BY_BODY.get(rest)
        if dialect is not None:
            await AzureExchange(state, connection, call, subdomain, deployment).run(dialect)
            return
    if found and connection.scope["method"] == "GET" and found.group(2) is None and found.group(4) == "models":
        await AzureExchange(state, connection, call, found.group(1), None).models()
        return
    raise VendorError(404, "Resource not found", code="404")
