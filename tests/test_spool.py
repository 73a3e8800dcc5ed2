"""What a receiver accepted is never lost, never doubled, and never blocks what is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import polars as pl
import pytest

from ledger.books import Books
from ledger.errors import SpoolFull, StoreUnreachable
from ledger.problems import Problem
from ledger.spool import Spool
from ledger.store import Store
from ledger.tables import PROBLEMS, SPANS
from tests.api_examples import TRACE_1, frame, span

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
    (spool.folder / "strange.arrow").write_bytes(b"not ours")
    assert spool.drain(books.store) == 1
    assert held(books.store) == ["chat 3"]
    told = books.store.scan(PROBLEMS).collect()
    assert sorted(told["uri"]) == sorted([first.name, second.name, "strange.arrow"])
    assert told["remedy"].str.contains("spool/damaged").all()
    assert len(list((spool.folder / "damaged").iterdir())) == 3
    assert spool.pending() == []


def test_a_full_spool_says_so_and_takes_again_once_drained(tmp_path: Path, books: Books) -> None:
    one = Spool(tmp_path / "measure")
    one.append(rows(1))
    spool = Spool(tmp_path / "spool", limit_bytes=one.size_bytes() * 3 // 2)
    spool.append(rows(1))
    with pytest.raises(SpoolFull, match="wait"):
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
        with pytest.raises(StoreUnreachable, match="No space left"):
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
        from tests.test_spool import rows
        from ledger.spool import Spool
        spool = Spool({str(tmp_path / "spool")!r})
        while True:
            for number in range(1, 7):
                spool.append(rows(number))
                print(number, flush=True)
    """)
    root = Path(__file__).parent.parent
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
