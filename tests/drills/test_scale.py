"""What size does: starts with a full database, memory at rest and after many requests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from bench.fill import fill
from bench.load import drive, request_bytes
from bench.scale import installed
from bench.subjects import free_port, wait_for
from tests.drills import figures
from tests.running import RunningKeyGate

KEYS = figures.length(2_000, 100_000)
ENTRIES = figures.length(20_000, 1_000_000)
FEW, MANY = figures.length(2_000, 20_000), figures.length(20_000, 200_000)
CONNECTIONS = 32
READY_SECONDS = 3.0
IDLE_MB = 120


@contextmanager
def _vendor() -> Iterator[int]:
    """The benchmark's vendor: fixed answers that cost nothing to make. Its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.upstream", str(port)], cwd=Path(__file__).resolve().parents[2])
    try:
        wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _memory(keygate: RunningKeyGate) -> float:
    assert keygate.process is not None
    return psutil.Process(keygate.process.pid).memory_info().rss / 1e6


def _cpu(keygate: RunningKeyGate) -> float:
    assert keygate.process is not None
    times = psutil.Process(keygate.process.pid).cpu_times()
    return times.user + times.system


def test_an_installation_is_small() -> None:
    """The server alone, without what is installed here for development."""
    distributions, megabytes = installed()
    assert 20 < distributions <= 60
    assert 50 < megabytes <= 200


@pytest.mark.timeout(figures.length(300, 3000))
async def test_full_database_starts_as_fast_as_an_empty_one(tmp_path: Path) -> None:
    keygate = RunningKeyGate(tmp_path)
    figures_of: dict[str, list[dict[str, float]]] = {"empty": [], "full": []}

    async def starts(name: str) -> None:
        for _ in range(figures.length(2, 3)):
            ready = await asyncio.to_thread(keygate.start)
            cpu = _cpu(keygate)
            await asyncio.sleep(2)
            figures_of[name].append({"ready_s": round(ready, 2), "cpu_s": round(cpu, 2), "idle_mb": round(_memory(keygate), 1)})
            await asyncio.to_thread(keygate.stop)

    first = await asyncio.to_thread(keygate.start)
    await asyncio.to_thread(keygate.stop)
    await starts("empty")
    began = time.monotonic()
    await fill(None, data_dir=keygate.data_dir, keys=KEYS, entries=ENTRIES, say=lambda _: None)
    filled = time.monotonic() - began
    await starts("full")
    await asyncio.to_thread(keygate.start)
    usage = await asyncio.to_thread(keygate.call, "GET", "/usage", group_by="model")
    await asyncio.to_thread(keygate.stop)
    keygate.__exit__(None, None, None)
    assert sum(row["requests"] for row in usage["items"]) >= ENTRIES * 0.99
    best = {name: min(each["ready_s"] for each in found) for name, found in figures_of.items()}
    cpu = {name: min(each["cpu_s"] for each in found) for name, found in figures_of.items()}
    idle = max(each["idle_mb"] for found in figures_of.values() for each in found)
    line = (
        f"ready in {best['full']} s with {KEYS:,} keys and {ENTRIES:,} entries, {best['empty']} s with none (CPU {cpu['full']} and "
        f"{cpu['empty']} s); at rest {idle} MB"
    )
    figures.write("scale-start", line, first_start_s=round(first, 2), filled_in_s=round(filled, 1), starts=figures_of)
    assert idle <= IDLE_MB
    assert cpu["full"] <= cpu["empty"] + 0.5, "what stands in the database must not be read at the start"
    if figures.FULL:
        assert best["full"] <= READY_SECONDS


@pytest.mark.timeout(figures.length(300, 3000))
async def test_memory_does_not_grow_with_requests(tmp_path: Path) -> None:
    with _vendor() as port, RunningKeyGate(tmp_path) as keygate:
        keygate.credential("openai", f"http://127.0.0.1:{port}/v1", "upstream-key")
        made = keygate.key("memory", budgets=[{"amount_usd": "1000000.00", "period": "month"}], limits={"requests_per_minute": 100_000_000})
        body = b'{"model":"gpt-4.1-mini","messages":[{"role":"user","content":"Say it."}],"max_tokens":200}'
        data = request_bytes("/openai/v1/chat/completions", body, token=made["key"], port=keygate.port)
        done, runs, seen = 0, 0, {}
        for target in (FEW, MANY):
            while done < target:
                tally = await drive(keygate.port, data, connections=CONNECTIONS, seconds=20, most=target - done)
                assert not tally.failed
                done += tally.requests
                runs += 1
            await asyncio.sleep(3)  # the fold catches up
            seen[done] = round(_memory(keygate), 1)
        usage = keygate.usage(made["id"])
    assert done <= usage["requests"] <= done + runs * CONNECTIONS, "those in flight at the end of a run stand in the ledger too"
    (few, before), (many, after) = seen.items()
    line = f"{before} MB after {few:,} requests, {after} MB after {many:,}: {100 * (after - before) / before:+.1f} %"
    figures.write("scale-memory", line, mb=seen)
    assert after <= before * 1.2
