"""Azure OpenAI in data: what it can, what it can't, which rights it takes."""

from __future__ import annotations

from keygate.vendors.admin.bills import SpendFacts
from keygate.vendors.admin.interface import ProvisionerFacts, Term

PREFIX = "Microsoft.CognitiveServices"
UNIT = 1000  # tokens per minute in one unit of capacity
DEFAULT_CAPACITY = 10
ACCOUNTS = f"{PREFIX}/accounts"
DELETED = f"{PREFIX}/locations/resourceGroups/deletedAccounts"
RIGHTS = {
    f"{ACCOUNTS}/read": "find and read accounts",
    f"{ACCOUNTS}/write": "create accounts, switch their keys off and on, remember generations in tags",
    f"{ACCOUNTS}/delete": "delete an account",
    f"{ACCOUNTS}/listKeys/action": "hand a key out, and see that an old one is gone",
    f"{ACCOUNTS}/regenerateKey/action": "revoke a key",
    f"{ACCOUNTS}/deployments/read": "read limits back",
    f"{ACCOUNTS}/deployments/write": "deploy models with their capacity",
    f"{ACCOUNTS}/deployments/delete": "take a model away",
    f"{PREFIX}/locations/usages/read": "tell how many accounts are left before one is made",
    f"{PREFIX}/deletedAccounts/read": "see that a deleted account was purged",
    f"{DELETED}/delete": "purge a deleted account, which counts against the ceiling for 48 hours otherwise",
    "Microsoft.CostManagement/query/action": "import costs",
}

SPEND_FACTS = SpendFacts(
    bucket_seconds=86_400,
    delay_seconds=24 * 3600,
    restated_days=34,
    per_key=False,
    means="what Azure bills for the key's Cognitive Services account, both of its keys together, by meter and day",
    window_days=35,  # Microsoft suggests few queries, and throttles by what they process
)
FACTS = ProvisionerFacts(
    vendor="azure",
    title="Azure OpenAI",
    hosts={"management": "https://management.azure.com", "login": "https://login.microsoftonline.com"},
    admin_key_env=("AZURE_CLIENT_SECRET",),
    admin_key_form="the client secret of an app registration (Entra ID) that has a role on the resource group",
    confirms=frozenset({Term.MODELS, Term.TOKENS_PER_MINUTE}),
    needs={Term.MODELS: "name those to deploy, as Azure names them (`gpt-4o-mini`): it has no `all models`"},
    tells_last_use=False,
    revoke_delay_seconds=0,
    container="Cognitive Services account",
    lists_keys=False,
    ceiling=30,
    calls_per_minute=120,
    settings={
        "tenant": "directory (tenant) id (required)",
        "client_id": "application (client) id (required)",
        "subscription": "subscription id (required)",
        "resource_group": "resource group that the accounts are made in (required)",
        "region": "region of the accounts: eastus (required)",
    },
    options={
        "sku": "deployment type: GlobalStandard (default), DataZoneStandard, Standard",
        "region": "another region than the setting's",
    },
    base_url_env="AZURE_OPENAI_ENDPOINT",
    cannot={
        "budget": "Azure caps no spend: KeyGate watches the cost data, which is up to a day late, and switches the account's keys off",
        "requests_per_minute": "Azure derives requests from the capacity, by model",
        "expiry": "Azure's keys don't expire: KeyGate regenerates them at the end",
        "scopes": "a key opens every deployment of its account; KeyGate makes an account for each owner",
        "last use": "Azure does not tell when a key was used: an old key is cut after the overlap, or by hand",
        "30 accounts a region": "use another region or subscription, have the quota raised, or give out a virtual key instead",
    },
    rights=RIGHTS,
    max_keys_per_container=2,
    sources={
        "calls and bodies": "azure-mgmt-cognitiveservices 14.1.0, azure-mgmt-costmanagement 5.0.0; tests/vendors/admin/test_azure.py",
        "30 accounts, 32 deployments": "learn.microsoft.com/azure/ai-services/openai/quotas-limits, read 2026-11-20; the quota's name "
        "OpenAI.S0.AccountCount and that deleted accounts count: users' reports, read 2026-11-26",
        "regenerated keys stop at once": "learn.microsoft.com/azure/cognitive-services/rotate-keys, read 2026-11-20; not measured",
        "1,000 tokens a unit": "learn.microsoft.com/azure/foundry-classic/openai/how-to/quota, read 2026-11-20: `commonly`",
        "cost data": "learn.microsoft.com/azure/cost-management-billing/costs/manage-automation, read 2026-11-20: refreshed about every "
        "four hours; a day late at most, and restated until the bill closes: not verified",
        "calls_per_minute": "not published for this resource provider: not verified",
        "permissions": "Microsoft.Authorization, Permissions - List For Resource Group, from memory: not verified",
    },
)
