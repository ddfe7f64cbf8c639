"""The vendors that KeyGate serves. A new vendor is a file beside this one and a line here."""

from __future__ import annotations

from keygate.vendors.anthropic import ANTHROPIC
from keygate.vendors.model import Vendor
from keygate.vendors.openai import OPENAI

VENDORS: dict[str, Vendor] = {vendor.name: vendor for vendor in (OPENAI, ANTHROPIC)}


def owner_of(model: str) -> Vendor | None:
    """The one vendor that owns this bare model name, by its prefix."""
    for vendor in VENDORS.values():
        if model.startswith(vendor.model_prefixes):
            return vendor
    return None


def split_model(model: str) -> tuple[Vendor | None, str]:
    """`anthropic/claude-…` → (Anthropic, `claude-…`); a bare name → (its owner or None, the name)."""
    name, slash, bare = model.partition("/")
    if slash and bare and name in VENDORS:
        return VENDORS[name], bare
    return owner_of(model), model
