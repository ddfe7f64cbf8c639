"""Bedrock's provisioner."""

from keygate.vendors.admin.bedrock.provisioner import BEDROCK_ADMIN

__all__ = ["BEDROCK_ADMIN"]
