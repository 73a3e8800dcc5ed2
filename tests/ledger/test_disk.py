"""A full disk is told in a sentence, what is sent meanwhile is refused whole, and it ends by itself."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from deltalake.exceptions import DeltaError

from ledger import disk
from ledger.books import Books
from ledger.db import JobRun
from ledger.errors import DiskFull, StoreUnreachable
from ledger.periods import now
from ledger.problems import Problem, to_frame
from ledger.spool import Body, Spool
from ledger.tables import PROBLEMS

MB = 1 << 20


def disk_with_room(monkeypatch: pytest.MonkeyPatch, free_bytes: int, size_bytes: int = 100 << 30) -> None:
    about = SimpleNamespace(f_blocks=size_bytes, f_frsize=1, f_bavail=free_bytes)
    monkeypatch.setattr("ledger.disk.os.statvfs", lambda path: about)


def test_a_reserve_stays_free_and_a_small_disk_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free_bytes, size_bytes, is_short in (
        (64 * MB, 100 << 30, True),
        (65 * MB, 100 << 30, False),
        (MB, 50 * MB, True),
        (2 * MB, 50 * MB, False),
        (0, 0, False),  # a file system that does not tell
    ):
        disk_with_room(monkeypatch, free_bytes, size_bytes)
        assert (disk.shortage([tmp_path / "not" / "yet"]) is not None) == is_short, (free_bytes, size_bytes)


def test_a_delivery_is_refused_whole_and_taken_when_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    disk_with_room(monkeypatch, 64 * MB)
    with pytest.raises(DiskFull, match="the disk is full") as caught:
        spool.append(bodies=[Body("otlp-traces", b"span")])
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    disk_with_room(monkeypatch, 70 * MB)
    spool.append(bodies=[Body("otlp-traces", b"span")])
    assert len(spool.pending()) == 1


def test_a_write_that_runs_out_of_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("ledger.spool.os.fsync", full)
        with pytest.raises(DiskFull):
            spool.append(bodies=[Body("otlp-traces", b"span")])
    assert (list(tmp_path.iterdir()), spool._spooled_bytes) == ([], 0)
    spool.append(bodies=[Body("otlp-traces", b"span")])
    assert len(spool.pending()) == 1


@pytest.mark.clock
def test_tables_and_database_tell_a_full_disk_as_such(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError("Generic LocalFileSystem error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("polars.DataFrame.write_delta", full)
        with pytest.raises(DiskFull):
            books.store.append(PROBLEMS, to_frame([Problem("focus", "bill.csv", "line 2", "cost", "is no number", "mend it")]))
    with pytest.raises(DiskFull):
        _fill_the_database(books)


def _fill_the_database(books: Books) -> None:
    with books.database.session() as session:
        session.execute(sa.text("PRAGMA max_page_count = 1"))
        session.add(JobRun(job="drain", status="done", detail={"text": "x" * 2_000_000}, started_at=now(), finished_at=now()))


def test_a_lost_database_is_no_defect(books: Books) -> None:
    with pytest.raises(StoreUnreachable) as caught, books.database.session() as session:
        session.execute(sa.text("SELECT * FROM gone"))
    assert "check store.database_url" in str(caught.value)


def test_only_what_says_so_is_a_full_disk() -> None:
    assert not disk.is_full(ValueError("the column is full"))
    wrapped_error = RuntimeError("cannot write")
    wrapped_error.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert disk.is_full(wrapped_error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError("Generic LocalFileSystem error: Unable to sync file: Input/output error (os error 5)"),
        DeltaError("Failed to parse parquet: External: Generic LocalFileSystem error: Read-only file system (os error 30)"),
    ],
)
def test_a_failing_disk_is_told_in_a_sentence_whichever_library_meets_it(
    books: Books, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("polars.DataFrame.write_delta", fail)
    with pytest.raises(StoreUnreachable, match="the disk cannot be read or written") as caught:
        books.store.append(PROBLEMS, to_frame([Problem("focus", "bill.csv", "line 2", "cost", "is no number", "mend it")]))
    assert str(books.home) in str(caught.value)


def test_a_failing_disk_below_the_database_is_no_lost_server(books: Books) -> None:
    with pytest.raises(StoreUnreachable) as caught, books.database.session():
        raise sa.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("disk I/O error"))
    assert "the disk cannot be read or written" in str(caught.value)
    assert "server" not in str(caught.value)


def test_an_error_that_is_no_disk_s_is_passed_on() -> None:
    assert disk.error_of(DeltaError("the table has no such column"), "tables") is None
