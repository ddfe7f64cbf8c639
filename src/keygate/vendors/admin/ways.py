"""Which way to a key is open at each vendor, and why: KeyGate makes it, people make it by hand and KeyGate keeps it, or neither.

What a vendor's API can do says nothing of what KeyGate does with it: both are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from keygate.vendors.admin.adopted import ADOPTIONS, KeyApi, no_virtual_key
from keygate.vendors.admin.registry import PROVISIONERS


class Way(StrEnum):
    MADE = "made"  # KeyGate makes, limits and revokes keys there
    BY_HAND = "by_hand"  # a person makes a key there, and enters it in KeyGate
    NONE = "none"  # KeyGate does nothing with keys of this vendor


@dataclass(frozen=True, slots=True)
class Unused:
    """A vendor whose API makes keys, with which KeyGate does nothing. `why`: for people, what its API does, and what KeyGate lacks."""

    vendor: str
    title: str
    why: str
    sources: Mapping[str, str]


_UNUSED = (
    Unused(
        vendor="elevenlabs",
        title="ElevenLabs",
        why="ElevenLabs has an API that makes and disables keys of service accounts, with a monthly limit of characters, permissions, "
        "addresses and an end; KeyGate does not use it yet, and keeps no keys of ElevenLabs that were made by hand",
        sources={"key API": "elevenlabs 2.78.0, read 2026-11-20"},
    ),
    Unused(
        vendor="litellm",
        title="LiteLLM",
        why="LiteLLM is a proxy whose own API makes keys, with a budget, an end, models and limits of requests and tokens, by its master "
        "key; KeyGate does not use it yet, and keeps no keys of LiteLLM that were made by hand",
        sources={"key API": "docs.litellm.ai/docs/proxy/virtual_keys, read 2026-11-20"},
    ),
)
UNUSED: dict[str, Unused] = {each.vendor: each for each in _UNUSED}


@dataclass(frozen=True, slots=True)
class KeyWay:
    """`vendor_api`: whether the vendor's own API makes keys. `instead`: what to do, as the command line has it."""

    way: Way
    vendor_api: KeyApi
    why: str
    instead: str
    sources: Mapping[str, str]


def way_of(vendor: str) -> KeyWay | None:
    """None: KeyGate knows nothing of keys at this vendor."""
    if (unused := UNUSED.get(vendor)) is not None:
        instead = f"make a key with {unused.title}'s own tools; {no_virtual_key(unused.vendor, unused.title)}"
        return KeyWay(Way.NONE, KeyApi.YES, unused.why, instead, unused.sources)
    if (adoption := ADOPTIONS.get(vendor)) is not None:
        return KeyWay(Way.BY_HAND, adoption.key_api, adoption.why, adoption.instead, adoption.sources)
    if (provisioner := PROVISIONERS.get(vendor)) is None:
        return None
    facts = provisioner.facts
    lacking = facts.cannot.get("create")
    return KeyWay(
        Way.MADE,
        KeyApi.YES if lacking is None else KeyApi.NO,
        lacking or f"{facts.title}'s API makes keys, and KeyGate uses it with an admin credential of yours",
        f"`keygate vendors configure {vendor}`, then `keygate provision --vendor {vendor}`",
        {},
    )


def why_none(vendor: str) -> str | None:
    """Why KeyGate neither makes nor keeps keys of this vendor, and what to do instead; None: it does, or does not know it."""
    found = way_of(vendor)
    return f"{found.why}; {found.instead}" if found is not None and found.way is Way.NONE else None
