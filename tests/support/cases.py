"""Cases with known answers under ``tests/data/cases``: files as people have them, booked into a ledger."""

from __future__ import annotations

from attribution.run import attribute
from ingest.run import ingest
from ledger import registry
from ledger.books import Books
from tests.support.paths import DATA

_BILLS = ("focus", "aws-cur", "gcp")


def book_case(books: Books, case: str, *files: tuple[str, str]) -> None:
    """Books a case's registry and files, each as (source, name), and attributes every month. A bill replaces the one before it."""
    folder = DATA / "cases" / case
    registry.import_text(books, (folder / "registry.csv").read_text(), uri="registry.csv", actor="test")
    for source, name in files:
        ingest(books, source, [str(folder / name)], scope=f"{source}-bill" if source in _BILLS else None)
    attribute(books)
