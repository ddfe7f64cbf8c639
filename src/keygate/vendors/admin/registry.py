"""The vendors at which KeyGate makes keys. A new one is a file beside this one and a line here."""

from __future__ import annotations

from keygate.vendors.admin.adopted import ADOPTED
from keygate.vendors.admin.anthropic import ANTHROPIC_ADMIN
from keygate.vendors.admin.azure import AZURE_ADMIN
from keygate.vendors.admin.bedrock import BEDROCK_ADMIN
from keygate.vendors.admin.google import GoogleProvisioner
from keygate.vendors.admin.interface import Provisioner
from keygate.vendors.admin.openai import OPENAI_ADMIN
from keygate.vendors.admin.openrouter import OPENROUTER_ADMIN
from keygate.vendors.admin.xai import XaiProvisioner

_ALL: tuple[Provisioner, ...] = (
    OPENAI_ADMIN,
    ANTHROPIC_ADMIN,
    OPENROUTER_ADMIN,
    GoogleProvisioner(),
    XaiProvisioner(),
    AZURE_ADMIN,
    BEDROCK_ADMIN,
    *ADOPTED,
)

PROVISIONERS: dict[str, Provisioner] = {each.facts.vendor: each for each in _ALL}
