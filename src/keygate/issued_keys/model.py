"""Issued keys and the vendor accounts they are made in. Frozen values, pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from keygate.issued_keys.life import ENDED, State
from keygate.kit.clock import NANOSECONDS
from keygate.policies import Place
from keygate.vault import SealedColumn
from keygate.vendors.admin import Footprint, Mark, Provisioner, ProvisionerFacts, Right, Term, Terms

SEALED = (  # for the rotation of data keys
    SealedColumn("vendor_accounts", "id", "admin_key"),
    SealedColumn("issued_keys", "id", "secret"),
    SealedColumn("issued_keys", "id", "probe"),
    SealedColumn("issued_keys", "id", "former_probe"),
)

MAX_OVERLAP_SECONDS = 90 * 86_400
DEFAULT_OVERLAP_SECONDS = 86_400
DEFAULT_QUIET_SECONDS = 3_600
REPLAY_NS = 600 * NANOSECONDS  # how long an answer that got lost can be asked for again, under the same request id
PICKUP_NS = 7 * 86_400 * NANOSECONDS  # how long a secret waits for its holder
MAX_LINK_SECONDS = 7 * 86_400
TOKEN_MEMORY_NS = 400 * 86_400 * NANOSECONDS  # how long after its end a token that leaked can still be told from a stranger's


class AccountStatus(StrEnum):
    READY = "ready"
    RIGHTS_MISSING = "rights_missing"  # nothing is made until they are there
    REFUSED = "refused"  # the vendor does not know the admin credential (any more)


@dataclass(frozen=True, slots=True)
class VendorAccount:
    """A vendor-side organisation that KeyGate administers. `admin_key` is sealed."""

    id: str  # va_…
    organization_id: str
    vendor: str
    name: str  # unique per organisation and vendor; `default`
    admin_key: bytes = field(repr=False)
    hint: str
    settings: Mapping[str, str]
    status: AccountStatus
    rights: tuple[Right, ...]
    account: str | None  # as the vendor names it
    identity: str | None  # the vendor's id of it, where its API tells
    same_since_ns: int  # since then every credential under this name was shown to be of the same organisation
    notes: tuple[str, ...]
    also_confirms: frozenset[Term]  # of `facts.confirms_for_some`: what this account has, as it was seen when it was verified last
    verified_at_ns: int
    created_at_ns: int
    updated_at_ns: int


def facts_of(provisioner: Provisioner, account: VendorAccount | None) -> ProvisionerFacts:
    """What is true of the vendor for this account."""
    return provisioner.facts if account is None else provisioner.facts.of_account(account.also_confirms)


@dataclass(frozen=True, slots=True)
class Room:
    """`standing`: containers that stand at the vendor or are ordered. `counted`: by the vendor; else only those that KeyGate knows of.
    `ceiling` None: none is known. `place`: where it counts, `eastus`."""

    container: str
    standing: int
    ceiling: int | None
    counted: bool
    place: str = ""
    remedy: str = "end some first, or have the vendor raise the ceiling"

    @property
    def left(self) -> int | None:
        return None if self.ceiling is None else max(0, self.ceiling - self.standing)

    @property
    def full(self) -> bool:
        return self.left == 0

    @property
    def told(self) -> str:
        """For people: the ceiling, how it stands, what helps."""
        where = f" in {self.place}" if self.place else ""
        return f"the vendor allows {self.ceiling} {self.container}s{where}, and {self.standing} stand there; {self.remedy}"


ADOPTED = "adopted"  # among the options of keys that were made by hand


class Enforcement(StrEnum):
    """What stands behind a term that was asked for."""

    CONFIRMED = "confirmed"  # the vendor's API shows it as asked
    DIFFERS = "differs"  # the vendor's API shows something else
    PER_KEY = "per_key"  # shown as asked, but counted for each key by itself: every rotation begins it anew
    TAKEN = "taken"  # the vendor took it, and no API of its shows it again
    NOT_ENFORCED = "not_enforced"  # the vendor has no such rule, and whoever made the key accepted that
    LOST = "lost"  # the vendor showed it as asked, and refuses to tell this account any more


# Of a budget: the vendor alone does not keep it as agreed, or nobody knows whether it does.
WATCHED = frozenset({Enforcement.NOT_ENFORCED, Enforcement.PER_KEY, Enforcement.DIFFERS, Enforcement.LOST})


class Delivery(StrEnum):
    """Where a key's secret is."""

    WAITING = "waiting"  # sealed in the vault, to be told once
    TOLD = "told"  # its holder has it, we don't
    NONE = "none"  # there is none: not made yet, ended, or nobody fetched it in time


