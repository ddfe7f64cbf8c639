"""What stands in the journal: a boot, contexts, begins and settles, written as MessagePack arrays.

What the requests of one key for one model have in common is written once a segment, as a *context* with a number; begins and settles
name it. So a request takes a third of the bytes, and of the time to write, read and post them.

The byte format is a contract with files that outlive the process: fields are only ever added at the end, with a default.
No secret, no prompt and no answer is ever part of a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from keygate.ledger.model import TokenUsage

BOOT = 0  # 1 and 2: begins and settles of format version 1, in `former.py`
CONTEXT = 3
BEGIN = 4
SETTLE = 5

Amounts = tuple[tuple[str, int], ...]  # (limit id, what counts towards it)


class Position(NamedTuple):
    """A place between two records: everything before it has been read. `START` is before the first record."""

    segment: int
    offset: int


START = Position(0, 0)


class Boot(msgspec.Struct, frozen=True, array_like=True):
    """The first record of a process's first segment."""

    boot_id: str
    at_ns: int
    version: str


class Context:
    """Whose requests, for what, at which price, and what they count towards. The same object for all of them, so that what follows from it
    is worked out once. Its facts never change; `journal`, `number` and `segment` are the writer's: where it stands, under which number.
    """

    __slots__ = (
        "app_id",
        "budgets",
        "day_limits",
        "developer_id",
        "endpoint",
        "journal",
        "key_id",
        "minute_limits",
        "model",
        "model_asked",
        "number",
        "organization_id",
        "price_id",
        "row",
        "segment",
        "streamed",
        "tags",
        "team_id",
        "vendor",
    )

    def __init__(
        self,
        organization_id: str,
        key_id: str,
        team_id: str | None,
        developer_id: str | None,
        app_id: str | None,
        tags: tuple[str, ...],
        vendor: str,
        model_asked: str,
        model: str,  # as routed, without the vendor
        endpoint: str,
        streamed: bool,
        price_id: str | None,  # None: no price is known
        budgets: Amounts,  # (budget id, start of the window or bucket that the spend belongs to)
        minute_limits: tuple[tuple[str, bool], ...],  # (limit id, whether tokens count or requests), limits per minute
        day_limits: tuple[tuple[str, bool], ...],  # the same for limits per day
    ) -> None:
        self.organization_id = organization_id
        self.key_id = key_id
        self.team_id = team_id
        self.developer_id = developer_id
        self.app_id = app_id
        self.tags = tags
        self.vendor = vendor
        self.model_asked = model_asked
        self.model = model
        self.endpoint = endpoint
        self.streamed = streamed
        self.price_id = price_id
        self.budgets = budgets
        self.minute_limits = minute_limits
        self.day_limits = day_limits
        self.journal: object = None
        self.number = 0
        self.segment = 0
        self.row: tuple[object, ...] | None = None  # the reader's: the columns of a posting that depend on nothing else

    @property
    def fields(self) -> ContextFields:
        return (
            self.organization_id,
            self.key_id,
            self.team_id,
            self.developer_id,
            self.app_id,
            self.tags,
            self.vendor,
            self.model_asked,
            self.model,
            self.endpoint,
            self.streamed,
            self.price_id,
            self.budgets,
            self.minute_limits,
            self.day_limits,
        )


ContextFields = tuple[
    str,
    str,
    str | None,
    str | None,
    str | None,
    tuple[str, ...],
    str,
    str,
    str,
    str,
    bool,
    str | None,
    Amounts,
    tuple[tuple[str, bool], ...],
    tuple[tuple[str, bool], ...],
]


def _amounts(limits: tuple[tuple[str, bool], ...], requests: int, tokens: int) -> Amounts:
    return tuple([(limit_id, tokens if of_tokens else requests) for limit_id, of_tokens in limits])


class Begin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request is about to be sent. With its context, all that is needed to charge it if no settle ever follows."""

    context: Context
    request_id: str
    at_ns: int
    hold_nano: int
    hold_tokens: int
    service_tier: str | None = None

    @property
    def minute_limits(self) -> Amounts:
        """What it takes from each limit per minute."""
        return _amounts(self.context.minute_limits, 1, self.hold_tokens)

    @property
    def day_limits(self) -> Amounts:
        return _amounts(self.context.day_limits, 1, self.hold_tokens)


class Settle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a request ended. Needs only its context to become a ledger entry."""

    context: Context
    request_id: str
    at_ns: int  # when it ended
    began_at_ns: int
    hold_nano: int
    cost_nano: int | None  # None: unpriced, which is not zero
    in_doubt: bool  # charged at its hold because the true usage is unknown
    usage: TokenUsage | None
    status: int
    outcome: str
    requests: int = 1  # what it counted towards limits on requests in the end: 0 where it was never sent
    tokens: int = 0  # and towards limits on tokens
    model_served: str | None = None
    service_tier: str | None = None
    credential_id: str | None = None
    latency_ns: int = 0
    first_token_ns: int | None = None
    upstream_request_id: str | None = None

    @property
    def minute_limits(self) -> Amounts:
        """What it counted towards each limit per minute in the end."""
        return _amounts(self.context.minute_limits, self.requests, self.tokens)

    @property
    def day_limits(self) -> Amounts:
        """The same for limits per day, at `began_at_ns`."""
        return _amounts(self.context.day_limits, self.requests, self.tokens)


Record = Boot | Begin | Settle


def _number(context: object) -> int:
    if not isinstance(context, Context):
        raise NotImplementedError  # as msgspec's hooks say that a type is not theirs
    return context.number


encode = msgspec.msgpack.Encoder(enc_hook=_number).encode  # a begin or a settle names its context by its number

_CONTEXT = msgspec.msgpack.Decoder(tuple[int, ContextFields])


def encode_context(context: Context) -> bytes:
    return encode((context.number, context.fields))


class ContextsOfSegment:
    """Decodes the records of one segment, where a context has to stand before what names it.

    Raises `msgspec.DecodeError` for what is no such record, `KeyError` for a context that does not stand there.
    """

    def __init__(self) -> None:
        self._known: dict[int, Context] = {}

        def look_up(_: type, number: object, known: Mapping[object, Context] = self._known) -> Context:  # type: ignore[assignment]  # ints
            return known[number]

        self.begin = msgspec.msgpack.Decoder(Begin, dec_hook=look_up).decode
        self.settle = msgspec.msgpack.Decoder(Settle, dec_hook=look_up).decode

    def learn(self, data: bytes | memoryview) -> None:
        """Takes in a context."""
        number, fields = _CONTEXT.decode(data)
        self._known[number] = Context(*fields)
