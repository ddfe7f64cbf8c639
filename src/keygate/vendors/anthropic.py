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
    caller_headers=frozenset({"anthropic-workspace-id", "anthropic-organization-id", "anthropic-user-profile-id"}),
    # By the first segment below /v1: every one that anthropic 2.8.0 `anthropic/resources/` has.
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
        ("/v1/deployment_runs", "deployments"),
        ("/v1/dreams", "dreams"),
        ("/v1/tunnels", "tunnels"),
        ("/v1/user_profiles", "user profiles"),
        ("/v1/vaults", "vaults"),
        ("/v1/organizations", "the administration API"),
        ("/v1/organization", "the administration API"),
        ("/v1/responses", "responses (not an API of this vendor)"),
        ("/v1/embeddings", "embeddings (not an API of this vendor)"),
    ),
    model_prefixes=("claude-",),
    facts={
        "root, paths": "anthropic 2.8.0 `_client.py` and `resources/`, read 2026-11-21; SDK calls through the gateway: tests/sdks",
        "x-api-key": "anthropic 0.125.0 `_client.py` sends it for an API key; 2.8.0 (anthropic-version 2026-10-21) sends Bearer and lets "
        "x-api-key stand in for it; read 2026-11-21; that the API takes x-api-key under every version was not verified",
        "headers of the caller's account": "anthropic 2.8.0 `resources/messages/messages.py`: workspace, and the user profile that a "
        "request is attributed to; the organisation is in answers (`_tracing.py`) and stripped to be sure; read 2026-11-21",
        "/v1/chat/completions": "platform.claude.com/docs/en/api/openai-sdk as public copies have it, read 2026-11-21: "
        "max_completion_tokens and stream_options fully supported, n must be exactly 1; the live page was not seen",
        "count_tokens is free of charge": 'Anthropic on token counting: "Token counting is free to use", as public copies quote it, '
        "read 2026-11-21; the live page was not seen",
    },
)
