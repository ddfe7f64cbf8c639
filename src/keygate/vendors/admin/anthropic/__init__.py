"""Keys at Anthropic: KeyGate as an issuer of identity tokens; keys made by hand, adopted."""

from keygate.vendors.admin.anthropic.provisioner import ANTHROPIC_ADMIN, AnthropicProvisioner

__all__ = ["ANTHROPIC_ADMIN", "AnthropicProvisioner"]
