"""JSON forms of an issued key's parts: as they stand in rows and in the audit log. Pure; no secret is among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keygate.issued_keys.model import ADOPTED, Cause, Former, IssuedKey, VendorAccount, Waits
from keygate.kit.clock import rfc3339
from keygate.kit.money import format_usd
from keygate.vendors.admin import Footprint, Period, Right, Terms


def terms_to_json(terms: Terms) -> dict[str, Any]:
    """Only what is asked for, or told."""
    fields = {name: getattr(terms, name) for name in Terms.__dataclass_fields__}
    if terms.budget_nano is None:
        del fields["budget_period"]
    if not terms.untold:
        del fields["untold"]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items() if value is not None}


def terms_from_json(value: Mapping[str, Any]) -> Terms:
    fields: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
    if "budget_period" in fields:
        fields["budget_period"] = Period(fields["budget_period"])
    return Terms(**fields)


def footprint_to_json(footprint: Footprint | None) -> dict[str, Any] | None:
    return None if footprint is None else {"place": dict(footprint.place), "key": footprint.key}


def footprint_from_json(value: Mapping[str, Any] | None) -> Footprint | None:
    return None if value is None else Footprint(place=value["place"], key=value["key"])


def former_to_json(former: Former | None) -> dict[str, Any] | None:
    if former is None:
        return None
    return {name: getattr(former, name) for name in Former.__dataclass_fields__} | {"footprint": footprint_to_json(former.footprint)}


def former_from_json(value: Mapping[str, Any] | None) -> Former | None:
    if value is None:
        return None
    waits = value.get("waits_for")
    read = {
        "footprint": footprint_from_json(value["footprint"]) or Footprint(),
        "cause": Cause(value.get("cause", Cause.HAND)),
        "waits_for": None if waits is None else Waits(waits),
    }
    return Former(**{**value, **read})


def places_of(key: IssuedKey) -> set[tuple[str, str]]:
    """`(name, value)` of everything by which the vendor's bills may name this key: the parts of its place, and its id as `key`."""
    found: set[tuple[str, str]] = set()
    for footprint in (key.footprint, None if key.former is None else key.former.footprint):
        if footprint is not None:
            if ADOPTED not in key.options:  # the container of a key that was made by hand is not its own
                found |= {(name[:40], value[:500]) for name, value in footprint.place.items() if name != "key" and value}
            found |= {("key", footprint.key[:500])} if footprint.key else set()
    return found


def rights_to_json(rights: tuple[Right, ...]) -> list[dict[str, Any]]:
    return [{"name": right.name, "held": right.held, "needed_for": right.needed_for} for right in rights]


def rights_from_json(value: list[dict[str, Any]]) -> tuple[Right, ...]:
    return tuple(Right(**right) for right in value)


def key_record(key: IssuedKey) -> dict[str, Any]:
    """What the audit log keeps of a key."""
    terms = terms_to_json(key.terms)
    if key.terms.budget_nano is not None:
        terms["budget_usd"] = format_usd(terms.pop("budget_nano"))
    if key.terms.expires_at_ns is not None:
        terms["expires_at"] = rfc3339(terms.pop("expires_at_ns"))
    record = {
        "vendor": key.vendor,
        "account": key.account_id,
        "name": key.name,
        "owner": None if key.owner is None else key.owner.scope_id,
        "state": key.state,
        "generation": key.generation,
        "terms": terms,
        "options": dict(key.options),
        "at_vendor": footprint_to_json(key.footprint),
        "hint": key.hint,
    }
    if key.rotate_every_days is not None:
        record["rotate_every_days"] = key.rotate_every_days
    return record


def account_record(account: VendorAccount) -> dict[str, Any]:
    return {
        "vendor": account.vendor,
        "name": account.name,
        "settings": dict(account.settings),
        "status": account.status,
        "missing_rights": [right.name for right in account.rights if right.held is False],
        "also_confirms": sorted(account.also_confirms),
        "hint": account.hint,
    }
