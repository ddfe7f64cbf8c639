"""What grows: start-up, memory, and cost per request with many keys; and what an installation takes."""

from __future__ import annotations

import asyncio
import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

import uvloop
from packaging.requirements import Requirement
from rich.table import Table

from bench import fill, load, subjects
from keygate.config import Settings
from keygate.kit.database import open_database
from keygate.processes.foundation import lay
from keygate.processes.node import DataDirectory

FEW, MANY, ENTRIES = 100, 100_000, 1_000_000
_PATH = "/openai/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Amount:
    keys: int
    entries: int


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    value: float
    unit: str
    target: float | None = None

    @property
    def verdict(self) -> str:
        return "" if self.target is None else "holds" if self.value <= self.target else "misses"


def installed() -> tuple[int, float]:
    """Distributions that the server needs, itself included, and their megabytes on disk with compiled bytecode."""
    found: dict[str, Distribution] = {}
    waiting = ["keygate-server"]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found[name] = distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting += [requirement.name, *(extra.name for extra in _of_extras(requirement))]
    size = 0
    for each in found.values():
        files = {Path(str(each.locate_file(file))) for file in each.files or ()}
        files |= {compiled for file in files for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc")}
        size += sum(file.stat().st_size for file in files if file.is_file())
    return len(found), size / 1e6


def _of_extras(requirement: Requirement) -> list[Requirement]:
    if not requirement.extras:
        return []
    lines = [Requirement(line) for line in distribution(requirement.name).requires or ()]
    return [
        line for line in lines if line.marker is not None and any(line.marker.evaluate({"extra": extra}) for extra in requirement.extras)
    ]


async def _keys(data_dir: Path, count: int) -> list[str]:
    """Makes keys in a data directory whose server is stopped; returns their tokens."""
    base = await lay(Settings(KEYGATE_DATA_DIR=data_dir), DataDirectory(data_dir))
    try:
        async with base.database.read() as connection:
            organization = await fill.organization(connection)
        _, tokens = await fill.fill_keys(base.database, organization, count, pepper=base.pepper)
    finally:
        await base.close()
    return tokens


async def _entries(data_dir: Path, count: int) -> None:
    database = open_database(None, data_dir=data_dir)
    try:
        async with database.read() as connection:
            organization = await fill.organization(connection)
        await fill.fill_entries(database, organization, await fill.key_ids(database), count)
    finally:
        await database.close()


def _requests(tokens: list[str], body: bytes) -> list[bytes]:
    return [load.request_bytes(_PATH, body, token=token, port=80) for token in tokens]


async def _cost(subject: subjects.Subject, requests: list[bytes], *, seconds: float) -> float:
    """CPU µs per request, folding included."""
    before = subject.cpu_seconds()
    tally = await load.drive(subject.port, requests, connections=32, seconds=seconds)
    await asyncio.sleep(6)  # the next fold
    if tally.failed:
        raise RuntimeError(f"{tally.failed} requests failed")
    return (subject.cpu_seconds() - before) / tally.requests * 1e6


def measure(folder: Path, upstream_port: int, body: bytes, *, amount: Amount, runs: int, seconds: float) -> list[Row]:
    count, size = installed()
    rows = [Row("distributions of a server install", count, "", 60), Row("size of a server install", size, "MB", 200)]
    small, large = folder / "small", folder / "large"
    for data_dir in (small, large):
        with subjects.server(folder, data_dir) as (_, port, ready):
            subjects.furnish(f"http://127.0.0.1:{port}", subjects.PASSWORD, upstream_port)
    rows.append(Row("ready, first start", ready, "s", 3))
    few = asyncio.run(_keys(small, FEW))
    print(f"making {amount.keys:,} keys and {amount.entries:,} ledger entries …", flush=True)
    many = asyncio.run(_keys(large, amount.keys))
    asyncio.run(_entries(large, amount.entries))
    with ExitStack() as stack:
        process, port, ready = stack.enter_context(subjects.server(folder, small))
        rows.append(Row("ready", ready, "s", 3))
        first = subjects.Subject("small", port, _PATH, few[0], process)
        process, port, ready = stack.enter_context(subjects.server(folder, large))
        rows.append(Row(f"ready, {amount.keys:,} keys and {amount.entries:,} entries", ready, "s", 3))
        second = subjects.Subject("large", port, _PATH, many[0], process)
        uvloop.run(asyncio.sleep(5))
        rows.append(Row("memory, idle", first.memory_mb(), "MB", 120))
        rows.append(Row(f"memory, idle, {amount.keys:,} keys and {amount.entries:,} entries", second.memory_mb(), "MB", 120))
        rows += _costs(first, second, _requests(few, body), _requests(many, body), runs=runs, seconds=seconds)
        rows.append(Row(f"memory with {len(many):,} keys in use", second.memory_mb(), "MB"))
    rows += _memory(folder, small, _requests(few, body))
    return rows


def _costs(
    small: subjects.Subject, large: subjects.Subject, few: list[bytes], many: list[bytes], *, runs: int, seconds: float
) -> list[Row]:
    """The two servers in turn, so that what else the machine does meets both. All keys of the large one come into use after the others
    are measured: what they leave to be folded and written would count for the next."""
    first, all_of_them = _requests_in_use(small, few), _requests_in_use(large, many[:FEW])
    pairs = [[uvloop.run(_cost(subject, requests, seconds=seconds)) for subject, requests in (first, all_of_them)] for _ in range(runs)]
    base, exist = (statistics.median(column) for column in zip(*pairs, strict=True))
    began = large.cpu_seconds()
    _requests_in_use(large, many[FEW:])  # each key once: it is read from the database then
    read = (large.cpu_seconds() - began) / max(len(many) - FEW, 1)
    uvloop.run(asyncio.sleep(70))  # until nothing of that is left to be written
    turns = ((small, few), (large, many))
    pairs = [[uvloop.run(_cost(subject, requests, seconds=seconds)) for subject, requests in turns] for _ in range(runs)]
    again, used = (statistics.median(column) for column in zip(*pairs, strict=True))
    return [
        Row(f"CPU per request, {FEW} keys", base, "µs"),
        Row(f"CPU per request, {len(many):,} keys, {FEW} in use", exist, "µs", base * 1.1),
        Row(f"CPU of a key's first request, {len(many):,} at once", read * 1e6, "µs"),
        Row(f"CPU per request, {FEW} keys, measured again", again, "µs"),
        Row(f"CPU per request, {len(many):,} keys, all in use", used, "µs", again * 1.1),
    ]


def _requests_in_use(subject: subjects.Subject, requests: list[bytes]) -> tuple[subjects.Subject, list[bytes]]:
    uvloop.run(load.drive(subject.port, requests, connections=32, seconds=600, most=len(requests)))
    return subject, requests


def _memory(folder: Path, data_dir: Path, requests: list[bytes]) -> list[Row]:
    with subjects.server(folder, data_dir) as (process, port, _):
        subject = subjects.Subject("small", port, _PATH, "", process)
        after = []
        for number in (20_000, 180_000):
            uvloop.run(load.drive(port, requests, connections=32, seconds=600, most=number))
            uvloop.run(asyncio.sleep(8))
            after.append(subject.memory_mb())
    return [Row("memory after 20,000 requests", after[0], "MB"), Row("memory after 200,000 requests", after[1], "MB", after[0] * 1.2)]


def table(rows: list[Row]) -> Table:
    made = Table(title="At scale")
    for heading in ("", "measured", "at most", ""):
        made.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        target = "" if row.target is None else f"{row.target:,.1f} {row.unit}".strip()
        made.add_row(row.what, f"{row.value:,.1f} {row.unit}".strip(), target, row.verdict)
    return made
