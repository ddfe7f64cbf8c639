"""What Google's admin APIs can do with keys of the Gemini API, as data."""

from __future__ import annotations

from keygate.vendors.admin.bills import SpendFacts
from keygate.vendors.admin.interface import ProvisionerFacts, Term

GEMINI = "generativelanguage.googleapis.com"
VERTEX = "aiplatform.googleapis.com"
VERTEX_ROLE = "roles/aiplatform.user"
NO_BOUND_KEYS = "iam.managed.disableServiceAccountApiKeyCreation"

RIGHTS = {
    "resourcemanager.projects.get": "find the project",
    "serviceusage.services.get": "see that the Gemini API is enabled",
    "iam.serviceAccounts.create": "make an owner's service account",
    "iam.serviceAccounts.get": "find and read it",
    "iam.serviceAccounts.list": "the inventory",
    "iam.serviceAccounts.update": "rename it",
    "iam.serviceAccounts.disable": "the kill switch",
    "iam.serviceAccounts.enable": "take the kill switch back",
    "iam.serviceAccounts.delete": "clear up after a key's end",
    "iam.serviceAccountApiKeyBindings.create": "bind a key to its service account",
    "apikeys.keys.create": "make a key",
    "apikeys.keys.get": "read a key back",
    "apikeys.keys.getKeyString": "hand the key over",
    "apikeys.keys.list": "find keys, and the inventory",
    "apikeys.keys.update": "rename a key",
    "apikeys.keys.delete": "revoke a key",
}
PROJECT_RIGHTS = {
    "resourcemanager.projects.create": "make a project of its own for each owner",
    "resourcemanager.projects.delete": "clear up after a key's end",
    "resourcemanager.projects.list": "the inventory",
    "serviceusage.services.enable": "enable the Gemini API in it",
    "resourcemanager.projects.createBillingAssignment": "have it paid for",
    "serviceusage.quotas.get": "read its quota back",
    "serviceusage.quotas.update": "set its requests per minute",
}
ROLE_RIGHTS = {
    "resourcemanager.projects.getIamPolicy": "read who has which role in the project",
    "resourcemanager.projects.setIamPolicy": "give a service account its role",
}
BILLING_RIGHTS = {
    "billing.resourceAssociations.create": "have a project paid for",
    "billing.budgets.create": "set a spend cap",
    "billing.budgets.get": "read a spend cap back",
    "billing.budgets.list": "find a spend cap",
    "billing.budgets.update": "change a spend cap",
    "billing.budgets.delete": "remove a spend cap",
}
JOBS, DATA = "bigquery.jobs.create", "bigquery.tables.getData"
SPEND_RIGHTS = {JOBS: "query the billing export", DATA: "read the billing export's table"}  # only where that is set
EXPORT_SETTING = "billing_export_table"
SPEND_OFF = (
    "Google has no API that tells costs: switch Cloud Billing's export to BigQuery on (standard or detailed usage cost) and set "
    f"`{EXPORT_SETTING}` to its table, project.dataset.gcp_billing_export_v1_…; it tells projects and no keys, so keys need a project of "
    "their own (`parent`) to be told apart"
)
SPEND_FACTS = SpendFacts(
    bucket_seconds=86_400,
    delay_seconds=None,
    restated_days=35,
    per_key=False,
    means="what Google bills for the key's own project by SKU and UTC day, before credits and taxes; what keys of a shared project used "
    "can't be told apart by key and counts for none",
    every_seconds=14_400,
    window_days=40,  # one query reads all that may still change: queries cost by what they read
)

