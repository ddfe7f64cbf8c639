"""What can be said of a vendor, as data. One file per vendor beside this one; `registry.py` lists them.

A vendor file states facts with their source and the date they were checked. It imports no area and no sibling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class EndpointGroup(StrEnum):
    """What a policy allows or denies. One word per kind of use, across vendors."""

    CHAT = "chat"  # OpenAI chat completions, Anthropic messages
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MODERATIONS = "moderations"
    MODELS = "models"
    COUNT_TOKENS = "count_tokens"


class Dialect(StrEnum):
    """The wire language of one endpoint: how its body is read, its usage found, its refusals worded."""

    OPENAI_CHAT = "openai_chat"
    OPENAI_COMPLETIONS = "openai_completions"
    OPENAI_RESPONSES = "openai_responses"
    OPENAI_INPUT_TOKENS = "openai_input_tokens"
    OPENAI_EMBEDDINGS = "openai_embeddings"
    OPENAI_MODERATIONS = "openai_moderations"
    OPENAI_MODELS = "openai_models"
    ANTHROPIC_MESSAGES = "anthropic_messages"
    ANTHROPIC_COUNT_TOKENS = "anthropic_count_tokens"
    ANTHROPIC_MODELS = "anthropic_models"


class ErrorStyle(StrEnum):
    """The shape of an error body."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Auth(StrEnum):
    """How the vendor wants its own key."""

    BEARER = "bearer"
    X_API_KEY = "x-api-key"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One served operation. `path` is below the mount, in the vendor's own spelling: `/v1/chat/completions`, `/v1/models/{model}`."""

    method: str
    path: str
    group: EndpointGroup
    dialect: Dialect
    billed: bool = True
    local: bool = False  # answered by the gateway itself (lists of models), never forwarded


@dataclass(frozen=True, slots=True)
class Vendor:
    name: str  # `openai`: the mount, the policy prefix, the id everywhere
    title: str  # `OpenAI`
    sdk_base_url: str  # the API root as the vendor's own SDK has it by default
    root_path: str  # what `sdk_base_url` already contains of an endpoint's path: `/v1` for OpenAI, `` for Anthropic
    auth: Auth
    error_style: ErrorStyle
    endpoints: tuple[Endpoint, ...]
    credential_env: tuple[str, ...]  # variables under which the vendor's own SDK looks for a key
    client_env: tuple[
        tuple[str, str], ...
    ]  # what a client exports: ("OPENAI_BASE_URL", "{public_url}/openai/v1"), ("OPENAI_API_KEY", "{key}")
    caller_headers: frozenset[str]  # request headers that name the caller's own vendor organisation: stripped, lower case
    refused: tuple[tuple[str, str], ...] = ()  # (path prefix, what it is): known, not served yet, refused by name
    model_prefixes: tuple[str, ...] = ()  # bare model names that this vendor owns: `gpt-`, `claude-`
    facts: dict[str, str] = field(default_factory=dict)  # fact → source and date
