"""What desktops add to a bill: side entries of a zip, a first line that names the separator, byte order marks."""

from __future__ import annotations

import zipfile
from decimal import Decimal
from pathlib import Path

import pytest

from ingest.run import ingest
from ledger.books import Books
from tests.ingest.bills.test_one_bill_once import billed, row, text

BILL = text([row("1", 5), row("2", 6)])


def test_a_zip_made_on_a_mac(books: Books, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bill.csv.zip", "w") as archive:
        archive.writestr("bills/bill.csv", BILL)
        archive.writestr("__MACOSX/bills/._bill.csv", b"\0\5\x16\7\0\2")
        archive.writestr("bills/.DS_Store", b"\0\0\0\1Bud1")
    assert not ingest(books, "focus", [str(tmp_path / "bill.csv.zip")]).errors
    assert billed(books) == Decimal(3)


def test_a_zip_of_two_bills_is_still_refused(books: Books, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bill.csv.zip", "w") as archive:
        archive.writestr("a.csv", BILL)
        archive.writestr("b.csv", BILL)
    report = ingest(books, "focus", [str(tmp_path / "bill.csv.zip")])
    assert "the archive holds 2 tables, not one" in report.problems[0].reason


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(f"sep=,\r\n{BILL}".encode(), id="sep"),
        pytest.param(b"\xef\xbb\xbf" + f'"sep=;"\n{BILL}'.encode(), id="quoted sep that the header contradicts, after a mark"),
        pytest.param(b"\xef\xbb\xbf" * 2 + BILL.encode(), id="two marks"),
        pytest.param(("\ufeff\ufeffsep=,\n" + BILL).encode("utf-16-le"), id="two marks and sep in UTF-16"),
    ],
)
def test_what_spreadsheets_put_before_the_header(books: Books, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bill.csv").write_bytes(content)
    report = ingest(books, "focus", [str(tmp_path / "bill.csv")])
    assert (report.problems, billed(books)) == ([], Decimal(3))


def test_lines_are_counted_from_the_first_line_of_the_file(books: Books, tmp_path: Path) -> None:
    (tmp_path / "bill.csv").write_text("sep=,\n" + text([row("1", 5), row("nonsense", 6)]))
    assert [problem.place for problem in ingest(books, "focus", [str(tmp_path / "bill.csv")]).problems] == ["line 4"]
