"""Errors as Google's APIs word them: `{"error": {code, message, status, details}}`.

Shape: google.rpc.Status and ErrorInfo of the discovery documents in google-api-python-client 2.202.0, read 2026-11-26. Messages are
ours where no source quotes one: clients act on `status` and on ErrorInfo's `reason`.
"""

from __future__ import annotations

from typing import Any

from keygate.sandbox.errors import VendorError
from keygate.sandbox.model import Vendor

HTTP_OF = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}
RPC_OF = {409: "ABORTED", **{code: rpc for rpc, code in HTTP_OF.items() if rpc not in {"FAILED_PRECONDITION", "ALREADY_EXISTS", "ABORTED"}}}


class GoogleError(VendorError):
    """What Google answers instead of doing it; `rpc` is the status by name."""

    def __init__(self, rpc: str, message: str, *, reason: str | None = None, domain: str = "googleapis.com", **metadata: str) -> None:
        super().__init__(HTTP_OF[rpc], message)
        self.rpc = rpc
        self.reason = reason
        self.domain = domain
        self.metadata = metadata

    def body(self, vendor: Vendor, request_id: str) -> dict[str, Any]:  # noqa: ARG002  (Google's bodies name neither)
        return {"error": {"code": self.status, "message": self.message, "status": self.rpc, "details": self.details()}}

    def details(self) -> list[dict[str, Any]]:
        if self.reason is None:
            return []
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        return [{"@type": kind, "reason": self.reason, "domain": self.domain, "metadata": self.metadata}]


class OAuthError(VendorError):
    """The token endpoint's own shape (RFC 6749 section 5.2)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(400, description)
        self.error = error

    def body(self, vendor: Vendor, request_id: str) -> dict[str, Any]:  # noqa: ARG002  (the same for every vendor of the sandbox)
        return {"error": self.error, "error_description": self.message}


def invalid(message: str) -> GoogleError:
    return GoogleError("INVALID_ARGUMENT", message)


def no_such(what: str) -> GoogleError:
    return GoogleError("NOT_FOUND", f"{what[:200]} does not exist.")


def exists(what: str) -> GoogleError:
    return GoogleError("ALREADY_EXISTS", f"{what[:200]} already exists.")


def precondition(message: str) -> GoogleError:
    return GoogleError("FAILED_PRECONDITION", message)


def denied(permission: str, resource: str) -> GoogleError:
    message = f"Permission '{permission}' denied on resource '{resource}' (or it may not exist)."
    return GoogleError(
        "PERMISSION_DENIED", message, reason="IAM_PERMISSION_DENIED", domain="iam.googleapis.com", permission=permission, resource=resource
    )


def service_disabled(service: str, project: str) -> GoogleError:
    message = f"{service} has not been used in project {project} before or it is disabled."
    return GoogleError("PERMISSION_DENIED", message, reason="SERVICE_DISABLED", consumer=f"projects/{project}", service=service)


def unauthenticated(message: str = "Request had invalid authentication credentials.") -> GoogleError:
    return GoogleError("UNAUTHENTICATED", message)
