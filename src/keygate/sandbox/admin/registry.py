"""The admin APIs that the sandbox has. A new one is a file or folder beside this one and a line here."""

from __future__ import annotations

from keygate.sandbox.admin.anthropic import AnthropicAdmin
from keygate.sandbox.admin.api import AdminApi
from keygate.sandbox.admin.aws import AwsAdmin
from keygate.sandbox.admin.azure import AzureAdmin
from keygate.sandbox.admin.google import GoogleAdmin
from keygate.sandbox.admin.openai import OpenAIAdmin
from keygate.sandbox.admin.openrouter import OpenRouterAdmin
from keygate.sandbox.admin.xai import XaiAdmin

APIS: tuple[AdminApi, ...] = (
    OpenAIAdmin(),
    AnthropicAdmin(),
    OpenRouterAdmin(),
    GoogleAdmin(),
    AzureAdmin(),
    AwsAdmin(),
    XaiAdmin(),
)
