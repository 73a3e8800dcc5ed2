"""What a receiver accepted is never lost, never doubled, and never blocks what is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from ledger.books import Books
from ledger.errors import SpoolFull, StoreUnreachable
from ledger.problems import Problem
from ledger.spool import Body, Spool
from ledger.store import Store
from ledger.tables import PROBLEMS, SPANS
from tests.support.api_examples import TRACE_1, frame, span
from tests.support.paths import ROOT

ROWS = [span(TRACE_1, f"{n:016x}", name=f"chat {n}", input_tokens=n) for n in range(1, 7)]
SPELLING = Problem("otlp", "request", "span 3", "name", "is empty", "name every span")


def rows(*numbers: int) -> pl.DataFrame:
    return frame(SPANS, [ROWS[n - 1] for n in numbers])


def held(store: Store) -> list[str]:
    return store.scan(SPANS).select("name").collect()["name"].sort().to_list()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def test_what_was_appended_arrives(spool: Spool, books: Books) -> None:
    spool.append(rows(1, 2))
    spool.append(rows(3), [SPELLING])
    assert held(books.store) == []
    assert spool.drain(books.store) == 3
    assert held(books.store) == ["chat 1", "chat 2", "chat 3"]
    assert books.store.scan(PROBLEMS).collect()["reason"].to_list() == ["is empty"]
    assert (spool.pending(), spool.size_bytes()) == ([], 0)


def test_nothing_received_leaves_nothing(spool: Spool, books: Books) -> None:
    spool.append(SPANS.empty())
    assert spool.pending() == []
    assert spool.drain(books.store) == 0
    assert books.store.version(SPANS) is None


def test_deliveries_are_merged_in_one_commit(spool: Spool, books: Books) -> None:
    for number in (1, 2, 3, 4):
        spool.append(rows(number))
    spool.drain(books.store)
    assert books.store.version(SPANS) == 0


def test_the_same_delivery_twice_counts_once(spool: Spool, books: Books) -> None:
    spool.append(rows(1, 2))
    spool.drain(books.store)
    spool.append(rows(2, 1))
    assert spool.drain(books.store) == 0
    assert held(books.store) == ["chat 1", "chat 2"]


def test_a_crash_between_merge_and_delete_changes_nothing(spool: Spool, books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append(rows(1, 2, 3))
    with monkeypatch.context() as crash:
        crash.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            spool.drain(books.store)
    assert len(spool.pending()) == 1
    assert Spool(spool.folder).drain(books.store) == 0
    assert held(books.store) == ["chat 1", "chat 2", "chat 3"]


def test_while_the_store_does_not_answer_nothing_is_lost(spool: Spool, books: Books) -> None:
    class Down(Store):
        def merge(self, *_: object, **__: object) -> int:
            raise StoreUnreachable("no route to host", where="s3://books")

    spool.append(rows(1))
    with pytest.raises(StoreUnreachable):
        spool.drain(Down("unused"))
    assert spool.drain(books.store) == 1


def test_a_damaged_file_is_told_of_and_its_neighbours_go_on(spool: Spool, books: Books) -> None:
    for number in (1, 2, 3):
        spool.append(rows(number))
    first, second, _ = spool.pending()
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 0xFF
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:100])
    (spool.folder / "strange.spool").write_bytes(b"not ours")
    assert spool.drain(books.store) == 1
    assert held(books.store) == ["chat 3"]
    problem_rows = books.store.scan(PROBLEMS).collect()
    assert sorted(problem_rows["uri"]) == sorted([first.name, second.name, "strange.spool"])
    assert problem_rows["remedy"].str.contains("spool/damaged").all()
    assert len(list((spool.folder / "damaged").iterdir())) == 3
    assert spool.pending() == []


@pytest.mark.slow
def test_a_file_cut_anywhere_gives_its_whole_parts_and_is_told_of(spool: Spool, books: Books) -> None:
    spool.append(rows(1), [SPELLING], bodies=[Body("frames", b"2"), Body("frames", b"3")])
    (path,) = spool.pending()
    content = path.read_bytes()
    kept_files = []
    for size in sorted({*range(0, len(content), 97), *range(len(content) - 100, len(content), 11), len(content) - 1}):
        path.write_bytes(content[:size])
        readable = Spool(spool.folder, reader=numbered)
        store = Store(spool.folder.parent / f"tables-{size}")
        kept_files.append(readable.drain(store))
        assert store.scan(PROBLEMS, {"source": ["spool"]}).collect().height == 1
        assert not readable.pending()
    assert kept_files == sorted(kept_files)
    assert set(kept_files) == {0, 1, 2}  # a row, then a body; whole only with its last byte
    path.write_bytes(content)
    assert Spool(spool.folder, reader=numbered).drain(books.store) == 3


def numbered(bodies: Sequence[Body]) -> tuple[pl.DataFrame, list[Problem]]:
    """A reader: each body is the number of a row."""
    return rows(*(int(body.content) for body in bodies)), []


def test_bodies_are_read_when_they_are_booked(tmp_path: Path, books: Books) -> None:
    spool = Spool(tmp_path / "spool", reader=numbered)
    spool.append(bodies=[Body("frames", b"1")])
    spool.append(rows(2), bodies=[Body("frames", b"3")])
    assert spool.drain(books.store) == 3
    assert held(books.store) == ["chat 1", "chat 2", "chat 3"]


def test_bodies_nobody_can_read_wait_for_somebody_who_can(spool: Spool, books: Books) -> None:
    spool.append(bodies=[Body("frames", b"1")])
    with pytest.raises(TypeError, match="reader"):
        spool.drain(books.store)
    assert Spool(spool.folder, reader=numbered).drain(books.store) == 1


def test_those_that_come_while_a_file_is_synced_share_the_next(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty deliveries at once need few syncs, and none is thanked before its own."""
    synced, real = [], os.fsync

    def slow(handle: int) -> None:
        time.sleep(0.02)
        real(handle)
        synced.append(handle)

    monkeypatch.setattr(os, "fsync", slow)
    started = threading.Barrier(40)

    def send(number: int) -> None:
        started.wait()
        before = len(synced)
        spool.append(rows(number % 6 + 1))
        assert len(synced) >= before + 2  # the file's and the folder's

    with ThreadPoolExecutor(40) as threads:
        list(threads.map(send, range(40)))
    assert len(spool.pending()) <= 10
    assert len(synced) <= 20


