"""The vendors at which KeyGate makes keys. A new one is a file beside this one and a line here."""

from __future__ import annotations

from keygate.vendors.admin.google import GoogleProvisioner
from keygate.vendors.admin.interface import Provisioner
from keygate.vendors.admin.openai import OPENAI_ADMIN
from keygate.vendors.admin.xai import XaiProvisioner

_ALL: tuple[Provisioner, ...] = (
    OPENAI_ADMIN,
    GoogleProvisioner(),
    XaiProvisioner(),
)

PROVISIONERS: dict[str, Provisioner] = {each.facts.vendor: each for each in _ALL}
