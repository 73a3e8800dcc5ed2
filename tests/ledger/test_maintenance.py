"""The disk stays bounded: small files become few, what nobody needs goes, and no row, fingerprint or figure changes."""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from attribution.run import attribute
from ledger import compaction
from ledger.books import Books
from ledger.db import Run
from ledger.errors import TableError
from ledger.maintenance import maintain, pause_seconds
from ledger.problems import Problem, to_frame
from ledger.store import Store
from ledger.tables import CHARGES, COSTS, PROBLEMS, RAW_FILES, SPANS
from ledger.vacuum import vacuum
from ledger.verify import verify_table
from tests.rootcost.service.test_schedule import a_span
from tests.support.books_by_hand import charge, charges, write

DAY, NEXT_DAY = date(2026, 10, 5), date(2026, 10, 6)
AT = datetime(2026, 10, 5, tzinfo=UTC)


@pytest.fixture
def telemetry_books(books: Books) -> Books:
    """Books with twenty drains of one day and three of the day after it."""
    for number in range(23):
        books.store.merge(SPANS, a_span(DAY if number < 20 else NEXT_DAY, number), prefer="rank")
    return books


def make_old(store: Store) -> None:
    """Makes all files as old as the retention asks: a file's time of change cannot be set, so the retention is waited for."""
    time.sleep(0.02)


NOTHING = timedelta(milliseconds=10)


@pytest.mark.slow
def test_compaction_changes_neither_rows_nor_fingerprints_nor_what_is_due(telemetry_books: Books) -> None:
    store = telemetry_books.store
    attribute(telemetry_books)
    fingerprints = [store.fingerprint(SPANS), *(store.fingerprint(SPANS, {"date": [str(day)]}) for day in (DAY, NEXT_DAY))]
    rows = store.scan(SPANS).collect().sort("span_key")
    costs = store.scan(COSTS).collect()
    assert compaction.compact(store, SPANS) == 19  # the newest day has too few files yet
    assert len(store.files(SPANS)) == 1 + 3
    assert fingerprints == [
        store.fingerprint(SPANS),
        *(store.fingerprint(SPANS, {"date": [str(day)]}) for day in (DAY, NEXT_DAY)),
    ]
    assert store.scan(SPANS).collect().sort("span_key").equals(rows)
    assert attribute(telemetry_books).months == []  # nothing is due
    assert attribute(telemetry_books, force=True).published
    assert store.scan(COSTS).select("effective_cost").collect().sum().equals(costs.select("effective_cost").sum())
    assert compaction.planned_merges(store, SPANS) == []


@pytest.mark.parametrize("source", ["otlp", "s3://bucket/[a]*/50% é"])
def test_problems_and_the_list_of_files_are_merged_too(books: Books, source: str) -> None:
    store, count = books.store, 9
    for number in range(count):
        store.append(PROBLEMS, to_frame([Problem(source, "file", f"line {number}", "field", "reason", "remedy")]))
        counts = dict.fromkeys(("bytes", "rows_read", "rows_refused"), number)
        file_row = {"source": source, "raw_id": f"raw-{number}", "uri": "file", "scope": "scope", "fetched_at": AT} | counts
        store.append(RAW_FILES, pl.DataFrame([file_row]))
    for table in (PROBLEMS, RAW_FILES):
        rows, key = store.scan(table).collect(), list(table.key)
        assert compaction.compact(store, table) == count - 1
        assert len(store.files(table)) == 1
        assert store.scan(table).collect().sort(key).equals(rows.sort(key))
        make_old(store)
        assert len(vacuum(store, table, NOTHING).paths) == count
        assert store.scan(table).collect().height == count
        store.sync()
        assert verify_table(store, table).problems == []


@pytest.mark.slow
def test_a_span_that_comes_again_after_compaction_is_stored_once(telemetry_books: Books) -> None:
    store = telemetry_books.store
    compaction.compact(store, SPANS)
    old_fingerprint = store.fingerprint(SPANS)
    assert store.merge(SPANS, a_span(DAY, 3), prefer="rank") == 0
    assert store.fingerprint(SPANS) == old_fingerprint
    assert store.merge(SPANS, a_span(DAY, 99), prefer="rank") == 1
    assert store.fingerprint(SPANS) != old_fingerprint


