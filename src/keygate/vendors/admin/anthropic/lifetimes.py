"""How long an identity token may live, so that nothing it is traded for outlives the key. Pure.

Anthropic's access tokens live `max(60, min(rule's lifetime, 2 × what is left of the identity token))` seconds (`facts.sources`), and nobody
can take one back. So an identity token ends before its key does: what is traded for it in its last moment ends in time too.
"""

from __future__ import annotations

from keygate.kit.clock import NANOSECONDS
from keygate.vendors.admin.anthropic.facts import ACCESS_SECONDS

SHORTEST_ACCESS_SECONDS = 60
SHORTEST_KEY_SECONDS = 75  # a token lives that minute, and the key has to be made first
_MARGIN_SECONDS = ACCESS_SECONDS // 2  # a token traded when so much of the identity token is left lives on longest after it


def identity_ends(now_ns: int, *, longest_seconds: int, key_ends_ns: int | None) -> int | None:
    """When an identity token signed now ends, in whole seconds. None: the key ends so soon that no token would end in time."""
    seconds = longest_seconds
    if key_ends_ns is not None:
        left = (key_ends_ns - now_ns) // NANOSECONDS - 1  # both sides count whole seconds
        seconds = min(seconds, max(left // 2, left - _MARGIN_SECONDS), left - SHORTEST_ACCESS_SECONDS)
    if seconds < 1:
        return None
    return (now_ns // NANOSECONDS + seconds) * NANOSECONDS
