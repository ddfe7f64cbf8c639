"""AWS's admin side for Bedrock: IAM, STS and Cost Explorer, signed with Signature Version 4. The settings' base URL is
`{sandbox}/aws/iam`; keys are asked at `{sandbox}/aws/bedrock-runtime`, their `runtime_url`.

An admin credential is an access key: its `name` is the key id, its `value` the secret, its rights are IAM's actions (`iam:CreateUser`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from keygate.kit.clock import NANOSECONDS
from keygate.kit.sigv4 import SKEW_SECONDS, read_authorization, verifies
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminApi, AdminRequest, Answer, Handler, Route
from keygate.sandbox.admin.aws import ce, iam, xml
from keygate.sandbox.admin.aws.model import CEILINGS, CREDENTIALS, NUMBER, USERS, ServiceCredential, User, failed, refuses
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.model import Credential
from keygate.sandbox.errors import VendorError
from keygate.sandbox.model import Vendor

_PATHS = {
    "/aws/iam": "iam",
    "/aws/iam/": "iam",
    "/aws/iam/sts": "sts",
    "/aws/iam/sts/": "sts",
    "/aws/iam/ce": "ce",
    "/aws/iam/ce/": "ce",
}
_XML = ((b"content-type", b"text/xml"),)
_JSON = ((b"content-type", b"application/x-amz-json-1.1"),)
_CODES = {403: "AccessDenied", 429: "Throttling", 500: "ServiceFailure", 503: "ServiceUnavailable"}  # of a fault on request without its own


def form_of(request: AdminRequest) -> dict[str, str]:
    return dict(parse_qsl(request.raw.decode("latin-1"), keep_blank_values=True))


def _handler(service: str, name: str, action: iam.Action) -> Handler:
    def handler(account: Account, request: AdminRequest) -> Answer:
        if request.credential is None:
            raise failed(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
        return Answer(200, xml.result(service, name, action(account, request.credential, form_of(request)), request.id), _XML)

    return handler


def _costs(action: ce.Action) -> Handler:
    def handler(account: Account, request: AdminRequest) -> Answer:
        return Answer(200, action(account, request.json()), _JSON)

    return handler


class AwsAdmin(AdminApi):
    vendor: ClassVar[Vendor] = Vendor.BEDROCK
    prefixes: ClassVar[tuple[str, ...]] = ("/aws/iam",)
    ceilings: ClassVar[Mapping[str, int]] = CEILINGS
    request_id_header: ClassVar[bytes] = b"x-amzn-requestid"
    kinds: ClassVar[Mapping[str, type]] = {USERS: User, CREDENTIALS: ServiceCredential}
    routes: ClassVar[tuple[Route, ...]] = (
        *(Route("POST", "/aws/iam", name, f"iam:{name}", _handler("iam", name, action)) for name, action in iam.ACTIONS.items()),
        Route("POST", "/aws/iam/sts", "GetCallerIdentity", None, _handler("sts", "GetCallerIdentity", iam.caller_identity)),
        *(Route("POST", "/aws/iam/ce", name, f"ce:{name}", _costs(action)) for name, action in ce.ACTIONS.items()),
    )

    @cached_property
    def _by_action(self) -> dict[tuple[str, str], Route]:
        return {(_PATHS[route.path], route.operation): route for route in self.routes}

    def find(self, request: AdminRequest) -> Route:
        """By the action in the form, or at Cost Explorer in a header: every call is a POST of one path."""
        service = _PATHS.get(request.path, "")
        action = ce.action_of(request) if service == "ce" else form_of(request).get("Action", "")
        route = self._by_action.get((service, action)) if request.method == "POST" else None
        if route is None:
            raise failed(400, "InvalidAction", "Could not find operation for this version.")
        return route

    def admit(self, account: Account, address: str, body: dict[str, Any]) -> tuple[Credential, str]:
        return super().admit(account, address, {"name": f"AKIASANDBOX{secrets.token_hex(5).upper()}", **body})

    def settings(self, address: str, credential: Credential | None = None) -> dict[str, str]:
        key_id = "the credential's `name`" if credential is None else credential.name
        urls = {"base_url": f"{address}/aws/iam", "runtime_url": f"{address}/aws/bedrock-runtime"}
        return {**urls, "access_key_id": key_id, "region": "us-east-1"}

    def refuses(self, secret: IssuedSecret, model: str) -> VendorError | None:
        return refuses(secret, model)

    def authenticate(self, account: Account, request: AdminRequest) -> Credential:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
        signed = read_authorization(headers.get("authorization", ""))
        if signed is None:
            raise failed(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
        credential = next((each for each in account.credentials.values() if each.name == signed.key_id), None)
        if credential is None:
            raise failed(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
        _check_time(headers.get("x-amz-date", ""), account.now_ns())
        service = _PATHS.get(request.path, "iam")
        right = verifies(signed, credential.value, method=request.method, path=request.path, query="", headers=headers, body=request.raw)
        if not right or signed.service != service:
            message = (
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and "
                "signing method. Consult the service documentation for details."
            )
            raise failed(403, "SignatureDoesNotMatch", message)
        return credential

    def lacks(self, right: str) -> VendorError:
        message = (
            f"User: arn:aws:iam::{NUMBER}:user/sandbox is not authorized to perform: {right} on resource: * because no identity-based "
            f"policy allows the {right} action"
        )
        return failed(403, "AccessDenied", message)

    def too_fast(self, seconds: float) -> VendorError:  # noqa: ARG002  (AWS tells no time to wait)
        return failed(400, "Throttling", "Rate exceeded")

    def error(self, error: VendorError, request: AdminRequest) -> Answer:
        code = error.code or _CODES.get(error.status, "Failure")
        service = _PATHS.get(request.path, "iam")
        wait = () if error.retry_after is None else ((b"retry-after", error.retry_after.encode("latin-1")),)
        if service == "ce":
            return Answer(error.status if error.status >= 500 else 400, ce.failure(code, error.message), (*_JSON, *wait))
        return Answer(error.status, xml.failure(service, error.status, code, error.message, request.id), (*_XML, *wait))


def _check_time(stamp: str, vendor_ns: int) -> None:
    """By this machine's time, as a client can't know of a clock that was moved forward; one that does know may go by that."""
    try:
        moment = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise failed(403, "IncompleteSignature", "Authorization header requires existence of either a 'X-Amz-Date'.") from None
    if min(abs(moment.timestamp() - now) for now in (time.time(), vendor_ns / NANOSECONDS)) > SKEW_SECONDS:
        raise failed(403, "SignatureDoesNotMatch", f"Signature expired: {stamp} is now earlier than the server's time.")


__all__ = ["AwsAdmin"]
