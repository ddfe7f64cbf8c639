"""Bedrock's inference side for API keys: `/aws/bedrock-runtime/model/{id}/converse` and `/invoke` with Anthropic's bodies. No streams.

Shapes: botocore 1.44.6, bedrock-runtime 2023-09-30. The wording of a refused key: users' reports, from memory, not verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from keygate.sandbox import anthropic, reading
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.answer import Answer, Asked, Dialect, Finish, Frame, text_of
from keygate.sandbox.catalogue import Model, Use
from keygate.sandbox.errors import VendorError, invalid
from keygate.sandbox.inference import Exchange
from keygate.sandbox.model import Call, Key, KeyStatus, Vendor
from keygate.sandbox.state import SandboxState
from keygate.sandbox.wire import Connection

PREFIX = "/aws/bedrock-runtime/"
_PATH = re.compile(r"/aws/bedrock-runtime/model/([\w.:/-]{1,300})/(converse|invoke)")
_STOP = {Finish.STOP: "end_turn", Finish.LENGTH: "max_tokens", Finish.TOOL: "tool_use"}


class Converse:
    """Text in, text out."""

    use = Use.CHAT
    id_prefix = "converse-"

    def read(self, body: dict[str, Any]) -> Asked:
        messages = reading.items(body, "messages")
        if not messages:
            raise invalid("A conversation must start with a user message.", code="ValidationException")
        settings = body.get("inferenceConfig")
        maximum = settings.get("maxTokens") if isinstance(settings, dict) else None
        return Asked(
            model=reading.model_of(body),
            body=body,
            prompt=[messages, body.get("system")],
            messages=len(messages),
            last_text=text_of(messages[-1].get("content")),
            max_output=maximum if isinstance(maximum, int) else None,
        )

    def check(self, asked: Asked, model: Model) -> None:
        if model.max_output is not None and asked.max_output is not None and asked.max_output > model.max_output:
            raise invalid("The maximum tokens you requested exceeds the model limit.", code="ValidationException")

    def whole(self, answer: Answer) -> dict[str, Any]:
        usage = answer.usage
        counts = {"inputTokens": usage.input, "outputTokens": usage.output, "totalTokens": usage.input + usage.output}
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": answer.text}]}},
            "stopReason": _STOP[answer.finish],
            "usage": counts,
            "metrics": {"latencyMs": 1},
        }

    def frames(self, answer: Answer) -> Iterator[Frame]:  # noqa: ARG002  (the same for every dialect)
        raise VendorError(400, "The sandbox's Bedrock does not stream.", code="ValidationException")

    def error_frame(self, error: VendorError, request_id: str) -> bytes:  # noqa: ARG002  (the same for every dialect)
        raise VendorError(400, "The sandbox's Bedrock does not stream.", code="ValidationException")


class Invoke(anthropic.Messages):
    """Anthropic's body without `model`, and with Bedrock's own version word."""

    def read(self, body: dict[str, Any]) -> Asked:
        if body.get("anthropic_version") != "bedrock-2023-05-31":
            raise invalid("anthropic_version: Field required", code="ValidationException")
        return super().read({name: value for name, value in body.items() if name != "stream"})


_DIALECTS: dict[str, Dialect] = {"converse": Converse(), "invoke": Invoke()}


class BedrockExchange(Exchange):
    """A call of one model, allowed by the policies of the key's user."""

    def __init__(self, state: SandboxState, connection: Connection, call: Call, model: str) -> None:
        super().__init__(state, connection, call)
        self._model = model

    def _authenticate(self) -> Key:
        bearer = self._connection.headers.get(b"authorization", b"").decode("latin-1")
        key = self._state.keys.get(bearer[7:].strip()) if bearer[:7].lower() == "bearer " else None
        if key is None or key.vendor is not Vendor.BEDROCK or key.standing() is not KeyStatus.VALID:
            message = "Authentication failed: Please make sure your API Key is valid."
            raise VendorError(403, message, code="AccessDeniedException")
        self._call.key = key.value
        return key

    def _admit(self, grant: IssuedSecret, asked: Asked, model: Model) -> None:  # noqa: ARG002  (policies name the model as Bedrock does)
        grant.admit(asked.model)

    def _decode(self, raw: bytes) -> dict[str, Any]:
        return {**super()._decode(raw), "model": self._model}


async def serve(state: SandboxState, connection: Connection, call: Call) -> None:
    """Answers one call below `/aws/bedrock-runtime`. Raises `VendorError`."""
    found = _PATH.fullmatch(connection.scope["path"])
    if found is None or connection.scope["method"] != "POST":
        raise VendorError(404, "Unable to determine service/operation name to be authorized", code="UnknownOperationException")
    model, operation = found.groups()
    await BedrockExchange(state, connection, call, model).run(_DIALECTS[operation])
