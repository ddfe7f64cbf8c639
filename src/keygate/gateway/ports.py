"""What the gateway needs from the rest of KeyGate. Implementations are wired in `processes/`; each promise below has a test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from keygate.kit.secret import Secret
from keygate.ledger import Ask, Hold, Recording, Refusal, Settlement
from keygate.policies import KeyState

if TYPE_CHECKING:
    from keygate.gateway.observation import Ended


class KeySource(Protocol):
    """Compiled key states from the control plane's database."""

    async def load(self, public_id: str) -> KeyState | None:
        """The key with this public id in any status, or None. Raises `Unavailable` when the database can't be asked."""

    async def load_by_ids(self, key_ids: Sequence[str]) -> list[KeyState]:
        """The current states of these `vk_…` ids; unknown ids are left out."""


class UpstreamCredential(Protocol):
    """A vendor credential, opened, ready for use."""

    @property
    def id(self) -> str: ...

    @property
    def organization_id(self) -> str: ...

    @property
    def vendor(self) -> str: ...

    @property
    def base_url(self) -> str:
        """The API root as the vendor's own SDK has it."""

    @property
    def secret(self) -> Secret: ...

    @property
    def weight(self) -> int: ...

    @property
    def models(self) -> tuple[str, ...] | None:
        """Patterns on the bare model name; None: all."""


class CredentialSource(Protocol):
    async def load(self) -> Sequence[UpstreamCredential]:
        """All enabled credentials of all organisations."""


class Accounts(Protocol):
    """The ledger's engine: limits, budgets, holds and the journal, in memory, on one event loop."""

    async def bind(self, state: KeyState) -> None:
        """Loads what stands in the database for every budget and limit of this key. Call once per state version, before `begin`."""

    def unbind(self, key_ids: Iterable[str]) -> None:
        """These keys are not in the gateway's memory any more; unknown ids are left out. What is in flight under them still settles."""

    def begin(self, state: KeyState, vendor: str, model: str, ask: Ask) -> Hold | Refusal:
        """Checks every limit and budget that applies and takes all of them or none, then journals the beginning. Never waits."""

    async def begin_waiting(self, state: KeyState, vendor: str, model: str, ask: Ask) -> Hold | Refusal:
        """As `begin`, but where only holds of requests in flight stand in the way, waits a moment for one to settle."""

    def settle(self, hold: Hold, settlement: Settlement) -> int | None:
        """Replaces the hold by what the request cost, journals it, frees slots; returns the cost in nano-dollars (None: its price is not
        known). Idempotent per hold."""

    def exceeded(self, hold: Hold, state: KeyState) -> Refusal | None:
        """For a request in flight whose key has a new state (bound before this is called): a hard budget of that state that applies to the
        request and has less room now than what is spent and held in it, this hold included. None: the request may go on."""


class Prices(Protocol):
    """What the price table knows of models, for lists and for bounds."""

    def models(self, vendor: str) -> Sequence[str]:
        """Bare names of this vendor's priced models, sorted."""

    def context_window(self, vendor: str, model: str) -> int | None:
        """The most input tokens that one request of this model can have; None: not known."""


class Recorder(Protocol):
    """Keeps prompts and answers of the keys whose policies ask for it."""

    @property
    def max_bytes(self) -> int:
        """Of a prompt and of an answer, each; of what is longer, one byte more is offered, so that the cut is seen."""

    def readers(self, state: KeyState) -> tuple[str, ...] | None:
        """Who may read what is recorded under this state; None: nothing is recorded. Asked once per state, route and model."""

    def offer(self, recording: Recording) -> bool:
        """Called at the settlement of a request that was sent. Never waits and never raises; False: it was dropped."""


class Observer(Protocol):
    """Is told of every request that got an answer, when it has ended. Never waits; what it raises is logged and thrown away."""

    def ended(self, ended: Ended) -> None: ...


class StatePublisher(Protocol):
    """How the control plane tells the gateway of changes. Called after commit; when it returns, the change holds for every next request,
    and open streams that the change forbids have been told to end."""

    async def keys_changed(self, key_ids: Sequence[str]) -> None: ...

    async def organization_changed(self, organization_id: str) -> None:
        """Anything that may concern many keys: an owner, a policy, a budget or limit above the key, an alias."""

    async def credentials_changed(self) -> None: ...
