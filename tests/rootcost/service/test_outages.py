"""A full disk and a lost database are states: told once, nothing is lost meanwhile, and the work goes on by itself afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from ledger.books import Books
from ledger.db import JobRun
from ledger.settings import StoreSettings
from ledger.spool import Spool
from ledger.tables import SPANS
from rootcost.service.schedule import Schedule
from tests.ledger.test_disk import MB, disk_with_room
from tests.rootcost.service.test_schedule import a_span
from tests.support.api_examples import TOKEN, reach
from tests.support.postgres_server import Server, running_server

TRACE = {
    "resourceSpans": [
        {
            "scopeSpans": [
                {
                    "spans": [
                        {"traceId": "01" * 16, "spanId": "02" * 8, "name": "chat", "startTimeUnixNano": "1791180000000000000"}
                    ]
                }
            ]
        }
    ]
}
AUTH = {"Authorization": f"Bearer {TOKEN}"}


def job_history(books: Books) -> list[tuple[str, str]]:
    with books.database.session() as session:
        return [(row.job, row.status) for row in session.scalars(sa.select(JobRun).order_by(JobRun.id))]


def test_without_room_no_job_begins_and_afterwards_all_do(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(books.home / "spool")
    spool.append(a_span(date(2026, 10, 5), 1))
    schedule = Schedule(books, spool)
    with monkeypatch.context() as patch:
        disk_with_room(patch, MB)
        for _ in range(3):
            assert schedule.run("drain", schedule.jobs.drain) == {}
    assert job_history(books) == [("drain", "failed")]  # told once, not every two seconds
    assert len(spool.pending()) == 1
    assert schedule.run("drain", schedule.jobs.drain) == {"deliveries": 1, "rows": 1}
    assert job_history(books) == [("drain", "failed"), ("drain", "done")]


def test_a_full_disk_is_told_and_senders_are_asked_to_send_again(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    with reach(books) as http:
        with monkeypatch.context() as patch:
            disk_with_room(patch, MB)
            trace = http.post("/v1/traces", json=TRACE, headers=AUTH)
            payload = http.post("/v1/litellm", json=[{"id": "a", "trace_id": "b"}], headers=AUTH)
            health, ready = http.get("/health"), http.get("/ready")
            (warning,) = http.get("/v1/freshness").json()["warnings"]
        assert [(answer.status_code, answer.headers["retry-after"]) for answer in (trace, payload)] == [(429, "5"), (507, "5")]
        assert trace.json()["type"] == payload.json()["type"] == "/problems/disk-full"
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert ready.status_code == 503
        assert f"{books.home}: the disk is full" in warning
        assert health.json()["checks"]["disk"] == warning
        assert http.get("/health").json()["status"] == "ok"
        assert http.get("/v1/freshness").json()["warnings"] == []
        assert http.post("/v1/traces", json=TRACE, headers=AUTH).status_code == 200


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.mark.slow
@pytest.mark.postgres
def test_receivers_go_on_without_the_database_and_everything_when_it_is_back(
    books: Books, server: Server, tmp_path: Path
) -> None:
    store = StoreSettings(database_url=server.url, uri=str(tmp_path / "tables"))
    with Books(books.settings.model_copy(update={"store": store})) as postgres_books, reach(postgres_books) as http:
        spool = Spool(postgres_books.home / "spool")
        schedule = Schedule(postgres_books, spool)
        assert _leads(schedule)
        server.stop()
        try:
            assert not _leads(schedule)
            assert _statuses(http) == [503, 503, 503]
            assert http.get("/health").status_code == 200
            assert http.post("/v1/traces", json=TRACE, headers=AUTH).status_code == 200
            assert [schedule.run("drain", schedule.jobs.drain) for _ in range(2)] == [{}, {}]
        finally:
            server.start()
        assert _statuses(http) == [200, 200, 200]
        assert _leads(schedule)
        assert schedule.run("drain", schedule.jobs.drain)["rows"] == 1
        assert postgres_books.store.scan(SPANS).collect()["name"].to_list() == ["chat"]
        schedule.leadership.resign()


def _leads(schedule: Schedule) -> bool:
    schedule._lead()
    return schedule.leadership.leads


def _statuses(http: httpx.Client) -> list[int]:
    return [http.get(path).status_code for path in ("/v1/budgets", "/v1/runs", "/ready")]
