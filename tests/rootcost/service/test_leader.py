"""Several processes on one ledger: one leads, one writes at a time, every tick is kept once, and a dead leader is followed within seconds."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest
import sqlalchemy as sa

from ledger import sources
from ledger.books import Books
from ledger.db import Leader, SourceRun
from ledger.errors import SettingsError, StoreUnreachable
from ledger.locks import DatabaseLock, FileLock, exclusive, lock_of, write_lock
from ledger.settings import StoreSettings
from ledger.tables import CHARGES, SPANS
from rootcost.service.leader import Leadership
from tests.support.cli_books import trace, write_files
from tests.support.postgres_server import fresh_database, postgres_server
from tests.support.served import Served

Url = Callable[[], str]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def database(server: str, request: pytest.FixtureRequest) -> str:
    return fresh_database(server, f"ledger_{abs(hash(request.node.name))}")


@pytest.fixture
def on_postgres(books: Books, database: str, tmp_path: Path) -> Iterator[Books]:
    store = StoreSettings(database_url=database, uri=str(tmp_path / "tables"))
    with Books(books.settings.model_copy(update={"store": store})) as served:
        yield served


# ── locks ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_lock_has_one_holder_on_either_database(books: Books, on_postgres: Books) -> None:
    for ledger, kind in ((books, FileLock), (on_postgres, DatabaseLock)):
        first, second, other = lock_of(ledger, "thing"), lock_of(ledger, "thing"), lock_of(ledger, "another")
        assert isinstance(first, kind)
        assert first.acquire()
        assert not second.acquire()
        assert other.acquire()
        assert (first.is_held(), second.is_held()) == (True, False)
        first.release()
        assert second.acquire()
        second.release()
        other.release()


def _write(url: str, home: Path, tables: Path, log: Path) -> None:
    from ledger.settings import load

    settings = load(home).model_copy(update={"store": StoreSettings(database_url=url, uri=str(tables))})
    with Books(settings) as books:
        for _ in range(20):
            with write_lock(books), log.open("a") as file:
                file.write(f"in {os.getpid()}\n")
                file.flush()
                time.sleep(0.005)
                file.write(f"out {os.getpid()}\n")


@pytest.mark.slow
def test_replicas_with_different_homes_write_one_after_the_other(database: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = multiprocessing.get_context("spawn").Process
    writers = [process(target=_write, args=(database, tmp_path / f"home{n}", tmp_path / "tables", log)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    lines = log.read_text().splitlines()
    assert len(lines) == 80
    for entered, left in zip(lines[::2], lines[1::2], strict=True):
        assert entered.replace("in", "out") == left
    assert len({line.split()[1] for line in lines}) == 2


def test_a_turn_whose_connection_broke_is_no_turn(on_postgres: Books) -> None:
    engine = on_postgres.database.engine
    with pytest.raises(StoreUnreachable, match="broke"), write_lock(on_postgres), engine.connect() as other:
        other.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()")
        )


def test_waiting_is_told_once(books: Books) -> None:
    held = lock_of(books, "thing")
    assert held.acquire()
    told: list[str] = []

    def let_go() -> None:
        told.append("waiting")
        held.release()

    with exclusive(lock_of(books, "thing"), on_wait=let_go):
        pass
    assert told == ["waiting"]


# ── leading ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def leaders(books: Books) -> list[str]:
    with books.database.session() as session:
        return list(session.scalars(sa.select(Leader.address).order_by(Leader.id)))


def test_of_two_one_leads_and_the_other_follows_it(books: Books, on_postgres: Books) -> None:
    for ledger in (books, on_postgres):
        first, second = Leadership(ledger, "first"), Leadership(ledger, "second")
        assert [first.keep(), second.keep(), first.keep(), second.keep()] == [True, False, True, False]
        first.resign()
        assert [second.keep(), first.keep()] == [True, False]
        assert leaders(ledger) == ["first", "second"]
        second.resign()


def test_a_leader_whose_connection_breaks_knows_within_one_ask(on_postgres: Books) -> None:
    leader = Leadership(on_postgres)
    assert leader.keep()
    with on_postgres.database.engine.connect() as other:
        other.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"))
    assert leader.keep()  # it was free again, and is taken anew: by a new row, so that everybody knows
    assert len(leaders(on_postgres)) == 2
    leader.resign()


def test_replicas_that_keep_their_tables_elsewhere_are_refused(on_postgres: Books, tmp_path: Path) -> None:
    leader = Leadership(on_postgres)
    assert leader.keep()
    elsewhere = StoreSettings(database_url=on_postgres.settings.store.database_url, uri=str(tmp_path / "elsewhere"))
    with Books(on_postgres.settings.model_copy(update={"store": elsewhere})) as strange:
        follower = Leadership(strange)
        assert [follower.keep(), follower.keep()] == [False, False]  # the leader may not have said yet who it is
        with pytest.raises(SettingsError, match=r"store\.uri"):
            follower.keep()
    leader.resign()


# ── two servers, one PostgreSQL ─────────────────────────────────────────────────────────────────────────────────────────

TICK_SECONDS = 2


class Replicas:
    """`rootcost serve` processes with homes of their own on one database and one store."""

    def __init__(self, url: str, folder: Path, free_port: Callable[[], int]) -> None:
        self.url, self.folder, self.free_port = url, folder, free_port
        self.started: list[Served] = []
        self.environment = {
            "ROOTCOST_STORE__DATABASE_URL": url,
            "ROOTCOST_STORE__URI": str(folder / "tables"),
            "ROOTCOST_SERVE__ATTRIBUTE_SECONDS": "1",
            "ROOTCOST_SERVE__DRAIN_SECONDS": "0.5",
        }

    def start(self, name: str, **environment: str) -> Served:
        served = Served(self.folder / name, port=self.free_port(), environment={**self.environment, **environment})
        self.started.append(served)
        return served

    def books(self) -> Books:
        from ledger.settings import load

        store = StoreSettings(database_url=self.url, uri=str(self.folder / "tables"))
        return Books(load(self.folder / "observer").model_copy(update={"store": store}))


@pytest.fixture
def replicas(database: str, tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Replicas]:
    made = Replicas(database, tmp_path, free_port)
    yield made
    for served in made.started:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait(timeout=10)


def runs(books: Books) -> list[SourceRun]:
    with books.database.session() as session:
        return list(session.scalars(sa.select(SourceRun).order_by(SourceRun.id)))


def until(what: Callable[[], bool], seconds: float, said: Callable[[], str] = str) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, said()
        time.sleep(0.05)
    return time.monotonic() - began


def set_up(books: Books, files: Path, *, names: int) -> None:
    """Sources of one kind and one file each, all due at the same even seconds."""
    for number in range(names):
        bill = files / f"bill-{number}.csv"
        shutil.copy(files / "bill.csv", bill)
        bill.write_text(bill.read_text().replace("0.03", f"0.0{number + 1}"))
        name, pause = f"bill-{number}", timedelta(seconds=TICK_SECONDS)
        terms = sources.Terms(
            uris=[str(bill)], scope=name, cron=f"*/{TICK_SECONDS} * * * * *", pause=pause, lag=timedelta(days=9999)
        )
        sources.add(books, name, terms, source="focus", kind="bill", actor="test")


def ticks_kept_more_than_once(found: list[SourceRun]) -> dict[tuple[str, int], int]:
    """A tick is the even second before a run began; a run may wait for another one of its kind, but not for a whole tick."""
    kept = Counter((run.name, int(run.started_at.timestamp()) // TICK_SECONDS) for run in found)
    return {tick: count for tick, count in kept.items() if count > 1}


@pytest.mark.clock
@pytest.mark.slow
@pytest.mark.postgres
def test_two_servers_keep_every_tick_once_and_a_dead_leader_is_followed(replicas: Replicas, tmp_path: Path) -> None:
    files = write_files(tmp_path / "input")
    with replicas.books() as books:
        set_up(books, files, names=3)
        one, two = replicas.start("one").until_ready(), replicas.start("two").until_ready()
        until(lambda: len(runs(books)) >= 12, 60)
        (leader,) = {run.runner for run in runs(books)}
        assert len(leaders(books)) == 1

        dead, alive = (one, two) if leader.endswith(f":{one.process.pid}") else (two, one)
        dead.process.send_signal(signal.SIGKILL)
        dead.process.wait(timeout=10)
        at = datetime.now(UTC)
        seconds = until(lambda: any(run.runner.endswith(f":{alive.process.pid}") for run in runs(books)), 10, alive.said)
        assert seconds < 10
        assert leaders(books)[-1] == alive.url

        until(lambda: sum(run.started_at > at for run in runs(books)) >= 9, 30)
        # What the dead one was reading is closed by the other, as soon as the database has noticed that nobody holds its lock.
        left_open = (SourceRun.status == "running") & SourceRun.runner.endswith(f":{dead.process.pid}")
        with books.database.session() as session:
            until(lambda: session.scalar(sa.select(sa.func.count()).where(left_open)) == 0, 60, alive.said)
        assert alive.stop()[0] == 0, alive.said()
        found = runs(books)
        whole = [run for run in found if run.status != "cut off"]
        assert not ticks_kept_more_than_once(whole)
        assert {run.status for run in whole} == {"done"}
        assert {run.name for run in found} == {"bill-0", "bill-1", "bill-2"}
        # 0.01 + 0.02 + 0.03: read over and over, by two processes, booked once.
        assert str(books.store.scan(CHARGES).select(pl.col("billed_cost").sum()).collect().item()) == "0.060000000000"


@pytest.mark.slow
@pytest.mark.postgres
def test_what_either_replica_receives_is_booked(replicas: Replicas, tmp_path: Path) -> None:
    one, two = replicas.start("one"), replicas.start("two")
    for number, served in enumerate((one.until_ready(), two.until_ready())):
        for delivery in range(4):
            body = trace()
            for resource in body["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        span["traceId"] = span["traceId"][:16] + f"{number + 1}{delivery}" + span["traceId"][18:]
            answer = httpx.post(f"{served.url}/v1/traces", json=body, headers={"Authorization": f"Bearer {served.token()}"})
            assert answer.status_code == 200
    with replicas.books() as books:
        until(lambda: books.store.scan(SPANS).collect().height == 8 * 6, 30)
    assert one.stop()[0] == two.stop()[0] == 0


@pytest.mark.slow
@pytest.mark.postgres
def test_a_replica_with_tables_of_its_own_does_not_stay(replicas: Replicas, tmp_path: Path) -> None:
    one = replicas.start("one").until_ready()
    strange = replicas.start("two", ROOTCOST_STORE__URI=str(tmp_path / "elsewhere"))
    assert strange.process.wait(timeout=60) == 2
    assert "give all of them the same store.uri" in strange.said()
    assert one.stop()[0] == 0
