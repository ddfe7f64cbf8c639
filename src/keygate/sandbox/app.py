"""The sandbox as an ASGI application.

OpenAI under `/openai/v1`, Anthropic under `/anthropic`, OpenRouter under `/openrouter/api/v1`, Google's Gemini API under `/google`, Azure
OpenAI under `/azure/accounts`, Bedrock under `/aws/bedrock-runtime`, itself under `/_sandbox`. The vendors' admin APIs stand where the
vendors have them (`admin/`).
"""

from __future__ import annotations

import contextlib
import time
from typing import Any
from urllib.parse import unquote

from keygate.sandbox import anthropic, azure, bedrock, control, gemini, openai_inputs
from keygate.sandbox.admin import xai
from keygate.sandbox.answer import Dialect, encode
from keygate.sandbox.catalogue import Use
from keygate.sandbox.errors import VendorError, no_model, no_path
from keygate.sandbox.inference import JSON, Exchange, Plain, authenticate, identity
from keygate.sandbox.model import Call, Vendor
from keygate.sandbox.openai_chat import Chat, Completions
from keygate.sandbox.openai_responses import Responses
from keygate.sandbox.state import SandboxState
from keygate.sandbox.wire import BodyTooLargeError, CallerGoneError, Connection, Receive, Scope, Send

_ENDPOINTS: dict[str, tuple[Vendor, Dialect | Plain]] = {
    "/openai/v1/chat/completions": (Vendor.OPENAI, Chat()),
    "/openai/v1/completions": (Vendor.OPENAI, Completions()),
    "/openai/v1/responses": (Vendor.OPENAI, Responses()),
    "/openai/v1/embeddings": (Vendor.OPENAI, Plain(Use.EMBEDDINGS, openai_inputs.read_embeddings, billed=True)),
    "/openai/v1/moderations": (Vendor.OPENAI, Plain(Use.MODERATIONS, openai_inputs.read_moderation, billed=False)),
    "/xai/v1/chat/completions": (Vendor.XAI, Chat()),
    "/xai/v1/responses": (Vendor.XAI, Responses()),
    "/anthropic/v1/chat/completions": (Vendor.ANTHROPIC, Chat()),  # its endpoint for OpenAI's SDKs
    "/anthropic/v1/messages": (Vendor.ANTHROPIC, anthropic.Messages()),
    "/anthropic/v1/messages/count_tokens": (Vendor.ANTHROPIC, anthropic.CountTokens()),
    "/openrouter/api/v1/chat/completions": (Vendor.OPENROUTER, Chat()),
}
_CLOUDS = ((azure.PREFIX, Vendor.AZURE, azure.serve), (bedrock.PREFIX, Vendor.BEDROCK, bedrock.serve))
_WIRES: dict[Vendor, Any] = {Vendor.OPENAI: openai_inputs, Vendor.ANTHROPIC: anthropic, Vendor.GOOGLE: gemini, Vendor.XAI: openai_inputs}
_VENDORS = (
    ("/anthropic", Vendor.ANTHROPIC),
    ("/openrouter", Vendor.OPENROUTER),
    ("/google", Vendor.GOOGLE),
    ("/xai", Vendor.XAI),
    *((prefix, vendor) for prefix, vendor, _ in _CLOUDS),
)
_MODELS = {Vendor.OPENAI: "/openai/v1/models", Vendor.ANTHROPIC: "/anthropic/v1/models", Vendor.XAI: "/xai/v1/models"}


