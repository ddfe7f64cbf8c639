"""The admin APIs that the sandbox has. A new one is a file or folder beside this one and a line here."""

from __future__ import annotations

from keygate.sandbox.admin.api import AdminApi
from keygate.sandbox.admin.google import GoogleAdmin
from keygate.sandbox.admin.openai import OpenAIAdmin

APIS: tuple[AdminApi, ...] = (OpenAIAdmin(), GoogleAdmin())