class Ending(StrEnum):
    REVOKED = "revoked"
    EXPIRED = "expired"


class Cause(StrEnum):
    """Why a key is rotated."""

    HAND = "hand"  # somebody asked for it, and has the new secret
    SCHEDULE = "schedule"  # the key's own: every so many days
    POLICY = "policy"  # no key older than so many days


class Waits(StrEnum):
    """What the end of a rotation waits for, besides the end of its overlap."""

    HANDOVER = "handover"  # nobody has fetched the new secret
    QUIET = "quiet"  # it was not seen unused for long enough
    INSIST = "insist"  # the vendor never tells when a key was used: the operator's word (`cut`)
    VENDOR = "vendor"  # the vendor refuses to end the former key; tried again and again
    REFUSAL = "refusal"  # the vendor says that it is gone, or disabled, and still takes it


@dataclass(frozen=True, slots=True)
class Former:
    """The key that a rotation replaces. `cut_at_ns` None: the new one is not made yet."""

    footprint: Footprint
    generation: int
    overlap_seconds: int
    quiet_seconds: int | None  # it is cut once the vendor shows it unused for so long; None: on the operator's word
    insist: bool = False  # cut it at the end of the overlap, used or not
    cut_at_ns: int | None = None
    ready_at_ns: int | None = None  # since when the next key works: nobody can have gone over to it before
    gone_at_ns: int | None = None  # when the vendor's admin API first said that it is gone
    last_used_at_ns: int | None = None  # as the vendor told last
    hint: str | None = None
    made_at_ns: int | None = None
    cause: Cause = Cause.HAND
    policy_id: str | None = None  # that the rotation was due by
    waits_for: Waits | None = None
    failing_since_ns: int | None = None  # since when the vendor does not end it
    told: bool = False  # everybody, of that
    reminders: int = 0  # events that said so
    remind_at_ns: int | None = None

    @property
    def by_itself(self) -> bool:
        """Nobody asked for the rotation: whoever uses the former key may not know of it."""
        return self.cause is not Cause.HAND


