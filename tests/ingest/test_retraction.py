"""Wrong facts are taken out again: only those, with an audit row, and a month without facts is no longer published."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from ingest.retraction import AUDIT_ACTION, retract
from ingest.run import ingest
from ingest.time_bounds import TimeBounds
from ledger.books import Books
from ledger.db import Audit, Published
from ledger.errors import UsageError
from ledger.periods import now
from ledger.settings import IngestSettings
from ledger.tables import CHARGES, SPANS
from tests.ingest.test_odd_files import lines, payload
from tests.support.paths import DATA

DECEMBER, NEW_YEAR = datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


def write(books: Books, folder: Path, *starts: datetime) -> None:
    items = [payload(n, startTime=start.timestamp(), endTime=start.timestamp() + 1) for n, start in enumerate(starts)]
    (folder / "log.jsonl").write_text(lines(*items))
    assert ingest(books, "litellm", [str(folder)], now=DECEMBER).rows == len(starts)


@pytest.mark.clock
def test_the_spans_of_a_source_and_a_time_go_and_the_others_stay(books: Books, tmp_path: Path) -> None:
    write(books, tmp_path, DECEMBER - timedelta(hours=1), DECEMBER, DECEMBER + timedelta(hours=23))
    with books.database.session() as session:
        session.add_all(Published(month=m, run_id="r", rollup_ids=[], published_at=now()) for m in ("2026-11", "2026-12"))
    assert retract(books, "litellm", DECEMBER, NEW_YEAR, actor="me", dry_run=True).rows == 2
    assert retract(books, "otlp", DECEMBER, NEW_YEAR, actor="me").rows == 0
    assert books.store.scan(SPANS).select(pl.len()).collect().item() == 3

    result = retract(books, "litellm", DECEMBER, NEW_YEAR, actor="me")
    assert (result.rows, result.months, result.emptied_months) == (2, ["2026-12"], ["2026-12"])
    assert books.store.scan(SPANS).collect()["start_time"].to_list() == [DECEMBER - timedelta(hours=1)]
    with books.database.session() as session:
        assert session.scalars(sa.select(Published.month)).all() == ["2026-11"]
        [row] = session.scalars(sa.select(Audit).where(Audit.action == AUDIT_ACTION)).all()
        assert (row.actor, row.subject, row.before and row.before["rows"]) == ("me", "litellm", 2)


def test_a_bill_goes_by_whole_months(books: Books) -> None:
    ingest(books, "focus", [str(DATA / "focus_sample" / "focus_sample_1000.csv")])
    month = datetime(2024, 10, 1, tzinfo=UTC)
    rows = books.store.scan(CHARGES).filter(pl.col("billing_month") == "2024-10").select(pl.len()).collect().item()
    assert retract(books, "focus", month, datetime(2024, 11, 1, tzinfo=UTC), actor="me").rows == rows > 0
    assert books.store.scan(CHARGES).collect()["billing_month"].unique().to_list() == ["2024-09"]
    with pytest.raises(UsageError, match="no source"):
        retract(books, "fokus", month, NEW_YEAR, actor="me")


@pytest.mark.clock
def test_a_span_dated_far_from_now_is_a_problem_and_its_neighbours_are_booked(books: Books, tmp_path: Path) -> None:
    clock = now()
    starts = (clock, clock + timedelta(hours=25), clock + timedelta(days=26_000), clock - timedelta(days=11 * 366))
    items = [payload(n, startTime=at.timestamp(), endTime=at.timestamp() + 1) for n, at in enumerate(starts)]
    (tmp_path / "log.json").write_text(json.dumps(items))
    report = ingest(books, "litellm", [str(tmp_path)])
    assert (report.rows, report.errors) == (1, 3)
    assert sorted((p.rows, p.field, p.reason) for p in report.problems if p.severity == "error") == [
        (1, "start_time", "more than 10 years ago"),
        (2, "start_time", "more than 24 hours in the future"),
    ]
    assert all("ingest.max_" in p.remedy for p in report.problems if p.field == "start_time")


@pytest.mark.clock
def test_no_request_makes_more_than_a_bounded_number_of_months_due() -> None:
    bounds = TimeBounds.at(now(), IngestSettings())
    assert (bounds.latest - bounds.earliest).days / 30 < 123
