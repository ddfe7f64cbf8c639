"""Bedrock in data: what its API keys can, what they can't, which rights they take."""

from __future__ import annotations

from keygate.vendors.admin.bills import SpendFacts
from keygate.vendors.admin.interface import ProvisionerFacts, Term

SERVICE = "bedrock.amazonaws.com"
PATH = "/keygate/"  # of every user that KeyGate makes: rights can be bounded to `arn:aws:iam::*:user/keygate/*`
POLICY = "keygate"
RIGHTS = {
    "iam:GetUser": "find an owner's user",
    "iam:CreateUser": "make a user for each owner",
    "iam:TagUser": "remember generations",
    "iam:UntagUser": "forget revoked keys",
    "iam:PutUserPolicy": "set which models a key may use, and until when",
    "iam:GetUserPolicy": "read that back",
    "iam:CreateServiceSpecificCredential": "make a key",
    "iam:ListServiceSpecificCredentials": "see whether a key works or is gone",
    "iam:UpdateServiceSpecificCredential": "switch a key off and on",
    "iam:DeleteServiceSpecificCredential": "revoke a key",
    "iam:DeleteUserPolicy": "remove a user",
    "iam:ListUserPolicies": "remove a user",
    "iam:DeleteUser": "remove a user",
    "iam:ListUsers": "take inventory",
    "iam:GetAccountSummary": "tell how many users are left before one is made",
    "iam:SimulatePrincipalPolicy": "name missing rights before anything is made",
}
COSTS, TAGS = "ce:GetCostAndUsage", "ce:ListCostAllocationTags"
SPEND_RIGHTS = {COSTS: "read what keys cost", TAGS: "see whether costs can be told by key"}  # only where the setting is on
COST_SETTING = "cost_explorer"
KEY_TAG = "keygate-id"  # of every user that KeyGate makes: the issued key's id
COST_TAG = f"iamPrincipal/{KEY_TAG}"  # the same, as the bill has it
SPEND_OFF = (
    f"AWS bills Bedrock by IAM user only where that is switched on: activate the cost allocation tag {KEY_TAG} of IAM principals in AWS's "
    f"Billing console, then set `{COST_SETTING}` to `on`; each reading of the bill is two calls of 0.01 USD at AWS, about 1.20 USD a month"
)
NOT_BY_KEY = (
    f"costs can't be told by key yet, and no budget can be watched: activate the cost allocation tag {KEY_TAG} of IAM principals in AWS's "
    "Billing console (in an organisation the payer's), where it stands up to a day after the first call of such a key; costs from before "
    "stay among the unknown"
)
UNASKED = (
    "no key can be asked whether it works, as `base_url` is not AWS's and `runtime_url` (where clients call Bedrock) is not set: a key is "
    "handed out, and called revoked, by IAM's word alone"
)
SPEND_FACTS = SpendFacts(
    bucket_seconds=86_400,
    delay_seconds=48 * 3600,
    restated_days=35,
    per_key=False,
    means="what AWS bills for calls of the key's IAM user by model and UTC day, both keys of a rotation together, before credits and "
    "taxes; nothing of days before the cost allocation tag was active",
    every_seconds=43_200,
    window_days=40,  # one call reads all that may still change: calls cost money
)

FACTS = ProvisionerFacts(
    vendor="bedrock",
    title="AWS Bedrock",
    hosts={
        "iam": "https://iam.amazonaws.com",
        "sts": "https://sts.amazonaws.com",
        "runtime": "https://bedrock-runtime.{region}.amazonaws.com",
        "ce": "https://ce.us-east-1.amazonaws.com",
    },
    admin_key_env=("AWS_SECRET_ACCESS_KEY",),
    admin_key_form="the secret access key of an IAM user of KeyGate's own; its access key id goes into the settings",
    confirms=frozenset({Term.MODELS, Term.EXPIRY}),
    tells_last_use=False,
    revoke_delay_seconds=None,
    container="IAM user",
    ceiling=5000,
    calls_per_minute=120,
    settings={
        "access_key_id": "access key id of the secret (required)",
        "region": "region that clients call Bedrock in: us-east-1 (required)",
        "signing_region": "region that IAM's calls are signed for, outside of the standard partition: cn-north-1, us-gov-west-1",
        "partition": "aws (default), aws-cn, aws-us-gov",
        "runtime_url": "where clients call Bedrock, if `base_url` is not AWS's (a sandbox, a proxy); else it follows from the region",
        COST_SETTING: "`on`: read what each key's IAM user costs from Cost Explorer, twice a day; AWS charges 0.01 USD a call",
    },
    options={"age_days": "whole days after which IAM itself ends the key, where your account's policy wants that (1 to 36600)"},
    base_url_env="AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    cannot={
        "budget": "AWS caps no spend: with Cost Explorer switched on KeyGate watches what the key's IAM user costs, a day or two late, and "
        "disables the key; a virtual key's budget is hard",
        "requests_per_minute": "Bedrock's quotas are the account's: a virtual key has limits of its own",
        "tokens_per_minute": "Bedrock's quotas are the account's: a virtual key has limits of its own",
        "scopes": "KeyGate's policy allows invoking models and nothing else",
        "last use": "IAM does not tell when a service-specific credential was used: an old key is cut after the overlap, or by hand",
    },
    rights={**RIGHTS, **SPEND_RIGHTS},
    max_keys_per_container=2,
    sources={
        "calls and bounds": "botocore 1.44.6, iam 2010-05-08; tests/vendors/admin/test_bedrock.py",
        "two keys a user, bedrock:CallWithBearerToken": "docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_bedrock.html, "
        "read 2026-11-20",
        "5,000 users": "IAM's default quota, from memory: not verified; the account's own is read by GetAccountSummary",
        "end by policy": "IAM User Guide, condition key aws:CurrentTime with DateLessThan, from memory: not verified with an account",
        "a key that is not known is refused before the call is read": "wording of refusals from users' reports: unverified",
        "costs by IAM user and its tags, API keys too": "aws.amazon.com/blogs/machine-learning/"
        "introducing-granular-cost-attribution-for-amazon-bedrock and docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/"
        "iam-principal-cost-allocation.html, as public copies have them, read 2026-11-26",
        "GetCostAndUsage, product attributes of Bedrock since 2026-09-01": "botocore 1.44.6, ce 2017-10-25",
        "grouping by iamPrincipal/…": "calls and answers in public notes of who tried it, read 2026-11-26; not verified with an account",
        "that a user's tags may be grouped with a product attribute": "any two kinds may, says botocore's description; not verified",
        "delay and restatement of costs": "24 to 48 hours, say AWS's posts; until the month's bill is closed: not verified",
        "0.01 USD a call": "aws.amazon.com/aws-cost-management/pricing, from memory: not verified",
        "names of record types": "as public examples have them: not verified",
        "revoke delay": "IAM is eventually consistent; no bound is published",
        "short-term keys": "AWS recommends keys of at most 12 hours for production (docs.aws.amazon.com, read 2026-11-20): KeyGate "
        "issues long-term ones, bounded by policy",
        "calls_per_minute": "IAM's rates are not published: not verified",
    },
)