@dataclass(frozen=True, slots=True)
class IssuedKey:
    id: str  # ik_…
    organization_id: str
    vendor: str
    account_id: str
    name: str
    owner: Place | None
    state: State
    generation: int  # of the newest key that was asked for
    terms: Terms
    options: Mapping[str, str]
    created_at_ns: int
    created_by: str
    enforcement: Mapping[str, Enforcement] = field(default_factory=dict)  # by `Term`
    footprint: Footprint | None = None
    former: Former | None = None
    secret: bytes | None = field(default=None, repr=False)  # sealed
    probe: bytes | None = field(default=None, repr=False)  # sealed: a copy that is never told, to ask the vendor with until the key's end
    former_probe: bytes | None = field(default=None, repr=False)  # sealed: of the former key
    secret_generation: int = 0  # which key's secret the footprint goes with; 0: none yet
    secret_until_ns: int | None = None  # then it is erased, fetched or not
    delivered_at_ns: int | None = None
    told_to: str | None = None  # whose answer held it last; None: nobody's, or it was fetched with a link
    hint: str | None = None
    made_at_ns: int | None = None  # the newest key, at the vendor: its age counts from here
    secret_env: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    activated_at_ns: int | None = None
    ending: Ending | None = None
    end_reason: str | None = None
    end_asked_at_ns: int | None = None
    end_asked_by: str | None = None
    ended_at_ns: int | None = None  # when the vendor confirmed
    gone_at_ns: int | None = None  # when the vendor's admin API first said that all is gone; since then it is asked with the key itself
    evidence: tuple[Mapping[str, str], ...] = ()  # what the vendor showed of each key that was ended, and notes of those that it is to end
    owed: bool = False  # something may be left at the vendor
    due_at_ns: int | None = None  # when the worker looks at it next
    check_at_ns: int | None = None  # when it looks once more for what a slow vendor shows late
    attempts: int = 0  # at what it is doing now
    error_code: str | None = None
    error: str | None = None
    last_used_at_ns: int | None = None
    read_at_ns: int | None = None  # when the vendor last showed it
    inspect_at_ns: int | None = None  # when it is read again; None: some hours after it was read last
    request_id: str | None = None  # the caller's own, to ask again without making a second key
    rotation_id: str | None = None  # the same for the last rotation
    claim: str | None = None  # which key at the vendor an adopted one is: while it lives, no other row can be that
    rotate_every_days: int | None = None  # its own schedule
    rotate_overlap_seconds: int | None = None  # of that; None: as `rotation.model.default_overlap` says
    rotate_after_ns: int | None = None  # not rotated by itself, nor reminded of, before
    rotate_tries: int = 0  # rotations in a row that began by themselves and came to nothing
    rotate_error: str | None = None  # why the last of them did
    version: int = 1

    @property
    def mark(self) -> Mark:
        return Mark(self.id)

    @property
    def confirmed(self) -> tuple[Mapping[str, str], ...]:
        """The evidence of keys that the vendor has shown as ended."""
        return tuple(each for each in self.evidence if "vendor_says" in each)

    @property
    def adopted(self) -> bool:
        """Made by hand at the vendor and entered here: the container that it stands in is not ours."""
        return ADOPTED in self.options

    @property
    def expires_at_ns(self) -> int | None:
        return self.terms.expires_at_ns

    @property
    def own_end(self) -> bool:
        """Its end is KeyGate's own: the vendor was not told, and shows another one or none."""
        return self.adopted or self.enforcement.get(str(Term.EXPIRY)) is Enforcement.NOT_ENFORCED

    @property
    def overlap_ends_ns(self) -> int | None:
        """Until when both keys of a rotation work. Where it began by itself, the overlap counts from when somebody took over the new
        secret. None: there is no overlap."""
        former = self.former
        if former is None or former.cut_at_ns is None:
            return None
        if not former.by_itself or former.insist or self.delivered_at_ns is None:
            return former.cut_at_ns
        return max(former.cut_at_ns, self.delivered_at_ns + former.overlap_seconds * NANOSECONDS)

    @property
    def settled(self) -> bool:
        """Nothing is being tried at this moment that a caller might wait for. During a rotation: both keys work."""
        if self.state is State.ROTATING:
            return self.former is not None and self.former.cut_at_ns is not None
        return self.state in ENDED or self.state in {State.ACTIVE, State.IRREVOCABLE}

    def replayable(self, actor_id: str, now_ns: int) -> bool:
        """Whether this actor may have the secret once more: an answer of theirs told it a moment ago, and answers get lost."""
        told = self.secret is not None and self.delivered_at_ns is not None and self.told_to == actor_id
        return told and now_ns < (self.secret_until_ns or 0)

    @property
    def living(self) -> frozenset[int]:
        """Generations whose secrets may work at the vendor."""
        if self.state in ENDED and not self.owed:
            return frozenset()
        return frozenset({self.secret_generation} if self.former is None else {self.secret_generation, self.former.generation})

    def delivery(self, now_ns: int) -> Delivery:
        if self.secret is not None and self.delivered_at_ns is None and (self.secret_until_ns is None or now_ns < self.secret_until_ns):
            return Delivery.WAITING
        return Delivery.TOLD if self.delivered_at_ns is not None else Delivery.NONE


@dataclass(frozen=True, slots=True)
class KnownSecret:
    """A secret that was kept or handed out, by its keyed digest: a key's own of one generation, or a token that was fetched for it."""

    digest: str = field(repr=False)
    key_id: str
    organization_id: str
    generation: int
    known_at_ns: int
    minted_by: str | None = None  # who fetched the token; None: the key's own secret
    expires_at_ns: int | None = None  # when it ends by itself
    ended_at_ns: int | None = None  # when the vendor had confirmed that its generation is gone
    reported_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class IssueDraft:
    """What a new key shall be."""

    vendor: str
    owner: Place | None
    terms: Terms
    name: str | None = None
    account: str | None = None  # id or name; None: the only one, or `default`
    options: Mapping[str, str] = field(default_factory=dict)
    rotate_every_days: int | None = None
    rotate_overlap_seconds: int | None = None
    allow_unenforced: bool = False  # make it also where the vendor can't enforce a term
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class IssuedFilter:
    """None: any."""

    owner_id: str | None = None
    vendor: str | None = None
    state: State | None = None


