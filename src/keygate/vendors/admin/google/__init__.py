"""Google: keys of the Gemini API that are bound to service accounts."""

from keygate.vendors.admin.google.provisioner import GoogleProvisioner

__all__ = ["GoogleProvisioner"]
