"""The jobs: cheap when idle, exact about what changed, and never in the way of the next round."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from api import queries
from api.changes import add_budget
from api.models import NewBudget, SourceStatus
from api.queries import of_operator
from ledger import sources
from ledger.audit import record
from ledger.books import Books
from ledger.budgets.status import standings
from ledger.db import Alert, ConfiguredSource, JobRun, Owner, SourceRun
from ledger.errors import StoreUnreachable
from ledger.ids import span_key, trace_key
from ledger.locks import attribution_lock, lock_of
from ledger.spool import Spool
from ledger.tables import CHARGES, SPANS
from rootcost.operations import source_runs
from rootcost.operations.source_runs import BY_CLOCK, backoff, longest_backoff, read_source
from rootcost.service.changed_months import facts_by_month, input_fingerprints, months_to_check
from rootcost.service.jobs import Jobs
from rootcost.service.schedule import Schedule
from rootcost.service.staleness import raise_alerts
from rootcost.service.timetable import TABLE
from tests.attribution.test_rules import call
from tests.support.api_examples import app_of, client_of
from tests.support.books_by_hand import charge, charges, spans, write
from tests.support.cli_books import write_files


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


def test_health_tells_that_alerts_are_not_evaluated(books: Books, schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(books)
    app.state.evaluator_delay = schedule.evaluator_delay
    with client_of(app) as http:

        def health_after(seconds: float) -> tuple[str, list[str]]:
            instant = time.monotonic() + seconds
            with monkeypatch.context() as patch:
                patch.setattr("rootcost.service.schedule.time.monotonic", lambda: instant)
                answer = http.get("/health").json()
            return answer["status"], list(answer["checks"])

        assert health_after(1000) == ("ok", [])  # another process leads, and tells of itself
        schedule._lead()
        assert [health_after(100), health_after(140)] == [("ok", []), ("degraded", ["alerts"])]
        with monkeypatch.context() as patch:
            patch.setattr(schedule.jobs, "attribute", lambda: int("no number"))
            schedule.run("attribute", schedule._attribute)
        assert health_after(140)[0] == "degraded"  # an evaluation that fails is none
        monkeypatch.setattr(schedule.jobs, "attribute", lambda: {"alerts": 0})
        schedule._evaluated_at -= 140
        assert health_after(0)[0] == "degraded"
        schedule.run("attribute", schedule._attribute)
        assert health_after(100)[0] == "ok"
        schedule.leadership.resign()


def test_telemetry_is_stored_while_a_run_attributes_which_reads_the_facts_as_they_were(books: Books, spool: Spool) -> None:
    jobs = Jobs(books, spool)
    spool.append(a_span(date(2026, 10, 5), 1))
    jobs.drain()
    spool.append(a_span(date(2026, 10, 5), 2))
    with jobs.turn, attribution_lock(books):
        at_start = books.snapshot()
        assert jobs.drain() == {"deliveries": 1, "rows": 1}
        workers_books = pickle.loads(pickle.dumps(at_start.store))
        for store, rows in ((at_start.store, 1), (workers_books, 1), (books.store, 2)):
            assert store.scan(SPANS).collect().height == rows
        assert at_start.store.version(CHARGES) is None
        write(books, charges=charges(charge("1")))
        assert at_start.store.version(CHARGES) is None and books.store.version(CHARGES) == 0


def test_a_month_whose_spans_were_retracted_is_not_published_again(books: Books, spool: Spool) -> None:
    jobs = Jobs(books, spool)
    jobs._seen = {"2099-12": "a"}
    assert jobs.attribute() == {}


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


@pytest.mark.slow
def test_a_budget_that_is_set_up_while_nothing_else_changes_is_evaluated(books: Books, spool: Spool) -> None:
    """And no other idle round is anything but idle."""
    write(books, spans=spans(call(1, 1, None, 10_000, agent_name="coder")), charges=charges(charge("0.03", tokens_k="10")))
    jobs = Jobs(books, spool)
    assert jobs.attribute()["months"] == ["2026-10"]
    jobs.attribute()  # the price book came with the first round
    budget = NewBudget(name="coder cap", scope="agent", scope_name="coder", amount=Decimal("0.01"), currency="USD")
    add_budget(of_operator(books), budget)
    assert jobs.attribute() == {"alerts": 1}
    assert jobs.attribute() == {}
    (standing,) = standings(books)
    assert (standing.terms.scopes, standing.billed, standing.state) == ({"agent": "coder"}, Decimal("0.03"), "exceeded")


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
    before = input_fingerprints(books)
    books.store.append(SPANS, a_span(date(2026, 10, 6), 42))
    assert months_to_check(before, before) == []
    assert months_to_check(before, input_fingerprints(books)) == ["2026-09", "2026-10"]
    assert list(facts_by_month(books)) == ["2026-03", "2026-06", "2026-09", "2026-10"]


def test_a_new_owner_concerns_every_month(books: Books) -> None:
    books.store.append(SPANS, a_span(date(2026, 9, 5), 1))
    books.store.append(SPANS, a_span(date(2026, 1, 5), 2))
    before = input_fingerprints(books)
    with books.database.session() as session:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        record(session, "test", "registry.import", "by hand")
        session.add(Owner(kind="agent", name="bot", agent="bot", team="Care", valid_from=at, recorded_at=at))
    assert months_to_check(before, input_fingerprints(books)) == ["2026-01", "2026-09"]


# ── sources on schedule ─────────────────────────────────────────────────────────────────────────────────────────────────

SECONDLY = "* * * * * *"
YEARLY = "0 0 1 1 *"


def a_source(
    books: Books,
    name: str,
    uri: Path | None,
    *,
    cron: str = SECONDLY,
    source: str = "focus",
    lag: timedelta = timedelta(days=9999),
) -> ConfiguredSource:
    kind = "bill" if source == "focus" else "log"
    terms = sources.Terms(uris=[str(uri)] if uri else [], scope=None, cron=cron, pause=timedelta(0), lag=lag)
    return sources.add(books, name, terms, source=source, kind=kind, actor="test")


@pytest.fixture
def bill(tmp_path: Path) -> Path:
    """One charge of 0.03 USD, of 2026-10-05 from 10 to 11 o'clock."""
    return write_files(tmp_path / "input") / "bill.csv"


