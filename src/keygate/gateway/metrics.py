"""Counters of the request path: plain integers while requests run, Prometheus only when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_MAX_SERIES = 4096


class _Latency:
    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.total = 0.0


class Metrics(Collector):
    """Labels come from fixed vocabularies (vendor, endpoint, status, rule); never from a caller's text."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], int] = {}
        self._refusals: dict[str, int] = {}
        self._latency: dict[str, _Latency] = {}
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """A value that is read when the metrics are: open holds, connections, the journal's lag."""
        self._gauges.append((name, documentation, read))

    def answered(self, vendor: str, endpoint: str, status: int) -> None:
        label = (vendor, endpoint, status)
        if label in self._requests or len(self._requests) < _MAX_SERIES:
            self._requests[label] = self._requests.get(label, 0) + 1

    def refused(self, rule: str) -> None:
        if rule in self._refusals or len(self._refusals) < _MAX_SERIES:
            self._refusals[rule] = self._refusals.get(rule, 0) + 1

    def upstream(self, vendor: str, seconds: float) -> None:
        """Time from sending a request to the vendor's last byte."""
        latency = self._latency.get(vendor)
        if latency is None:
            latency = self._latency[vendor] = _Latency()
        latency.buckets[bisect_left(BOUNDS, seconds)] += 1
        latency.total += seconds

    def collect(self) -> Iterable[Metric]:
        requests = CounterMetricFamily("keygate_gateway_requests", "Requests answered", labels=("vendor", "endpoint", "status"))
        for (vendor, endpoint, status), count in list(self._requests.items()):
            requests.add_metric((vendor, endpoint, str(status)), count)
        yield requests
        refusals = CounterMetricFamily("keygate_gateway_refusals", "Requests refused by the gateway, by rule", labels=("rule",))
        for rule, count in list(self._refusals.items()):
            refusals.add_metric((rule,), count)
        yield refusals
        histogram = HistogramMetricFamily("keygate_gateway_upstream_seconds", "From sending to the vendor's last byte", labels=("vendor",))
        for vendor, latency in list(self._latency.items()):
            sums = accumulate(latency.buckets)
            names = [*map(str, BOUNDS), "+Inf"]
            histogram.add_metric((vendor,), list(zip(names, sums, strict=True)), latency.total)
        yield histogram
        for name, documentation, read in self._gauges:
            yield GaugeMetricFamily(name, documentation, value=read())
