"""The sandbox's own API under `/_sandbox`: how a test, a drill or a person sets the vendor up and reads what it served. JSON.

    GET    /_sandbox                       base URLs, and how each vendor is entered in KeyGate
    POST   /_sandbox/keys                  {vendor, key?, status?, behaviour?} → 201 {key, vendor, status, behaviour, plans}
    GET    /_sandbox/keys                  {keys: […]}
    PATCH  /_sandbox/keys/{key}            {status?, behaviour?}: behaviour replaces the key's settings
    DELETE /_sandbox/keys/{key}            revokes it
    POST   /_sandbox/keys/{key}/faults     {behaviour, calls?: 1 | null, after?, probability?, seed?}: some of the key's next calls
    DELETE /_sandbox/keys/{key}/faults     forgets them
    PUT    /_sandbox/behaviour             settings for every key that doesn't set them itself
    POST   /_sandbox/models                {name, vendor, use?, max_output?}
    GET    /_sandbox/served[?key=][&calls=0]   {seen, totals: [{key, model, requests, usage}], calls: [{id, status, usage, …}]}
    DELETE /_sandbox/served                counts from nothing again
    …      /_sandbox/admin…                the vendors' admin APIs: see `admin/control.py`

It has no sign-in: the sandbox listens on loopback and knows no secret that is worth anything.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote

from keygate.sandbox.admin import control as admin
from keygate.sandbox.answer import encode
from keygate.sandbox.catalogue import Model, Use
from keygate.sandbox.errors import VendorError
from keygate.sandbox.inference import JSON, decode
from keygate.sandbox.model import Behaviour, FaultPlan, Key, KeyStatus, Vendor
from keygate.sandbox.state import SandboxState
from keygate.sandbox.wire import Connection

PREFIX = "/_sandbox"


async def control(state: SandboxState, connection: Connection) -> None:
    """Answers one request below `/_sandbox`."""
    scope = connection.scope
    try:
        raw = await connection.body()
        status, answer = _dispatch(state, scope, decode(raw) if raw else {})
        if scope["method"] != "GET":
            state.keep()
    except VendorError as error:
        status, answer = error.status, {"error": error.message}
    except (ValueError, TypeError, AttributeError) as error:
        status, answer = 400, {"error": str(error)}
    await connection.answer(status, [JSON], encode(answer))


def _dispatch(state: SandboxState, scope: Any, body: dict[str, Any]) -> tuple[int, Any]:
    method = scope["method"]
    parts = [unquote(part) for part in scope["path"][len(PREFIX) :].split("/") if part]
    match (method, *parts):
        case ("GET",):
            return 200, base_urls(_address(scope)) | {"vendors": _vendors(state, _address(scope))}
        case ("POST", "keys"):
            status = KeyStatus(body.get("status", KeyStatus.VALID))
            key = state.create_key(
                Vendor(str(body.get("vendor"))),
                value=_text(body, "key") if "key" in body else None,
                status=status,
                settings=body.get("behaviour"),
            )
            return 201, key.as_dict()
        case ("GET", "keys"):
            return 200, {"keys": [key.as_dict() for key in state.keys.values()]}
        case ("PATCH", "keys", value):
            return 200, _change(_known(state, value), body)
        case ("DELETE", "keys", value):
            key = _known(state, value)
            state.revoke_key(value)
            return 200, key.as_dict()
        case ("POST", "keys", value, "faults"):
            key = _known(state, value)
            settings = body.pop("behaviour", {})
            state.plan_fault(value, FaultPlan(settings, **body))
            return 201, key.as_dict()
        case ("DELETE", "keys", value, "faults"):
            key = _known(state, value)
            key.plans.clear()
            return 200, key.as_dict()
        case ("PUT", "behaviour"):
            state.behaviour = Behaviour().with_settings(body)
            return 200, state.behaviour.as_dict()
        case ("POST", "models"):
            model = Model(
                _text(body, "name"), Vendor(str(body.get("vendor"))), Use(body.get("use", Use.CHAT)), body.get("max_output"), 1536
            )
            state.add_model(model)
            return 201, {"name": model.name, "vendor": model.vendor, "use": model.use, "max_output": model.max_output}
        case ("GET", "served"):
            query = parse_qs(scope["query_string"].decode("latin-1"))
            return 200, state.report(key=query.get("key", [None])[0], calls=query.get("calls", ["1"])[0] != "0")
        case ("DELETE", "served"):
            state.reset()
            return 200, {}
        case (_, "admin", *rest):
            return admin.control(state.admin, method, rest, body, address=_address(scope))
    raise VendorError(404, "no such thing in the sandbox; see keygate.sandbox.control")


def _address(scope: Any) -> str:
    host, port = scope["server"][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _vendors(state: SandboxState, address: str) -> dict[str, Any]:
    """How each vendor is entered in KeyGate: the settings, and where an admin key is made."""
    return {
        vendor: {
            "settings": state.admin.api(vendor).settings(address),
            "admin_key": f"POST {address}{PREFIX}/admin/{vendor}/credentials",
            "control": f"{address}{PREFIX}/admin/{vendor}",
        }
        for vendor in state.admin.accounts()
    }


def base_urls(address: str) -> dict[str, Any]:
    return {
        "openai_base_url": f"{address}/openai/v1",
        "anthropic_base_url": f"{address}/anthropic",
        "openrouter_base_url": f"{address}/openrouter/api/v1",
        "google_base_url": f"{address}/google",
        "xai_base_url": f"{address}/xai/v1",
    }


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.isascii():
        raise ValueError(f"{name}: must be plain text")
    return value


def _known(state: SandboxState, value: str) -> Key:
    key = state.keys.get(value)
    if key is None:
        raise VendorError(404, "the sandbox has no such key")
    return key


def _change(key: Key, body: dict[str, Any]) -> dict[str, Any]:
    if "behaviour" in body:
        settings = dict(body["behaviour"])
        Behaviour().with_settings(settings)
        key.settings = settings
    if "status" in body:
        key.status = KeyStatus(body["status"])
    return key.as_dict()
