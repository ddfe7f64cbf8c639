"""What is true of Anthropic's organization API, with sources."""

from __future__ import annotations

from keygate.vendors.admin.bills import SpendFacts
from keygate.vendors.admin.interface import ProvisionerFacts, Term

KEYS_READ, KEYS_WRITE = "api_keys:read", "api_keys:write"
WORKSPACES_READ, WORKSPACES_WRITE = "workspaces:read", "workspaces:write"
USAGE, BILLING, ADMIN = "usage:read", "billing:write", "org:admin"

VERSION = "2026-10-21"
AUDIENCE = "https://api.anthropic.com"
ADMIN_SUBJECT = "keygate:admin"
RULE_SETTING, ORGANIZATION_SETTING, ACCOUNT_SETTING = "federation_rule_id", "organization_id", "service_account_id"
ACCESS_SECONDS = 600  # life of an access token: how long one works on after its rule is gone
LONGEST_IDENTITY_SECONDS = 176_400  # 49 hours: the most that an issuer may allow

ANTHROPIC_SPEND = SpendFacts(
    bucket_seconds=86_400,
    delay_seconds=None,
    restated_days=3,
    per_key=True,
    means="what Anthropic bills for a key by model; use of federated tokens has no key and is told by the workspace, which each has alone",
    reach_days=365,
)

ANTHROPIC_FACTS = ProvisionerFacts(
    vendor="anthropic",
    title="Anthropic",
    hosts={"api": "https://api.anthropic.com"},
    admin_key_env=("ANTHROPIC_ADMIN_KEY",),
    admin_key_form="an Admin key (sk-ant-admin…), made in the Console by an organization admin",
    confirms=frozenset({Term.REQUESTS_PER_MINUTE}),
    confirms_for_some={Term.BUDGET: "organizations that Anthropic has let into its early access to spend limits by API"},
    tells_last_use=False,
    revoke_delay_seconds=ACCESS_SECONDS,
    container="workspace",
    adopts=True,
    ceiling=100,
    calls_per_minute=120,
    base_url_env="ANTHROPIC_BASE_URL",
    settings={
        ORGANIZATION_SETTING: "the organization's id (a UUID), for making keys",
        RULE_SETTING: f"for making keys: a federation rule made in the Console that trades KeyGate's tokens of the subject {ADMIN_SUBJECT} "
        f"for {ADMIN}, with KeyGate's key set given inline",
        ACCOUNT_SETTING: "the service account that this rule targets, where it is to be pinned",
    },
    cannot={
        "create": "Anthropic's API makes no keys: KeyGate issues identity tokens that Anthropic trades for access tokens "
        "(settings organization_id and federation_rule_id), or a key made in the Console is entered",
        "budget": "setting a workspace's spend limit by API is an early access that Anthropic grants on request: KeyGate sets it where "
        "`keygate vendors verify` has seen that the organization has it, and watches the spend where not",
        "models": "a workspace has no list of permitted models; a virtual key has one",
        "tokens_per_minute": "Anthropic limits input and output tokens apart; a virtual key limits them together",
        "scopes": "a federation rule grants inference and nothing else",
        "a secret that lasts": "an identity token lives 49 hours at most, and ends five minutes before its key; fetch a fresh one "
        "before that",
        "expiry": "Anthropic knows no end of a rule: KeyGate signs no token that outlives the key, and archives everything when it ends",
        "last use": "the API does not tell when a key was used last",
    },
    rights={
        KEYS_READ: "find and read keys made by hand",
        KEYS_WRITE: "rename, switch off and end keys made by hand",
        WORKSPACES_READ: "find workspaces and read their limits",
        WORKSPACES_WRITE: "create, limit and archive workspaces",
        USAGE: "read costs",
        ADMIN: "create service accounts and federation rules (an OAuth bearer; Admin keys are refused there)",
    },
    sources={
        "no key creation": "anthropic 2.11.0 resources/organization/api_keys.py, read 2026-11-20",
        "service accounts and rules refuse Admin keys": "platform.claude.com/docs/de/manage-claude/admin-api-keys.md, read 2026-11-20",
        "rules of org:admin are made in the Console": "anthropic 2.8.0 types/…/federation/rule_create_params.py, read 2026-11-26",
        "life of access tokens: max(60, min(rule, 2 × what is left of the identity token))": "the same",
        "archived rules reject exchanges at once, access tokens live on": "anthropic 2.8.0, docstrings of federation rules",
        "100 workspaces": "platform.claude.com/docs/manage-claude/workspaces, read 2026-11-20",
        "rate limits take up to an hour": "anthropic 2.8.0 resources/organization/workspaces/rate_limits.py",
        "the audience that Anthropic expects": "unverified: KeyGate's rules name it themselves, which overrides the vendor's default",
        "a service account that is no member of a workspace gets no token for it": "unverified: the switch of keys that KeyGate made",
        "archiving a workspace ends access tokens too": "documented for keys only: unverified",
        "archived keys can't be made active again": "the Console says that deletion is permanent; of the API unverified",
        "spend limits by API": "anthropic 2.11.0 resources/beta/organization/spend_limits/ and platform.claude.com/docs/en/api/cli/beta/"
        "organization/spend_limits.md: 403 without the early access; that an empty order is told 400 with it is unverified",
        "names of rights": "Admin keys have no scopes that are published, but org:admin: the other names are ours",
        "calls a minute": "not published; our own choice",
    },
)
