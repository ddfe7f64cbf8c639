"""The vendor credentials in use: which one a request takes, and everything about it that can be made ready beforehand."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import final
from urllib.parse import urlsplit

from keygate.gateway.connector import Connector
from keygate.gateway.ports import CredentialSource, UpstreamCredential
from keygate.gateway.upstream import Origin, Pool
from keygate.vendors import Auth, Vendor

log = logging.getLogger("keygate.gateway")

_MAX_CHOICES = 10_000


@final
class Target:
    """A credential made ready: where to connect, and the lines of a request's head that do not change."""

    __slots__ = ("_after", "_before", "credential_id", "heads", "models", "pool", "spellings", "vendor", "weight")

    def __init__(self, credential: UpstreamCredential, vendor: Vendor, connector: Connector) -> None:
        parts = urlsplit(credential.base_url)
        tls = parts.scheme == "https"
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("the base URL is not an http(s) address")
        port = parts.port or (443 if tls else 80)
        secret = credential.secret.open().encode("latin-1")
        if not secret or any(byte < 33 or byte == 127 for byte in secret):
            raise ValueError("the secret can't stand in a header")
        origin = Origin(parts.hostname, port, tls)
        authority = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        if port != (443 if tls else 80):
            authority = f"{authority}:{port}"
        self.credential_id = credential.id
        self.vendor = credential.vendor
        self.models = credential.models
        self.spellings = _spellings(secret)
        self.weight = max(1, credential.weight)
        self.pool: Pool = connector.pool(origin)
        self.heads: dict[tuple[bytes, bytes, bytes], bytes] = {}
        proxy = None if tls else connector.proxy_for(origin)
        root = f"http://{authority}" if proxy is not None else ""
        self._before = root.encode() + parts.path.rstrip("/").encode()
        name = b"authorization: Bearer " if vendor.auth is Auth.BEARER else f"{vendor.auth.value}: ".encode()
        self._after = b"host: %b\r\n%b%b\r\naccept-encoding: identity\r\n" % (authority.encode(), name, secret)
        if proxy is not None and proxy.authorization is not None:
            self._after += b"proxy-authorization: " + proxy.authorization + b"\r\n"

    def head(self, method: bytes, path: bytes, query: bytes) -> bytes:
        """The request line and our own header lines; `path` is below the API root, `query` without its `?`."""
        head = self.heads.get((method, path, query))
        if head is None:
            target = self._before + path + (b"?" + query if query else b"")
            head = b"%b %b HTTP/1.1\r\n%b" % (method, target, self._after)
            if len(self.heads) < 64:
                self.heads[method, path, query] = head
        return head


def _spellings(secret: bytes) -> tuple[bytes, ...]:
    """How a vendor's JSON may repeat the secret, the longest first."""
    escaped = json.dumps(secret.decode("latin-1"))[1:-1].encode()
    return tuple(sorted({secret, escaped, escaped.replace(b"/", b"\\/")}, key=len, reverse=True))


@final
class Choice:
    """The credentials that serve one model of one organisation, taken in proportion to their weights, evenly spread."""

    __slots__ = ("_current", "_total", "targets")

    def __init__(self, targets: Sequence[Target]) -> None:
        self.targets = targets
        self._current = [0] * len(targets)
        self._total = sum(target.weight for target in targets)

    def next(self) -> Target:
        """Smooth weighted round robin (nginx, commit 52327e0, 2012): the most owed goes next, then owes the total."""
        targets = self.targets
        if len(targets) == 1:
            return targets[0]
        current = self._current
        best = 0
        for index, target in enumerate(targets):
            current[index] += target.weight
            if current[index] > current[best]:
                best = index
        current[best] -= self._total
        return targets[best]


@final
class CredentialBook:
    """All credentials, whole: a load replaces the former one only when it has succeeded."""

    def __init__(self, source: CredentialSource, connector: Connector, vendors: Mapping[str, Vendor]) -> None:
        self._source = source
        self._connector = connector
        self._vendors = vendors
        self._targets: dict[tuple[str, str], list[Target]] = {}
        self._choices: dict[tuple[str, str, str], Choice | None] = {}
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        async with self._lock:  # loads finish in the order in which they began
            self._replace(await self._source.load())

    def _replace(self, credentials: Iterable[UpstreamCredential]) -> None:
        targets: dict[tuple[str, str], list[Target]] = {}
        for credential in credentials:
            vendor = self._vendors.get(credential.vendor)
            if vendor is None:
                continue
            try:
                target = Target(credential, vendor, self._connector)
            except ValueError as error:
                log.warning("credential %s is left out: %s", credential.id, error)
                continue
            targets.setdefault((credential.organization_id, credential.vendor), []).append(target)
        self._targets = targets
        self._choices = {}

    def pick(self, organization_id: str, vendor: str, model: str) -> Target | None:
        """None: the organisation has no credential for this model."""
        question = (organization_id, vendor, model)
        try:
            choice = self._choices[question]
        except KeyError:
            fitting = self._fitting(organization_id, vendor, model)
            choice = Choice(fitting) if fitting else None
            if len(self._choices) >= _MAX_CHOICES:
                self._choices = {}
            self._choices[question] = choice
        return choice.next() if choice is not None else None

    def serves(self, organization_id: str, vendor: str, model: str) -> bool:
        """Whether `pick` would find one; nobody's turn is taken."""
        return bool(self._fitting(organization_id, vendor, model))

    def _fitting(self, organization_id: str, vendor: str, model: str) -> list[Target]:
        found = self._targets.get((organization_id, vendor), ())
        return [target for target in found if target.models is None or any(fnmatchcase(model, pattern) for pattern in target.models)]

    def vendors_of(self, organization_id: str) -> frozenset[str]:
        return frozenset(vendor for organization, vendor in self._targets if organization == organization_id)
