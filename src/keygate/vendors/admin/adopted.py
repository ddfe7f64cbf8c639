"""Vendors whose keys people make by hand, as their API makes none or KeyGate does not use it: what KeyGate says of each, why, and what it
can still do with such a key.

Such a key can be asked whether it lives (a call that costs nothing, made with the key itself) and nothing else: its end is a checklist
for a person. `revoke` fails with that checklist until the vendor refuses the key, so that nothing is called revoked before it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from keygate.vendors.admin.errors import AdminKeyRefused, Rejected
from keygate.vendors.admin.interface import (
    Desk,
    Footprint,
    Found,
    Made,
    Mark,
    Order,
    Presence,
    ProvisionerFacts,
    Reading,
    Right,
    Verification,
)
from keygate.vendors.registry import VENDORS

_LIVES = "the key answers"


class KeyApi(StrEnum):
    """Whether a vendor's own API makes keys, whatever KeyGate does with it."""

    YES = "yes"
    PREVIEW = "preview"  # for some customers only
    PARTLY = "partly"  # it makes keys that nothing can list or limit
    NO = "no"
    NONE_KNOWN = "none_known"  # none was found; that there is none is not verified


def no_virtual_key(vendor: str, title: str) -> str:
    """What of a virtual key in place of a key of the vendor's."""
    if vendor in VENDORS:
        return "or use a virtual key, which KeyGate can limit and revoke by itself"
    return f"KeyGate's gateway does not serve {title}, so a virtual key can't stand in for it"


@dataclass(frozen=True, slots=True)
class Adoption:
    """`why`: for people, why KeyGate makes no keys there. `key_api`: whether the vendor's API would. `console`: where people make them.
    `probe`: a path below `api` that a living key gets with 200, and a dead one with `refused`. `ends_there`: keys can be given an end
    there; None: not known."""

    vendor: str
    title: str
    key_api: KeyApi
    why: str
    console: str
    api: str
    probe: str
    key_env: str
    base_url_env: str | None
    prefix: str = ""  # how its keys begin; empty: not known
    ends_there: bool | None = None
    refused: frozenset[int] = frozenset({401})
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def instead(self) -> str:
        """What to do, as KeyGate makes none."""
        enter = f"make one by hand at {self.console} and enter it: `keygate inventory enter {self.vendor}`"
        return f"{enter}; {no_virtual_key(self.vendor, self.title)}"

    @property
    def checklist(self) -> tuple[str, ...]:
        """Rotation by hand, in an order that interrupts nothing."""
        end = "; give it an end there too" if self.ends_there else ""
        return (
            f"Make a new key at {self.console}{end}",
            "Enter the new key in KeyGate and hand it over",
            f"Put it in place of the old one wherever {self.key_env} is set, and see that it is used",
            f"Delete the old key at {self.console}",
            "KeyGate asks the vendor with the old key until it is refused, and only then calls it revoked",
        )


_ADOPTIONS = (
    Adoption(
        vendor="groq",
        title="Groq",
        key_api=KeyApi.NONE_KNOWN,
        why="no API of Groq's that makes keys is known",
        console="https://console.groq.com/keys",
        api="https://api.groq.com/openai/v1",
        probe="/models",
        key_env="GROQ_API_KEY",
        base_url_env="GROQ_BASE_URL",
        prefix="gsk_",
        sources={"no key API": "groq 1.7.0 has none, read 2026-11-20; that none exists is not verified"},
    ),
    Adoption(
        vendor="cohere",
        title="Cohere",
        key_api=KeyApi.NONE_KNOWN,
        why="no API of Cohere's that makes keys is known",
        console="https://dashboard.cohere.com/api-keys",
        api="https://api.cohere.com",
        probe="/v1/models?page_size=1",
        key_env="CO_API_KEY",
        base_url_env="CO_API_URL",
        sources={"no key API": "cohere 7.3.1 has none, read 2026-11-20; that none exists is not verified"},
    ),
    Adoption(
        vendor="together",
        title="Together AI",
        key_api=KeyApi.NO,
        why="Together's keys are made in its web pages only, for a project, with an end",
        console="https://api.together.ai/settings/projects/~current/api-keys",
        api="https://api.together.xyz",
        probe="/v1/models",
        key_env="TOGETHER_API_KEY",
        base_url_env="TOGETHER_BASE_URL",
        ends_there=True,
        sources={
            "keys in the web pages, with an end": "docs.together.ai/docs/api-keys-authentication.md and together 3.1.1, read 2026-11-20"
        },
    ),
    Adoption(
        vendor="huggingface",
        title="Hugging Face",
        key_api=KeyApi.NONE_KNOWN,
        why="Hugging Face's tokens are made by each person in their settings; tokens of an organisation are deprecated, and no API that "
        "makes tokens is known",
        console="https://huggingface.co/settings/tokens",
        api="https://huggingface.co",
        probe="/api/whoami-v2",
        key_env="HF_TOKEN",
        base_url_env=None,
        prefix="hf_",
        sources={
            "tokens in the settings": "huggingface.co/docs/hub/security-tokens and huggingface_hub 2.4.0, read 2026-11-20; "
            "what Enterprise adds is not verified"
        },
    ),
    Adoption(
        vendor="mistral",
        title="Mistral",
        key_api=KeyApi.PREVIEW,
        why="Mistral's admin API is an Enterprise preview that KeyGate does not use yet; other accounts make keys in the console",
        console="https://console.mistral.ai/api-keys",
        api="https://api.mistral.ai",
        probe="/v1/models",
        key_env="MISTRAL_API_KEY",
        base_url_env=None,
        ends_there=True,
        sources={"admin API is an Enterprise preview": "docs.mistral.ai/admin/admin-api/overview and mistralai 3.7.0, read 2026-11-20"},
    ),
    Adoption(
        vendor="perplexity",
        title="Perplexity",
        key_api=KeyApi.PARTLY,
        why="Perplexity's calls for keys have no list, no limit and no scope, and need a key's text to end it: KeyGate does not use them",
        console="https://www.perplexity.ai/account/api/keys",
        api="https://api.perplexity.ai",
        probe="/async/chat/completions?limit=1",
        key_env="PERPLEXITY_API_KEY",
        base_url_env="PERPLEXITY_BASE_URL",
        prefix="pplx-",
        sources={
            "generate_auth_token, revoke_auth_token": "docs.perplexity.ai/openapi-auth.json and "
            "…/docs/admin/api-key-management.md, read 2026-11-20",
            "the probe": "perplexityai 0.46.1 lists requests there; that it costs nothing is not verified",
        },
    ),
    Adoption(
        vendor="fireworks",
        title="Fireworks AI",
        key_api=KeyApi.YES,
        why="Fireworks has an API that makes keys of a user, with an end and, as far as is known, no spend limit; KeyGate does not use it "
        "yet",
        console="https://app.fireworks.ai/settings/users/api-keys",
        api="https://api.fireworks.ai",
        probe="/inference/v1/models",
        key_env="FIREWORKS_API_KEY",
        base_url_env="FIREWORKS_BASE_URL",
        prefix="fw_",
        ends_there=True,
        sources={"key API": "fireworks-ai 1.2.28 `resources/api_keys.py`, read 2026-11-20"},
    ),
)
ADOPTIONS: dict[str, Adoption] = {each.vendor: each for each in _ADOPTIONS}


