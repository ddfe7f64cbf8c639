"""Anthropic."""

from __future__ import annotations

from keygate.vendors.model import Auth, Dialect, Endpoint, EndpointGroup, ErrorStyle, Vendor

ANTHROPIC = Vendor(
    name="anthropic",
    title="Anthropic",
    sdk_base_url="https://api.anthropic.com",
    root_path="",
    auth=Auth.X_API_KEY,
    error_style=ErrorStyle.ANTHROPIC,
    endpoints=(
        Endpoint("POST", "/v1/messages", EndpointGroup.CHAT, Dialect.ANTHROPIC_MESSAGES),
        Endpoint("POST", "/v1/messages/count_tokens", EndpointGroup.COUNT_TOKENS, Dialect.ANTHROPIC_COUNT_TOKENS, billed=False),
        Endpoint("POST", "/v1/chat/completions", EndpointGroup.CHAT, Dialect.OPENAI_CHAT),
        Endpoint("GET", "/v1/models", EndpointGroup.MODELS, Dialect.ANTHROPIC_MODELS, billed=False, local=True),
        Endpoint("GET", "/v1/models/{model}", EndpointGroup.MODELS, Dialect.ANTHROPIC_MODELS, billed=False, local=True),
    ),
    credential_env=("ANTHROPIC_API_KEY",),
    client_env=(("ANTHROPIC_BASE_URL", "{public_url}/anthropic"), ("ANTHROPIC_API_KEY", "{key}")),
    caller_headers=frozenset({"anthropic-workspace-id", "anthropic-organization-id"}),
    # By the first segment below /v1, as in anthropic 2.11.0 `anthropic/resources/`.
    refused=(
        ("/v1/messages/batches", "message batches"),
        ("/v1/complete", "text completions"),
        ("/v1/files", "files"),
        ("/v1/skills", "skills"),
        ("/v1/agents", "agents"),
        ("/v1/sessions", "sessions"),
        ("/v1/environments", "environments"),
        ("/v1/memory_stores", "memory stores"),
        ("/v1/deployments", "deployments"),
        ("/v1/vaults", "vaults"),
        ("/v1/organizations", "the administration API"),
        ("/v1/organization", "the administration API"),
        ("/v1/responses", "responses (not an API of this vendor)"),
        ("/v1/embeddings", "embeddings (not an API of this vendor)"),
    ),
    model_prefixes=("claude-",),
    facts={
        "root, paths": "anthropic 2.11.0 `_client.py`, seen on the wire, 2026-11-20",
        "x-api-key": "the form that every anthropic-version takes; new SDKs send Bearer, 2026-11-20",
        "/v1/chat/completions": "https://docs.claude.com/en/api/openai-sdk: max_completion_tokens and stream_options work, n must be 1",
        "count_tokens is free of charge": "https://docs.claude.com/en/docs/build-with-claude/token-counting, 2026-11-20",
    },
)
