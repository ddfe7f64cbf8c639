"""What a thing at a vendor is: ours, adopted, orphaned or unknown, and what is the matter with it. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from keygate.issued_keys.inventory.model import Acceptance, Difference, Finding, Item, Kind, Standing
from keygate.issued_keys.life import ENDED, LIVE
from keygate.issued_keys.model import Enforcement, IssuedKey, compare_with
from keygate.kit.clock import rfc3339
from keygate.kit.ids import base62
from keygate.kit.money import format_usd
from keygate.vendors.admin import Footprint, Presence, ProvisionerFacts, Term, Terms

_LOWERED = frozenset({Term.REQUESTS_PER_MINUTE, Term.TOKENS_PER_MINUTE})  # what a budget that runs out lowers
_TAG = re.compile(r"kg-([a-z2-7]{26})")


@dataclass(frozen=True, slots=True)
class Known:
    """What KeyGate knows that bears on one account. Built once for all of its items."""

    keys: Mapping[str, IssuedKey]  # every key made at this vendor or adopted there, ended ones too: two accounts may be of one organisation
    by_vendor_key: Mapping[str, tuple[IssuedKey, ...]] = field(default_factory=dict)
    inactive: frozenset[str] = frozenset()  # ids of owners who are deactivated or archived
    restrained: frozenset[str] = frozenset()  # keys that KeyGate itself holds back at the vendor, for their budgets
    max_ages: Mapping[str, int] = field(default_factory=dict)  # by key, in nanoseconds; what no rotation policy covers is left out
    left: frozenset[str] = frozenset()  # e-mail addresses of developers who are deactivated
    listed: frozenset[str] = frozenset()  # vendor's ids of keys that stand in the inventory by themselves

    @classmethod
    def of(
        cls,
        keys: Iterable[IssuedKey],
        *,
        inactive: frozenset[str],
        left: frozenset[str],
        restrained: frozenset[str] = frozenset(),
        max_ages: Mapping[str, int] | None = None,
        listed: frozenset[str] = frozenset(),
    ) -> Known:
        by_id = {key.id: key for key in keys}
        by_vendor_key: dict[str, tuple[IssuedKey, ...]] = {}
        for key in by_id.values():
            for footprint in footprints(key):
                if footprint.key is not None:
                    by_vendor_key[footprint.key] = (*by_vendor_key.get(footprint.key, ()), key)
        return cls(by_id, by_vendor_key, inactive, restrained, max_ages or {}, left, listed)


def footprints(key: IssuedKey) -> list[Footprint]:
    return [each for each in (key.footprint, None if key.former is None else key.former.footprint) if each is not None]


def marked(name: str) -> str | None:
    """The issued key's id in a name at the vendor; None where it carries no mark."""
    found = _TAG.search(name)
    if found is None:
        return None
    try:
        raw = base64.b32decode(found[1].upper() + "=" * 6)
        return "ik_" + base62(int.from_bytes(raw, "big"), 22)
    except (binascii.Error, ValueError):
        return None


def match(item: Item, known: Known) -> IssuedKey | None:
    """The key of ours that this is, or whose container it is. By the vendor's own ids first: names can be changed there."""
    if item.kind is Kind.KEY:
        for key in known.by_vendor_key.get(item.footprint.key or "", ()):
            if any(each.key == item.footprint.key and _agree(each.place, item.footprint.place) for each in footprints(key)):
                return key
    else:
        # Several keys of ours may share a container: one that is alive speaks for it.
        holders = [
            key
            for key in known.keys.values()
            if not key.adopted and any(item.footprint.place.items() <= each.place.items() for each in footprints(key))
        ]
        if holders:
            return next((key for key in holders if key.state not in ENDED), holders[0])
    named = marked(item.name) or next((found for value in item.footprint.place.values() if (found := marked(value))), None)
    return None if named is None else known.keys.get(named)


def judge(item: Item, known: Known, facts: ProvisionerFacts, *, now_ns: int, stale_ns: int) -> Item:
    """The item with its standing and findings as they are now. `stale_ns`: after how long without use a key is `stale`."""
    key = match(item, known)
    if key is not None and key.adopted and item.kind is Kind.CONTAINER:
        key = None  # the container of an adopted key is not ours
    findings: list[Finding] = []
    drift: tuple[Difference, ...] = ()
    if key is None:
        standing = Standing.UNKNOWN
        if (mark := marked(item.name)) is not None and mark not in known.keys:
            findings.append(Finding.FOREIGN)
        if item.owner is not None and item.owner.lower() in known.left:
            findings.append(Finding.LEAVER)
    elif key.state in ENDED:
        standing = Standing.ORPHANED
    else:
        standing = Standing.ADOPTED if key.adopted else Standing.OURS
        if key.footprint is not None and _stands_for(item, key.footprint, known, facts):
            held_back = key.id in known.restrained
            drift = differences(key, item, facts, held_back=held_back)
            if item.kind is Kind.CONTAINER:
                drift = tuple(each for each in drift if each.term != Term.EXPIRY)
            findings += _of_a_living_key(key, item, drift, held_back=held_back)
        if key.owner is not None and key.owner.scope_id in known.inactive:
            findings.append(Finding.LEAVER)
        if key.id in known.max_ages and item.kind is Kind.KEY and _is_too_old(key, item, known.max_ages[key.id], now_ns):
            findings.append(Finding.OVERDUE)
    if item.alive and item.kind is Kind.KEY:
        used = max(item.last_used_at_ns or 0, item.created_at_ns or 0)
        if facts.tells_last_use and 0 < used < now_ns - stale_ns:
            findings.append(Finding.STALE)
        if item.terms is not None and unlimited(item.terms, facts):
            findings.append(Finding.NO_LIMIT)
    if not item.alive:  # gone: only what we still count on matters
        findings = [finding for finding in findings if finding is Finding.MISSING]
    judged = replace(
        item,
        standing=standing,
        findings=tuple(sorted(set(findings))),
        drift=drift,
        issued_key_id=None if key is None else key.id,
        judged=True,
    )
    return replace(judged, acceptance=_lasting(item.acceptance, judged.matters))


