"""Counters of the request path: plain integers while requests run, Prometheus only when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final, final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_MAX_SERIES = 4096
_BOUNDS_NS: Final = [round(bound * 1e9) for bound in BOUNDS]


@final
class Tally:
    """What is counted of one vendor's endpoint."""

    __slots__ = ("buckets", "endpoint", "nanoseconds", "statuses", "vendor")

    def __init__(self, vendor: str, endpoint: str) -> None:
        self.vendor = vendor
        self.endpoint = endpoint
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.nanoseconds = 0

    def answered(self, status: int) -> None:
        statuses = self.statuses
        statuses[status] = statuses.get(status, 0) + 1

    def settled(self, status: int, latency_ns: int) -> None:
        """A request that went to the vendor has ended, so long after it began."""
        statuses = self.statuses
        statuses[status] = statuses.get(status, 0) + 1
        self.nanoseconds += latency_ns
        bucket = 0
        for bound in _BOUNDS_NS:
            if latency_ns <= bound:
                break
            bucket += 1
        self.buckets[bucket] += 1


class Metrics(Collector):
    """Labels come from fixed vocabularies (vendor, endpoint, status, rule); never from a caller's text."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._refusals: dict[str, int] = {}
        self._unfinished: dict[str, int] = {}
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._counters: list[tuple[str, str, Callable[[], float]]] = []

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """A value that is read when the metrics are: open holds, connections, the journal's lag."""
        self._gauges.append((name, documentation, read))

    def counter(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """As `gauge`, for what only rises while the process lives; `_total` is added to the name."""
        self._counters.append((name, documentation, read))

    def tally(self, vendor: str, endpoint: str) -> Tally:
        label = (vendor, endpoint)
        found = self._tallies.get(label)
        if found is None:
            found = self._tallies[label] = Tally(vendor, endpoint)
        return found

    def refused(self, rule: str) -> None:
        if rule in self._refusals or len(self._refusals) < _MAX_SERIES:
            self._refusals[rule] = self._refusals.get(rule, 0) + 1

    def unfinished(self, outcome: str) -> None:
        self._unfinished[outcome] = self._unfinished.get(outcome, 0) + 1

    def collect(self) -> Iterable[Metric]:
        requests = CounterMetricFamily("keygate_gateway_requests", "Requests answered", labels=("vendor", "endpoint", "status"))
        for tally in list(self._tallies.values()):
            for status, count in list(tally.statuses.items()):
                requests.add_metric((tally.vendor, tally.endpoint, str(status)), count)
        yield requests
        refusals = CounterMetricFamily("keygate_gateway_refusals", "Requests refused by the gateway, by rule", labels=("rule",))
        for rule, count in list(self._refusals.items()):
            refusals.add_metric((rule,), count)
        yield refusals
        unfinished = CounterMetricFamily(
            "keygate_gateway_unfinished", "Requests with a hold whose answer did not end as it should, by outcome", labels=("outcome",)
        )
        for outcome, count in list(self._unfinished.items()):
            unfinished.add_metric((outcome,), count)
        yield unfinished
        histogram = HistogramMetricFamily(
            "keygate_gateway_upstream_duration_seconds",
            "From a request's head to the end of the vendor's answer",
            labels=("vendor", "endpoint"),
        )
        names = [*map(str, BOUNDS), "+Inf"]
        for tally in list(self._tallies.values()):
            if not any(tally.buckets):
                continue  # refused by us, so far: what reached no vendor has no duration there
            sums = accumulate(tally.buckets)
            histogram.add_metric((tally.vendor, tally.endpoint), list(zip(names, sums, strict=True)), tally.nanoseconds / 1e9)
        yield histogram
        for name, documentation, read in self._gauges:
            yield GaugeMetricFamily(name, documentation, value=read())
        for name, documentation, read in self._counters:
            yield CounterMetricFamily(name, documentation, value=read())
