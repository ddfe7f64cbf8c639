"""The vendors at which KeyGate makes keys. A new one is a file beside this one and a line here."""

from __future__ import annotations

from keygate.vendors.admin.interface import Provisioner
from keygate.vendors.admin.openai import OPENAI_ADMIN

_ALL: tuple[Provisioner, ...] = (OPENAI_ADMIN,)

PROVISIONERS: dict[str, Provisioner] = {provisioner.facts.vendor: provisioner for provisioner in _ALL}
