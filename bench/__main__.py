"""One table: what a request and a streamed chunk cost, and how much later answers come, KeyGate against nginx in the same run."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import statistics
import sysconfig
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench import load, scale, subjects, upstream

_BODY = {
    "model": "gpt-4.1-mini",
    "messages": [
        {"role": "system", "content": "You answer in one paragraph."},
        {"role": "user", "content": "Where does the money go? " * 20},
    ],
    "max_tokens": 256,
}
PLAIN = json.dumps(_BODY, separators=(",", ":")).encode()
STREAMED = json.dumps({**_BODY, "stream": True, "stream_options": {"include_usage": True}}, separators=(",", ":")).encode()


ROUNDS = 4  # latencies are taken in turns, so that what else the machine does meets everyone
LITELLM = Path(".litellm")


@dataclass(frozen=True, slots=True)
class Result:
    plain_us: float
    plain_per_second: float
    chunk_us: float
    added_p50_us: float
    added_p99_us: float
    failed: int


async def _cpu(subject: subjects.Subject, body: bytes, *, connections: int, seconds: float) -> tuple[float, load.Tally]:
    """CPU seconds that the subject spent per request."""
    request = load.request_bytes(subject.path, body, token=subject.token, port=subject.port)
    await load.drive(subject.port, request, connections=connections, seconds=min(1.0, seconds / 4))
    await asyncio.sleep(0.3)
    before = subject.cpu_seconds()
    tally = await load.drive(subject.port, request, connections=connections, seconds=seconds)
    await asyncio.sleep(subject.settles_after)  # work that was put off counts too
    return (subject.cpu_seconds() - before) / max(tally.requests, 1), tally


async def _latencies(measured: list[subjects.Subject], upstream_port: int, *, rate: float, seconds: float) -> dict[str, list[float]]:
    """Seconds from when a request was due to the end of its answer, sorted; "" is the upstream by itself."""
    targets = [("", upstream_port, "/v1/chat/completions", "none"), *((s.name, s.port, s.path, s.token) for s in measured)]
    found: dict[str, list[float]] = {name: [] for name, *_ in targets}
    for _ in range(ROUNDS):
        for name, port, path, token in targets:
            request = load.request_bytes(path, PLAIN, token=token, port=port)
            await load.drive(port, request, connections=32, seconds=0.3, rate=rate)
            tally = await load.drive(port, request, connections=64, seconds=seconds / ROUNDS, rate=rate)
            found[name] += tally.latencies
    return {name: sorted(latencies) for name, latencies in found.items()}


async def _run(measured: list[subjects.Subject], upstream_port: int, *, seconds: float) -> dict[str, Result]:
    raw: dict[str, tuple[float, float, float, int]] = {}
    for subject in measured:
        plain, tally = await _cpu(subject, PLAIN, connections=32, seconds=seconds)
        chunk, streamed = await _cpu(subject, STREAMED, connections=24, seconds=seconds)
        raw[subject.name] = (plain, tally.requests / tally.seconds, chunk / upstream.CHUNKS, tally.failed + streamed.failed)
    rate = 0.5 * min(1 / raw["KeyGate"][0], raw["KeyGate"][1])
    latencies = await _latencies(measured, upstream_port, rate=rate, seconds=seconds)

    def added(name: str, share: float) -> float:
        return (_at(latencies[name], share) - _at(latencies[""], share)) * 1e6

    return {
        name: Result(plain * 1e6, per_second, chunk * 1e6, added(name, 0.5), added(name, 0.99), failed)
        for name, (plain, per_second, chunk, failed) in raw.items()
    }


async def _alone(subject: subjects.Subject, *, seconds: float) -> Result:
    """One run without latencies: at KeyGate's rate it would only queue."""
    plain, tally = await _cpu(subject, PLAIN, connections=32, seconds=seconds)
    chunk, streamed = await _cpu(subject, STREAMED, connections=24, seconds=seconds)
    failed = tally.failed + streamed.failed
    return Result(plain * 1e6, tally.requests / tally.seconds, chunk / upstream.CHUNKS * 1e6, math.nan, math.nan, failed)


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _median(runs: list[dict[str, Result]], name: str) -> Result:
    members = [run[name] for run in runs]
    middle = {field: statistics.median(getattr(m, field) for m in members) for field in Result.__dataclass_fields__ if field != "failed"}
    return Result(**middle, failed=sum(m.failed for m in members))