class AdoptOnly:
    """A vendor at which KeyGate makes no keys. The admin credential of its desk is the adopted key itself."""

    def __init__(self, adoption: Adoption) -> None:
        self.adoption = adoption
        self._facts = ProvisionerFacts(
            vendor=adoption.vendor,
            title=adoption.title,
            hosts={"api": adoption.api},
            admin_key_env=(adoption.key_env,),
            admin_key_form=f"a key that was made at {adoption.console}",
            confirms=frozenset(),
            tells_last_use=False,
            revoke_delay_seconds=None,
            container="",
            ceiling=None,
            calls_per_minute=10,
            base_url_env=adoption.base_url_env,
            cannot={
                "create": f"{adoption.why}; {adoption.instead}",
                "revoke": f"a person deletes the key at {adoption.console}; KeyGate checks with the key itself that it is refused",
                "budget, limits, models": f"KeyGate sets nothing there; {no_virtual_key(adoption.vendor, adoption.title)}",
                "last use, spend per key": "KeyGate reads neither there",
            },
            rights={_LIVES: "see whether the vendor still takes the key"},
            adopt_only=True,
            sources=adoption.sources,
        )

    @property
    def facts(self) -> ProvisionerFacts:
        return self._facts

    async def verify(self, desk: Desk) -> Verification:
        if not await self._lives(desk):
            raise AdminKeyRefused(f"{self.adoption.title} does not take this key; enter one that it does")
        return Verification((Right(_LIVES, held=True, needed_for=self._facts.rights[_LIVES]),))

    async def create(self, desk: Desk, order: Order) -> Made:  # noqa: ARG002  (as the protocol has it)
        raise Rejected(self._facts.cannot["create"])

    async def find(self, desk: Desk, mark: Mark) -> tuple[Found, ...]:  # noqa: ARG002  (as the protocol has it)
        return ()  # KeyGate made nothing here

    async def read(self, desk: Desk, footprint: Footprint) -> Reading:  # noqa: ARG002  (as the protocol has it)
        return Reading(Presence.LIVE if await self._lives(desk) else Presence.GONE)

    async def revoke(self, desk: Desk, footprint: Footprint) -> None:  # noqa: ARG002  (as the protocol has it)
        if await self._lives(desk):
            raise Rejected(f"{self.adoption.title} still takes the key, and only a person can end it: delete it at {self.adoption.console}")

    async def _lives(self, desk: Desk) -> bool:
        """Whether the vendor takes the key. Raises where its answer tells neither."""
        what = "see whether the key lives"
        accept = {*self.adoption.refused, 403}
        headers = {"authorization": f"Bearer {desk.admin.open()}"}
        answer = await desk.http.call("GET", f"{desk.base()}{self.adoption.probe}", what=what, right=_LIVES, headers=headers, accept=accept)
        return answer.status not in self.adoption.refused


ADOPTED: tuple[AdoptOnly, ...] = tuple(AdoptOnly(each) for each in _ADOPTIONS)
