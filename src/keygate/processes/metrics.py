"""What `/metrics` shows: the gateway's counters, and what other parts tell when they are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import prometheus_client
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from keygate import __version__
from keygate.gateway.gateway import Gateway
from keygate.processes.ledgering import Ledger
from keygate.processes.worker import Worker


class _Process(Collector):
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("keygate_build", "Which KeyGate this is", value={"version": __version__})
        failures = CounterMetricFamily("keygate_worker_failures", "Turns of a job that failed; it is tried again", labels=("job",))
        for job in self._worker.names:
            failures.add_metric((job,), self._worker.failed.get(job, 0))
        yield failures


def exposition(gateway: Gateway, ledger: Ledger, worker: Worker) -> Callable[[], bytes]:
    """Makes the text that Prometheus reads. Labels come from fixed vocabularies, never from a caller's text."""
    registry = CollectorRegistry()
    registry.register(gateway.metrics)
    registry.register(_Process(worker))
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    gauge, counter = gateway.metrics.gauge, gateway.metrics.counter
    accounts = ledger.accounts
    gauge("keygate_journal_lag_bytes", "Journal not yet folded into the ledger", lambda: ledger.fold.lag().bytes)
    gauge("keygate_journal_lag_seconds", "Age of the oldest record not yet folded", lambda: ledger.fold.lag().seconds)
    gauge("keygate_journal_settles_waiting", "Settled requests that the journal could not take", lambda: accounts.health.settles_waiting)
    gauge("keygate_journal_failing", "1 while the journal can't be written", lambda: float(bool(accounts.health.journal_failing)))
    counter("keygate_ledger_entries_folded", "Ledger entries added since the start", lambda: ledger.fold.folded)
    gauge("keygate_holds_usd", "Money held for requests in flight, in US dollars", lambda: accounts.health.held_nano / 1e9)
    gauge("keygate_holds_waiting", "Requests that wait for a hold", lambda: accounts.health.waiting)
    counter("keygate_recordings_dropped", "Recorded contents dropped because they came too fast", lambda: ledger.recorder.dropped)
    return lambda: prometheus_client.generate_latest(registry)