class Sandbox:
    """The application. Everything that it remembers is in `state`."""

    def __init__(self, state: SandboxState) -> None:
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        connection = Connection(scope, receive, send)
        path = scope["path"]
        if path == control.PREFIX or path.startswith(control.PREFIX + "/"):
            await control.control(self.state, connection)
            return
        api = self.state.admin.find(path)
        if api is not None:
            with contextlib.suppress(CallerGoneError, BodyTooLargeError):
                await self.state.admin.serve(api, connection)
            return
        vendor = next((vendor for prefix, vendor in _VENDORS if path.startswith(prefix)), Vendor.OPENAI)
        if scope["method"] == "HEAD":
            await connection.answer(200, [JSON], b"")
            return
        call = self.state.open_call(vendor, path)
        try:
            await self._serve(connection, call)
        except CallerGoneError:
            return
        except VendorError as error:
            await _refuse(self.state, connection, call, error)
        finally:
            call.ended_at_ns = time.time_ns()

    async def _serve(self, connection: Connection, call: Call) -> None:
        method, path = connection.scope["method"], connection.scope["path"]
        cloud = next((serve for prefix, _, serve in _CLOUDS if path.startswith(prefix)), None)
        if cloud is not None:
            await cloud(self.state, connection, call)
            return
        endpoint = _ENDPOINTS.get(path)
        if endpoint is not None and method == "POST":
            await Exchange(self.state, connection, call).run(endpoint[1])
            return
        if call.vendor is Vendor.GOOGLE:
            await self._gemini(connection, call)
            return
        if (method, path) == ("GET", "/openrouter/api/v1/key"):
            await self._openrouter_key(connection, call)
            return
        if (method, path) == ("GET", "/xai/v1/api-key"):
            await self._xai_key(connection, call)
            return
        models = _MODELS.get(call.vendor)
        if models is not None and method == "GET" and (path == models or path.startswith(models + "/")):
            authenticate(self.state, connection, call)
            await self._models(connection, call, unquote(path[len(models) + 1 :]))
            return
        raise no_path(call.vendor, method, path)

    async def _gemini(self, connection: Connection, call: Call) -> None:
        method, path = connection.scope["method"], connection.scope["path"]
        found = gemini.find(unquote(path))
        if found is None:
            raise no_path(call.vendor, method, path)
        name, does = found
        if method == "POST" and name and does:
            await Exchange(self.state, connection, call).run(gemini.dialect_of(name, does))
        elif method == "GET" and not does:
            key = authenticate(self.state, connection, call)
            refused = None if key.grant is None else key.grant.account.rule(key.grant, "")  # a call of no model
            if refused is not None:
                raise refused
            await self._models(connection, call, name or "")
        else:
            raise no_path(call.vendor, method, path)

    async def _xai_key(self, connection: Connection, call: Call) -> None:
        key = authenticate(self.state, connection, call)
        if key.grant is None:
            raise no_path(call.vendor, "GET", call.path)
        call.status = 200
        await connection.answer(200, [JSON, *identity(call)], encode(xai.key_info(key.grant)))
        call.finished = True

    async def _openrouter_key(self, connection: Connection, call: Call) -> None:
        """What a key may know of itself (openrouter.ai/docs/api-reference/limits); of what it says, the label only."""
        key = authenticate(self.state, connection, call)
        call.status = 200
        await connection.answer(200, [JSON, *identity(call)], encode({"data": {"label": f"sk-or-v1-...{key.value[-3:]}"}}))
        call.finished = True

    async def _models(self, connection: Connection, call: Call, name: str) -> None:
        wire = _WIRES[call.vendor]
        if name:
            model = self.state.find_model(call.vendor, name)
            if model is None:
                raise no_model(call.vendor, name)
            answer = wire.model_body(model)
        else:
            answer = wire.model_list(model for model in self.state.models.values() if model.vendor is call.vendor)
        call.status = 200
        await connection.answer(200, [JSON, *identity(call)], encode(answer))
        call.finished = True


async def _refuse(state: SandboxState, connection: Connection, call: Call, error: VendorError) -> None:
    call.status = error.status
    state.used(call)
    headers = [JSON, *identity(call)]
    if error.retry_after is not None:
        headers.append((b"retry-after", error.retry_after.encode("latin-1")))
    if call.vendor is Vendor.BEDROCK:
        headers.append((b"x-amzn-errortype", (error.code or "ValidationException").encode("latin-1")))
    await connection.answer(error.status, headers, encode(error.body(call.vendor, call.id)))


def create_app(state: SandboxState | None = None) -> Sandbox:
    """The ASGI application over `state`, or over a fresh one."""
    return Sandbox(state or SandboxState())