@pytest.fixture
def served(schedule: Schedule) -> Iterator[Schedule]:
    schedule.start()
    yield schedule
    assert schedule.stop(patience_seconds=20)


def source_history(books: Books, name: str) -> list[SourceRun]:
    with books.database.session() as session:
        return list(session.scalars(sa.select(SourceRun).where(SourceRun.name == name).order_by(SourceRun.id)))


def until(what: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def standing(books: Books, name: str) -> SourceStatus:
    return next(row for row in queries.sources(of_operator(books)) if row.name == name)


@pytest.mark.clock
@pytest.mark.slow
def test_a_source_is_read_at_its_ticks_and_its_history_tells_rows_money_and_lag(
    books: Books, bill: Path, served: Schedule
) -> None:
    a_source(books, "bill", bill)  # while it serves
    until(lambda: len([run for run in source_history(books, "bill") if run.finished_at]) >= 3)
    first, second, *_ = queries.source_runs(of_operator(books), "bill").page().rows[::-1]
    assert (first.cause, first.status, first.files, first.rows, first.rows_changed) == ("schedule", "done", 1, 1, 1)
    assert (second.rows, second.rows_changed) == (1, 0)
    assert first.money_in == {"USD": Decimal("0.03")}
    assert first.newest == datetime(2026, 10, 5, 11, tzinfo=UTC)
    assert first.finished_at is not None
    assert first.lag_seconds == int((first.finished_at - first.newest).total_seconds())
    assert first.seconds == pytest.approx((first.finished_at - first.started_at).total_seconds(), abs=0.001)
    report = standing(books, "bill")
    assert (report.state, report.newest, report.failures) == ("ok", first.newest, 0)
    assert report.due_at is not None
    assert abs((report.due_at - datetime.now(UTC)).total_seconds()) < 5
    # The month it filled is attributed by the same process, without waiting for its round.
    until(lambda: any(run.job == "attribute" for run in history(books)))
    assert books.store.scan(CHARGES).collect().height == 1


@pytest.mark.slow
def test_what_is_paused_resumed_or_removed_meanwhile_is_heeded(books: Books, bill: Path, served: Schedule) -> None:
    a_source(books, "bill", bill)
    until(lambda: source_history(books, "bill"))
    sources.pause(books, "bill", paused=True, actor="test")
    time.sleep(2.2)
    still = len(source_history(books, "bill"))
    time.sleep(2.2)
    assert len(source_history(books, "bill")) == still
    assert (standing(books, "bill").state, standing(books, "bill").due_at) == ("paused", None)
    sources.pause(books, "bill", paused=False, actor="test")
    until(lambda: len(source_history(books, "bill")) > still)
    sources.remove(books, "bill", actor="test")
    time.sleep(2.2)
    gone = len(source_history(books, "bill"))
    time.sleep(2.2)
    assert len(source_history(books, "bill")) == gone > still  # and its history stays
    assert queries.source_runs(of_operator(books), "bill").totals().rows == gone


def due_in_the_database(books: Books, name: str) -> float | None:
    with books.database.engine.connect() as connection:
        due: float | None = connection.scalar(sa.text(f"SELECT next_run_time FROM {TABLE} WHERE id = :name"), {"name": name})
    return due


@pytest.mark.clock
@pytest.mark.slow
@pytest.mark.parametrize(("hours_ago", "runs"), [(2, 1), (49, 0)], ids=["missed lately", "missed long ago"])
def test_ticks_that_were_missed_are_made_up_for_once_and_not_forever(
    books: Books, spool: Spool, bill: Path, hours_ago: int, runs: int
) -> None:
    a_source(books, "bill", bill, cron=YEARLY)
    first = Schedule(books, spool)
    first.start()
    until(lambda: standing(books, "bill").due_at)
    first._scheduler.pause()
    first.timetable.due("bill", datetime.now(UTC) - timedelta(hours=hours_ago))
    assert first.stop(patience_seconds=20)
    second = Schedule(books, spool)
    second.start()
    time.sleep(3)
    assert second.stop(patience_seconds=20)
    assert len(source_history(books, "bill")) == runs
    next_year = datetime(datetime.now(UTC).year + 1, 1, 1, tzinfo=UTC)
    assert due_in_the_database(books, "bill") == next_year.timestamp()


@pytest.mark.clock
@pytest.mark.slow
def test_a_job_stored_by_an_earlier_version_still_runs(books: Books, spool: Spool, bill: Path) -> None:
    """Earlier versions stored the job's function as `rootcost.schedule:run_scheduled`; its module has moved since."""
    a_source(books, "bill", bill, cron=YEARLY)
    earlier = Schedule(books, spool)
    earlier.start()
    until(lambda: standing(books, "bill").due_at)
    earlier._scheduler.pause()
    earlier.timetable.due("bill", datetime.now(UTC) - timedelta(hours=2))
    assert earlier.stop(patience_seconds=20)
    with books.database.engine.begin() as connection:
        stored = pickle.loads(connection.scalar(sa.text(f"SELECT job_state FROM {TABLE}")))
        stored["func"] = "rootcost.schedule:run_scheduled"
        connection.execute(sa.text(f"UPDATE {TABLE} SET job_state = :state"), {"state": pickle.dumps(stored)})
    upgraded = Schedule(books, spool)
    upgraded.start()
    until(lambda: source_history(books, "bill"))
    assert upgraded.stop(patience_seconds=20)
    assert [run.status for run in source_history(books, "bill")] == ["done"]


def test_pauses_after_failures_double_and_are_bounded_and_spread() -> None:
    for failures in range(1, 40):
        longest = longest_backoff(failures)
        drawn = {backoff(failures) for _ in range(20)}
        assert all(longest / 2 <= pause <= longest <= timedelta(hours=1) for pause in drawn)
        assert len(drawn) > 1
    assert [longest_backoff(n) for n in (1, 2, 3)] == [timedelta(minutes=n) for n in (1, 2, 4)]


@pytest.mark.slow
def test_a_source_that_fails_is_asked_again_later_and_later_and_by_its_ticks_once_it_is_mended(
    books: Books, bill: Path, served: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_runs, "FIRST_PAUSE", timedelta(seconds=2))
    there = bill.with_name("later.csv")
    a_source(books, "bill", there)
    until(lambda: len([run for run in source_history(books, "bill") if run.status == "failed"]) >= 3, 30)
    first, second, third = source_history(books, "bill")[:3]
    pauses = [(b.started_at - a.finished_at).total_seconds() for a, b in ((first, second), (second, third)) if a.finished_at]
    assert 0.9 <= pauses[0] <= 3.5  # one to two seconds, not the next tick
    assert 1.9 <= pauses[1] <= 5.5  # two to four
    report = standing(books, "bill")
    assert report.state == "failing"
    assert report.failures >= 3
    assert report.due_at is not None
    assert third.error is not None
    assert "no such file" in third.error
    bill.rename(there)
    assert read_source(books, sources.find(books, "bill"), cause="hand").run.status == "done"
    known = len(source_history(books, "bill"))
    until(lambda: len(source_history(books, "bill")) >= known + 3, 6)  # every second again
    assert standing(books, "bill").failures == 0


def test_rows_that_are_left_out_are_no_failure_and_an_address_that_is_lost_is_one(books: Books, bill: Path) -> None:
    text = bill.read_text().splitlines()
    bill.write_text("\n".join([*text, text[-1].replace("0.03", "0,0x3")]) + "\n")
    one = a_source(books, "bill", bill)
    done = read_source(books, one, cause=BY_CLOCK).run
    assert (done.status, done.rows, done.errors, done.error) == ("problems", 1, 1, None)
    with books.database.session() as session:
        stored_rows = session.get_one(ConfiguredSource, "bill")
        stored_rows.uris = [*stored_rows.uris, str(bill.with_name("none.csv"))]
        record(session, "test", "source.change", "bill")
    again = read_source(books, sources.find(books, "bill"), cause=BY_CLOCK).run
    assert (again.status, again.rows) == ("failed", 1)
    assert "none.csv" in (again.error or "")


def test_a_source_of_which_nothing_can_be_read_has_failed_and_is_asked_again_later(books: Books, bill: Path) -> None:
    bill.write_bytes(b"PAR1 and no table")
    run = read_source(books, a_source(books, "bill", bill), cause=BY_CLOCK).run
    assert (run.status, run.files, run.rows) == ("failed", 1, 0)
    assert "no readable Parquet file" in (run.error or "")
    assert sources.find(books, "bill").failures == 1


@pytest.mark.slow
def test_a_run_whose_process_died_is_closed_and_done_again_at_once(books: Books, spool: Spool, bill: Path) -> None:
    source = a_source(books, "bill", bill, cron=YEARLY)
    died = sources.begin(books, source, cause=BY_CLOCK)
    schedule = Schedule(books, spool)
    schedule.start()
    until(lambda: len(source_history(books, "bill")) == 2 and source_history(books, "bill")[1].finished_at)
    assert schedule.stop(patience_seconds=20)
    first, second = source_history(books, "bill")
    assert (first.id, first.status, second.status) == (died, "cut off", "done")


def test_a_run_that_another_process_is_still_at_is_left_alone(books: Books, spool: Spool, bill: Path) -> None:
    busy = lock_of(books, "source-focus")
    assert busy.acquire()
    sources.begin(books, a_source(books, "bill", bill, cron=YEARLY), cause="hand")
    schedule = Schedule(books, spool)
    schedule.start()
    time.sleep(1.5)
    assert schedule.stop(patience_seconds=20)
    (run,) = source_history(books, "bill")
    assert run.status == "running"
    busy.release()


def test_of_two_schedules_on_one_ledger_one_runs_the_sources(books: Books, spool: Spool, bill: Path, served: Schedule) -> None:
    other = Schedule(books, spool)
    other._lead()
    assert (served.leadership.leads, other.leadership.leads) == (True, False)
    assert other._led_only(lambda: {"did": "something"})() == {}


# ── staleness ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def alerts(books: Books) -> list[Alert]:
    with books.database.session() as session:
        return list(session.scalars(sa.select(Alert).order_by(Alert.created_at)))


def set_up_long_ago(books: Books, name: str) -> None:
    with books.database.session() as session:
        session.get_one(ConfiguredSource, name).changed_at = datetime.now(UTC) - timedelta(days=9999)


def call_at(books: Books, instant: datetime, number: int) -> None:
    row = a_span(instant.date(), number).with_columns(start_time=pl.lit(instant).cast(SPANS.schema["start_time"]))
    books.store.append(SPANS, row)


@pytest.mark.clock
def test_a_stale_source_is_told_once_an_episode(books: Books) -> None:
    a_source(books, "live", None, source="otlp", lag=timedelta(hours=2))
    assert raise_alerts(books) == []  # it was only just set up
    set_up_long_ago(books, "live")
    (rung,) = raise_alerts(books)
    assert (rung.kind, rung.subject, rung.severity) == ("stale_source", "live", "warning")
    assert "has not brought a single row, and one of the last 2 hours was expected" in rung.text
    assert raise_alerts(books) == []
    assert standing(books, "live").state == "stale"

    call_at(books, datetime.now(UTC) - timedelta(hours=3), 1)
    assert raise_alerts(books) == []  # newer, and stale still: the same episode
    call_at(books, datetime.now(UTC) - timedelta(minutes=5), 2)
    assert raise_alerts(books) == []
    assert (standing(books, "live").state, standing(books, "live").stale_since) == ("ok", None)

    with books.database.session() as session:
        session.get_one(ConfiguredSource, "live").lag_seconds = 60
        record(session, "test", "source.change", "live")
    (again,) = raise_alerts(books)
    assert again.alert_id != rung.alert_id
    assert "its newest row is of" in again.text
    assert len(alerts(books)) == 2


@pytest.mark.clock
def test_a_paused_source_is_never_stale(books: Books) -> None:
    a_source(books, "live", None, source="otlp", lag=timedelta(hours=2))
    sources.pause(books, "live", paused=True, actor="test")
    set_up_long_ago(books, "live")
    assert raise_alerts(books) == []
    assert not standing(books, "live").stale


@pytest.mark.clock
def test_the_longest_pause_between_ticks_is_no_staleness(books: Books, bill: Path) -> None:
    source = a_source(books, "bill", bill, lag=timedelta(hours=36))
    read_source(books, source, cause=BY_CLOCK)
    set_up_long_ago(books, "bill")
    newest = datetime(2026, 10, 5, 11, tzinfo=UTC)
    age = int((datetime.now(UTC) - newest).total_seconds())
    with books.database.session() as session:
        stored_rows = session.get_one(ConfiguredSource, "bill")
        stored_rows.lag_seconds, stored_rows.every_seconds = age - 3600, 7200
        record(session, "test", "source.change", "bill")
    report = standing(books, "bill")
    assert (report.stale, report.expected_lag_seconds, report.stale_after_seconds) == (False, age - 3600, age + 3600)
    with books.database.session() as session:
        session.get_one(ConfiguredSource, "bill").every_seconds = 60
        record(session, "test", "source.change", "bill")
    assert standing(books, "bill").stale


def test_freshness_tells_charges_and_calls_and_what_is_expected_of_them(books: Books, bill: Path) -> None:
    read_source(books, a_source(books, "bill", bill), cause=BY_CLOCK)
    call_at(books, datetime(2026, 10, 5, 12, tzinfo=UTC), 1)
    report = {(row.kind, row.source): row for row in queries.freshness(of_operator(books)).sources}
    charges, calls = report["charges", "focus"], report["calls", "otlp"]
    assert charges.newest == datetime(2026, 10, 5, 11, tzinfo=UTC)
    assert (charges.stale_after_seconds, charges.stale) == (9999 * 86400, False)
    assert (calls.newest, calls.stale_after_seconds, calls.stale) == (datetime(2026, 10, 5, 12, tzinfo=UTC), None, False)