def _print(results: dict[str, Result], *, runs: int, seconds: float) -> None:
    base = results["nginx proxy_pass"]
    table = Table(
        title=f"Medians of {runs} runs of {seconds:g} s; one pinned core; CPU time of the whole process from the operating system"
    )
    for heading in (
        "",
        "CPU µs/request",
        "× nginx",
        "requests/s seen",
        "CPU µs/chunk",
        "× nginx",
        "added p50 µs",
        "added p99 µs",
        "× nginx",
        "failed",
    ):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, result in results.items():
        table.add_row(
            name,
            f"{result.plain_us:.1f}",
            f"{result.plain_us / base.plain_us:.2f}",
            f"{result.plain_per_second:,.0f}",
            f"{result.chunk_us:.1f}",
            f"{result.chunk_us / base.chunk_us:.2f}",
            f"{result.added_p50_us:.0f}",
            f"{result.added_p99_us:.0f}",
            f"{result.added_p99_us / base.added_p99_us:.2f}",
            str(result.failed),
        )
    Console(width=150).print(table)


def _machine() -> str:
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    build = "optimised build" if optimised else "build without profile-guided optimisation"
    load_average = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores (load average before: {load_average}), "
        f"Python {platform.python_version()} ({build})"
    )


def _measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> tuple[dict[str, Result], list[scale.Row]]:
    upstream_port = stack.enter_context(subjects.upstream(folder))
    results: dict[str, Result] = {}
    if not options.only_scale:
        with ExitStack() as running:
            measured = [running.enter_context(subjects.nginx(upstream_port, folder))]
            measured.append(running.enter_context(subjects.keygate(upstream_port, folder)))
            runs = []
            for number in range(options.runs):
                print(f"run {number + 1} of {options.runs} …", flush=True)
                runs.append(uvloop.run(_run(measured, upstream_port, seconds=options.seconds)))
        results = {subject.name: _median(runs, subject.name) for subject in measured}
    if results and options.with_litellm:  # by itself: it goes on working when its callers have left
        with subjects.litellm(upstream_port, folder, subjects.install_litellm(LITELLM.absolute())) as subject:
            results[subject.name] = uvloop.run(_alone(subject, seconds=options.seconds))
    rows = []
    if options.scale or options.only_scale:
        amount = scale.Amount(options.keys, options.entries)
        rows = scale.measure(folder, upstream_port, PLAIN, amount=amount, runs=options.runs, seconds=options.seconds)
    return results, rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--scale", action="store_true", help="also many keys, many ledger entries, start-up and memory (some minutes more)")
    parser.add_argument("--only-scale", action="store_true", help="only that")
    parser.add_argument("--keys", type=int, default=scale.MANY, help="how many keys are many")
    parser.add_argument("--entries", type=int, default=scale.ENTRIES, help="how many ledger entries")
    parser.add_argument("--with-litellm", action="store_true", help="measure LiteLLM too, in an environment of its own (installs it)")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("bench: needs two cores, one for what is measured and one for the load")
    os.sched_setaffinity(0, {subjects.LOAD_CORE})
    print(_machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="keygate-bench-") as name, ExitStack() as stack:
        results, rows = _measure(options, Path(name), stack)
    if results:
        _print(results, runs=options.runs, seconds=options.seconds)
    if rows:
        Console(width=150).print(scale.table(rows))
    if options.json:
        numbers = {name: {f: getattr(r, f) for f in Result.__dataclass_fields__} for name, r in results.items()}
        options.json.write_text(json.dumps({"speed": numbers, "scale": {row.what: row.value for row in rows}}, indent=2))


if __name__ == "__main__":
    main()
