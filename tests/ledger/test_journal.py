"""The journal: its bytes are frozen, a cut at any byte loses at most the torn record, damage elsewhere is never skipped."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from keygate.errors import StartRefused
from keygate.kit.clock import ManualClock, to_ns
from keygate.ledger import TokenUsage
from keygate.ledger.journal import (
    START,
    Begin,
    Boot,
    Context,
    Journal,
    JournalCorrupt,
    JournalReader,
    JournalUnwritable,
    Position,
    Settle,
    claim,
    read_from,
    recover,
)
from keygate.ledger.journal.records import BEGIN, BOOT, CONTEXT, SETTLE, encode, encode_context
from keygate.ledger.journal.segments import MAGIC, frame, segment_numbers, segment_path

CONTEXT_OF = (
    "org_1",
    "vk_1",
    "team_1",
    None,
    None,
    ("project=x",),
    "openai",
    "fast",
    "gpt-4.1",
    "chat",
    True,
    "genai-prices-0.2.3:openai/gpt-4.1",
    (("bud_1", 0), ("bud_2", 1_699_999_200_000_000_000)),
    (("lim_1", False),),
    (("lim_2", True),),
)
AT = 1_700_000_000_000_000_000


def begun(number: int, context: Context | None = None) -> Begin:
    return Begin(context or Context(*CONTEXT_OF), f"req_{number}", AT, 12_345, 678)


def settled(number: int, context: Context | None = None) -> Settle:
    return Settle(
        context or Context(*CONTEXT_OF),
        f"req_{number}",
        AT + 10**9,
        AT,
        12_345,
        6_789,
        False,
        TokenUsage(100, 20, 0, 0, 30, 5),
        200,
        "finished",
        1,
        130,
        "gpt-4.1-2025-04-14",
        "default",
        "crd_1",
        1_000_000_000,
        200_000_000,
        "up_1",
    )


def told(record: Begin | Settle) -> tuple[object, ...]:
    """All that a record says."""
    return (*record.context.fields, *msgspec.structs.astuple(record)[1:])


def test_bytes_of_each_record_are_frozen() -> None:
    context = Context(*CONTEXT_OF)
    context.number = 7
    assert MAGIC.hex() == "4b474a524e4c0002"
    assert frame(bytes([BOOT]) + encode(Boot("boot_1", 5, "0.1.0"))).hex() == VECTORS["boot"]
    assert frame(bytes([CONTEXT]) + encode_context(context)).hex() == VECTORS["context"]
    assert frame(bytes([BEGIN]) + encode(begun(1, context))).hex() == VECTORS["begin"]
    assert frame(bytes([SETTLE]) + encode(settled(1, context))).hex() == VECTORS["settle"]


def test_journals_of_format_version_1_are_read_and_recovered(tmp_path: Path) -> None:
    data = b"KGJRNL\x00\x01" + bytes.fromhex(VECTORS["boot"] + FORMER_VECTORS["begin"])
    segment_path(tmp_path, 1).write_bytes(data + bytes.fromhex(FORMER_VECTORS["settle"]))
    (settle,) = read_from(tmp_path, START).settles
    assert told(settle) == told(settled(1))
    assert settle.minute_limits == (("lim_1", 1),)
    assert settle.day_limits == (("lim_2", 130),)
    segment_path(tmp_path, 1).write_bytes(data)
    lock, identity = claim(tmp_path)
    recovered = recover(tmp_path, lock, identity, START, clock=ManualClock(), boot_id="b", version="1")
    recovered.journal.close()
    (settle,) = read_from(tmp_path, START).settles
    assert (settle.cost_nano, settle.in_doubt, settle.context.fields) == (12_345, True, CONTEXT_OF)
    assert settle.day_limits == (("lim_2", 678),)


def test_reading_may_begin_anywhere_and_knows_the_contexts_that_stand_before(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=4000)
    shared, position, seen = Context(*CONTEXT_OF), START, []
    for number in range(40):
        journal.begin(begun(number, shared))
        journal.settle(settled(number, shared if number % 5 else None))
    while (batch := read_from(tmp_path, position, limit=1)).settles:
        position = batch.position
        seen.append(told(batch.settles[0]))
    assert seen == [told(settled(number)) for number in range(40)]
    reader = JournalReader(tmp_path)
    for start in (position, START, position):  # forwards and backwards
        assert reader.read(start).settles == () if start == position else len(reader.read(start).settles) == 40
    journal.close()


def test_a_record_whose_context_is_missing_is_named(tmp_path: Path) -> None:
    segment_path(tmp_path, 1).write_bytes(MAGIC + bytes.fromhex(VECTORS["begin"]) + bytes.fromhex(VECTORS["settle"]))
    with pytest.raises(JournalCorrupt, match="its context does not stand before it"):
        read_from(tmp_path, START)
    lock, identity = claim(tmp_path)
    with pytest.raises(JournalCorrupt, match="its context does not stand before it"):
        recover(tmp_path, lock, identity, START, clock=ManualClock(), boot_id="b", version="1")
    os.close(lock)


def test_a_context_stands_once_in_each_segment_that_names_it(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=3000)
    shared = Context(*CONTEXT_OF)
    for number in range(60):
        journal.begin(begun(number, shared))
        journal.settle(settled(number, shared))
    journal.close()
    written = frame(bytes([CONTEXT]) + encode_context(shared))
    counts = [segment_path(tmp_path, number).read_bytes().count(written) for number in segment_numbers(tmp_path)]
    assert len(counts) > 3
    assert set(counts) == {1}


def test_a_context_goes_with_its_request_into_another_journal(tmp_path: Path) -> None:
    shared = Context(*CONTEXT_OF)
    for name in ("a", "b"):
        journal = open_journal(tmp_path / name)
        if name == "b":
            journal.settle(settled(0))  # so that numbers differ
        journal.settle(settled(1, shared))
        journal.close()
        assert told(read_from(tmp_path / name, START).settles[-1]) == told(settled(1))


VECTORS = {
    "boot": "1000000036edcf5f0093a6626f6f745f3105a5302e312e30",
    "context": (
        "8b0000006f33c5970392079fa56f72675f31a4766b5f31a67465616d5f31c0c091a970726f6a6563743d78a66f70656e6169a466617374a76770742d"
        "342e31a463686174c3d92167656e61692d7072696365732d302e322e333a6f70656e61692f6770742d342e319292a56275645f310092a56275645f32"
        "cf17979c43f272c0009192a56c696d5f31c29192a56c696d5f32c3"
    ),
    "begin": "190000003f2aa728049607a57265715f31cf17979cfe362a0000cd3039cd02a6c0",
    "settle": (
        "6c00000085b9caa905dc001207a57265715f31cf17979cfe71c4ca00cf17979cfe362a0000cd3039cd1a85c299641400001e05000000ccc8a866696e"
        "697368656401cc82b26770742d342e312d323032352d30342d3134a764656661756c74a56372645f31ce3b9aca00ce0bebc200a475705f31"
    ),
}
FORMER_VECTORS = {
    "begin": (
        "a3000000bdc52f2401dc0014a57265715f31cf17979cfe362a0000a56f72675f31a4766b5f31a67465616d5f31c0c091a970726f6a6563743d78a66f"
        "70656e6169a466617374a76770742d342e31a463686174c3d92167656e61692d7072696365732d302e322e333a6f70656e61692f6770742d342e31cd"
        "3039cd02a69292a56275645f310092a56275645f32cf17979c43f272c0009192a56c696d5f31019192a56c696d5f32cd02a6c0"
    ),
    "settle": (
        "f00000004944d48502dc001ea57265715f31cf17979cfe71c4ca00cf17979cfe362a0000a56f72675f31a4766b5f31a67465616d5f31c0c091a97072"
        "6f6a6563743d78a66f70656e6169a466617374a76770742d342e31a463686174c3d92167656e61692d7072696365732d302e322e333a6f70656e6169"
        "2f6770742d342e31cd3039cd1a85c299641400001e05000000ccc8a866696e69736865649292a56275645f310092a56275645f32cf17979c43f272c0"
        "009192a56c696d5f31019192a56c696d5f32cc82b26770742d342e312d323032352d30342d3134a764656661756c74a56372645f31ce3b9aca00ce0b"
        "ebc200a475705f31"
    ),
}


def open_journal(directory: Path, *, segment_bytes: int = 1 << 20, checkpoint: Position = START) -> Journal:
    lock, identity = claim(directory)
    return recover(
        directory, lock, identity, checkpoint, clock=ManualClock(), boot_id="b", version="1", segment_bytes=segment_bytes
    ).journal


def ids(directory: Path, position: Position = START, limit: int = 1000) -> list[str]:
    return [settle.request_id for settle in read_from(directory, position, limit=limit).settles]


def test_what_was_written_is_read_in_order_and_only_once(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for number in range(10):
        journal.begin(begun(number))
        journal.settle(settled(number))
    first = read_from(tmp_path, START, limit=4)
    second = read_from(tmp_path, first.position, limit=100)
    assert [settle.request_id for settle in first.settles + second.settles] == [f"req_{number}" for number in range(10)]
    assert first.more
    assert not second.more
    assert second.position == journal.position
    assert read_from(tmp_path, second.position).settles == ()
    assert told(first.settles[0]) == told(settled(0))
    journal.close()


def test_reading_goes_on_across_segments(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=2000)
    for number in range(50):
        journal.begin(begun(number))
        journal.settle(settled(number))
    assert len(segment_numbers(tmp_path)) > 5
    position, seen = START, []
    more = True
    while more:
        batch = read_from(tmp_path, position, limit=7)
        seen += [settle.request_id for settle in batch.settles]
        position, more = batch.position, batch.more
    assert seen == [f"req_{number}" for number in range(50)]
    journal.close()


def test_a_new_segment_carries_what_is_still_open_so_that_old_ones_can_go(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=2000)
    journal.begin(begun(0))
    for number in range(1, 30):
        journal.begin(begun(number))
        journal.settle(settled(number))
    end = read_from(tmp_path, START).position
    assert journal.prune(end, AT + 10**9) == 0  # a limit per minute may still look at them
    assert journal.prune(end, to_ns(datetime(2027, 1, 1, tzinfo=UTC))) > 0
    assert segment_numbers(tmp_path)[0] == end.segment
    journal.close()
    lock, identity = claim(tmp_path)
    recovered = recover(tmp_path, lock, identity, end, clock=ManualClock(), boot_id="b2", version="1")
    assert [settle.request_id for settle in recovered.in_doubt] == ["req_0"]
    recovered.journal.close()


def test_a_cut_at_any_byte_loses_at_most_the_torn_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # two thousand of them take half a minute
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    journal = open_journal(tmp_path / "whole")
    for number in range(6):
        journal.begin(begun(number))
        if number % 3:
            journal.settle(settled(number))
    journal.close()
    data = segment_path(tmp_path / "whole", 1).read_bytes()
    boot = len(MAGIC) + 8 + int.from_bytes(data[8:12], "little")
    former: set[str] = set()
    for cut in range(boot, len(data) + 1):
        directory = tmp_path / f"cut{cut}"
        directory.mkdir()
        segment_path(directory, 1).write_bytes(data[:cut])
        seen = ids(directory)
        assert former <= set(seen) | former
        lock, identity = claim(directory)
        recovered = recover(directory, lock, identity, START, clock=ManualClock(), boot_id="b2", version="1")
        after = ids(directory)
        assert len(after) == len(set(after))  # never twice
        charged = {settle.request_id for settle in recovered.in_doubt}
        assert set(after) == set(seen) | charged
        assert not set(seen) & charged
        assert former <= set(after)  # what had begun before this byte is charged, one way or the other
        former = set(after)
        recovered.journal.close()
    assert former == {f"req_{number}" for number in range(6)}


def test_recovery_charges_the_hold_and_says_that_it_is_in_doubt(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.begin(begun(1))
    journal.close()
    for boot in range(3):
        lock, identity = claim(tmp_path)
        recovered = recover(tmp_path, lock, identity, START, clock=ManualClock(), boot_id=f"b{boot}", version="1")
        recovered.journal.close()
        assert len(recovered.in_doubt) == (1 if boot == 0 else 0)
    (settle,) = read_from(tmp_path, START).settles
    assert (settle.cost_nano, settle.in_doubt, settle.usage, settle.context.budgets) == (12_345, True, None, CONTEXT_OF[12])


def test_an_unpriced_request_stays_unpriced_in_recovery(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.begin(begun(1, Context(*CONTEXT_OF[:11], None, *CONTEXT_OF[12:])))
    journal.close()
    lock, identity = claim(tmp_path)
    recovered = recover(tmp_path, lock, identity, START, clock=ManualClock(), boot_id="b", version="1")
    assert recovered.in_doubt[0].cost_nano is None
    recovered.journal.close()


def test_damage_with_records_behind_it_is_named_and_never_skipped(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for number in range(4):
        journal.begin(begun(number))
    journal.close()
    path = segment_path(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalCorrupt, match=r"fails its checksum|no record begins"):
        read_from(tmp_path, START)
    lock, identity = claim(tmp_path)
    with pytest.raises(JournalCorrupt):
        recover(tmp_path, lock, identity, START, clock=ManualClock(), boot_id="b", version="1")
    os.close(lock)


def test_zeros_at_the_end_are_space_that_was_never_written(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.begin(begun(1))
    journal.settle(settled(1))
    journal.close()
    path = segment_path(tmp_path, 1)
    path.write_bytes(path.read_bytes() + bytes(500))
    assert ids(tmp_path) == ["req_1"]


def test_a_missing_segment_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=2000)
    for number in range(30):
        journal.begin(begun(number))
        journal.settle(settled(number))
    journal.close()
    segment_path(tmp_path, 3).unlink()
    with pytest.raises(JournalCorrupt, match=r"000000000003\.kgj is missing"):
        read_from(tmp_path, START)
    segment_path(tmp_path, 1).write_bytes(b"something else")
    with pytest.raises(JournalCorrupt, match="not a journal segment"):
        read_from(tmp_path, START)
    segment_path(tmp_path, 1).write_bytes(b"KGJRNL\x00\x09")
    with pytest.raises(JournalCorrupt, match="format version 9"):
        read_from(tmp_path, START)


def test_a_checkpoint_beyond_the_journal_refuses_the_start(tmp_path: Path) -> None:
    lock, identity = claim(tmp_path)
    with pytest.raises(JournalCorrupt, match="missing"):
        recover(tmp_path, lock, identity, Position(7, 100), clock=ManualClock(), boot_id="b", version="1")
    os.close(lock)


def test_only_one_process_owns_the_journal(tmp_path: Path) -> None:
    lock, _ = claim(tmp_path)
    code = f"from pathlib import Path; from keygate.ledger.journal import claim; claim(Path({str(tmp_path)!r}))"
    other = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "Another KeyGate process uses the journal" in other.stderr
    os.close(lock)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(StartRefused):
        (tmp_path / "file").write_text("")
        claim(tmp_path / "file")


def test_the_journal_keeps_its_name_for_life(tmp_path: Path) -> None:
    lock, first = claim(tmp_path)
    os.close(lock)
    lock, second = claim(tmp_path)
    os.close(lock)
    assert first == second
    assert first.startswith("jrn_")


def test_a_record_that_does_not_fit_on_the_disk_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(tmp_path)
    journal.begin(begun(1))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(JournalUnwritable, match="no space"):
        journal.settle(settled(1))
    monkeypatch.setattr(os, "write", lambda fd, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(JournalUnwritable, match="No space left"):
        journal.begin(begun(2))
    assert journal.state.failing
    monkeypatch.setattr(os, "write", write)
    journal.settle(settled(1))
    assert journal.state.failing is None
    assert ids(tmp_path) == ["req_1"]
    journal.close()


def test_a_new_segment_that_can_not_be_made_refuses_and_recovers(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=1500)
    blocked = segment_path(tmp_path, 2).with_suffix(".kgj.new")
    blocked.mkdir()
    with pytest.raises(JournalUnwritable):
        for number in range(20):
            journal.begin(begun(number))
    blocked.rmdir()
    journal.begin(begun(99))
    journal.settle(settled(99))
    assert ids(tmp_path) == ["req_99"]
    journal.close()


def test_no_file_of_the_journal_is_readable_by_others(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal")
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0
    assert segment_path(tmp_path / "journal", 1).stat().st_mode & 0o077 == 0
    journal.close()
