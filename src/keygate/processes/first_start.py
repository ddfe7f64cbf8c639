"""What a start puts in place: the first owner, credentials from the environment, the sandbox vendor, a first key to try."""

from __future__ import annotations

import json
import secrets
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keygate.config import Settings, vendor_keys
from keygate.identities import Actor, UserService
from keygate.identities.model import system_actor
from keygate.kit.money import NANO
from keygate.kit.secret import Secret
from keygate.policies import BudgetMode, LimitKind, Period
from keygate.policies.model import BudgetSpec
from keygate.vault import Credential, CredentialService, CredentialStatus, NewCredential
from keygate.vendors import VENDORS
from keygate.virtual_keys import VirtualKeyService
from keygate.virtual_keys.model import KeyDraft

if TYPE_CHECKING:
    from keygate.processes.sandboxed import Sandboxed

SANDBOX = "sandbox"  # the name of the credentials that lead to the sandbox vendor
DEFAULT_EMAIL = "owner@keygate.example"


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the first start prints, once."""

    email: str
    password: Secret | None  # None: the operator set it
    key: Secret | None  # None: there is no credential yet that it could use


async def first_owner(settings: Settings, users: UserService) -> tuple[str, Secret | None] | None:
    """E-mail address and generated password of the first owner; None where there is one already."""
    email = settings.admin_email or DEFAULT_EMAIL
    given = Secret(settings.admin_password.get_secret_value()) if settings.admin_password else None
    started = await users.bootstrap(organization_name="My organisation", email=email, password=given)
    return None if started is None else (started.owner.email, started.password)


async def import_credentials(organization_id: str, credentials: CredentialService) -> list[Credential]:
    """Vendor keys under the vendors' own names become credentials, each value once."""
    names = [name for vendor in VENDORS.values() for name in vendor.credential_env]
    found = {name: secret.open() for name, secret in vendor_keys(names).items()}
    return await credentials.import_from_environment(system_actor(organization_id), found) if found else []


async def place_sandbox(organization_id: str, credentials: CredentialService, sandbox: Sandboxed | None) -> list[Credential]:
    """Leads every vendor that has no other credential to the sandbox, or, without one, disables what an earlier start put there. Returns
    the credentials that stand before the sandbox: calls of their vendors are real ones."""
    actor = system_actor(organization_id)
    stored = await credentials.page(actor, vendor=None, after=None, limit=1000)
    ours = {each.vendor: each for each in stored if each.name == SANDBOX}
    if sandbox is None:
        for each in ours.values():
            if each.status is CredentialStatus.ENABLED:
                await credentials.update(actor, each.id, {"status": CredentialStatus.DISABLED})
        return []
    from keygate.sandbox import Vendor  # noqa: PLC0415  (here with its state only)

    others = [each for each in stored if each.name != SANDBOX and each.status is CredentialStatus.ENABLED]
    taken = {each.vendor for each in others}
    addresses = {Vendor.OPENAI: f"{sandbox.address}/openai/v1", Vendor.ANTHROPIC: f"{sandbox.address}/anthropic"}
    for vendor, base_url in addresses.items():
        if vendor.value in taken:  # calls must not go on to an address of an earlier start
            if vendor.value in ours:
                await credentials.update(actor, ours[vendor.value].id, {"status": CredentialStatus.DISABLED})
            continue
        secret = Secret(sandbox.state.own_key(vendor).value)
        known = ours.get(vendor.value)
        if known is not None:
            if (known.hint, known.base_url, known.status) != (secret.hint(), base_url, CredentialStatus.ENABLED):
                changes = {"secret": secret, "base_url": base_url, "status": CredentialStatus.ENABLED}
                await credentials.update(actor, known.id, changes)  # type: ignore[arg-type]  # a TypedDict built as a dict
        else:
            await credentials.create(actor, NewCredential(vendor=vendor.value, name=SANDBOX, secret=secret, base_url=base_url))
    return [each for each in others if each.vendor in {vendor.value for vendor in addresses}]


async def first_key(actor: Actor, keys: VirtualKeyService) -> Secret:
    """A key to try: ten dollars a month, sixty requests a minute."""
    draft = KeyDraft(
        name="first key",
        limits={LimitKind.REQUESTS_PER_MINUTE: 60},
        budgets=[BudgetSpec(amount_nano=10 * NANO, period=Period.MONTH, mode=BudgetMode.HARD)],
    )
    return (await keys.create(actor, draft)).token.text


def welcome_text(welcome: Welcome, address: str) -> str:
    lines = ["", "KeyGate runs for the first time. This is shown once:", "", f"  sign in as   {welcome.email}"]
    lines.append(f"  password     {welcome.password.open() if welcome.password else '(as set in KEYGATE_ADMIN_PASSWORD)'}")
    lines.append(f"  with         keygate login --url {address} --email {welcome.email}")
    if welcome.key is None:
        lines += ["", "Next, put a vendor key into the vault and make a virtual key:", ""]
        lines += ["  keygate login", "  keygate credentials add openai", "  keygate keys create my-key --budget 10.00/month"]
    else:
        body = json.dumps({"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Say hello."}]}, separators=(",", ":"))
        lines += [f"  virtual key  {welcome.key.open()}", "", "Try it:", ""]
        lines.append(
            f"curl {address}/openai/v1/chat/completions -H 'Authorization: Bearer {welcome.key.open()}' "
            f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
        )
    return "\n".join([*lines, ""])


def node_id() -> str:
    return f"node_{secrets.token_hex(8)}"
