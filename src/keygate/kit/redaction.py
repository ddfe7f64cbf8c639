"""What looks like a secret is blacked out of text that people wrote or libraries made. The last line of defence, behind `Secret`:
for a key that somebody pastes where an id belongs, and for traces."""

from __future__ import annotations

import re

_LOOKS_SECRET = re.compile(
    r"(?:\bsk-[A-Za-z0-9_-]{12,}|\bokap_[0-9A-Za-z]{12,}|\bkg[a-z]_[0-9A-Za-z]{12,}|(?i:\bbearer\s+)[^\s\"',]{8,}|(?<=://)[^/@\s:]+:[^/@\s]+(?=@))"
)


def redact(text: str) -> str:
    return _LOOKS_SECRET.sub("[redacted]", text)