@pytest.mark.slow
def test_vacuum_removes_what_nobody_needs_and_keeps_what_a_reader_may_be_at(telemetry_books: Books) -> None:
    store = telemetry_books.store
    folder = Path(store.root) / "spans"
    reader = store.scan(SPANS)
    compaction.compact(store, SPANS)
    orphan = folder / f"date={DAY}" / "part-of-a-killed-run.parquet#1"
    orphan.write_bytes(b"half")
    assert vacuum(store, SPANS, timedelta(minutes=15)).paths == []  # all of it is young
    assert reader.collect().height == 23
    make_old(store)
    listing = vacuum(store, SPANS, NOTHING, dry_run=True)
    assert len(listing.paths) == 21
    assert orphan.exists()
    assert vacuum(store, SPANS, NOTHING).paths == listing.paths
    assert len(list(folder.glob("date=*/*"))) == 4
    assert store.scan(SPANS).collect().height == 23
    assert (folder / "_delta_log").is_dir()


def test_vacuum_finds_the_files_of_partitions_with_special_names_and_refuses_where_one_is_missing(books: Books) -> None:
    frame = charges(charge("1.00"))
    books.store.replace(CHARGES, frame, {"billing_month": frame["billing_month"][0], "scope": frame["scope"][0]})
    odd_frame = frame.with_columns(scope=frame["scope"] + " a/b=c%20ü:1")
    books.store.replace(CHARGES, odd_frame, {"billing_month": odd_frame["billing_month"][0], "scope": odd_frame["scope"][0]})
    make_old(books.store)
    assert vacuum(books.store, CHARGES, NOTHING).paths == []
    assert books.store.scan(CHARGES).collect().height == 2
    Path(books.store.files(CHARGES)[0].address).unlink()
    with pytest.raises(TableError, match="missing"):
        vacuum(books.store, CHARGES, NOTHING)


@pytest.mark.slow
def test_a_log_of_many_commits_becomes_short_and_is_still_whole(books: Books) -> None:
    for number in range(45):
        books.store.merge(SPANS, a_span(DAY, number), prefer="rank")
    log = Path(books.store.root) / "spans" / "_delta_log"
    for _ in range(2):  # the first makes a checkpoint, which is then old enough
        make_old(books.store)
        vacuum(books.store, SPANS, NOTHING)
    assert len(list(log.glob("*.json"))) <= 22
    assert books.store.scan(SPANS).collect().height == 45
    books.close()
    with Books(books.settings) as reopened_books:
        assert reopened_books.repairs == []
        assert reopened_books.store.merge(SPANS, a_span(DAY, 99), prefer="rank") == 1


def test_rows_of_runs_that_nobody_shows_are_removed_and_published_ones_stay(books: Books) -> None:
    write(books, charges=charges(charge("2.00")))
    report = attribute(books)
    costs = books.store.scan(COSTS).collect()
    orphan = costs.with_columns(run_id=costs["run_id"] + "x")
    books.store.append(COSTS, orphan)
    with books.database.session() as session:
        session.add(
            Run(
                run_id=orphan["run_id"][0],
                started_at=datetime(2026, 10, 1, tzinfo=UTC),
                status="refused",
                months=report.months,
                inputs={},
                cause="",
            )
        )
    assert maintain(books, dry_run=True).unshown_partitions == 1
    assert books.store.scan(COSTS).collect().height == 2 * costs.height
    maintain(books)
    assert books.store.scan(COSTS).collect().equals(costs)
    assert maintain(books, dry_run=True).unshown_partitions == 0


@pytest.mark.clock
def test_live_runs_that_rewrite_much_wait_longer(books: Books) -> None:
    start = datetime.now(UTC)
    write(books, charges=charges(charge("2.00")))
    attribute(books)
    written_bytes = sum(os.stat(file.address).st_size for file in books.store.files(COSTS))
    assert pause_seconds(books, start) >= 15 * 60 * written_bytes / (64 << 20) > 0
    assert pause_seconds(books, datetime.now(UTC) + timedelta(seconds=1)) == 0
