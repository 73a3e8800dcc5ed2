"""What processes leave behind that ended in the middle is closed, or removed; what is alive stays."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ledger.books import Books
from ledger.db import Run
from ledger.locks import ATTRIBUTION, lock_of
from ledger.recovery import recover
from ledger.scratch import Scratch, part_file, scratch_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_temporary_files_of_processes_that_ended_are_removed_and_no_others(books: Books, temporary: Path) -> None:
    raw = books.home / "raw" / "focus"
    raw.mkdir(parents=True)
    Path(books.store.root).mkdir()
    # As a process that was killed leaves them: not locked.
    for work, parent in (("ingest", None), ("fetch", None), ("part", books.store.root)):
        (Path(tempfile.mkdtemp(prefix=f"rootcost-{work}-", dir=parent)) / "prompts").write_text("secret")
    (raw / ".fetching-abc").write_text("half a bill")
    bill = raw / "0123-bill.csv"
    bill.write_text("a bill")
    (temporary / "of-somebody-else").mkdir()
    (temporary / "rootcost-fetch-link").symlink_to(raw)
    with scratch_folder("ingest") as live_folder, part_file(raw) as part:
        (sentence,) = recover(books)
        assert sentence.startswith("4 temporary files and folders")
        assert (live_folder.is_dir(), part.is_file()) == (True, True)
        assert recover(books) == []
    assert sorted(path.name for path in temporary.iterdir()) == ["of-somebody-else", "rootcost-fetch-link"]
    assert list(raw.iterdir()) == [bill]
    assert list(Path(books.store.root).iterdir()) == []


def test_a_temporary_folder_goes_with_its_block_or_when_told(temporary: Path) -> None:
    scratch = Scratch("fetch")
    (scratch.path / "file").touch()
    scratch.remove()
    with scratch_folder("sort", temporary) as folder:
        assert folder.parent == temporary
    assert list(temporary.iterdir()) == []


def test_runs_that_no_process_can_be_at_are_closed(books: Books, temporary: Path) -> None:
    with books.database.session() as session:
        session.add(
            Run(run_id="r1", started_at=datetime(2026, 10, 1, tzinfo=UTC), status="running", months=[], inputs={}, cause="")
        )
    lock = lock_of(books, ATTRIBUTION)
    assert lock.acquire()
    assert recover(books) == []  # whoever writes may be at it
    lock.release()
    (sentence,) = recover(books)
    assert sentence.startswith("1 attribution run cut off")
    with books.database.session() as session:
        run = session.get_one(Run, "r1")
    assert (run.status, run.error) == ("cut off", "its process ended before the run did")
    assert run.finished_at is not None
