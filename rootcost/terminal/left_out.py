"""Lines of bills that could not be read, which control totals do not include."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledger.books import Books


def missing_bill_lines(books: Books) -> str:
    """A sentence about lines of bills that could not be imported; empty if all were.

    The balance compares imported charges with costs, so it holds although lines are missing; they are reported next to it.
    """
    import polars as pl

    from ingest.sources import by_name, discover
    from ledger.plurals import counted
    from ledger.tables import PROBLEMS

    bill_errors = books.store.scan(PROBLEMS, {"source": list(discover())}).filter(pl.col("severity") == "error")
    errors = bill_errors.select("source", "place", "rows").collect()
    errors = errors.filter(pl.col("source").is_in([name for name in errors["source"].unique() if by_name(name).kind == "bill"]))
    files = errors.filter(pl.col("place") == "file").height
    lines = int(errors.filter(pl.col("place") != "file")["rows"].sum())
    parts = [counted(number, noun) for number, noun in ((lines, "line"), (files, "file")) if number]
    if not parts:
        return ""
    return f"! {' and '.join(parts)} of bills {'was' if lines + files == 1 else 'were'} left out: rootcost problems"


__all__ = ["missing_bill_lines"]
