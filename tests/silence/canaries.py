"""Marked secrets, and a search for them in anything: whole or in pieces, as they are or encoded the ways that programs encode."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

_PIECE = 12  # characters: shorter than any cut-off secret that is still of use, longer than what could stand anywhere by chance


@dataclass(frozen=True, slots=True)
class Canary:
    """`value` must not be found outside; its first `public` characters may. `guessable`: its plain digest must not be found either."""

    name: str
    value: str
    public: int = 0
    guessable: bool = False

    def pieces(self) -> Iterator[str]:
        secret = self.value[self.public :]
        for start in range(0, max(1, len(secret) - _PIECE + 1), _PIECE):
            yield secret[start : start + _PIECE]
        yield secret[-_PIECE:]


def marked(length: int = 30) -> str:
    """Random base62, unlike anything else."""
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _base64(piece: bytes) -> Iterator[bytes]:
    """How the piece looks inside a longer base64 text, at each of the three offsets; both alphabets."""
    for offset, skipped in enumerate((0, 2, 3)):
        text = base64.b64encode(b"\0" * offset + piece)[skipped : (offset + len(piece)) * 8 // 6]
        yield text
        yield text.translate(bytes.maketrans(b"+/", b"-_"))


def forms(canary: Canary) -> Iterator[tuple[str, bytes]]:
    for piece in canary.pieces():
        raw = piece.encode()
        yield "plain", raw
        yield "UTF-16", piece.encode("utf-16-le")
        yield "Latin-1", piece.encode("latin-1", "replace") if piece.isascii() else raw
        yield "hexadecimal", raw.hex().encode()
        yield "hexadecimal", raw.hex().upper().encode()
        yield "reversed", raw[::-1]
        for text in _base64(raw):
            yield "base64", text
        yield "Base32", base64.b32encode(raw)[: len(raw) * 8 // 5 - 1]
        for text in (quote(piece, safe=""), quote_plus(piece), quote(piece)):
            yield "URL-encoded", text.encode()
            yield "URL-encoded", text.lower().encode()
        yield "JSON", json.dumps(piece)[1:-1].encode()
        yield "JSON", json.dumps(piece, ensure_ascii=False)[1:-1].encode()
        yield "JSON twice", json.dumps(json.dumps(piece))[3:-3].encode()
        yield "repr", repr(piece)[1:-1].encode()
        yield "repr of bytes", repr(raw)[2:-1].encode()
    if canary.guessable:
        for algorithm in ("md5", "sha1", "sha256", "sha512"):
            found = hashlib.new(algorithm, canary.value.encode()).digest()
            yield f"{algorithm} without a key", found
            yield f"{algorithm} without a key", found.hex().encode()
            yield f"{algorithm} without a key", base64.b64encode(found)[:-2]


@dataclass(slots=True)
class Evidence:
    """Everything that came out, by where it was seen, with the canaries that may stand there."""

    canaries: dict[str, Canary] = field(default_factory=dict)
    seen: list[tuple[str, bytes, frozenset[str]]] = field(default_factory=list)

    def mark(self, name: str, value: str, *, public: int = 0, guessable: bool = False) -> str:
        self.canaries[name] = Canary(name, value, public, guessable)
        return value

    def add(self, where: str, data: bytes | str, *, allowed: Iterable[str] = ()) -> None:
        self.seen.append((where, data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data, frozenset(allowed)))

    def leaks(self) -> list[str]:
        """`where: which secret (in which form) … what stands around it`, each once."""
        wanted: dict[str, dict[bytes, str]] = {}
        for name, canary in self.canaries.items():
            for form, text in forms(canary):
                wanted.setdefault(name, {}).setdefault(text, form)  # many look the same in several forms: searched for once
        found = []
        for where, data, allowed in self.seen:
            for name, texts in wanted.items():
                hit = None if name in allowed else next(((text, form) for text, form in texts.items() if text in data), None)
                if hit is not None:
                    at = data.index(hit[0])
                    found.append(f"{where}: {name} ({hit[1]}) … {data[max(0, at - 200) : at + 60]!r}")
        return found
