"""The moment up to which a bill's file can hold charges: the earliest that its own charges do not contradict (ES-1a)."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from ingest.run import ingest
from ledger.books import Books
from ledger.tables import RAW_FILES
from tests.support.paths import DATA

BILL = DATA / "cases" / "first-hour-01" / "2026-10.csv"
"""One charge, of ten o'clock on 5 October."""
NOVEMBER = datetime(2026, 11, 30, tzinfo=UTC)


def moments(books: Books) -> list[datetime]:
    return books.store.scan(RAW_FILES).select("as_of").collect()["as_of"].to_list()


def put_file(folder: Path, name: str, moment: datetime, line: str = "") -> str:
    """The bill under another name, last written at this moment."""
    path = folder / name
    shutil.copy(BILL, path)
    path.write_text(path.read_text().replace("0.030000000000", line or "0.030000000000"))
    os.utime(path, (moment.timestamp(), moment.timestamp()))
    return str(path)


def test_a_loose_file_is_as_old_as_its_last_write_however_often_it_is_read(books: Books, tmp_path: Path) -> None:
    moment = datetime(2026, 10, 5, 14, tzinfo=UTC)
    path = put_file(tmp_path, "export.csv", moment)
    ingest(books, "focus", [path], now=NOVEMBER)
    os.utime(path)
    ingest(books, "focus", [path], now=NOVEMBER.replace(day=20))
    assert moments(books) == [moment]


def test_a_time_before_the_newest_usage_is_no_time_of_writing(books: Books, tmp_path: Path) -> None:
    """An archive without times gives its files one of 1980; a clock of 2030 gives one that is still to come."""
    ingest(books, "focus", [put_file(tmp_path, "zipped.csv", datetime(1980, 1, 1, tzinfo=UTC))], now=NOVEMBER)
    ingest(books, "focus", [put_file(tmp_path, "restated.csv", datetime(2030, 1, 1, tzinfo=UTC), "0.04")], now=NOVEMBER)
    assert moments(books) == [NOVEMBER, NOVEMBER]


def test_a_bill_read_by_a_clock_that_is_behind_is_told_and_read_again(books: Books, tmp_path: Path) -> None:
    """Usage of October, read in March: it had begun, no more is certain. Under the right clock the same file counts."""
    path = put_file(tmp_path, "export.csv", datetime(2026, 10, 7, tzinfo=UTC))
    report = ingest(books, "focus", [path], now=datetime(2026, 3, 1, tzinfo=UTC))
    begin = datetime(2026, 10, 5, 10, tzinfo=UTC)
    assert moments(books) == [begin]
    assert [p.reason.partition(",")[0] for p in report.problems] == ["usage begins on 2026-10-05"]
    report = ingest(books, "focus", [path], now=NOVEMBER)
    assert sorted(moments(books)) == [begin, datetime(2026, 10, 7, tzinfo=UTC)]
    assert not report.problems
