"""Text that people or vendors wrote: what looks like a secret is blacked out of it, what is an id stays."""

from __future__ import annotations

import pytest

from keygate.kit.redaction import redact

DIGITS = "0a1B2c3D4e5F6g7H8i9J" * 5
SECRETS = {
    "KeyGate's token": f"kga_{DIGITS[:43]}",
    "one-time link": f"kgl_{DIGITS[:43]}",
    "grant": f"okap_{DIGITS[:43]}",
    "OpenAI": f"sk-svcacct-{DIGITS[:40]}",
    "Anthropic": f"sk-ant-api03-{DIGITS[:40]}-_A",
    "OpenRouter": f"sk-or-v1-{DIGITS[:40]}",
    "xAI": f"xai-{DIGITS[:40]}",
    "Perplexity": f"pplx-{DIGITS[:40]}",
    "Groq": f"gsk_{DIGITS[:40]}",
    "Hugging Face": f"hf_{DIGITS[:30]}",
    "Google": f"AIza{DIGITS[:35]}",
    "Google, bound": f"AQ.{DIGITS[:40]}",
    "Google's access token": f"ya29.{DIGITS[:40]}",
    "Bedrock": f"ABSK{DIGITS[:60]}+/==",
    "Azure": DIGITS[:84],
    "sandbox": f"sandbox-openai-svcacct-{DIGITS[:40]}",
    "identity token": f"eyJ{DIGITS[:20]}.eyJ{DIGITS[:40]}.{DIGITS[:60]}-_",
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("around", ["%s", "the key %s is not known", '{"key": "%s"}', "/keys/%s/revoke", "key=%s&x=1"])
def test_secret_is_blacked_out_whatever_stands_around_it(name: str, around: str) -> None:
    shown = redact(around % SECRETS[name])
    assert SECRETS[name][-12:] not in shown
    assert "[redacted]" in shown


@pytest.mark.parametrize(
    "text",
    [
        "ik_03548H9vi8WrOhrds3k8hT",
        "va_03548H9vi8WrOhrds3k8hU/cred_03548H9vi8WrOhrds3k8hV",
        "kg-agrbmmfmzjwtnbxa5k2rmsq65a@sandbox-project.iam.gserviceaccount.com",
        "b2be970ce4d2a3a64d3246e9988cacd695309878084761511ea535377e88867f",  # OpenRouter's id of a key
        "proj_abcdefghijklmnopqrstuvwx, svcac_0123456789, rl-gpt-4.1-mini, fdrl_7bc3a03aac2140f9bd680698",
        "Microsoft.CognitiveServices/locations/resourceGroups/deletedAccounts/delete",
        "anthropic.claude-haiku-4-5-20251001-v1:0",
    ],
)
def test_names_and_ids_stay(text: str) -> None:
    assert redact(text) == text


def test_password_in_an_address_and_what_follows_bearer_are_blacked_out() -> None:
    assert redact("postgresql://keygate:hunter2@db/keys") == "postgresql://[redacted]@db/keys"
    assert redact("Authorization: Bearer abcdefgh12") == "Authorization: [redacted]"
