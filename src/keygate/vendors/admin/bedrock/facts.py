"""Bedrock in data: what its API keys can, what they can't, which rights they take."""

from __future__ import annotations

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

FACTS = ProvisionerFacts(
    vendor="bedrock",
    title="AWS Bedrock",
    hosts={"iam": "https://iam.amazonaws.com", "sts": "https://sts.amazonaws.com"},
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
    },
    options={"age_days": "whole days after which IAM itself ends the key, where your account's policy wants that (1 to 36600)"},
    base_url_env="AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    cannot={
        "budget": "AWS caps no spend and bills Bedrock by account, not by IAM user: give an owner an AWS account of their own, or a "
        "virtual key, which has a budget",
        "requests_per_minute": "Bedrock's quotas are the account's: a virtual key has limits of its own",
        "tokens_per_minute": "Bedrock's quotas are the account's: a virtual key has limits of its own",
        "scopes": "KeyGate's policy allows invoking models and nothing else",
        "last use": "IAM does not tell when a service-specific credential was used: an old key is cut after the overlap, or by hand",
    },
    rights=RIGHTS,
    max_keys_per_container=2,
    sources={
        "calls and bounds": "botocore 1.44.6, iam 2010-05-08; tests/vendors/admin/test_bedrock.py",
        "two keys a user, bedrock:CallWithBearerToken": "docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_bedrock.html, "
        "read 2026-11-20",
        "5,000 users": "IAM's default quota, from memory: not verified; the account's own is read by GetAccountSummary",
        "end by policy": "IAM User Guide, condition key aws:CurrentTime with DateLessThan, from memory: not verified with an account",
        "revoke delay": "IAM is eventually consistent; no bound is published",
        "short-term keys": "AWS recommends keys of at most 12 hours for production (docs.aws.amazon.com, read 2026-11-20): KeyGate "
        "issues long-term ones, bounded by policy",
        "calls_per_minute": "IAM's rates are not published: not verified",
    },
)
