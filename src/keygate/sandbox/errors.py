"""Errors as the vendors word them: status, body and headers.

Sources: the official SDKs (classes by status, bodies by `error.type`). The wording follows the vendors' error pages from memory: it was not
compared with them.
"""

from __future__ import annotations

from typing import Any

from keygate.sandbox.model import KeyStatus, Vendor


class VendorError(Exception):
    """What the vendor answers instead of serving."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self, vendor: Vendor, request_id: str) -> dict[str, Any]:
        if vendor is Vendor.OPENAI:
            kind = self.kind or _OPENAI_KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
            return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
        if vendor is Vendor.OPENROUTER:
            return {"error": {"code": self.status, "message": self.message}}
        if vendor is Vendor.XAI:
            return {"code": self.code or _XAI_KINDS.get(self.status, "The request is invalid"), "error": self.message}
        if vendor is Vendor.AZURE:
            return {"error": {"code": self.code or str(self.status), "message": self.message}}
        if vendor is Vendor.BEDROCK:
            return {"message": self.message}
        if vendor is Vendor.GOOGLE:
            rpc = _GOOGLE_KINDS.get(self.status, "INVALID_ARGUMENT" if self.status < 500 else "INTERNAL")
            return {"error": {"code": self.status, "message": self.message, "status": rpc}}
        kind = self.kind or _ANTHROPIC_KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}, "request_id": request_id}


_OPENAI_KINDS = {402: "insufficient_quota", 429: "requests"}
_ANTHROPIC_KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_XAI_KINDS = {401: "unauthenticated", 403: "permission_denied", 404: "not_found", 429: "resource_exhausted"}
_GOOGLE_KINDS = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def no_key(vendor: Vendor) -> VendorError:
    if vendor is Vendor.GOOGLE:
        message = "Method doesn't allow unregistered callers (callers without established identity)."
        return VendorError(403, f"{message} Please use API Key or other form of API consumer identity to call this API.")
    if vendor is Vendor.OPENAI:
        return VendorError(
            401, "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth."
        )
    return VendorError(401, "No auth credentials found" if vendor is Vendor.OPENROUTER else "x-api-key header is required")


def bad_key(vendor: Vendor) -> VendorError:
    if vendor is Vendor.GOOGLE:
        return VendorError(400, "API key not valid. Please pass a valid API key.")
    if vendor is Vendor.OPENAI:
        return VendorError(401, "Incorrect API key provided.", code="invalid_api_key")
    return VendorError(401, "User not found." if vendor is Vendor.OPENROUTER else "invalid x-api-key")


def key_refused(vendor: Vendor, status: KeyStatus) -> VendorError | None:
    """Why a key of this status isn't served; None: it is."""
    openai = vendor is Vendor.OPENAI
    if vendor is Vendor.OPENROUTER and status is KeyStatus.OUT_OF_QUOTA:
        return VendorError(402, "Insufficient credits.")
    if vendor is Vendor.GOOGLE and status in {KeyStatus.OUT_OF_QUOTA, KeyStatus.RATE_LIMITED}:
        return VendorError(429, "You exceeded your current quota, please check your plan and billing details.")
    match status:
        case KeyStatus.VALID:
            return None
        case KeyStatus.REVOKED:
            return bad_key(vendor)
        case KeyStatus.FORBIDDEN if openai:
            return VendorError(403, "Your project does not have access to this resource.", code="permission_denied")
        case KeyStatus.FORBIDDEN:
            return VendorError(403, "Your API key does not have permission to use the specified resource.")
        case KeyStatus.OUT_OF_QUOTA if openai:
            message = "You exceeded your current quota, please check your plan and billing details."
            return VendorError(429, message, kind="insufficient_quota", code="insufficient_quota")
        case KeyStatus.OUT_OF_QUOTA:
            return VendorError(400, "Your credit balance is too low to access the Anthropic API.")
        case KeyStatus.RATE_LIMITED if openai:
            return VendorError(429, "Rate limit reached for requests.", kind="requests", code="rate_limit_exceeded", retry_after="1")
    return VendorError(429, "This request would exceed your organization's rate limit.", retry_after="1")


def no_model(vendor: Vendor, name: str) -> VendorError:
    if vendor is Vendor.OPENAI:
        message = f"The model `{name[:200]}` does not exist or you do not have access to it."
        return VendorError(404, message, kind="invalid_request_error", code="model_not_found")
    if vendor is Vendor.GOOGLE:
        message = (
            f"models/{name[:200]} is not found, or is not supported for this method. Call ListModels to see the list of available models."
        )
        return VendorError(404, message)
    return VendorError(404, f"model: {name[:200]}")


def no_path(vendor: Vendor, method: str, path: str) -> VendorError:
    message = f"Invalid URL ({method} {path[:200]})" if vendor is Vendor.OPENAI else "Not found"
    return VendorError(404, message)


def invalid(message: str, param: str | None = None, *, code: str | None = None) -> VendorError:
    return VendorError(400, message, param=param, code=code)
