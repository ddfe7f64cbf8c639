"""What an Azure account says, and what KeyGate makes of it. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

from keygate.kit.clock import NANOSECONDS, from_ns, to_ns
from keygate.kit.secret import Secret
from keygate.vendors.admin.azure.facts import DEFAULT_CAPACITY, PREFIX, UNIT
from keygate.vendors.admin.bills import SpendRow
from keygate.vendors.admin.errors import NotFound, Unfit
from keygate.vendors.admin.interface import Footprint, Term, Terms
from keygate.vendors.admin.money import dollars_only, nano_of


@dataclass(frozen=True, slots=True)
class Deployment:
    name: str
    sku: str
    capacity: int
    model: str
    version: str
    state: str

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Deployment:
        sku, properties = body.get("sku") or {}, properties_of(body)
        model = properties.get("model") or {}
        return cls(
            str(body.get("name")),
            str(sku.get("name")),
            int(sku.get("capacity") or 0),
            str(model.get("name")),
            str(model.get("version")),
            str(properties.get("provisioningState")),
        )


SLOTS = ("Key1", "Key2")
SKUS = ("GlobalStandard", "DataZoneStandard", "Standard")
MAX_DEPLOYMENTS = 32  # of an account: `facts.sources`
_DEPLOYMENT = re.compile(r"[\w.-]{1,64}", re.ASCII)  # KeyGate names deployments as their models
_REGION = re.compile(r"[a-z0-9]{2,40}")


def slot_of(generation: int) -> str:
    return SLOTS[(generation + 1) % 2]


def tag_of(slot: str) -> str:
    return f"keygate-{slot.lower()}"


def digest_of(value: Secret) -> str:
    """64 bits of a SHA-256: tells values apart, and gives nothing of a random one away."""
    return hashlib.sha256(value.open().encode()).hexdigest()[:16]


def key_id(generation: int, slot: str, value: Secret) -> str:
    return f"{generation}-{slot}-{digest_of(value)}"


def parts_of(key: str) -> tuple[int, str, str]:
    generation, slot, digest = [*key.split("-"), "", ""][:3]
    if not generation.isdecimal() or slot not in SLOTS:
        raise NotFound(f"{key} is no key of an Azure account")
    return int(generation), slot, digest


def name_of(footprint: Footprint) -> str:
    name = footprint.place.get("account", "")
    if not name:
        raise NotFound("the footprint names no account")
    return quote(name)


def properties_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = body.get("properties")
    return properties if isinstance(properties, dict) else {}


def tags_of(body: Mapping[str, Any]) -> dict[str, str]:
    tags = body.get("tags")
    return {str(name): str(value) for name, value in tags.items()} if isinstance(tags, dict) else {}


def created_at(body: Mapping[str, Any]) -> int | None:
    try:
        return to_ns(datetime.fromisoformat(str(properties_of(body).get("dateCreated"))))
    except ValueError:
        return None


def models_of(models: Sequence[str] | None) -> tuple[str, ...]:
    if not models:
        raise Unfit(Term.MODELS, "Azure has no `all models`: name the models to deploy, as Azure names them (`gpt-4o-mini`)")
    if len(set(models)) > MAX_DEPLOYMENTS:
        raise Unfit(Term.MODELS, f"an Azure account holds {MAX_DEPLOYMENTS} deployments: name fewer models")
    strange = next((each for each in models if not _DEPLOYMENT.fullmatch(each)), None)
    if strange is not None:
        raise Unfit(Term.MODELS, f"{strange[:64]} is no model of Azure's: they are named as `gpt-4o-mini`, 64 characters at most")
    return tuple(models)


def capacity_of(terms: Terms, *, exact: bool = True) -> int | None:
    """Units of capacity; not `exact`: whole ones below what is asked. Raises `Unfit` for what Azure has no number for."""
    tokens = terms.tokens_per_minute
    if tokens is None:
        return None
    if tokens < UNIT or (exact and tokens % UNIT):
        near = max(UNIT, tokens // UNIT * UNIT)
        raise Unfit(Term.TOKENS_PER_MINUTE, f"Azure counts tokens per minute in steps of {UNIT}: ask for {near} instead of {tokens}")
    return tokens // UNIT


def check_options(options: Mapping[str, str]) -> None:
    """Raises `Unfit`. Capacity means tokens a minute in these deployment types only; others count throughput units, or batches."""
    if (sku := options.get("sku")) and sku not in SKUS:
        raise Unfit("options.sku", f"KeyGate limits tokens of {', '.join(SKUS)} only; name one of them, or leave it out")
    if (region := options.get("region")) and not _REGION.fullmatch(region):
        raise Unfit("options.region", "write it as Azure's API does: `swedencentral`")


def wanted_of(terms: Terms) -> dict[str, int]:
    return dict.fromkeys(models_of(terms.models), capacity_of(terms) or DEFAULT_CAPACITY)


def terms_of(deployments: Sequence[Deployment]) -> Terms:
    """What is in force. Where capacities differ the largest is told: the key may do that much somewhere."""
    tokens = max((each.capacity * UNIT for each in deployments), default=None)
    return Terms(models=tuple(sorted(each.model for each in deployments)), tokens_per_minute=tokens)


def allows(permissions: Sequence[Mapping[str, Any]], action: str) -> bool:
    """Azure's rule: some assignment's `actions` match and its `notActions` don't; case doesn't count."""

    def matches(patterns: Any) -> bool:
        return isinstance(patterns, list) and any(fnmatchcase(action.lower(), str(pattern).lower()) for pattern in patterns)

    return any(matches(each.get("actions")) and not matches(each.get("notActions")) for each in permissions)


def day_of(moment_ns: int, *, end: bool = False) -> str:
    day = from_ns(moment_ns).date().isoformat()
    return f"{day}T23:59:59Z" if end else f"{day}T00:00:00Z"


_ACCOUNTS = f"/providers/{PREFIX}/accounts/".lower()
_DAY_NS = 86_400 * NANOSECONDS


def spend_rows(properties: Mapping[str, Any]) -> list[SpendRow]:
    """Rows by the columns' names: Azure promises no order of them. Ids that differ in their case are one account: their rows are added up,
    as the same row told again would replace the former."""
    names = [str(column.get("name")) for column in properties.get("columns") or ()]
    sums: dict[tuple[str, int, str], int] = {}
    for values in properties.get("rows") or ():
        row = dict(zip(names, values, strict=False))
        resource = str(row.get("ResourceId", "")).lower()
        if _ACCOUNTS not in resource:
            continue  # the group may hold other things, which no key of ours can have used
        dollars_only(row.get("Currency"), what="query the costs")
        account = resource.partition(_ACCOUNTS)[2].partition("/")[0]
        day = to_ns(datetime.strptime(str(row.get("UsageDate")), "%Y%m%d").replace(tzinfo=UTC))
        at = (account, day, str(row.get("Meter", "")))
        sums[at] = sums.get(at, 0) + nano_of(row.get("Cost", row.get("totalCost")), what="query the costs")
    return [SpendRow({"account": account}, None, day, day + _DAY_NS, meter, amount) for (account, day, meter), amount in sums.items()]
