"""Azure OpenAI's provisioner."""

from keygate.vendors.admin.azure.provisioner import AZURE_ADMIN

__all__ = ["AZURE_ADMIN"]
