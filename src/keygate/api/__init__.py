"""Assembly of the control plane."""

from keygate.api.app import create_app, openapi_document

__all__ = ["create_app", "openapi_document"]
