"""The jobs: cheap when idle, exact about what changed, and never in the way of the next round."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest
import sqlalchemy as sa

from ledger.books import Books
from ledger.db import JobRun, Owner
from ledger.errors import StoreUnreachable
from ledger.ids import span_key, trace_key
from ledger.spool import Spool
from ledger.tables import SPANS
from rootcost.months import changed, facts_by_month, state
from rootcost.schedule import Jobs, Schedule


def a_span(day: date, number: int) -> pl.DataFrame:
    trace, span = f"{number:032x}", f"{number:016x}"
    start = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    row = {
        "date": day, "channel": "otlp", "source": "otlp", "trace_key": trace_key(trace), "span_key": span_key(span), "trace_id": trace,
        "span_id": span, "start_time": start, "name": "chat", "agent_name": "bot", "rank": 5,
    }  # fmt: skip
    return SPANS.conform(pl.DataFrame([row]))


@pytest.fixture
def spool(books: Books) -> Spool:
    return Spool(books.home / "spool")


@pytest.fixture
def schedule(books: Books, spool: Spool) -> Schedule:
    return Schedule(books, spool)


def history(books: Books) -> list[JobRun]:
    with books.database.session() as session:
        return list(session.scalars(sa.select(JobRun).order_by(JobRun.id)))


def test_draining_moves_deliveries_to_the_ledger_once(books: Books, spool: Spool) -> None:
    jobs = Jobs(books, spool)
    spool.append(a_span(date(2026, 10, 5), 1))
    spool.append(a_span(date(2026, 10, 5), 1))
    assert jobs.drain() == {"deliveries": 2, "rows": 1}
    assert jobs.drain() == {}
    assert books.store.scan(SPANS).collect().height == 1


def test_an_idle_round_leaves_no_history(schedule: Schedule, books: Books) -> None:
    for name, work in (
        ("drain", schedule.jobs.drain),
        ("attribute", schedule.jobs.attribute),
        ("deliver", schedule.jobs.deliver),
    ):
        assert schedule.run(name, work) == {}
    assert history(books) == []


def test_a_round_that_did_something_is_kept(schedule: Schedule, books: Books, spool: Spool) -> None:
    spool.append(a_span(date(2026, 10, 5), 1))
    schedule.run("drain", schedule.jobs.drain)
    (kept,) = history(books)
    assert (kept.job, kept.status, kept.detail) == ("drain", "done", {"deliveries": 1, "rows": 1})
    assert kept.finished_at is not None
    assert kept.started_at <= kept.finished_at


@pytest.mark.parametrize(
    "fault", [StoreUnreachable("no answer", where="s3://b"), ZeroDivisionError("ours")], ids=["theirs", "ours"]
)
def test_a_failed_round_is_written_down_and_not_raised(schedule: Schedule, books: Books, fault: Exception) -> None:
    def fail() -> dict[str, object]:
        raise fault

    assert schedule.run("drain", fail) == {}
    (kept,) = history(books)
    assert kept.status == "failed"
    assert "no answer" in kept.detail["error"] or "ours" in kept.detail["error"]


def test_only_months_whose_facts_changed_and_their_neighbours_are_looked_at(books: Books) -> None:
    for month in (3, 6, 9, 10):
        books.store.append(SPANS, a_span(date(2026, month, 5), month))
    before = state(books)
    books.store.append(SPANS, a_span(date(2026, 10, 6), 42))
    assert changed(before, before) == []
    assert changed(before, state(books)) == ["2026-09", "2026-10"]
    assert list(facts_by_month(books)) == ["2026-03", "2026-06", "2026-09", "2026-10"]


def test_a_new_owner_concerns_every_month(books: Books) -> None:
    books.store.append(SPANS, a_span(date(2026, 9, 5), 1))
    books.store.append(SPANS, a_span(date(2026, 1, 5), 2))
    before = state(books)
    with books.database.session() as session:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        session.add(Owner(kind="agent", name="bot", agent="bot", team="Care", valid_from=at, recorded_at=at))
    assert changed(before, state(books)) == ["2026-01", "2026-09"]