def test_a_disk_that_refuses_a_group_thanks_none_of_it(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        time.sleep(0.02)
        raise OSError(5, "Input/output error")

    started = threading.Barrier(8)

    def send(number: int) -> str:
        started.wait()
        try:
            spool.append(rows(number % 6 + 1))
        except StoreUnreachable as fault:
            return fault.what
        return "thanked"

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(send, range(8))) == {"Input/output error"}
    assert spool.pending() == []
    spool.append(rows(1))
    assert len(spool.pending()) == 1


def test_much_is_merged_in_bounded_batches(tmp_path: Path, books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.spool._BATCH_ROWS", 2)
    monkeypatch.setattr("ledger.spool._BATCH_BYTES", 2)
    seen: list[int] = []

    def read(bodies: Sequence[Body]) -> tuple[pl.DataFrame, list[Problem]]:
        seen.append(len(bodies))
        return numbered(bodies)

    spool = Spool(tmp_path / "spool", reader=read)
    for number in range(1, 7):
        spool.append(bodies=[Body("frames", str(number).encode())])
    assert spool.drain(books.store) == 6
    assert seen == [2, 2, 2]
    assert books.store.version(SPANS) == 2  # three commits


def test_a_full_spool_says_so_and_takes_again_once_drained(tmp_path: Path, books: Books) -> None:
    one = Spool(tmp_path / "measure")
    one.append(rows(1))
    spool = Spool(tmp_path / "spool", limit_bytes=one.size_bytes() * 3 // 2)
    spool.append(rows(1))
    with pytest.raises(SpoolFull, match="of at most"):
        spool.append(rows(2))
    assert len(spool.pending()) == 1
    assert Spool(spool.folder).drain(books.store) == 1  # another process drains
    spool.append(rows(2))
    assert spool.drain(books.store) == 1


def test_a_full_disk_is_an_answer_not_a_crash(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        with pytest.raises(StoreUnreachable, match="the disk is full"):
            spool.append(rows(1))
    assert list(spool.folder.iterdir()) == []
    spool.append(rows(1))
    assert len(spool.pending()) == 1


def test_half_written_leftovers_are_swept_when_they_are_old(tmp_path: Path) -> None:
    old, young = tmp_path / "spans-1.part", tmp_path / "spans-2.part"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    Spool(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["spans-2.part"]


def test_a_killed_receiver_keeps_what_it_promised(tmp_path: Path, books: Books) -> None:
    """Killed in the middle of writing: every acknowledged delivery is there, whole; no other one is half there."""
    program = textwrap.dedent(f"""
        import sys
        from tests.ledger.test_spool import rows
        from ledger.spool import Spool
        spool = Spool({str(tmp_path / "spool")!r})
        while True:
            for number in range(1, 7):
                spool.append(rows(number))
                print(number, flush=True)
    """)
    root = ROOT
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = {int(writer.stdout.readline()) for _ in range(6)}
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
        writer.stdout.read()
    assert acknowledged == {1, 2, 3, 4, 5, 6}
    spool = Spool(tmp_path / "spool")
    assert spool.drain(books.store) == 6
    assert held(books.store) == [f"chat {n}" for n in sorted(acknowledged)]
    assert books.store.version(PROBLEMS) is None