def _lasting(acceptance: Acceptance | None, matters: frozenset[str]) -> Acceptance | None:
    """What was accepted is accepted as long as it lasts: what has gone, and comes again, is new."""
    covered = () if acceptance is None else tuple(each for each in acceptance.findings if each in matters)
    return None if acceptance is None or not covered else replace(acceptance, findings=covered)


def _stands_for(item: Item, footprint: Footprint, known: Known, facts: ProvisionerFacts) -> bool:
    """Whether this is the key, or what holds it at a vendor that lists no keys, as long as the key does not stand here by itself."""
    if item.kind is Kind.KEY:
        return item.footprint.key == footprint.key
    return not facts.lists_keys and footprint.key not in known.listed


def _of_a_living_key(key: IssuedKey, item: Item, drift: tuple[Difference, ...], *, held_back: bool) -> list[Finding]:
    if key.state not in LIVE:
        return []  # on its way to an end
    if item.presence in {Presence.GONE, Presence.EXPIRED}:
        return [Finding.MISSING]
    found = [Finding.DISABLED] if item.presence is Presence.DISABLED and not held_back else []
    return [*found, Finding.DRIFT] if drift else found


def _is_too_old(key: IssuedKey, item: Item, max_age_ns: int, now_ns: int) -> bool:
    """Of the two keys of a rotation each has an age of its own."""
    former = key.former
    made = former.made_at_ns if former is not None and former.footprint.key == item.footprint.key else key.made_at_ns
    return made is not None and now_ns - made >= max_age_ns


def differences(key: IssuedKey, item: Item, facts: ProvisionerFacts, *, held_back: bool) -> tuple[Difference, ...]:
    """Terms that the vendor shows otherwise than agreed. What the vendor never confirms can't drift, nor do limits that KeyGate itself
    lowers (`held_back`)."""
    if item.terms is None or not item.alive:
        return ()
    told = compare_with(key, item.terms, facts)
    return tuple(
        Difference(term, shown(key.terms, Term(term)), shown(item.terms, Term(term)))
        for term, standing in told.items()
        if standing is Enforcement.DIFFERS and not (held_back and Term(term) in _LOWERED)
    )


def unlimited(terms: Terms, facts: ProvisionerFacts) -> bool:
    """Whether it could spend without end: no budget where the vendor has budgets, else none of the limits that it has."""
    if Term.BUDGET in facts.confirms and Term.BUDGET not in terms.untold:
        return terms.budget_nano is None
    limits = {Term.REQUESTS_PER_MINUTE: terms.requests_per_minute, Term.TOKENS_PER_MINUTE: terms.tokens_per_minute}
    telling = [value for term, value in limits.items() if term in facts.confirms]
    return bool(telling) and all(value is None for value in telling)


def shown(terms: Terms, term: Term) -> str:
    """A term as people read it."""
    match term:
        case Term.BUDGET:
            return "none" if terms.budget_nano is None else f"${format_usd(terms.budget_nano)} a {terms.budget_period}"
        case Term.MODELS:
            return "all" if terms.models is None else ", ".join(terms.models)
        case Term.REQUESTS_PER_MINUTE:
            return "the vendor's own" if terms.requests_per_minute is None else str(terms.requests_per_minute)
        case Term.TOKENS_PER_MINUTE:
            return "the vendor's own" if terms.tokens_per_minute is None else str(terms.tokens_per_minute)
        case Term.SCOPES:
            return "all" if terms.scopes is None else ", ".join(terms.scopes)
        case Term.EXPIRY:
            return rfc3339(terms.expires_at_ns) or "never"


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two places can be the same: what both name is the same."""
    return all(other[name] == value for name, value in one.items() if name in other)


def with_terms_of(terms: Terms, found: Terms, drift: Iterable[Difference]) -> Terms:
    """The agreed terms with what the vendor shows in place of those that drifted."""
    taken: dict[str, object] = {}
    for difference in drift:
        match Term(difference.term):
            case Term.BUDGET:
                taken |= {"budget_nano": found.budget_nano, "budget_period": found.budget_period}
            case Term.EXPIRY:
                taken["expires_at_ns"] = found.expires_at_ns
            case term:
                taken[str(term)] = getattr(found, str(term))
    return replace(terms, **taken)  # type: ignore[arg-type]  # names and types are those of Terms
