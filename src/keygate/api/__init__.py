"""Assembly of the control plane."""

from keygate.api.app import create_app

__all__ = ["create_app"]