@dataclass(frozen=True, slots=True)
class VendorStep:
    """One call that changed something at a vendor, as it was written down before and after. No end: it was cut off."""

    sequence: int
    what: str
    began_at_ns: int
    ended_at_ns: int | None
    outcome: str | None


def asked(terms: Terms) -> frozenset[Term]:
    """Which terms have a value."""
    named = {
        Term.BUDGET: terms.budget_nano,
        Term.MODELS: terms.models,
        Term.REQUESTS_PER_MINUTE: terms.requests_per_minute,
        Term.TOKENS_PER_MINUTE: terms.tokens_per_minute,
        Term.SCOPES: terms.scopes,
        Term.EXPIRY: terms.expires_at_ns,
    }
    return frozenset(term for term, value in named.items() if value is not None)


_EXPIRY_SLACK_NS = 60 * NANOSECONDS  # vendors take an end as seconds from now


def compare(
    wanted: Terms,
    told: Terms,
    facts: ProvisionerFacts,
    *,
    own_end: bool = False,
    rotated: bool = False,
    before: Mapping[str, Enforcement] | None = None,
) -> dict[str, Enforcement]:
    """What stands behind each term that was asked for, by what the vendor has just shown. `facts` are the account's own (`of_account`). An
    end counts as the same within a minute; with `own_end` it is KeyGate's own, which the vendor was not told. `rotated`: there was a key
    before this one, which may have spent of the same budget. `before`: what stood behind them until now, which tells a term that somebody
    changed from one that the vendor was never told, where it depends on the account."""
    same = {
        Term.BUDGET: wanted.budget_nano == told.budget_nano and wanted.budget_period is told.budget_period,
        Term.MODELS: told.models is not None and set(wanted.models or ()) == set(told.models),
        Term.REQUESTS_PER_MINUTE: wanted.requests_per_minute == told.requests_per_minute,
        Term.TOKENS_PER_MINUTE: wanted.tokens_per_minute == told.tokens_per_minute,
        Term.SCOPES: told.scopes is not None and set(wanted.scopes or ()) == set(told.scopes),
        Term.EXPIRY: told.expires_at_ns is not None and abs((wanted.expires_at_ns or 0) - told.expires_at_ns) <= _EXPIRY_SLACK_NS,
    }
    standing = {}
    for term in sorted(asked(wanted)):
        if own_end and term is Term.EXPIRY and not same[term]:
            standing[str(term)] = Enforcement.NOT_ENFORCED
        elif term in facts.confirms_for_some:
            known = None if before is None else before.get(term)
            standing[str(term)] = _by_account(known, same=same[term], untold=term in told.untold, has=term in facts.confirms)
        elif term in facts.confirms:
            shown = Enforcement.PER_KEY if term is Term.BUDGET and rotated and facts.budget_per_key else Enforcement.CONFIRMED
            standing[str(term)] = shown if same[term] else Enforcement.DIFFERS
        else:
            standing[str(term)] = Enforcement.TAKEN if term in facts.takes else Enforcement.NOT_ENFORCED
    return standing


def _by_account(known: Enforcement | None, *, same: bool, untold: bool, has: bool) -> Enforcement:
    """Of a term that the vendor keeps for some accounts only: what it shows counts, whatever is known of the account. `has`: the account is
    known to be one of those."""
    if same:
        return Enforcement.CONFIRMED
    if known is Enforcement.NOT_ENFORCED or (known is None and not has):
        return Enforcement.NOT_ENFORCED  # the vendor was never told
    return Enforcement.LOST if untold and known is not None else Enforcement.DIFFERS


def compare_with(key: IssuedKey, told: Terms, facts: ProvisionerFacts) -> dict[str, Enforcement]:
    """`compare` for the terms of a key that is made."""
    return compare(key.terms, told, facts, own_end=key.own_end, rotated=key.generation > 1, before=key.enforcement)
