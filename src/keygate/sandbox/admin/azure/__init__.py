"""Azure OpenAI's admin side: sign-in, Resource Manager, cost query. The settings' base URL is `{sandbox}/azure`.

An admin credential is an app registration: its `name` is the client id, its `value` the client secret, its rights are Azure's actions.
Whoever signs in gets a token for an hour, and shows that; the hour is this machine's, since
a client can't know of a clock that was moved forward.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar
from urllib.parse import parse_qs

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminApi, AdminRequest, Answer, Route
from keygate.sandbox.admin.azure import arm, costs
from keygate.sandbox.admin.azure.model import ACCOUNTS, CEILINGS, DELETED, Resource, refuses
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.model import Credential
from keygate.sandbox.errors import VendorError
from keygate.sandbox.model import Vendor

TOKENS = "tokens"
_TENANT, _SUBSCRIPTION = "5a4db0c5-0000-4000-8000-00000000000a", "5a4db0c5-0000-4000-8000-00000000000b"
_TOKEN_SECONDS = 3599


def sign_in(account: Account, request: AdminRequest) -> Any:
    """The client credentials grant (RFC 6749 section 4.4), as Entra ID words its refusals."""
    form = {name: values[-1] for name, values in parse_qs(request.raw.decode("latin-1")).items()}
    if form.get("grant_type") != "client_credentials" or not form.get("scope", "").endswith("/.default"):
        return _refused("invalid_request", "AADSTS900144: The request body must contain grant_type, client_id and scope.")
    credential = account.credentials.get(form.get("client_secret", ""))
    if credential is None or credential.name != form.get("client_id"):
        return _refused("invalid_client", "AADSTS7000215: Invalid client secret provided.", status=401)
    token = f"sandbox-entra-{secrets.token_urlsafe(24)}"
    account.make(TOKENS, token, {}, credential=credential.value, until_ns=time.time_ns() + _TOKEN_SECONDS * NANOSECONDS)
    return {"token_type": "Bearer", "expires_in": _TOKEN_SECONDS, "ext_expires_in": _TOKEN_SECONDS, "access_token": token}


def _refused(error: str, description: str, *, status: int = 400) -> Answer:
    return Answer(status, {"error": error, "error_description": description, "error_codes": [int(description[6:].partition(":")[0])]})


class AzureAdmin(AdminApi):
    vendor: ClassVar[Vendor] = Vendor.AZURE
    prefixes: ClassVar[tuple[str, ...]] = ("/azure/subscriptions", "/azure/login")
    ceilings: ClassVar[Mapping[str, int]] = CEILINGS
    request_id_header: ClassVar[bytes] = b"x-ms-request-id"
    kinds: ClassVar[Mapping[str, type]] = {ACCOUNTS: Resource, DELETED: Resource}
    routes: ClassVar[tuple[Route, ...]] = (
        *arm.ROUTES,
        *costs.ROUTES,
        Route("POST", "/azure/login/{tenant}/oauth2/v2.0/token", "token", None, sign_in, open=True),
    )

    def admit(self, account: Account, address: str, body: dict[str, Any]) -> tuple[Credential, str]:
        return super().admit(account, address, {"name": str(uuid.uuid4()), **body})

    def settings(self, address: str, credential: Credential | None = None) -> dict[str, str]:
        """Tenant, subscription, group and region may be any; groups are not looked for."""
        return {
            "base_url": f"{address}/azure",
            "tenant": _TENANT,
            "client_id": "the credential's `name`" if credential is None else credential.name,
            "subscription": _SUBSCRIPTION,
            "resource_group": "keygate",
            "region": "eastus",
        }

    def refuses(self, secret: IssuedSecret, model: str) -> VendorError | None:
        return refuses(secret, model)

    def authenticate(self, account: Account, request: AdminRequest) -> Credential:
        shown = self.shown_secret(request)
        entry = account.shelves[TOKENS].get(shown) if shown else None
        credential = None if entry is None else account.credentials.get(entry.more["credential"])
        if entry is None or credential is None:
            raise VendorError(401, "The access token is invalid.", code="InvalidAuthenticationToken")
        if entry.more["until_ns"] <= time.time_ns():
            message = "The access token expiry UTC time is earlier than current UTC time."
            raise VendorError(401, message, code="ExpiredAuthenticationToken")
        if request.text("api-version") is None:
            message = "The api-version query parameter (?api-version=) is required for all requests."
            raise VendorError(400, message, code="MissingApiVersionParameter")
        return self._widened(credential)

    def _widened(self, credential: Credential) -> Credential:
        """With each action that a pattern of its rights (`Microsoft.CognitiveServices/*`) stands for; case doesn't count."""
        if credential.rights is None:
            return credential
        patterns = [pattern.lower() for pattern in credential.rights]
        actions = {route.right for route in self.routes if route.right is not None}
        return replace(credential, rights=frozenset(each for each in actions if any(fnmatchcase(each.lower(), one) for one in patterns)))

    def lacks(self, right: str) -> VendorError:
        message = (
            f"The client does not have authorization to perform action '{right}' over scope '/subscriptions' or the scope is invalid. "
            "If access was recently granted, please refresh your credentials."
        )
        return VendorError(403, message, code="AuthorizationFailed")

    def too_fast(self, seconds: float) -> VendorError:
        message = "The request was throttled: the subscription's limit of requests is reached."
        return VendorError(429, message, code="SubscriptionRequestsThrottled", retry_after=str(int(seconds + 0.999)))


__all__ = ["AzureAdmin"]