FACTS = ProvisionerFacts(
    vendor="google",
    title="Google",
    hosts={
        "gemini": f"https://{GEMINI}",
        **{
            name: f"https://{name}.googleapis.com"
            for name in (
                "oauth2",
                "iam",
                "apikeys",
                "cloudresourcemanager",
                "orgpolicy",
                "serviceusage",
                "cloudbilling",
                "billingbudgets",
                "bigquery",
            )
        },
    },
    admin_key_env=("GOOGLE_ADMIN_CREDENTIALS",),
    admin_key_form="the JSON key file of a service account that may administer service accounts and API keys",
    confirms=frozenset({Term.BUDGET, Term.REQUESTS_PER_MINUTE, Term.SCOPES}),
    tells_last_use=False,
    revoke_delay_seconds=None,
    container="service account",
    ceiling=100,
    calls_per_minute=100,
    base_url_env="GOOGLE_GEMINI_BASE_URL",
    settings={
        "project": "the project in which service accounts and keys are made (required)",
        "parent": "folders/… or organizations/…: each key gets a project of its own there, which budgets and rate limits need",
        "service": f"the API that keys are for: {GEMINI} (default) or {VERTEX}",
        "role": f"the IAM role that each key's service account is given in its project; for {VERTEX} {VERTEX_ROLE} is the default",
        "billing_service": "the Gemini API's id in the billing catalogue, where it is not found there by its title",
        "billing_account": "the billing account that pays for such projects: 012345-6789AB-CDEF01",
        EXPORT_SETTING: "the table of Cloud Billing's export to BigQuery, to read costs from: project.dataset.gcp_billing_export_v1_…",
    },
    options={"allowed_ips": "addresses from which the key may be used, separated by commas"},
    cannot={
        "models": "Google's key restrictions know services and methods, not models: use a virtual key where models must be limited",
        "tokens_per_minute": "Google counts input tokens per project and model only: use a virtual key",
        "expiry": "Google's keys have no end: KeyGate revokes the key when its lease ends",
        "budget without a project of its own": "Google caps the spend of projects: set `parent` and `billing_account`",
        f"budget and requests per minute of {VERTEX}": "KeyGate sets them for the Gemini API only",
        f"keys of {VERTEX} at once": "a role is in force two minutes after it was given, or later, says Google",
        "budget per day or week": "Google's spend caps are monthly",
        "last use": "uses of such keys are not recorded in the service account's metrics: an old key can't be shown unused",
        "spend of a key in a shared project": f"Google's bill tells projects, no keys: set `parent`, and `{EXPORT_SETTING}` for the bill",
        "disabling one key": "Google has no verb for it: KeyGate disables the service account, which stops its keys at once",
    },
    rights={**RIGHTS, **PROJECT_RIGHTS, **ROLE_RIGHTS, **BILLING_RIGHTS, **SPEND_RIGHTS},
    max_keys_per_container=None,
    sources={
        "methods, fields, LROs, spend caps, disable is immediate": "discovery documents in google-api-python-client 2.202.0 "
        "(iam.v1 20261023, apikeys.v2 20260818, cloudresourcemanager.v3 20261107, serviceusage.v1beta1 20260921, "
        "billingbudgets.v1 20261011), read 2026-11-26",
        "rights to make a key; keys are bound to service accounts; uses are not in its metrics": "ai.google.dev/gemini-api/docs/api-key "
        "as a public copy quotes it, read 2026-11-26",
        "organisation policy": f"{NO_BOUND_KEYS} is enforced by default, the Gemini API excepted by `allowedServices`: "
        "public projects' notes, read 2026-11-26; the parameter's exact form is not verified with Google",
        "100 service accounts in a project": "widely quoted, not verified",
        "120 writes and 240 reads a minute (API keys)": "docs.cloud.google.com/api-keys/docs/quotas.md.txt, read 2026-11-20",
        "columns of the billing export; no delay is promised; loads are atomic": "docs.cloud.google.com/billing/docs/how-to/"
        "export-data-bigquery-tables, read 2026-11-26; until when it is restated: not verified",
        "names of the Gemini API and of Vertex AI in the billing export": "not verified; `billing_service` names the former by its id",
        "that lists of models don't count against requests per minute": "by the metric's name, generate_content_requests; not verified: if "
        "they do, KeyGate's proof that a key of one request a minute works, or doesn't, takes a minute",
        "names of the Gemini API's quota metric and of its service in the billing catalogue": "not verified; both are looked for in the "
        "lists that Google answers, and an order that needs one that is not there is refused",
    },
)
