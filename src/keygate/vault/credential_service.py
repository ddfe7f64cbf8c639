"""Use cases of vendor credentials. A secret comes in, is sealed, and leaves only towards its vendor."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from keygate.audit import AuditLog, digest_secret
from keygate.errors import Conflict, InvalidInput, NotFound
from keygate.identities import Actor
from keygate.kit.clock import Clock
from keygate.kit.ids import new_id
from keygate.kit.secret import Secret
from keygate.vault.addresses import checked_base_url
from keygate.vault.credentials import (
    Credential,
    CredentialChanges,
    CredentialStatus,
    NewCredential,
    OpenedCredential,
    ProbeResult,
    checked_secret,
)
from keygate.vault.envelope import EnvelopeBroken, Place
from keygate.vault.ports import CredentialProbe, IssuedSecrets, StatePublisher
from keygate.vault.service import Vault
from keygate.vendors import Vendor

if TYPE_CHECKING:
    from keygate.kit.database import Database, UnitOfWork
    from keygate.vault.credential_repository import CredentialRepository

_log = logging.getLogger(__name__)


class CredentialService:
    """`digest_key` keys the digests by which equal secrets are recognised."""

    def __init__(
        self,
        database: Database,
        repository: CredentialRepository,
        *,
        vault: Vault,
        audit: AuditLog,
        publisher: StatePublisher,
        probe: CredentialProbe,
        vendors: Mapping[str, Vendor],
        issued: IssuedSecrets,
        digest_key: bytes,
        clock: Clock,
    ) -> None:
        self._database = database
        self._repository = repository
        self._vault = vault
        self._audit = audit
        self._publisher = publisher
        self._probe = probe
        self._vendors = vendors
        self._issued = issued
        self._digest_key = digest_key
        self._clock = clock

    async def create(self, actor: Actor, new: NewCredential) -> Credential:
        async with self._database.unit(actor.organization_id) as work:
            return await self._create(work, actor, new)

    async def get(self, actor: Actor, credential_id: str) -> Credential:
        async with self._database.read() as connection:
            credential = await self._repository.get(connection, actor.organization_id, credential_id)
        if credential is None:
            raise _absent()
        return credential

    async def page(self, actor: Actor, *, vendor: str | None, after: str | None, limit: int) -> list[Credential]:
        async with self._database.read() as connection:
            return await self._repository.page(connection, actor.organization_id, vendor=vendor, after=after, limit=limit)

    async def update(self, actor: Actor, credential_id: str, changes: CredentialChanges) -> Credential:
        """A secret goes where it was meant to: another host needs the secret again."""
        async with self._database.unit(actor.organization_id) as work:
            before = await self._repository.get(work.connection, actor.organization_id, credential_id)
            if before is None:
                raise _absent()
            return await self._update(work, actor, before, changes)

    async def delete(self, actor: Actor, credential_id: str) -> None:
        async with self._database.unit(actor.organization_id) as work:
            before = await self._repository.get(work.connection, actor.organization_id, credential_id)
            if before is None:
                raise _absent()
            await self._audit.record(work, actor, "credential.delete", before.id, before=_shown(before))
            await self._repository.delete(work.connection, actor.organization_id, credential_id)
            work.after_commit(self._publisher.credentials_changed)

    async def test(self, actor: Actor, credential_id: str) -> ProbeResult:
        """Calls the vendor; no transaction is open meanwhile."""
        credential = await self.get(actor, credential_id)
        secret = await self._vault.open(credential.secret, _place(credential))
        return await self._probe.check(self._vendor(credential.vendor), credential.base_url, secret)

    async def load(self) -> list[OpenedCredential]:
        """All enabled credentials of all organisations, for the gateway. One that does not open is left out and logged."""
        async with self._database.read() as connection:
            stored = await self._repository.enabled(connection)
        opened = []
        for each in stored:
            try:
                secret = await self._vault.open(each.secret, _place(each))
            except EnvelopeBroken as error:
                _log.error("credential %s is left out: %s", each.id, error.detail)
                continue
            opened.append(
                OpenedCredential(each.id, each.organization_id, each.vendor, each.base_url, secret, each.weight, each.models, each.account)
            )
        return opened

    async def import_from_environment(self, actor: Actor, environment: Mapping[str, str]) -> list[Credential]:
        """Takes up vendor keys under the names that the vendors' own SDKs look for (`OPENAI_API_KEY`). Returns what is new or changed.

        Safe to repeat: a secret that is known already is left alone, and so is what an administrator changed since, until the variable's
        value changes.
        """
        changed = []
        for vendor in self._vendors.values():
            for variable in vendor.credential_env:
                text = environment.get(variable, "").strip()
                if not text:
                    continue
                try:
                    secret = checked_secret(Secret(text))
                except InvalidInput:
                    _log.warning("%s does not hold a key; it is ignored", variable)
                    continue
                async with self._database.unit(actor.organization_id) as work:
                    credential = await self._import(work, actor, vendor, variable, secret)
                if credential is not None:
                    changed.append(credential)
        return changed

    async def _import(self, work: UnitOfWork, actor: Actor, vendor: Vendor, variable: str, secret: Secret) -> Credential | None:
        digest = digest_secret(secret, self._digest_key)
        known = await self._repository.named(work.connection, actor.organization_id, vendor.name, variable)
        key_id = await self._issued.key_with(work.connection, actor.organization_id, digest)
        if key_id is not None:
            _log.warning("%s holds the secret of the issued key %s, which does not serve the gateway; it is ignored", variable, key_id)
            return None
        if known is not None:
            if digest in {known.imported_digest, known.secret_digest}:
                return None
            return await self._update(work, actor, replace(known, imported_digest=digest), {"secret": secret})
        if await self._repository.with_digest(work.connection, actor.organization_id, vendor.name, digest):
            return None
        return await self._create(work, actor, NewCredential(vendor=vendor.name, name=variable, secret=secret), imported_digest=digest)

    async def _create(self, work: UnitOfWork, actor: Actor, new: NewCredential, *, imported_digest: str | None = None) -> Credential:
        vendor = self._vendor(new.vendor)
        secret = checked_secret(new.secret)
        now = self._clock.now_ns()
        draft = Credential(
            id=new_id("cred"),
            organization_id=actor.organization_id,
            vendor=vendor.name,
            name=new.name,
            secret=b"",
            secret_digest=digest_secret(secret, self._digest_key),
            hint=secret.hint(),
            base_url=vendor.sdk_base_url if new.base_url is None else checked_base_url(new.base_url),
            account=new.account,
            weight=new.weight,
            models=new.models,
            status=CredentialStatus.ENABLED,
            created_at_ns=now,
            updated_at_ns=now,
            imported_digest=imported_digest,
        )
        await self._require_not_issued(work, draft)
        credential = replace(draft, secret=await self._vault.seal(work, secret, _place(draft)))
        if not await self._repository.add(work.connection, credential):
            raise _taken()
        await self._audit.record(work, actor, "credential.create", credential.id, after={**_shown(credential), "secret": secret})
        work.after_commit(self._publisher.credentials_changed)
        return credential

    async def _update(self, work: UnitOfWork, actor: Actor, before: Credential, changes: CredentialChanges) -> Credential:
        fields: dict[str, Any] = {**changes}
        said: dict[str, Any] = {}
        if "base_url" in changes:
            given = changes["base_url"]
            fields["base_url"] = self._vendor(before.vendor).sdk_base_url if given is None else checked_base_url(given)
            if "secret" not in changes and _leads_elsewhere(before.base_url, fields["base_url"]):
                raise InvalidInput("base_url: leads to another host; send the secret again with it", field="base_url")
        if "secret" in changes:
            secret = checked_secret(changes["secret"])
            fields["secret"] = await self._vault.seal(work, secret, _place(before))
            fields["secret_digest"] = digest_secret(secret, self._digest_key)
            fields["hint"] = secret.hint()
            said["secret"] = secret
        name = changes.get("name", before.name)
        if name != before.name and await self._repository.named(work.connection, before.organization_id, before.vendor, name):
            raise _taken()
        after = replace(before, **fields, updated_at_ns=self._clock.now_ns())
        if after.secret_digest != before.secret_digest:
            await self._require_not_issued(work, after)
        await self._audit.record(work, actor, "credential.update", before.id, before=_shown(before), after={**_shown(after), **said})
        await self._repository.update(work.connection, after)
        work.after_commit(self._publisher.credentials_changed)
        return after

    async def _require_not_issued(self, work: UnitOfWork, credential: Credential) -> None:
        key_id = await self._issued.key_with(work.connection, credential.organization_id, credential.secret_digest)
        if key_id is not None:
            raise Conflict(
                f"secret: it is that of the issued key {key_id}, whose spend the vendor's bill counts; through the gateway it would be "
                "counted twice. Make a key of its own for the gateway at the vendor",
                field="secret",
            )

    def _vendor(self, name: str) -> Vendor:
        vendor = self._vendors.get(name)
        if vendor is None:
            raise InvalidInput(f"vendor: not one that KeyGate serves; choose of {', '.join(sorted(self._vendors))}", field="vendor")
        return vendor


def _place(credential: Credential) -> Place:
    return Place("credentials", credential.id, credential.organization_id, "secret")


def _leads_elsewhere(before: str, after: str) -> bool:
    old, new = urlsplit(before), urlsplit(after)
    return old.hostname != new.hostname or (old.scheme == "https" and new.scheme == "http")


def _shown(credential: Credential) -> dict[str, Any]:
    """What the audit log holds of a credential."""
    return {name: getattr(credential, name) for name in ("vendor", "name", "base_url", "account", "weight", "models", "status", "hint")}


def _absent() -> NotFound:
    return NotFound("There is no credential with this id")


def _taken() -> Conflict:
    return Conflict("name: another credential of this vendor has this name", field="name")
