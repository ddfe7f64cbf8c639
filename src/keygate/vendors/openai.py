"""OpenAI."""

from __future__ import annotations

from keygate.vendors.model import Auth, Dialect, Endpoint, EndpointGroup, ErrorStyle, Vendor

OPENAI = Vendor(
    name="openai",
    title="OpenAI",
    sdk_base_url="https://api.openai.com/v1",
    root_path="/v1",
    auth=Auth.BEARER,
    error_style=ErrorStyle.OPENAI,
    endpoints=(
        Endpoint("POST", "/v1/chat/completions", EndpointGroup.CHAT, Dialect.OPENAI_CHAT),
        Endpoint("POST", "/v1/completions", EndpointGroup.COMPLETIONS, Dialect.OPENAI_COMPLETIONS),
        Endpoint("POST", "/v1/responses", EndpointGroup.RESPONSES, Dialect.OPENAI_RESPONSES),
        Endpoint("POST", "/v1/responses/input_tokens", EndpointGroup.COUNT_TOKENS, Dialect.OPENAI_INPUT_TOKENS, billed=False),
        Endpoint("POST", "/v1/embeddings", EndpointGroup.EMBEDDINGS, Dialect.OPENAI_EMBEDDINGS),
        Endpoint("POST", "/v1/moderations", EndpointGroup.MODERATIONS, Dialect.OPENAI_MODERATIONS, billed=False),
        Endpoint("GET", "/v1/models", EndpointGroup.MODELS, Dialect.OPENAI_MODELS, billed=False, local=True),
        Endpoint("GET", "/v1/models/{model}", EndpointGroup.MODELS, Dialect.OPENAI_MODELS, billed=False, local=True),
    ),
    credential_env=("OPENAI_API_KEY",),
    client_env=(("OPENAI_BASE_URL", "{public_url}/openai/v1"), ("OPENAI_API_KEY", "{key}")),
    caller_headers=frozenset({"openai-organization", "openai-project"}),
    # By the first segment below /v1: every one that openai 3.51.0 `openai/resources/` or openai-openapi (openapi.json 2.3.0) has.
    refused=(
        ("/v1/responses/", "stored responses (read, delete, cancel, compact)"),
        ("/v1/chat/completions/", "stored chat completions"),
        ("/v1/files", "files"),
        ("/v1/uploads", "uploads"),
        ("/v1/batches", "batches"),
        ("/v1/audio", "audio (speech, transcription, translation)"),
        ("/v1/images", "images"),
        ("/v1/videos", "videos"),
        ("/v1/realtime", "realtime"),
        ("/v1/live", "live sessions"),
        ("/v1/fine_tuning", "fine-tuning"),
        ("/v1/assistants", "assistants"),
        ("/v1/threads", "threads"),
        ("/v1/vector_stores", "vector stores"),
        ("/v1/conversations", "conversations"),
        ("/v1/containers", "containers"),
        ("/v1/evals", "evals"),
        ("/v1/graders", "graders"),
        ("/v1/skills", "skills"),
        ("/v1/agents", "agents"),
        ("/v1/vaults", "vaults"),
        ("/v1/chatkit", "ChatKit"),
        ("/v1/decisions", "decisions"),
        ("/v1/safety", "safety"),
        ("/v1/content_provenance_checks", "content provenance checks"),
        ("/v1/webhook_endpoints", "webhook endpoints"),
        ("/v1/webhook_event_types", "webhook endpoints"),
        ("/v1/organization", "the administration API"),
        ("/v1/projects", "the administration API"),
        ("/v1/admin", "the administration API"),
    ),
    model_prefixes=(
        "gpt-",
        "chatgpt-",
        "o1",
        "o3",
        "o4",
        "text-embedding-",
        "omni-moderation-",
        "text-moderation-",
        "davinci-",
        "babbage-",
        "computer-use-",
        "codex-",
        "ft:",
    ),
    facts={
        "root, paths, Bearer, OpenAI-Organization and OpenAI-Project": "openai 3.51.0 `_client.py`, read 2026-11-21; the paths are also in "
        "openai-openapi, openapi.json 2.3.0; SDK calls through the gateway: tests/sdks",
        "POST /v1/responses/input_tokens": "openai 3.51.0 `resources/responses/input_tokens.py` and openapi.json 2.3.0, read 2026-11-21; "
        "that it is free says OpenAI's developer forum (topic 1380071), its guide names no price: not verified with OpenAI",
        "moderations are free of charge": 'OpenAI on moderation: "The moderation endpoint is free to use", as public copies quote it, '
        "read 2026-11-21; the live page was not seen",
        "model_prefixes": "openai 3.51.0 `types/shared/chat_model.py` and genai-prices 0.2.3, read 2026-11-21; fine-tuned names by `ft:`",
    },
)
